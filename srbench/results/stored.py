"""Applies protocols to stored raw scores. Opens no model and imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from srbench.analysis.gains import SUFFIX
from srbench.analysis.metrics import COUNTED, METRICS, of_scorers
from srbench.analysis.records import CellRecord, ImageRecord, Metric, RowRecord, Timing
from srbench.analysis.results import ResultCell, measured
from srbench.catalog import load, plugins, sources
from srbench.catalog.judges import check_judges, fits
from srbench.catalog.specs import ProtocolSpec, Row
from srbench.errors import SrbenchError, UsageError
from srbench.files import printable
from srbench.hashing import canonical, digest
from srbench.results.gated import fields_sha, text_sha
from srbench.results.keys import score_key
from srbench.results.run_files import UNREAD, Identity, identity, local_cells
from srbench.results.store import Store
from srbench.scorers.base import FEATURE, PAIR, SET, fields_of, kind_named

Raws = dict[tuple[str, str, str, str], dict[str, Any]]
"""(scorer's identity, pixel sha, sha256 of the canonical fields, pixel sha of the reference or '') -> raw numbers.

Equal pixels share them."""


def rejudge(folder: Path, protocols: Sequence[str], warn: Callable[[str], None]) -> list[ResultCell]:
    """Local cells under each of some protocols, judged from stored raw scores; metrics without a judge stay as they are.

    Raises `UsageError` where a protocol is unknown. Cells whose images its scorer never scored show `n/a`.
    """
    judges = [load.protocol(name) for name in protocols]
    check_judges(judges)
    store = Store.peek(folder / "store", warn)
    read: dict[str, list[tuple[ResultCell, CellRecord]]] = {}
    judged = []
    for judge in judges:
        settings = canonical({part.name: part.settings for part in load.parts(judge) if part.settings})
        if settings not in read:  # what is stored does not depend on the judge otherwise
            read[settings] = stored_cells(folder, store, lambda cell, judge=judge: judge)  # type: ignore[misc]  # bound at once
        cells = read[settings]
        records = [
            (replace(record, protocol=judge.name, metrics=tuple(filter(_decided, record.metrics))), judge) for _, record in cells
        ]
        for (before, _), now in zip(cells, measured(records), strict=True):
            judged.append(replace(now, metrics=_together(before.metrics, now.metrics)))
    return judged


def _decided(metric: str) -> bool:
    """Whether a metric, or the metric of a gain, depends on the judge."""
    name = metric.removesuffix(SUFFIX)
    return name in METRICS and METRICS[name].judged


def _together(before: Mapping[str, Metric], now: Mapping[str, Metric]) -> dict[str, Metric]:
    """The old metrics in their order, with the new numbers where there are any."""
    metrics = {name: now.get(name, metric) for name, metric in before.items() if not _decided(name) or name in now}
    return {**metrics, **now}


def stored_records(folder: Path, store: Store, judge_of: Callable[[ResultCell], ProtocolSpec | None]) -> list[CellRecord]:
    """As `stored_cells`, without the results of before."""
    return [record for _, record in stored_cells(folder, store, judge_of)]


def stored_cells(
    folder: Path, store: Store, judge_of: Callable[[ResultCell], ProtocolSpec | None]
) -> list[tuple[ResultCell, CellRecord]]:
    """The newest local cells with their rows and stored raw scores, read for the judge that `judge_of` names.

    Cells for which it names none are left out.
    """
    latest: dict[Identity, tuple[ResultCell, CellRecord]] = {}
    known: dict[str, Row] = {}  # most cells have the rows of others
    for data, entries in local_cells(folder, store.warn):
        stored = Stored(store, identities(data), data.get("scorers", {}))
        for entry in entries:
            cell: ResultCell = entry["result"]
            judge = judge_of(cell)
            same = identity(replace(cell, protocol=""))
            if same not in latest and judge is not None:
                try:
                    latest[same] = cell, reread(cell, entry, judge, stored, known)
                except SrbenchError as error:  # the user's own file of a gated suite may be gone
                    store.warn(printable(f"{cell.suite}/{cell.concept}, {cell.label}: left out: {error.line}"))
    return list(latest.values())


def identities(run: dict[str, Any]) -> dict[str, str]:
    """Scorer -> digest of its identity in a run; only scorers that are installed."""
    return {name: digest(scorer) for name, scorer in run.get("scorers", {}).items() if name in plugins.plugins("scorers")}


class Scores(Mapping[str, dict[str, Any]]):
    """Scorer -> raw numbers of an image, read from the ledger when they are asked for: a full store has too many to hold."""

    __slots__ = ("_keys", "_ready", "_store")

    def __init__(self, store: Store, keys: Mapping[str, str], ready: Mapping[str, dict[str, Any]]) -> None:
        """keys: scorer -> score key. ready: numbers that lie elsewhere."""
        self._store, self._keys, self._ready = store, keys, ready

    def __getitem__(self, name: str) -> dict[str, Any]:
        if name in self._ready:
            return self._ready[name]
        raw: dict[str, Any] = self._store.scores[self._keys[name]]["raw"]
        return raw

    def __contains__(self, name: object) -> bool:
        return name in self._ready or (name in self._keys and self._store.scores.get(self._keys[str(name)]) is not None)

    def __iter__(self) -> Iterator[str]:
        yield from self._ready
        yield from filter(self.__contains__, self._keys)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Trace(Mapping[str, Any]):
    """What the method noted of an image, read from the ledger when it is asked for."""

    __slots__ = ("_key", "_store")

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key

    def _all(self) -> dict[str, Any]:
        trace: dict[str, Any] = self._store.images.get(self._key, {}).get("trace", {})
        return trace

    def __getitem__(self, name: str) -> Any:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


@dataclass(frozen=True)
class Stored:
    """The scores of stored images by the scorer versions of one run."""

    store: Store
    identities: dict[str, str]
    """Scorer -> digest of its identity in the run; only scorers that are installed."""
    scorers: Mapping[str, Any]
    """Scorer -> its whole identity in the run."""
    raws: Raws | None = None
    """Numbers that take the place of those in the store."""
    _others: dict[tuple[str, int, str], tuple[Row, ImageRecord]] = field(default_factory=dict)
    """References and floors, which many rows and cells share; with their row, which so stays the object that it is."""

    def under(self, judge: ProtocolSpec) -> Stored:
        """Without the numbers of a scorer that ran with other settings than the judge asks for."""
        fitting = {name: sha for name, sha in self.identities.items() if fits(judge, name, self.scorers[name])}
        return self if len(fitting) == len(self.identities) else replace(self, identities=fitting, _others={})

    def image(self, key: str | None, row: Row, reference: str | None) -> ImageRecord | None:
        """An image of a row with its numbers; None where it is not in the store. reference: key of its reference image."""
        if key is None or key not in self.store.images:
            return None
        record = self.store.images[key]
        sha, beside = record["pixel_sha"], self._sha(reference)
        if self.raws is not None:
            found = {name: self._given(self.raws, name, sha, row, beside) for name in self.identities}
            return from_store(key, record, {name: raw for name, raw in found.items() if raw is not None}, {})
        keys = {name: self._key(name, sha, row, beside) for name in self.identities if kind_named(name) != SET}
        vectors = {name: self._vector(name, sha) for name in self.identities if kind_named(name) == SET}
        ready = {name: {FEATURE: vector} for name, vector in vectors.items() if vector is not None}
        return replace(from_store(key, record, Scores(self.store, keys, ready), {}), trace=Trace(self.store, key))

    def beside(self, key: str | None, row: Row, reference: str | None) -> ImageRecord | None:
        """As `image`, for a reference or floor: one record for all rows of the same content."""
        if key is None:
            return None
        name = key, id(row), reference or ""
        if name not in self._others:
            found = self.image(key, row, reference)
            if found is None:
                return None
            self._others[name] = row, found
        return self._others[name][1]

    def _sha(self, key: str | None) -> str:
        return str(self.store.images[key]["pixel_sha"]) if key is not None and key in self.store.images else ""

    def _key(self, name: str, sha: str, row: Row, beside: str) -> str:
        fields = {"fields": fields_of(name, row)}
        return score_key(sha, self.scorers[name], fields, beside if kind_named(name) == PAIR else "")

    def _vector(self, name: str, sha: str) -> Any:
        return self.store.feature(self.identities[name], sha)

    def _given(self, raws: Raws, name: str, sha: str, row: Row, beside: str) -> dict[str, Any] | None:
        kind = kind_named(name)
        if kind == SET:
            vector = self._vector(name, sha)
            return None if vector is None else {FEATURE: vector}
        return raws.get((self.identities[name], sha, text_sha(fields_of(name, row)), beside if kind == PAIR else ""))


def raws_of(store: Store) -> Raws:
    """Every stored score of an image in the store."""
    raws = {}
    for record in store.scores.values():
        image, beside = store.images.get(record["image"]), store.images.get(record.get("reference", ""))
        if image is not None:
            sha = beside["pixel_sha"] if beside else ""
            raws[record["identity"], image["pixel_sha"], fields_sha(record), sha] = record["raw"]
    return raws


def reread(
    cell: ResultCell, entry: dict[str, Any], judge: ProtocolSpec, stored: Stored, known: dict[str, Row] | None = None
) -> CellRecord:
    """A stored cell with its rows and their numbers, for a judge. known: rows by their content, as `rows_of` has them."""
    external: dict[str, Any] | None = entry.get("elsewhere")
    attack, metrics = _of_suite(cell, entry)
    stored = stored.under(judge)
    more = tuple(name for name in cell.metrics if name in of_scorers())
    return CellRecord(
        backbone=cell.backbone, concept=cell.concept, suite=cell.suite,
        concept_kind=external["concept_kind"] if external else load.named("concept", cell.concept, load.concepts()).kind,
        attack=attack,
        method=cell.method, on=cell.on, variant=cell.variant, protocol=judge.name, dtype=cell.dtype, rows_sha=cell.rows_sha,
        run=cell.run, source="local", n_loaded=cell.n_loaded, n_excluded=cell.n_excluded,
        metrics=(*metrics, *more), notes=cell.notes, made_against=cell.made_against,
        decides=not external and _decides(cell.method, entry),
        rows=tuple(_reread_row(row_entry, row, stored) for row_entry, row in rows_of(cell, entry, known)),
        cost=cell.cost,
        origin=cell.origin, mark=cell.mark, described_by=_describing(cell, entry),
    )


def _describing(cell: ResultCell, entry: dict[str, Any]) -> tuple[str, str]:
    """The scorers that describe the cell's images: its backbone's, or its family's for a model by path or hub id."""
    if external := entry.get("elsewhere"):
        content, clip = external.get("described_by", ("", ""))
        return content, clip
    backbones = load.backbones()
    if cell.backbone in backbones:
        return backbones[cell.backbone].scorers
    family = entry.get("suite", {}).get("family")
    return next((spec.scorers for spec in backbones.values() if spec.family == family), ("", ""))


def _decides(preset: str, entry: dict[str, Any]) -> bool:
    """Whether the method reports for each image whether it intervened. A user's own pipeline, which is no plug-in, never does."""
    if "pipeline" in entry.get("artifact", {}).get("card", {}):
        return False
    return bool(plugins.plugins("methods")[plugins.preset(preset)[0]].meta["decides"])


def _of_suite(cell: ResultCell, entry: dict[str, Any]) -> tuple[bool, tuple[str, ...]]:
    """Whether the cell's rows are attacks, and the metrics of its suite."""
    if external := entry.get("elsewhere"):
        return external["attack"], tuple(name for name in cell.metrics if name in METRICS and name != COUNTED)
    if recorded := entry.get("suite"):
        return recorded["attack"], tuple(recorded["metrics"])
    suite = load.named("suite", cell.suite, load.suites())  # runs of older versions do not record it
    return suite.attack, suite.metrics


def rows_of(
    cell: ResultCell, entry: dict[str, Any], known: dict[str, Row] | None = None
) -> Iterator[tuple[dict[str, Any], Row]]:
    """A stored cell's row entries with their rows; those of gated suites are read from the user's own file.

    known: rows by their content, to which new ones are added: rows of one content are one object.

    Raises `MissingError` where that file is gone, `UsageError` where it has changed, or where the run file's rows are damaged.
    """
    if UNREAD in entry:
        raise UsageError(f"rows of run {cell.run} are damaged ({entry[UNREAD]})", "Run the same command again.")
    gated_rows: dict[str, Row] = {}
    for row_entry in entry["rows"]:
        if "row" in row_entry:
            yield row_entry, _row(row_entry["row"], known)
            continue
        gated_rows = gated_rows or _read_again(cell, entry.get("suite", {}))
        if row_entry["id"] not in gated_rows:
            what = f"suite '{cell.suite}' has no row '{printable(row_entry['id'])}' of run {cell.run}"
            raise UsageError(what, "Put the old file back.")
        yield row_entry, gated_rows[row_entry["id"]]


def _row(fields: dict[str, Any], known: dict[str, Row] | None) -> Row:
    if known is None:
        return Row.model_validate(fields)
    content = canonical(fields)
    if content not in known:
        known[content] = Row.model_validate(fields)
    return known[content]


def _read_again(cell: ResultCell, recorded: dict[str, Any]) -> dict[str, Row]:
    """The rows of a gated suite by id, from the file that the run read."""
    part = "dev" if "part=dev" in cell.variant.split(",") else "test"
    suite = load.named("suite", cell.suite, load.suites())
    family = recorded.get("family") or load.named("backbone", cell.backbone, load.backbones()).family
    copy = Path(recorded["prompts"]) if recorded.get("prompts") else None
    edition = load.edition(suite, family, cell.concept, part, copy=copy is not None)
    loaded = sources.rows(suite, edition, sources.Given(copy, accept=True, columns=tuple(recorded.get("columns", {}).items())))
    if recorded.get("sha256", list(loaded.sha256)) != list(loaded.sha256):
        raise UsageError(f"suite '{suite.name}': its prompts are not those of run {cell.run} any more", "Put the old file back.")
    return {row.id: row for row in loaded.rows}


def _reread_row(entry: dict[str, Any], row: Row, stored: Stored) -> RowRecord:
    beside = entry.get("reference")
    image = stored.image(entry.get("image"), row, beside)
    reference, floor = (stored.beside(entry.get(name), row, beside) for name in ("reference", "floor"))
    failed = entry.get("failed")
    return RowRecord(row, unread(failed, list(stored.identities)) if failed and image is None else image, reference, floor)


def unread(why: str, scorers: Sequence[str]) -> ImageRecord:
    """An image that is missing or cannot be read: an error for each of the scorers."""
    return ImageRecord("", "", Timing(0.0, "", 0), {}, {}, dict.fromkeys(scorers, why))


def from_store(key: str, record: dict[str, Any], scores: Mapping[str, Any], errors: dict[str, str]) -> ImageRecord:
    """A ledger record as an `ImageRecord`."""
    timing = Timing(record["seconds"], record.get("run", ""), record.get("batch", 0), record.get("recipe", ""))
    return ImageRecord(key, record["pixel_sha"], timing, record["trace"], scores, errors)
