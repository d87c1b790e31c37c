"""`srbench score RESULTS --scorer X`: one more scorer on the images of existing runs; nothing is sampled."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srbench import stopping
from srbench.analysis.measure import measure
from srbench.analysis.metrics import metrics_of, uncompared
from srbench.analysis.records import CellRecord, RowRecord
from srbench.analysis.results import ResultCell, to_dict
from srbench.catalog import load, plugins
from srbench.catalog.screen import refuse_minors
from srbench.catalog.specs import Row
from srbench.errors import OK, SOME_FAILED, MissingError, SrbenchError
from srbench.files import printable
from srbench.progress import Reporter
from srbench.results.gated import Hush, texts_of
from srbench.results.provenance import provenance
from srbench.results.run_files import RunResult, local_cells, now, run_id, write_run
from srbench.results.sensitive import sweep, tell_swept
from srbench.results.store import Store
from srbench.results.stored import rows_of
from srbench.scorers.base import IMAGE, PAIR, kind_named
from srbench.scoring.awaited import given_up
from srbench.scoring.scoring import BATCH, Scoring, Wanted, image_record
from srbench.shards import Shard, is_mine


@dataclass(frozen=True)
class Again:
    """A cell of an earlier run."""

    cell: ResultCell
    entry: dict[str, Any]
    rows: tuple[tuple[dict[str, Any], Row], ...]


def score_runs(
    folder: Path, scorers: Sequence[str], settings: Sequence[str], store: Store, reporter: Reporter, shard: Shard | None = None
) -> RunResult:
    """Score the newest local cells with more scorers, and write them as new runs with these scorers' columns.

    Of a shard only its own images are scored, and no run is written.

    Raises `UsageError` for an unknown scorer, `MissingError` where there is no run or no scorer can be opened.
    """
    for name in scorers:
        plugins.known("scorers", name)
    runs = [(data, list(_readable(entries, reporter))) for data, entries in local_cells(folder, reporter.line)]
    runs = [(data, cells) for data, cells in runs if cells]
    if not runs:
        hint = f"{shlex.join(['srbench', 'run', '--out', str(folder)])}; or --as LAYOUT for pictures made elsewhere."
        raise MissingError(f"{folder}: no runs", hint)
    if any(again.entry.get("suite", {}).get("sensitive") for _, cells in runs for again in cells):
        refuse_minors(settings)
    scoring = Scoring(store)
    scoring.open(scorers, settings)
    if not scoring.scorers:
        raise scoring.broken[scorers[0]]
    for error in scoring.broken.values():
        reporter.line(error.line)
    roles = ("image", "reference", "floor")
    entries = (entry for _, cells in runs for again in cells for entry, _ in again.rows)
    store.recover(entry[role] for entry in entries for role in roles if role in entry)
    wanted = [w for _, cells in runs for again in cells for w in _wanted(again, scorers, scoring)]
    wanted = [w for w in wanted if is_mine(shard, w.image_key)]
    for line in scoring.stale(wanted):
        reporter.line(line)
    _score(wanted, scoring, reporter)
    hush = Hush(texts_of(row for _, cells in runs for again in cells for entry, row in again.rows if "row" not in entry))
    scoring.errors = {score: hush(why) for score, why in scoring.errors.items()}
    if shard is not None:
        reporter.line(f"shard {shard} is scored; the same command without --shard writes the runs")
        return RunResult("", [], SOME_FAILED if scoring.errors or scoring.broken else OK)
    done = [cell for data, cells in runs for cell in _written(folder, data, cells, scorers, scoring)]
    failed = scoring.errors or scoring.broken or any(uncompared(cell.metrics) for cell in done)
    swept = sweep(store, given_up(scoring, wanted))
    tell_swept(swept, store, reporter.line)
    return RunResult(done[0].run, done, SOME_FAILED if failed or swept.stuck else OK)


def _readable(entries: Sequence[dict[str, Any]], reporter: Reporter) -> Iterator[Again]:
    """Cells with their rows; those whose rows or protocol cannot be read are reported and left out."""
    for entry in entries:
        cell: ResultCell = entry["result"]
        try:
            load.named("protocol", cell.protocol, load.protocols())
            yield Again(cell, entry, tuple(rows_of(cell, entry)))
        except SrbenchError as error:
            reporter.line(printable(f"{cell.suite}/{cell.concept}, {cell.label}: left out: {error.line}"))


def _wanted(again: Again, scorers: Sequence[str], scoring: Scoring) -> Iterator[Wanted]:
    for entry, row in again.rows:
        for role in ("image", "reference", "floor"):
            key = entry.get(role, "")
            beside = entry.get("reference", "") if role == "image" else ""
            for name in scorers:
                if key in scoring.store.images and (kind_named(name) != PAIR or beside in scoring.store.images):
                    yield scoring.want(name, key, row, beside)


def _score(wanted: Sequence[Wanted], scoring: Scoring, reporter: Reporter) -> None:
    left = scoring.missing(wanted)
    reporter.line(f"{len(left)} scores to make on stored images")
    if not left:
        return
    reporter.begin(1, len(left))
    try:
        with stopping.patient():
            for start in range(0, len(left), BATCH):
                batch = left[start : start + BATCH]
                scoring.run(batch, {})
                reporter.images(len(batch))
    finally:
        reporter.end()


def _written(
    folder: Path, data: dict[str, Any], cells: Sequence[Again], scorers: Sequence[str], scoring: Scoring
) -> list[ResultCell]:
    """Write a run of the same cells and rows with the new columns beside the old ones."""
    run = run_id()
    results = [
        replace(again.cell, run=run, metrics={**again.cell.metrics, **_columns(again, scorers, scoring)}) for again in cells
    ]
    entries = [{**again.entry, "result": to_dict(cell)} for again, cell in zip(cells, results, strict=True)]
    rescored = {
        "from": data["run"], "scorers": list(scorers), "provenance": provenance(),
        "finished": now(),
    }
    header = {name: value for name, value in data.items() if name not in ("schema", "run", "cells")}
    header |= {"scorers": {**data.get("scorers", {}), **scoring.identities}, "scored_again": rescored}
    write_run(folder, run, header, entries)
    return results


def _columns(again: Again, scorers: Sequence[str], scoring: Scoring) -> dict[str, Any]:
    """The scorers' own metrics; those that compare only where the cell has references."""
    compared = any("reference" in entry for entry, _ in again.rows)
    names = tuple(m for scorer in scorers if compared or kind_named(scorer) == IMAGE for m in metrics_of(scorer))
    cell = again.cell
    record = CellRecord(
        backbone=cell.backbone, concept=cell.concept, concept_kind="", suite=cell.suite, attack=False, method=cell.method,
        on=cell.on, variant=cell.variant, protocol=cell.protocol, dtype=cell.dtype, rows_sha=cell.rows_sha, run=cell.run,
        source="local", n_loaded=cell.n_loaded, n_excluded=cell.n_excluded, metrics=names, decides=False,
        rows=tuple(_row_record(entry, row, scorers, scoring) for entry, row in again.rows), notes=cell.notes, origin=cell.origin,
    )
    # Columns of scorers need no judge; a judge that counts boxes would add a column of its own.
    return measure(record, load.protocols()[cell.protocol].model_copy(update={"unit": "image"}), None)


def _row_record(entry: dict[str, Any], row: Row, scorers: Sequence[str], scoring: Scoring) -> RowRecord:
    beside = entry.get("reference", "")

    def seen(key: str, beside: str) -> Any:
        return image_record(key, beside, row, scorers, scoring) if key in scoring.store.images else None

    return RowRecord(row, seen(entry.get("image", ""), beside), seen(beside, ""))
