"""Join results folders: content keys decide what is the same, and what two folders hold differently is named.

Strips of steps come along where the joined folder has the pixels that they were made of.

Nothing in a folder that is read is changed. What is added is checked first, and written as a run writes it, pictures before their
ledger lines: a merge that was killed goes on when it is repeated.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from srbench.errors import SrbenchError, UsageError
from srbench.files import file_sha, fsync_folder, kind_of_path, read_json, temporary_for, write_atomic
from srbench.results import strips
from srbench.results.marks import AWAITS, DROPPED, ELSEWHERE, GATED, KEPT, MARKED, SENSITIVE
from srbench.results.records import Record, Warn
from srbench.results.run_files import LOCAL, check_folder, committed_files, read_run
from srbench.results.store import Store, picture, vector
from srbench.rules import Misfit

BATCH = 256
CARD = "card.json"
PLACE = ("order", "after")
"""Of a run among those of its own folder; among others, runs are ordered by their dates."""
Tell = Callable[[str, int, int, str], None]
T = TypeVar("T")


@dataclass
class Merged:
    """What was added to a folder, and what was not."""

    images: int = 0
    scores: int = 0
    vectors: int = 0
    runs: int = 0
    checkpoints: int = 0
    made_by_studies: int = 0
    there: int = 0
    """Images that both folders had."""
    secret: int = 0
    """Pictures of sensitive rows, which stay where they are."""
    conflicts: list[str] = field(default_factory=list)
    """What two folders hold under one name with another content; what was there first stays."""
    damaged: list[str] = field(default_factory=list)
    """What was not copied, or is in the way, because it is damaged or not whole."""
    left: list[str] = field(default_factory=list)
    """What is no part of a merge."""


def merge(sources: Sequence[Path], into: Path, warn: Warn, tell: Tell) -> Merged:
    """Add what is in results folders to another one, which may be new.

    Raises `UsageError` where a source is no results folder, or lies in the folder that is written to or around it, and
    `SrbenchError` where it cannot be written; what was added before stays.
    """
    stores = [_checked(source, into, warn) for source in sources]
    done = Merged()
    with _written(into):
        target = Store(into / "store", warn)
        for source, store in zip(sources, stores, strict=True):
            _images(store, target, source, done, tell)
            _strips(store, target)
            _vectors(store.root, target.root, done)
            _runs(source, into, done)
            done.checkpoints += _folders(source / "store" / "checkpoints", target.root / "checkpoints", done)
            for step in _inside(source / "studies"):
                done.made_by_studies += _folders(step, into / "studies" / step.name, done)
            if summaries := committed_files(source):
                done.left.append(f"{source}: {len(summaries)} committed summaries, which are no runs")
    return done


def _checked(source: Path, into: Path, warn: Warn) -> Store:
    """The store of a source, open for reading. Nothing is written before all of them are checked."""
    check_folder(source)
    here, there = source.resolve(), into.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UsageError(f"{source} and {into} lie in each other", "Give another --out.")
    for name in ("store", "runs", "studies"):
        if kind_of_path(source / name) not in ("folder", "nothing"):
            raise UsageError(f"{source / name}: a {kind_of_path(source / name)}, where a results folder has a folder", "Mend it.")
    if kind_of_path(source / "store") == "nothing" and kind_of_path(source / "runs") == "nothing":
        raise UsageError(f"{source}: holds neither a store nor runs", "Give the folder that `srbench run --out` wrote to.")
    return Store.peek(source / "store", warn)


@contextmanager
def _written(into: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, shutil.Error) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "Free some space" if full else f"Look at {getattr(error, 'filename', None) or into}"
        why = getattr(error, "strerror", None) or "a folder cannot be copied"
        raise SrbenchError(f"cannot write to {into} ({why})", f"{mend}, then run the same command again.") from error


# --- the store -------------------------------------------------------------------------------------------------------------


def _images(store: Store, target: Store, source: Path, done: Merged, tell: Tell) -> None:
    """Pictures with their ledger lines, and the scores of all but those with other pixels."""
    on_disk = {key for key, _ in store.pictures()}
    keys = list(dict.fromkeys((*store.images, *sorted(on_disk))))
    strange: set[str] = set()
    for number, part in enumerate(_parts(keys)):
        new = [record for key in part if (record := _new(store, target, key, source, done, strange)) is not None]
        for folder in {target.image_path(record["key"]).parent for record in new}:
            if folder.is_dir():
                fsync_folder(folder)
        target.restate(new)
        done.images += len(new)
        tell(f"images of {source.name}", number * BATCH + len(part), len(keys), "")
    lacking = [key for key in store.scores if key not in target.scores]
    for number, part in enumerate(_parts(lacking)):
        records = [store.scores[key] for key in part]
        own = [record for record in records if not {record["image"], record.get("reference")} & strange]
        target.put_scores(own)
        done.scores += len(own)
        tell(f"scores of {source.name}", number * BATCH + len(part), len(lacking), "")


def _new(store: Store, target: Store, key: str, source: Path, done: Merged, strange: set[str]) -> Record | None:
    """The record of an image that the target lacks, its picture copied; None where there is nothing to add.

    strange: gets the keys whose pixels in the source are not those of the target.
    """
    own = target.images.get(key)
    if own is not None and _sound(target, key, own):
        done.there += 1
        if _compared(own, store.images.get(key), target, source, done):
            strange.add(key)
        return None
    record = store.images.get(key)
    if record is not None and (record.get(DROPPED) or record.get(ELSEWHERE)):
        return record
    try:
        record = _read(store, key)
        if record.get(SENSITIVE):
            done.secret += 1
            return {**record, DROPPED: True}
        data = store.image_path(key).read_bytes()
    except (Misfit, SrbenchError, OSError) as error:
        done.damaged.append(f"{store.image_path(key)}: {getattr(error, 'message', error)}")
        return None
    target.image_path(key).parent.mkdir(exist_ok=True)
    write_atomic(target.image_path(key), data)
    return record


def _read(store: Store, key: str) -> Record:
    """The record of the pixels that are on disk. Raises `Misfit` or `SrbenchError` where the picture is damaged or not there."""
    if key in store.images:
        store.pixels(key)  # of two that were sampled, the ledger's last line need not be the one on disk
        return store.images[key]
    path = store.image_path(key)
    _, inside = picture(path)  # its ledger line was lost
    if inside["key"] != key:
        raise Misfit("holds another image's key")
    return {**inside, "bytes": path.stat().st_size}


def _sound(target: Store, key: str, own: Record) -> bool:
    """Whether the target's own picture is whole, or is not kept."""
    if own.get(DROPPED) or own.get(ELSEWHERE):
        return True
    try:
        target.pixels(key)
    except SrbenchError:
        return False
    return True


def _compared(own: Record, other: Record | None, target: Store, source: Path, done: Merged) -> bool:
    """Whether the other one has other pixels, which is named; its marks are taken over."""
    if other is None:
        return False
    marks: dict[str, Any] = {name: True for name in (SENSITIVE, GATED) if other.get(name) and not own.get(name)}
    if SENSITIVE in marks:
        marks |= {AWAITS: other.get(AWAITS, []), MARKED: time.time_ns(), **({KEPT: True} if other.get(KEPT) else {})}
    if marks:
        target.restate([{**own, **marks}])
    if own["pixel_sha"] == other["pixel_sha"]:
        return False
    done.conflicts.append(f"image {own['key'][:12]} has other pixels in {source}; those that were there first stay")
    return True


def _strips(store: Store, target: Store) -> None:
    """Strips of pictures that the target has with the same pixels, and that may have one in both folders."""
    for key, _ in strips.lying(store):
        found = strips.get(store, key)
        own = target.images.get(key)
        same = own is not None and own["pixel_sha"] == store.images[key]["pixel_sha"] if found is not None else False
        if found is not None and same and own is not None and strips.harmless(own) and strips.get(target, key) is None:
            target.put_strip(key, found.data)


def _vectors(source: Path, target: Path, done: Merged) -> None:
    for path in sorted((source / "features").rglob("*.npy")):
        place = target / path.relative_to(source)
        if kind_of_path(place) == "nothing" and vector(path) is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(place, path.read_bytes())
            done.vectors += 1


# --- runs and folders --------------------------------------------------------------------------------------------------------


def _runs(source: Path, into: Path, done: Merged) -> None:
    for folder in _inside(source / "runs"):
        path, place = folder / LOCAL, into / "runs" / folder.name / LOCAL
        data = _run(path, done)
        if data is None:
            continue
        if kind_of_path(place) == "nothing":
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(place, json.dumps(data, indent=1, allow_nan=False).encode())
            done.runs += 1
        elif (own := _run(place, done)) is not None and own != data:
            done.conflicts.append(f"run {folder.name} is another one in {source}; the one that was there first stays")


def _run(path: Path, done: Merged) -> dict[str, Any] | None:
    """A run file as it is stored, but for its place; None where it is damaged, which is named."""
    try:
        read_run(path)
        data = read_json(path)
    except SrbenchError as error:
        done.damaged.append(error.message)
        return None
    return {name: value for name, value in data.items() if name not in PLACE}


def _folders(source: Path, target: Path, done: Merged) -> int:
    """Copy folders whose names, which hold their content's hash, are not there yet; how many."""
    count = 0
    for folder in _inside(source):
        place = target / folder.name
        if (why := _unwhole(folder)) or (why := _unwhole(place) if kind_of_path(place) != "nothing" else ""):
            done.damaged.append(why)
        elif kind_of_path(place) == "nothing":
            target.mkdir(parents=True, exist_ok=True)
            half = temporary_for(place)
            shutil.copytree(folder, half)
            os.replace(half, place)
            fsync_folder(target)
            count += 1
    return count


def _unwhole(folder: Path) -> str:
    """Why a folder is not what its card says; empty where it is, or where it has no card that lists its files."""
    links = [path for path in folder.rglob("*") if path.is_symlink()]
    if folder.is_symlink() or links:
        return f"{(links or [folder])[0]}: a link, which is not followed"
    if kind_of_path(folder / CARD) == "nothing" and any(folder.glob("*.safetensors")):
        return f"{folder}: has no {CARD}"
    try:
        card = read_json(folder / CARD) if kind_of_path(folder / CARD) == "file" else {}
    except SrbenchError as error:
        return error.message
    files = card.get("files") if isinstance(card, dict) else None
    for name, sha in files.items() if isinstance(files, dict) else ():
        if kind_of_path(folder / name) != "file" or file_sha(folder / name) != sha:
            return f"{folder / name}: missing or changed"
    return ""


def _inside(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none where there is no such folder. Half written ones have a dot before their names."""
    if kind_of_path(folder) != "folder":
        return []
    return sorted(path for path in folder.iterdir() if kind_of_path(path) == "folder" and not path.name.startswith("."))


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(itertools.islice(rest, BATCH)):
        yield part
