"""Images of sensitive rows: how they are marked, which scores they wait for, and how they are deleted.

The record of such an image, in the ledger and inside the PNG, marks it as sensitive and lists the scores that must exist before
it is deleted. An image is dropped in this order: its scores are written and synced, the ledger says `dropped`, the file is
deleted, the folder is synced. If the process is killed between any two of these, the next start continues.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from srbench.errors import UsageError
from srbench.files import is_running, printable, read_json, write_atomic, writer_of
from srbench.results import strips
from srbench.results.gated import clean, fields_sha, without_text
from srbench.results.marks import GATED, MARKED, TEXT

if TYPE_CHECKING:
    from srbench.results.store import Store
from srbench.results.marks import AWAITS, DROPPED, KEPT, SENSITIVE, merged

Record = dict[str, Any]
IMAGES, DAMAGED, COMMANDS, LOOKED = "images", "damaged", "commands", "looked.json"
"""Folders of a store, and the file that lists the runs that were already searched for unmarked images of older versions."""
HOUR = 3600.0
_KEY = re.compile(r"\.?([0-9a-f]{64})(?![0-9a-f])")
_FLAGS = (b'"sensitive":true', b'"dropped":true')
"""As they are written in a ledger line."""
_PICTURE = re.compile(r"[0-9a-f]{64}\.png")


class Await(NamedTuple):
    """A score that must exist before an image is deleted."""

    scorer: str
    identity: str
    """Digest of the scorer's identity; empty where any version will do."""
    fields: str
    """sha256 of the row fields that it reads."""
    image: str
    """Key of the image that is scored; the reference of a pair waits for the score, too."""
    reference: str = ""


@dataclass(frozen=True)
class Mark:
    """How a plan marks one image."""

    sensitive: bool = False
    gated: bool = False
    kept: bool = False
    """Whether the user asked to keep it."""
    awaits: tuple[Await, ...] = ()
    scorers: frozenset[str] = frozenset()
    """Scorers that this plan covers: its `awaits` replace what the image awaited of them before."""


PLAIN = Mark()


# --- marks ------------------------------------------------------------------------------------------------------------


def marked(record: Record, mark: Mark) -> Record:
    """An image's record with a plan's marks. Flags are set and never cleared."""
    new = without_text(record) if mark.gated else dict(record)
    if mark.sensitive:
        waits = dict.fromkeys((*_left_of(record, mark), *mark.awaits))
        new |= {SENSITIVE: True, AWAITS: [list(entry) for entry in waits]}
        new |= {KEPT: True} if mark.kept or record.get(KEPT) else {}
    return new if new == record else {**new, MARKED: time.time_ns()}


def _left_of(record: Record, mark: Mark) -> list[Await]:
    """The scores that an image awaits of scorers that the plan does not cover."""
    covered = {*mark.scorers, *((UNKNOWN.scorer,) if mark.scorers else ())}
    return [entry for entry in awaits_of(record) or () if entry.scorer not in covered]


def awaits_of(record: Record) -> list[Await] | None:
    """The scores that an image waits for; None where its record does not list them."""
    entries = record.get(AWAITS)
    if not isinstance(entries, list):
        return None
    try:
        return [Await(*map(str, entry)) for entry in entries]
    except TypeError:
        return None


def restate(store: Store, marks: Mapping[str, Mark]) -> None:
    """Mark images that are already stored, where their records lack the marks."""
    changed = []
    for key, mark in marks.items():
        record = store.images.get(key)
        if record is not None and not record.get(DROPPED) and (new := marked(record, mark)) != record:
            changed.append(new)
    store.restate(changed)


# --- sweeping ---------------------------------------------------------------------------------------------------------


@dataclass
class Swept:
    """What a sweep deleted, counted by files that are really gone, and what is left on the disk."""

    dropped: int = 0
    """Pictures deleted."""
    debris: int = 0
    """Damaged and half-written files deleted."""
    lacking: int = 0
    """Pictures deleted although a scorer failed on them."""
    waiting: list[str] = field(default_factory=list)
    """Keys of pictures that wait for scores."""
    kept: int = 0
    stuck: dict[str, str] = field(default_factory=dict)
    """Path -> why it could not be deleted."""

    @property
    def left(self) -> int:
        """Files that should be deleted and are still there."""
        return len(self.waiting) + len(self.stuck)

    def lines(self, command: str) -> list[str]:
        """Lines to print. command: the command line that makes the missing scores."""
        lines = []
        if self.lacking:
            lines.append(
                f"{self.lacking} of them lack scores that failed: only a run into a new folder can have what is missing"
            )
        if self.debris:
            lines.append(f"{self.debris} half-written or damaged files were deleted with them")
        if self.waiting:
            stay = f"{len(self.waiting)} pictures of sensitive rows stay until they are scored"
            lines.append(f"{stay}; this scores and drops them: {command}")
        for path, why in list(self.stuck.items())[:3]:
            lines.append(f"{printable(path)}: cannot be deleted ({why}); the next start tries again")
        if len(self.stuck) > 3:
            lines.append(f"{len(self.stuck)} pictures of sensitive rows cannot be deleted")
        if self.kept:
            lines.append(f"{self.kept} pictures of sensitive rows were kept with --keep-images and stay")
        return lines


class StoredScores:
    """The stored scores, to look up what an image awaits."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._stored: set[tuple[str, str, str, str, str]] = set()
        for record in store.scores.values():
            image, beside = self._sha(record["image"]), self._sha(record.get("reference", ""))
            for identity in (record["identity"], ""):
                self._stored.add((record["scorer"], identity, fields_sha(record), image, beside))

    def _sha(self, key: str) -> str:
        return str(self.store.images[key]["pixel_sha"]) if key in self.store.images else ""

    def has(self, wanted: Await) -> bool:
        """Whether the score is stored, as numbers or as a vector; False where an image is not in the store."""
        image, beside = self._sha(wanted.image), self._sha(wanted.reference)
        if not image or (wanted.reference and not beside):
            return False
        if (wanted.scorer, wanted.identity, wanted.fields, image, beside) in self._stored:
            return True
        return bool(wanted.identity) and self.store.feature(wanted.identity, image) is not None


def sweep(store: Store, failed: Collection[Await] = ()) -> Swept:
    """Delete every image of a sensitive row whose scores exist, and left-over files of dropped images.

    failed: scores that could not be made; no image waits for them.
    """
    swept, failures = Swept(), frozenset(failed)
    marked = store.images.flagged(SENSITIVE, DROPPED)
    lying = [key for key, _ in store.pictures() if key in marked] if marked else []
    scores = StoredScores(store) if any(not store.images[key].get(DROPPED) for key in lying) else None
    ready: list[str] = []
    for key in lying:
        record = store.images[key]
        if record.get(DROPPED):
            ready.append(key)
        elif record.get(KEPT):
            swept.kept += 1
        elif scores is not None and _is_ready(record, scores, failures):
            ready.append(key)
            swept.lacking += not all(map(scores.has, awaits_of(record) or ()))
        else:
            swept.waiting.append(key)
    swept.stuck = store.drop(ready)
    swept.dropped = sum(str(store.image_path(key)) not in swept.stuck for key in ready)
    _clear(store, swept)
    return swept


def _is_ready(record: Record, scores: StoredScores, failed: frozenset[Await]) -> bool:
    awaits = awaits_of(record)
    return awaits is not None and all(entry in failed or scores.has(entry) for entry in awaits)


def _clear(store: Store, swept: Swept) -> None:
    """Delete damaged images unless they are known to be harmless, and half-written ones of processes that have ended.

    Strips of pictures that were marked as sensitive after they were made go, too.
    """
    for path in _debris(store.root, store.harmless):
        swept.debris += _deleted(path, swept)
    for path in strips.stray(store):
        _deleted(path, swept)


def _deleted(path: Path, swept: Swept) -> bool:
    """Delete a file; False where it was gone already, or cannot be deleted, which is noted."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        swept.stuck[str(path)] = error.strerror or type(error).__name__
        return False
    return True


def _debris(root: Path, harmless: Callable[[str], bool]) -> Iterator[Path]:
    for path in _files(root / DAMAGED):
        key = _KEY.match(path.name)
        if (key is None or not harmless(key[1])) and not _at_work(path):
            yield path
    for folder in _folders(root / IMAGES):
        for path in (folder / name for name in _names(folder) if name.endswith(".tmp")):
            if not _at_work(path):
                yield path


def _at_work(path: Path) -> bool:
    """Whether a half-written file belongs to a running process; an image is written in far less than an hour."""
    try:
        written = path.stat().st_mtime
    except OSError:
        return False
    writer = writer_of(path.name)
    if writer is None or abs(time.time() - written) > HOUR:
        return False
    running = is_running(*writer, written)
    return running is None or (running and writer[1] != os.getpid())


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder)]


def _names(folder: Path) -> list[str]:
    """Names of the files in a folder, links included; their types come from the listing, without a stat of each file."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


# --- what a run was asked ---------------------------------------------------------------------------------------------


def scoring_command(arguments: Sequence[str]) -> str:
    """The command line `srbench ARGUMENTS`, changed so that it scores and drops what it samples."""
    return shlex.join(["srbench", *_scoring(arguments)])


def _scoring(arguments: Sequence[str]) -> list[str]:
    """Arguments without those that keep pictures, leave them unscored, or ask for a part of them."""
    rest = [each for each in arguments if each not in ("--no-score", "--sample-only", "--keep-images")]
    rest = [each for each in rest if not each.startswith("--shard=")]
    while "--shard" in rest:
        at = rest.index("--shard")
        del rest[at : at + 2]
    return rest


def begin(root: Path, run: str) -> None:
    """Record the command that makes sensitive images before it makes the first: a killed run has no run file."""
    path = root / COMMANDS / f"{run}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"command": scoring_command(sys.argv[1:])}).encode())


def end(root: Path, run: str, waiting: Iterable[Record]) -> None:
    """Delete what `begin` recorded, unless images of the run are left."""
    if not any(record.get("run") == run for record in waiting):
        (root / COMMANDS / f"{run}.json").unlink(missing_ok=True)


def command_of(folder: Path, run: str) -> str:
    """The command that scores and drops a run's images; empty where none is recorded."""
    for path, inside in (
        (folder / "store" / COMMANDS / f"{run}.json", ()), (folder / "runs" / run / "run.json", ("provenance",)),
    ):  # fmt: skip
        try:
            data = read_json(path)
            for name in inside:
                data = data[name]
            return printable(_here(str(data["command"]), folder))
        except (UsageError, KeyError, TypeError, ValueError):
            continue
    return ""


def _here(command: str, folder: Path) -> str:
    """A scoring command with this results folder, which may have been moved or copied since. Raises `ValueError`."""
    words = _scoring(shlex.split(command))
    places = [i for i, word in enumerate(words) if word == "--out"]
    for i in reversed(places):
        del words[i : i + 2]
    return shlex.join([*(word for word in words if not word.startswith("--out=")), "--out", str(folder)])


def _commands(folder: Path, runs: Iterable[str]) -> str:
    commands = list(dict.fromkeys(filter(None, (command_of(folder, run) for run in sorted(set(runs), reverse=True)))))
    unknown = f"the srbench run that made them, with --out {shlex.quote(str(folder))} and without --sample-only"
    return " ; ".join(commands[:3]) or unknown


# --- at every start ---------------------------------------------------------------------------------------------------


def tend(store: Store, tell: Callable[[str], None]) -> Swept:
    """The first step of every command that opens a store for writing: mark and clean what older versions left, and sweep."""
    if _files(store.root / COMMANDS):  # a run that was killed may have left pictures that no ledger line tells of
        store.recover(key for key, _ in store.pictures() if key not in store.images)
    adopt(store, tell)
    clean(store, store.images.flagged(GATED), tell)
    swept = sweep(store)
    tell_swept(swept, store, tell)
    _forget(store, swept)
    return swept


def tell_swept(swept: Swept, store: Store, tell: Callable[[str], None]) -> None:
    """Report what a sweep deleted of earlier commands' images, and what is left."""
    if swept.dropped:
        tell(f"{swept.dropped} pictures of sensitive rows that were left here, and are scored, were deleted")
    for line in swept.lines(_commands(store.root.parent, [str(store.images[key].get("run", "")) for key in swept.waiting])):
        tell(line)


def _forget(store: Store, swept: Swept) -> None:
    """Delete the recorded commands of runs that are over and have no image left."""
    left = {store.images[key].get("run") for key in swept.waiting}
    for path in _files(store.root / COMMANDS):
        over = (store.root.parent / "runs" / path.stem / "run.json").is_file() or time.time() - path.stat().st_mtime > 24 * HOUR
        if path.stem not in left and over:
            path.unlink(missing_ok=True)


def adopt(store: Store, tell: Callable[[str], None]) -> None:
    """Mark images of sensitive and gated rows that older versions stored, as run files list them; each file is read once."""
    path = store.root / LOOKED
    try:
        looked = set(map(str, read_json(path)["runs"])) if path.exists() else set()
    except (UsageError, KeyError, TypeError):
        looked = set()
    runs = {run_file.parent.name: run_file for run_file in sorted((store.root.parent / "runs").glob("*/run.json"))}
    new = [run_file for name, run_file in runs.items() if name not in looked]
    if not new:
        return
    marks: dict[str, Mark] = {}
    for run_file in new:
        for key, mark in _of_run(run_file).items():
            marks[key] = _both(marks.get(key), mark)
    here = {key: mark for key, mark in marks.items() if not _is_told(store.images.get(key), mark)}
    clean(store, {key for key, mark in here.items() if mark.gated}, tell)
    restate(store, here)
    write_atomic(path, json.dumps({"runs": sorted(runs)}).encode())


def _both(one: Mark | None, other: Mark) -> Mark:
    """The marks of two runs combined: if one of them scored everything, nothing is awaited."""
    if one is None:
        return other
    awaits = other.awaits if one.awaits else ()
    return Mark(one.sensitive or other.sensitive, one.gated or other.gated, one.kept or other.kept, awaits)


def _is_told(record: Record | None, mark: Mark) -> bool:
    """Whether an image's record has a run file's marks already, or there is no record."""
    if record is None:
        return True
    sensitive = not mark.sensitive or SENSITIVE in record or record.get(DROPPED)
    return bool(sensitive and (not mark.gated or (record.get(GATED) and TEXT not in record)))


UNKNOWN = Await("a scorer that no record names", "", "", "")
"""What an image awaits whose run file says that it was not scored."""


def _of_run(path: Path) -> dict[str, Mark]:
    """Image key -> its mark by a run file; empty where the file cannot be read."""
    try:
        data = read_json(path)
        request = data.get("request", {})
        local = [cell for cell in data["cells"] if "rows" in cell]
        cells = [(_flag(cell), _keys(cell), not all("row" in row for row in cell["rows"])) for cell in local]
    except (UsageError, KeyError, TypeError, AttributeError):
        return {}
    plain = {key for sensitive, keys, _ in cells if not sensitive for key in keys}
    awaits = () if request.get("score", True) else (UNKNOWN,)
    marks: dict[str, Mark] = {}
    for sensitive, keys, gated in cells:
        for key in keys:
            mark = Mark(sensitive and key not in plain, gated, sensitive and bool(request.get("keep_images")), awaits)
            marks[key] = _both(marks.get(key), mark)
    return {key: mark for key, mark in marks.items() if mark.sensitive or mark.gated}


def _flag(cell: dict[str, Any]) -> bool:
    return "elsewhere" not in cell and bool(cell.get("suite", {}).get("sensitive"))


def _keys(cell: dict[str, Any]) -> list[str]:
    return [str(row[role]) for row in cell["rows"] for role in ("image", "reference", "floor") if role in row]


# --- for commands that only read --------------------------------------------------------------------------------------


def left_line(folder: Path) -> str:
    """How many images of sensitive rows are in a results folder, and which command drops them; empty for none. Changes nothing.

    The disk is read first, so that a folder without images costs nothing.
    """
    root = folder / "store"
    lying = {name[:-4] for place in _folders(root / IMAGES) for name in _names(place) if _PICTURE.fullmatch(name)}
    debris = list(_debris(root, lambda key: False))
    if not lying and not debris:
        return ""
    flagged = _flagged(root)
    for run in _folders(folder / "runs"):
        for image, mark in _of_old_run(run / "run.json").items():
            flagged.setdefault(image, {KEPT: mark.kept or not mark.sensitive, "run": run.name})
    left = [record for key, record in flagged.items() if key in lying and not record.get(KEPT)]
    killed = bool(_files(root / COMMANDS))  # half-written files of a killed run have no ledger line
    broken = sum(killed or ((key := _KEY.match(path.name)) is not None and key[1] in flagged) for path in debris)
    if not left and not broken:
        return ""
    what = f"{len(left)} pictures of sensitive rows" + (f" and {broken} damaged or half-written ones" if broken else "")
    command = _commands(folder, [str(record.get("run", "")) for record in left])
    return f"{what} lie in {printable(str(root))}; this scores and drops them: {command}"


def _flagged(root: Path) -> dict[str, Record]:
    """Key -> merged record of the images that a ledger line marks as sensitive or dropped."""
    flagged: dict[str, Record] = {}
    for path in _files(root / "ledger"):
        if not path.name.startswith("images-") or not path.is_file():
            continue
        try:
            data = path.read_bytes()
        except OSError:
            continue
        lines = data.split(b"\n") if any(flag in data for flag in _FLAGS) else []
        for line in lines:
            if any(flag in line for flag in _FLAGS):
                try:
                    record = json.loads(line)
                    flagged[record["key"]] = merged(flagged.get(record["key"]), record)
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue
    return {key: record for key, record in flagged.items() if "elsewhere" not in record}


def _of_old_run(path: Path) -> dict[str, Mark]:
    try:
        if not path.is_file() or b'"sensitive": true' not in path.read_bytes():
            return {}
    except OSError:
        return {}
    return _of_run(path)
