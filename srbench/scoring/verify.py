"""Checks that a results folder is as it was written: images, records, runs, features, checkpoints, scores. Changes nothing.

Every fault is named; what cannot be checked is counted by reason. Imports no torch before scores are made anew.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell, measured
from srbench.catalog import load, plugins
from srbench.errors import SrbenchError, UsageError
from srbench.files import kind_of_path, printable
from srbench.results import leftovers, records
from srbench.results.records import LeftOut, Record
from srbench.results.run_files import LOCAL, check_folder, committed_files, local_files, read_run
from srbench.results.store import Store, picture, vector
from srbench.results.stored import Stored, identities, reread
from srbench.rules import Misfit, finite

if TYPE_CHECKING:
    from srbench.scoring.scoring import Scoring

SCORES = 20
"""Scores that are made anew by default."""
CLOSE = 1e-4
"""Tolerance of a scorer's numbers, absolute and relative: other batches and threads round differently."""
SAME = 1e-9
"""Tolerance of a metric that is computed from the same stored scores."""
UNTIMED = ("added_ms",)
"""Not compared: an image that was sampled again has another time."""


@dataclass
class Line:
    """One kind of thing: how many are sound, what is wrong, and how many could not be checked."""

    what: str
    sound: int = 0
    faults: list[str] = field(default_factory=list)
    unsaid: Counter[str] = field(default_factory=Counter)
    """Reason -> how many could not be checked."""

    def fault(self, text: str) -> None:
        """Add a fault."""
        self.faults.append(printable(text))


@dataclass
class Report:
    """Everything that was checked."""

    folder: Path
    lines: list[Line]
    notes: list[str]
    """Remarks that are no faults."""

    @property
    def faults(self) -> list[str]:
        """All faults."""
        return [text for line in self.lines for text in line.faults]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        lines = [
            {"what": line.what, "sound": line.sound, "faults": line.faults, "not_checked": dict(line.unsaid)}
            for line in self.lines
        ]
        return {"results": str(self.folder), "checked": lines, "notes": self.notes, "sound": not self.faults}


Tell = Callable[[int, int], None]
"""Images done, and of how many."""


def _is_summary(path: Path) -> bool:
    try:
        read_run(path, records.silent)
    except UsageError:
        return False
    return True


def verify(folder: Path, scores: int, seed: int, tell: Tell) -> Report:
    """Check a results folder. scores: how many to make anew, drawn by `seed`.

    Raises `UsageError` where it is no results folder.
    """
    check_folder(folder)
    has_own = kind_of_path(folder / "store") != "nothing" or local_files(folder)
    if not has_own and not any(map(_is_summary, committed_files(folder))):
        raise UsageError(f"{folder}: holds neither a store nor runs", "Give the folder that `srbench run --out` wrote to.")
    ledgers = Line("records")
    store = _store(folder, ledgers)
    lines = [_pictures(store, tell), ledgers]
    runs, read = _runs(folder, store)
    lines += [runs, _features(store), _checkpoints(store), _scores(store, read, scores, seed), _metrics(store, read)]
    return Report(folder, lines, list(_notes(folder)))


def _notes(folder: Path) -> Iterator[str]:
    aside = list((folder / "store" / "damaged").glob("*"))
    if aside:
        yield f"{len(aside)} pictures lie in store/damaged: they were set aside, and are made again"
    left = [path for place in ("store", "runs") for path in leftovers.left(folder / place)]
    if left:
        yield f"{len(left)} temporary files; those of processes that have ended go at the next start"


# --- records and pictures ---------------------------------------------------------------------------------------------


def _store(folder: Path, line: Line) -> Store:
    """The store as it is; every line of its ledgers is counted."""
    root = folder / "store"
    for kind in records.KINDS:
        for path in records.ledger_files(root / "ledger", kind):
            left_out = LeftOut("line")
            line.sound += sum(1 for _ in records.ledger_file(path, kind, left_out))
            left_out.tell(f"store/ledger/{path.name}", line.fault)
    store = Store.peek(root, indexed=False)
    store.recover(list(store.images))
    return store


def _pictures(store: Store, tell: Tell) -> Line:
    """Check every image's pixels against the hash in the ledger and the one in the file."""
    line = Line("pictures")
    on_disk = dict(store.pictures())
    for number, (key, path) in enumerate(on_disk.items(), 1):
        _check_picture(store, key, path, line)
        tell(number, len(on_disk))
    by_key = {record["key"]: record for record in records.ledger(store.root / "ledger", "images", records.silent)}
    for key in by_key.keys() - on_disk.keys():
        if not any(entry.get("dropped") for entry in (by_key[key], store.images.get(key, {}))):
            line.fault(f"image {key}: is in the ledger and not on disk; the command that made it makes it again")
    return line


def _check_picture(store: Store, key: str, path: Path, line: Line) -> None:
    where = path.relative_to(store.root.parent)
    try:
        if store.dropped(key):
            raise Misfit("was scored and dropped, and is still there")
        _, inside = picture(path)
        store.agree(key, inside)
        line.sound += 1
    except Misfit as error:
        line.fault(f"{where}: {error}; remove it, and the command that made it makes it again")


def _features(store: Store) -> Line:
    """Check that stored vectors are finite, all of one scorer of one length, and each of an image in the ledger."""
    line = Line("features")
    root = store.root / "features"
    shas = {record["pixel_sha"] for record in store.images.values()}
    for scorer in records.entries(root) if kind_of_path(root) == "folder" else []:
        widths: dict[Path, int] = {}
        for path in sorted(scorer.glob("*/*.npy")):
            array = vector(path)
            if array is None:
                line.fault(f"{path.relative_to(store.root.parent)}: not a vector of finite numbers; it is made again when needed")
            elif path.stem not in shas:
                line.unsaid["of no picture in the ledger"] += 1
            else:
                widths[path] = len(array)
        usual = Counter(widths.values()).most_common(1)
        for path, width in widths.items():
            if width == usual[0][0]:
                line.sound += 1
            else:
                line.fault(f"{path.relative_to(store.root.parent)}: {width} numbers, where others have {usual[0][0]}; remove it")
    return line


def _checkpoints(store: Store) -> Line:
    """Check the files of local checkpoints against their cards."""
    from srbench.backbones.checkpoint import CARD, read_card
    from srbench.files import file_sha

    line = Line("checkpoints")
    root = store.root / "checkpoints"
    for folder in records.entries(root) if kind_of_path(root) == "folder" else []:
        if kind_of_path(folder / CARD) == "nothing" or folder.name.startswith("inversion-"):
            line.unsaid["no card of a checkpoint"] += 1
            continue
        try:
            changed = [name for name, sha in read_card(folder)["files"].items() if not _is(folder / name, sha, file_sha)]
        except UsageError as error:
            line.fault(error.line)
            continue
        for name in changed:
            where = (folder / name).relative_to(store.root.parent)
            line.fault(f"{where}: missing or changed; remove its folder, and it is made again")
        line.sound += not changed
    return line


def _is(path: Path, sha: str, file_sha: Callable[[Path], str]) -> bool:
    return kind_of_path(path) == "file" and file_sha(path) == sha


# --- runs -------------------------------------------------------------------------------------------------------------


def _runs(folder: Path, store: Store) -> tuple[Line, list[tuple[str, Record]]]:
    """Check every run file; returns also the local ones that can be read."""
    line, read = Line("runs"), []
    for path in [*local_files(folder), *committed_files(folder)]:
        faults: list[str] = []
        try:
            data = read_run(path, faults.append)
        except UsageError as error:
            line.fault(error.message)
            continue
        if path.name == LOCAL:
            faults += _missing(path.parent.name, data, store)
            read.append((path.parent.name, data))
        for text in faults:
            line.fault(text)
        line.sound += not faults
    return line, read


def _missing(run: str, data: Record, store: Store) -> Iterator[str]:
    """Faults of cells that have fewer images in the store than rows that did not fail."""
    if data["run"] != run:
        yield f"runs/{run}: says that it is run {printable(data['run'])}"
    for entry in data["cells"]:
        cell: ResultCell = entry["result"]
        absent = [row for row in entry["rows"] if row.get("image") not in store.images]
        if len(absent) > cell.n_failed:
            missing = f"{len(absent)} of {len(entry['rows'])} images are not in the store"
            yield f"runs/{run}, {_title(cell)}: {missing}, where {cell.n_failed} failed"


def _title(cell: ResultCell) -> str:
    return f"{cell.suite}/{cell.concept}/{cell.label}" + (f" ({cell.variant})" if cell.variant else "")


def _metrics(store: Store, runs: list[tuple[str, Record]]) -> Line:
    """Check every cell's metrics by computing them anew from stored scores."""
    line = Line("metrics")
    for run, data in runs:
        _of_run(run, data, Stored(store, identities(data), data.get("scorers", {})), line)
    return line


def _of_run(run: str, data: Record, stored: Stored, line: Line) -> None:
    judged, before = [], []
    for entry in data["cells"]:
        cell: ResultCell = entry["result"]
        reason = _cannot(cell, data)
        try:
            if not reason:
                judge = load.protocol(cell.protocol)
                record = reread(cell, entry, judge, stored)
                judged.append((record, judge))
                before.append(cell)
        except SrbenchError as error:
            reason = error.message
        if reason:
            line.unsaid[reason] += len(cell.metrics)
    if not judged:
        return
    for cell, (record, _), now in zip(before, judged, measured(judged), strict=True):
        _compare(f"runs/{run}, {_title(cell)}", cell, now, any(record.described_by), line)


def _cannot(cell: ResultCell, data: Record) -> str:
    """Why a cell's metrics cannot be computed anew; empty where they can."""
    if not cell.n_run:
        return "no rows"
    if cell.backbone != "elsewhere" and cell.method not in plugins.presets():
        return f"method '{cell.method}' is not known here"
    unknown = [name for name in data.get("scorers", {}) if name not in plugins.plugins("scorers")]
    return f"scorer '{unknown[0]}' is not known here" if unknown else ""


def _compare(where: str, cell: ResultCell, now: ResultCell, described: bool, line: Line) -> None:
    for name, metric in cell.metrics.items():
        again = now.metrics.get(name)
        if name in UNTIMED:
            line.unsaid["times are not compared"] += 1
        elif metric.value is None and not metric.scored:
            line.unsaid["has no value"] += 1
        elif again is None or (again.value is None and not described):
            line.unsaid["what describes its images is not known here"] += 1
        elif (difference := _differs(metric, again)) is None:
            line.sound += 1
        else:
            line.fault(f"{where}: {name} is {difference} from stored scores")


def _differs(metric: Metric, again: Metric) -> str | None:
    """Text with the recorded and the computed number of the first field that differs, or None."""
    for name in ("n", "scored", "value", "low", "high", "phrases", "phrase_low", "phrase_high"):
        before, now = getattr(metric, name), getattr(again, name)
        if not _close(before, now, SAME):
            return f"{before} ({name}) in the run file, {now}"
    return None


# --- scores -----------------------------------------------------------------------------------------------------------


def _scores(store: Store, runs: list[tuple[str, Record]], count: int, seed: int) -> Line:
    """Check a random sample of stored scores by making them anew."""
    line = Line("scores")
    scorers = {digest: (name, data["scorers"][name]) for _, data in runs for name, digest in identities(data).items()}
    drawn = sorted(store.scores.values(), key=lambda record: str(record["score_key"]))
    drawn = random.Random(seed).sample(drawn, min(count, len(drawn)))
    scoring = None
    for record in drawn:
        if scoring is None:
            scoring = _Scorers(store, scorers)
        reason = scoring.check(record, line)
        if reason:
            line.unsaid[reason] += 1
    if len(store.scores) > len(drawn):
        line.unsaid["not drawn (--scores)"] += len(store.scores) - len(drawn)
    return line


@dataclass
class _Scorers:
    """Scorers as runs recorded them, by the digest of their identity."""

    store: Store
    scorers: Mapping[str, tuple[str, Record]]
    opened: dict[str, Scoring | str] = field(default_factory=dict)
    """Digest -> the open scorer, or why it cannot be opened."""

    def check(self, record: Record, line: Line) -> str:
        """Make a score anew and compare; returns why that cannot be done, or an empty text."""
        identity = record["identity"]
        if identity not in self.scorers:
            return "no run here says what its scorer was"
        if identity not in self.opened:
            self.opened[identity] = self._open(identity)
        scoring = self.opened[identity]
        if isinstance(scoring, str):
            return scoring
        if "fields" not in record:
            return "it is of a row of a gated suite, whose texts are not kept"
        keys = [key for key in (record["image"], record.get("reference")) if key]
        if not all(key in self.store.images for key in keys):
            return "its picture is not in the store"
        if any(self.store.dropped(key) for key in keys):
            return "its picture was dropped, or lies elsewhere"
        try:
            again = self._again(scoring, record, keys)
        except SrbenchError as error:
            return error.message
        if _alike(record["raw"], again):
            line.sound += 1
        else:
            line.fault(f"score {record['score_key'][:12]} of {record['scorer']} on image {keys[0][:12]}: not what it gives now; "
                       "remove its line from the ledger, and it is made again")  # fmt: skip
        return ""

    def _open(self, identity: str) -> Scoring | str:
        from srbench.hashing import digest
        from srbench.scoring.scoring import Scoring

        name, recorded = self.scorers[identity]
        scoring = Scoring(self.store)
        options = recorded.get("options", {}).items()
        settings = [f"{name}.{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options]
        try:
            scoring.open([name], settings)
        except SrbenchError as error:
            return error.message
        if name in scoring.broken:
            return scoring.broken[name].message
        same = digest(scoring.identities[name]) == identity
        return scoring if same else f"scorer '{name}' is another one here: its library, weights or version"

    def _again(self, scoring: Scoring, record: Record, keys: list[str]) -> Any:
        from srbench.scoring.scoring import Wanted

        wanted = Wanted(record["scorer"], record["image"], record["fields"], record.get("reference", ""))
        return scoring.fresh(wanted, [self.store.pixels(key) for key in keys])


def _alike(a: Any, b: Any) -> bool:
    """Whether two raw scores are equal within `CLOSE`."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    return _close(a, b, CLOSE)


def _close(a: Any, b: Any, by: float) -> bool:
    if finite(a) and finite(b):
        return math.isclose(a, b, rel_tol=by, abs_tol=by)
    return bool(a == b)
