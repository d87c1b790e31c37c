"""Pictures of sensitive rows: what marks them, what they wait for, and how they go.

A picture of a sensitive row says so in its own record, in the ledger and inside the PNG, with the scores that are to exist
before it goes. Dropping one is: its scores are durable, the ledger says `dropped`, the file is deleted, the folder is synced.
A process that is killed between any two of these leaves enough behind for the next start to go on.
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
from srbench.results.gated import clean, fields_sha, without_text
from srbench.results.marks import GATED, MARKED, TEXT

if TYPE_CHECKING:
    from srbench.results.store import Store
from srbench.results.marks import AWAITS, DROPPED, KEPT, SENSITIVE, merged

Record = dict[str, Any]
IMAGES, DAMAGED, COMMANDS, LOOKED = "images", "damaged", "commands", "looked.json"
"""Folders of a store, and the file that names the runs whose rows were looked through for what older versions left."""
HOUR = 3600.0
_KEY = re.compile(r"\.?([0-9a-f]{64})(?![0-9a-f])")
_FLAGS = (b'"sensitive":true', b'"dropped":true')
"""As they stand in a ledger line."""
_PICTURE = re.compile(r"[0-9a-f]{64}\.png")


class Await(NamedTuple):
    """A score that is to exist before a picture goes."""

    scorer: str
    identity: str
    """Digest of the scorer's identity; empty for any version of it."""
    fields: str
    """sha256 of the row fields that it reads."""
    image: str
    """Key of the picture that is scored: of a pair, the reference waits, too."""
    reference: str = ""


@dataclass(frozen=True)
class Mark:
    """What a plan says of one picture."""

    sensitive: bool = False
    gated: bool = False
    kept: bool = False
    """Whether the user asked to keep it."""
    awaits: tuple[Await, ...] = ()
    scorers: frozenset[str] = frozenset()
    """Scorers of which this plan says everything: what the picture awaited of them before counts no more."""


PLAIN = Mark()


# --- marks ------------------------------------------------------------------------------------------------------------


def marked(record: Record, mark: Mark) -> Record:
    """A picture's record with what a plan says of it. Flags are raised and never lowered."""
    found = without_text(record) if mark.gated else dict(record)
    if mark.sensitive:
        waits = dict.fromkeys((*_left_of(record, mark), *mark.awaits))
        found |= {SENSITIVE: True, AWAITS: [list(entry) for entry in waits]}
        found |= {KEPT: True} if mark.kept or record.get(KEPT) else {}
    return found if found == record else {**found, MARKED: time.time_ns()}


def _left_of(record: Record, mark: Mark) -> list[Await]:
    """What a picture waits for of scorers that the plan does not speak of."""
    spoken_of = {*mark.scorers, *((UNKNOWN.scorer,) if mark.scorers else ())}
    return [entry for entry in awaits_of(record) or () if entry.scorer not in spoken_of]


def awaits_of(record: Record) -> list[Await] | None:
    """The scores that a picture waits for; None where nobody can say."""
    entries = record.get(AWAITS)
    if not isinstance(entries, list):
        return None
    try:
        return [Await(*map(str, entry)) for entry in entries]
    except TypeError:
        return None


def restate(store: Store, marks: Mapping[str, Mark]) -> None:
    """Mark pictures that were stored before, where their records do not say it yet."""
    changed = []
    for key, mark in marks.items():
        record = store.images.get(key)
        if record is not None and not record.get(DROPPED) and (new := marked(record, mark)) != record:
            changed.append(new)
    store.restate(changed)


# --- sweeping ---------------------------------------------------------------------------------------------------------


@dataclass
class Swept:
    """What a sweep did, counted by files that were really deleted, and what still lies on the disk."""

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
        """Files that should go and are there."""
        return len(self.waiting) + len(self.stuck)

    def lines(self, command: str) -> list[str]:
        """What there is to say. command: what has the missing scores made."""
        said = []
        if self.lacking:
            said.append(
                f"{self.lacking} of them lack scores that failed: only a run into a new folder can have what is missing"
            )
        if self.debris:
            said.append(f"{self.debris} half-written or damaged files were deleted with them")
        if self.waiting:
            stay = f"{len(self.waiting)} pictures of sensitive rows stay until they are scored"
            said.append(f"{stay}; this scores and drops them: {command}")
        for path, why in list(self.stuck.items())[:3]:
            said.append(f"{printable(path)}: cannot be deleted ({why}); the next start tries again")
        if len(self.stuck) > 3:
            said.append(f"{len(self.stuck)} pictures of sensitive rows cannot be deleted")
        if self.kept:
            said.append(f"{self.kept} pictures of sensitive rows were kept with --keep-images and stay")
        return said


class Said:
    """The scores that are stored, to be asked for what a picture awaits."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: set[tuple[str, str, str, str, str]] = set()
        for record in store.scores.values():
            image, beside = self._sha(record["image"]), self._sha(record.get("reference", ""))
            for identity in (record["identity"], ""):
                self._known.add((record["scorer"], identity, fields_sha(record), image, beside))

    def _sha(self, key: str) -> str:
        return str(self.store.images[key]["pixel_sha"]) if key in self.store.images else ""

    def has(self, wanted: Await) -> bool:
        """Whether it is stored, as numbers or as a vector; where an image is not known it is not."""
        image, beside = self._sha(wanted.image), self._sha(wanted.reference)
        if not image or (wanted.reference and not beside):
            return False
        if (wanted.scorer, wanted.identity, wanted.fields, image, beside) in self._known:
            return True
        return bool(wanted.identity) and self.store.feature(wanted.identity, image) is not None


def sweep(store: Store, failed: Collection[Await] = ()) -> Swept:
    """Delete every picture of a sensitive row whose scores exist, and what was left of those that are dropped.

    failed: scores that could not be made; a picture does not wait for them.
    """
    found, failures = Swept(), frozenset(failed)
    lying = {key: path for key, path in store.pictures() if _is_secret(store.images.get(key))}
    said = Said(store) if any(not store.images[key].get(DROPPED) for key in lying) else None
    ready: list[str] = []
    for key in lying:
        record = store.images[key]
        if record.get(DROPPED):
            ready.append(key)
        elif record.get(KEPT):
            found.kept += 1
        elif said is not None and _is_ready(record, said, failures):
            ready.append(key)
            found.lacking += not all(map(said.has, awaits_of(record) or ()))
        else:
            found.waiting.append(key)
    found.stuck = store.drop(ready)
    found.dropped = len(ready) - len(found.stuck)
    _clear(store, found)
    return found


def _is_secret(record: Record | None) -> bool:
    return record is not None and bool(record.get(SENSITIVE) or record.get(DROPPED))


def _is_ready(record: Record, said: Said, failed: frozenset[Await]) -> bool:
    awaits = awaits_of(record)
    return awaits is not None and all(entry in failed or said.has(entry) for entry in awaits)


def _clear(store: Store, found: Swept) -> None:
    """Delete damaged pictures that are not known to be harmless, and half-written ones of processes that are gone."""
    for path in _debris(store.root, store.harmless):
        try:
            path.unlink()
            found.debris += 1
        except FileNotFoundError:
            continue
        except OSError as error:
            found.stuck[str(path)] = error.strerror or type(error).__name__


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
    """Whether a half-written file belongs to a living process; a picture is written in far less than an hour."""
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
    """Names of the files in a folder, links among them; the listing tells what they are, so that no file is asked."""
    try:
        with os.scandir(folder) as entries:
            return sorted(each.name for each in entries if not each.is_dir(follow_symlinks=False))
    except OSError:
        return []


# --- what a run was asked ---------------------------------------------------------------------------------------------


def scoring_command(arguments: Sequence[str]) -> str:
    """The command line `srbench ARGUMENTS` as it scores and drops what it samples."""
    return shlex.join(["srbench", *_scoring(arguments)])


def _scoring(arguments: Sequence[str]) -> list[str]:
    """Arguments without those that keep pictures or leave them unscored."""
    return [each for each in arguments if each not in ("--no-score", "--keep-images")]


def begin(root: Path, run: str) -> None:
    """Write down which command makes sensitive pictures, before it makes the first: a killed run has no run file."""
    path = root / COMMANDS / f"{run}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"command": scoring_command(sys.argv[1:])}).encode())


def end(root: Path, run: str, waiting: Iterable[Record]) -> None:
    """Forget it, unless pictures of the run are left."""
    if not any(record.get("run") == run for record in waiting):
        (root / COMMANDS / f"{run}.json").unlink(missing_ok=True)


def command_of(folder: Path, run: str) -> str:
    """The command that scores and drops a run's pictures; empty where nothing says it."""
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
    """A command that scores, on this results folder, which may have been moved or copied since. Raises `ValueError`."""
    kept = _scoring(shlex.split(command))
    places = [i for i, each in enumerate(kept) if each == "--out"]
    for i in reversed(places):
        del kept[i : i + 2]
    return shlex.join([*(each for each in kept if not each.startswith("--out=")), "--out", str(folder)])


def _commands(folder: Path, runs: Iterable[str]) -> str:
    known = list(dict.fromkeys(filter(None, (command_of(folder, run) for run in sorted(set(runs), reverse=True)))))
    unknown = f"the srbench run that made them, with --out {shlex.quote(str(folder))} and without --no-score"
    return " ; ".join(known[:3]) or unknown


# --- at every start ---------------------------------------------------------------------------------------------------


def tend(store: Store, tell: Callable[[str], None]) -> Swept:
    """What every command that opens a store for writing does first: clean what older versions left, and sweep."""
    adopt(store, tell)
    clean(store, {key for key, record in store.images.items() if record.get(GATED)}, tell)
    swept = sweep(store)
    tell_swept(swept, store, tell)
    _forget(store, swept)
    return swept


def tell_swept(swept: Swept, store: Store, tell: Callable[[str], None]) -> None:
    """Say what a sweep of pictures that earlier commands left did, and what is left."""
    if swept.dropped:
        tell(f"{swept.dropped} pictures of sensitive rows that were left here, and are scored, were deleted")
    for line in swept.lines(_commands(store.root.parent, [str(store.images[key].get("run", "")) for key in swept.waiting])):
        tell(line)


def _forget(store: Store, swept: Swept) -> None:
    """Forget the commands of runs that are over and have no picture left."""
    left = {store.images[key].get("run") for key in swept.waiting}
    for path in _files(store.root / COMMANDS):
        over = (store.root.parent / "runs" / path.stem / "run.json").is_file() or time.time() - path.stat().st_mtime > 24 * HOUR
        if path.stem not in left and over:
            path.unlink(missing_ok=True)


def adopt(store: Store, tell: Callable[[str], None]) -> None:
    """Mark pictures that older versions stored of sensitive and gated rows, as run files tell of them; each is read once."""
    path = store.root / LOOKED
    try:
        looked = set(map(str, read_json(path)["runs"])) if path.exists() else set()
    except (UsageError, KeyError, TypeError):
        looked = set()
    runs = {each.parent.name: each for each in sorted((store.root.parent / "runs").glob("*/run.json"))}
    new = [each for name, each in runs.items() if name not in looked]
    if not new:
        return
    marks: dict[str, Mark] = {}
    for each in new:
        for key, mark in _of_run(each).items():
            marks[key] = _both(marks.get(key), mark)
    here = {key: mark for key, mark in marks.items() if not _is_told(store.images.get(key), mark)}
    clean(store, {key for key, mark in here.items() if mark.gated}, tell)
    restate(store, here)
    write_atomic(path, json.dumps({"runs": sorted(runs)}).encode())


def _both(one: Mark | None, other: Mark) -> Mark:
    """What two runs tell together: where one of them had everything scored, nothing is awaited."""
    if one is None:
        return other
    awaits = other.awaits if one.awaits else ()
    return Mark(one.sensitive or other.sensitive, one.gated or other.gated, one.kept or other.kept, awaits)


def _is_told(record: Record | None, mark: Mark) -> bool:
    """Whether a picture's record says already what a run file tells of it, or there is none."""
    if record is None:
        return True
    sensitive = not mark.sensitive or SENSITIVE in record or record.get(DROPPED)
    return bool(sensitive and (not mark.gated or (record.get(GATED) and TEXT not in record)))


UNKNOWN = Await("a scorer that no record names", "", "", "")
"""What a picture awaits of which a run file says that it was not scored."""


def _of_run(path: Path) -> dict[str, Mark]:
    """Image key -> what a run file tells of it; nothing where it cannot be read."""
    try:
        data = read_json(path)
        asked = data.get("request", {})
        own = [cell for cell in data["cells"] if "rows" in cell]
        cells = [(_flag(cell), _keys(cell), not all("row" in row for row in cell["rows"])) for cell in own]
    except (UsageError, KeyError, TypeError, AttributeError):
        return {}
    plain = {key for sensitive, keys, _ in cells if not sensitive for key in keys}
    awaits = () if asked.get("score", True) else (UNKNOWN,)
    marks: dict[str, Mark] = {}
    for sensitive, keys, gated in cells:
        for key in keys:
            mark = Mark(sensitive and key not in plain, gated, sensitive and bool(asked.get("keep_images")), awaits)
            marks[key] = _both(marks.get(key), mark)
    return {key: mark for key, mark in marks.items() if mark.sensitive or mark.gated}


def _flag(cell: dict[str, Any]) -> bool:
    return "elsewhere" not in cell and bool(cell.get("suite", {}).get("sensitive"))


def _keys(cell: dict[str, Any]) -> list[str]:
    return [str(row[role]) for row in cell["rows"] for role in ("image", "reference", "floor") if role in row]


# --- for commands that only read --------------------------------------------------------------------------------------


def left_line(folder: Path) -> str:
    """How many pictures of sensitive rows lie in a results folder, and which command drops them; empty for none. Changes nothing.

    It looks at the disk first, so that a folder without pictures costs nothing.
    """
    root = folder / "store"
    lying = {name[:-4] for each in _folders(root / IMAGES) for name in _names(each) if _PICTURE.fullmatch(name)}
    debris = list(_debris(root, lambda key: False))
    if not lying and not debris:
        return ""
    flagged = _flagged(root)
    for run in _folders(folder / "runs"):
        for image, mark in _of_old_run(run / "run.json").items():
            flagged.setdefault(image, {KEPT: mark.kept or not mark.sensitive, "run": run.name})
    left = [record for key, record in flagged.items() if key in lying and not record.get(KEPT)]
    killed = bool(_files(root / COMMANDS))  # what it left half-written has no ledger line
    broken = sum(killed or ((key := _KEY.match(path.name)) is not None and key[1] in flagged) for path in debris)
    if not left and not broken:
        return ""
    what = f"{len(left)} pictures of sensitive rows" + (f" and {broken} damaged or half-written ones" if broken else "")
    command = _commands(folder, [str(record.get("run", "")) for record in left])
    return f"{what} lie in {printable(str(root))}; this scores and drops them: {command}"


def _flagged(root: Path) -> dict[str, Record]:
    """Key -> merged record of the pictures that a ledger line calls sensitive or dropped."""
    found: dict[str, Record] = {}
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
                    found[record["key"]] = merged(found.get(record["key"]), record)
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue
    return {key: record for key, record in found.items() if "elsewhere" not in record}


def _of_old_run(path: Path) -> dict[str, Mark]:
    try:
        if not path.is_file() or b'"sensitive": true' not in path.read_bytes():
            return {}
    except OSError:
        return {}
    return _of_run(path)
