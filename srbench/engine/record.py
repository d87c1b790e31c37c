"""Run records: from planned cells and the store to what analysis reads, and to `run.json` and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srbench.analysis.metrics import baseline_times, is_baseline
from srbench.analysis.records import CellRecord, ImageRecord, RowRecord, Timing
from srbench.analysis.results import ResultCell, from_dict, result, to_dict
from srbench.backbones.loader import Backbone
from srbench.catalog import load, plugins
from srbench.catalog.specs import ProtocolSpec, Row
from srbench.engine.keys import digest
from srbench.engine.plan import Cell, Planned, PlannedRow
from srbench.engine.score import Scoring, fields_of
from srbench.engine.store import Store, write_atomic
from srbench.errors import UsageError

SCHEMA = 1
Raws = dict[tuple[str, str, str], dict[str, Any]]
"""(image key, scorer, canonical fields) -> raw numbers."""


@dataclass
class Outcome:
    """What happened while a plan was carried out."""

    scoring: Scoring
    failed: dict[str, str]
    """Image key -> why it could not be sampled."""


def _image(planned: Planned | None, row: PlannedRow, cell: Cell, store: Store, outcome: Outcome) -> ImageRecord | None:
    if planned is None or planned.key not in store.images:
        return None
    record = store.images[planned.key]
    scores, errors = {}, {}
    for name in cell.scorers:
        if name in outcome.scoring.broken:
            errors[name] = outcome.scoring.broken[name]
            continue
        wanted = outcome.scoring.want(name, planned.key, row.row)
        raw = outcome.scoring.known(wanted)
        if raw is not None:
            scores[name] = raw
        elif wanted in outcome.scoring.errors:
            errors[name] = outcome.scoring.errors[wanted]
    return _from_store(planned.key, record, scores, errors)


def _from_store(key: str, record: dict[str, Any], scores: dict[str, Any], errors: dict[str, str]) -> ImageRecord:
    """A ledger record as analysis sees it."""
    timing = Timing(record["seconds"], record.get("run", ""), record.get("batch", 0), record.get("recipe", ""))
    return ImageRecord(key, record["pixel_sha"], timing, record["trace"], scores, errors)


def _row(row: PlannedRow, cell: Cell, store: Store, outcome: Outcome) -> RowRecord:
    image, reference, floor = (_image(p, row, cell, store, outcome) for p in (row.image, row.reference, row.floor))
    return RowRecord(row.row, image, reference, floor)


def cell_record(cell: Cell, backbone: Backbone, run: str, store: Store, outcome: Outcome) -> CellRecord:
    """A planned cell with everything the store knows of its images."""
    blocked = "" if cell.blocked is None else f"{cell.blocked.message} {cell.blocked.hint}".strip()
    reasons = {outcome.failed[p.image.key] for p in cell.rows if p.image.key in outcome.failed}
    if not blocked and reasons and all(p.image.key in outcome.failed for p in cell.rows):
        blocked = sorted(reasons)[0]
    return CellRecord(
        backbone=backbone.spec.name, concept=cell.concept.name, concept_kind=cell.concept.kind, suite=cell.suite.name,
        attack=cell.suite.attack, method=cell.method, on=cell.on, variant=cell.variant, protocol=cell.protocol.name,
        dtype=backbone.dtype, rows_sha=cell.rows_sha, run=run, source="local", n_loaded=cell.n_loaded,
        n_excluded=cell.n_excluded, metrics=cell.suite.metrics, decides=cell.decides, blocked=blocked,
        rows=tuple(_row(row, cell, store, outcome) for row in cell.rows),
    )


def results(cells: list[Cell], backbone: Backbone, run: str, store: Store, outcome: Outcome) -> list[ResultCell]:
    """Metrics of every cell; `none` on the same suite and concept is the one to compare with."""
    records = [cell_record(cell, backbone, run, store, outcome) for cell in cells]
    content, clip = backbone.spec.scorers[:2]
    plain = {(r.suite, r.concept): r for r in records if is_baseline(r)}
    times = baseline_times(plain.values())
    return [
        result(record, cell.protocol, plain.get((record.suite, record.concept)), times, content_scorer=content, clip_scorer=clip)
        for cell, record in zip(cells, records, strict=True)
    ]


def _row_entry(row: PlannedRow, gated: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": row.row.id, "image": row.image.key}
    entry |= {name: p.key for name, p in (("reference", row.reference), ("floor", row.floor)) if p is not None}
    return entry if gated else {**entry, "row": row.row.model_dump(mode="json", exclude_defaults=True)}


def write_run(folder: Path, run: str, header: dict[str, Any], cells: list[Cell], found: list[ResultCell]) -> Path:
    """`<folder>/runs/<run>/run.json`: provenance, cells with their image keys, and their metrics."""
    entries = [
        {"result": to_dict(value), "rows": [_row_entry(row, cell.suite.gated) for row in cell.rows]}
        for cell, value in zip(cells, found, strict=True)
    ]
    path = folder / "runs" / run / "run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema": SCHEMA, "run": run, **header, "cells": entries}, indent=1, allow_nan=False)
    write_atomic(path, text.encode())
    return path


def read_run(path: Path) -> dict[str, Any]:
    """A run file. Raises `UsageError` where it is damaged or of a newer srbench."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] > SCHEMA:
            raise UsageError(f"{path}: written by a newer srbench", "Update srbench.")
        data["cells"] = [{**cell, "result": from_dict(cell["result"])} for cell in data["cells"]]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: damaged run file ({type(error).__name__})", "Run the same command again.") from error
    return data


def run_files(folder: Path) -> list[Path]:
    """Run files under a results folder: the user's own first, newest first, then committed summaries."""
    local = sorted(folder.glob("runs/*/run.json"), reverse=True)
    committed = sorted(p for p in folder.glob("*/*.json") if p.parent.name not in ("runs", "store"))
    return [*local, *committed]


def newest(folder: Path, warn: Callable[[str], None]) -> list[ResultCell]:
    """Per cell the newest run that asked for it, local before committed; damaged files are named and left out."""
    chosen: dict[tuple[str, ...], ResultCell] = {}
    for path in run_files(folder):
        try:
            data = read_run(path)
        except UsageError as error:
            warn(f"{error.message} {error.hint}")
            continue
        source = "local" if path.name == "run.json" else "committed"
        for entry in data["cells"]:
            cell: ResultCell = entry["result"]
            identity = (cell.backbone, cell.concept, cell.suite, cell.method, cell.on, cell.variant, cell.protocol, cell.dtype)
            chosen.setdefault(identity, replace(cell, source=source))
    return list(chosen.values())


def rejudge(folder: Path, protocol: str, warn: Callable[[str], None]) -> list[ResultCell]:
    """Local cells judged anew under another protocol from stored raw scores; no model is touched.

    Raises `UsageError` where the protocol is unknown. Cells whose images were never scored by its scorer show `n/a`.
    """
    judge = load.named("protocol", protocol, load.protocols())
    store = Store.peek(folder / "store", warn)
    latest: dict[tuple[str, ...], tuple[ResultCell, CellRecord]] = {}
    for path in sorted(folder.glob("runs/*/run.json"), reverse=True):
        data = read_run(path)
        by_image = _scores_by_image(store, data["scorers"])
        for entry in data["cells"]:
            cell: ResultCell = entry["result"]
            identity = (cell.backbone, cell.concept, cell.suite, cell.method, cell.on, cell.variant, cell.dtype)
            if identity not in latest:
                latest[identity] = (cell, _reread(cell, entry["rows"], judge, store, by_image))
    plain = {(c.suite, c.concept, c.variant, c.dtype): record for c, record in latest.values() if is_baseline(record)}
    times = baseline_times(plain.values())
    return [result(r, judge, plain.get((c.suite, c.concept, c.variant, c.dtype)), times) for c, r in latest.values()]


def _scores_by_image(store: Store, identities: dict[str, Any]) -> Raws:
    """Stored scores, only those made by the run's own scorer versions."""
    found = {}
    for record in store.scores.values():
        if record["identity"] == digest(identities.get(record["scorer"], {})):
            found[record["image"], record["scorer"], record["fields"]] = record["raw"]
    return found


def _reread(
    cell: ResultCell, rows: list[dict[str, Any]], judge: ProtocolSpec, store: Store, scores: Raws
) -> CellRecord:
    suite, concept = load.suites()[cell.suite], load.concepts()[cell.concept]
    records = tuple(_reread_row(entry, judge, store, scores) for entry in rows)
    return CellRecord(
        backbone=cell.backbone, concept=cell.concept, concept_kind=concept.kind, suite=cell.suite, attack=suite.attack,
        method=cell.method, on=cell.on, variant=cell.variant, protocol=judge.name, dtype=cell.dtype, rows_sha=cell.rows_sha,
        run=cell.run, source="local", n_loaded=cell.n_loaded, n_excluded=cell.n_excluded, metrics=suite.metrics,
        decides=bool(plugins.plugins("methods")[plugins.preset(cell.method)[0]].meta["decides"]), rows=records,
    )


def _reread_row(
    entry: dict[str, Any], judge: ProtocolSpec, store: Store, scores: Raws
) -> RowRecord:
    row = Row.model_validate(entry["row"])

    def image(key: str | None) -> ImageRecord | None:
        if key is None or key not in store.images:
            return None
        record = store.images[key]
        raws = {}
        for name in (judge.scorer, "pocket-judge", "pocket-clip"):
            found = scores.get((key, name, fields_of(name, row)))
            if found is not None:
                raws[name] = found
        return _from_store(key, record, raws, {})

    return RowRecord(row, image(entry["image"]), image(entry.get("reference")), image(entry.get("floor")))
