"""Join results folders: content keys decide what is the same, and what two folders hold differently is named.

Nothing in a folder that is read is changed. What is added is written as a run writes it, pictures before their ledger lines:
a merge that was killed goes on when it is repeated.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from srbench.errors import UsageError
from srbench.files import fsync_folder, kind_of_path, read_bytes, temporary_for, write_atomic
from srbench.results.index import FLAGS
from srbench.results.marks import DROPPED, GATED, SENSITIVE
from srbench.results.records import Record, Warn
from srbench.results.run_files import check_folder
from srbench.results.store import Store, picture, vector
from srbench.rules import Misfit

BATCH = 256
ELSEWHERE = FLAGS[3]
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


def merge(sources: Sequence[Path], into: Path, warn: Warn, tell: Tell) -> Merged:
    """Add what is in results folders to another one, which may be new.

    Raises `UsageError` where a source is no results folder, or is the folder itself.
    """
    for source in sources:
        check_folder(source)
        if kind_of_path(source / "store") == "nothing" and kind_of_path(source / "runs") == "nothing":
            raise UsageError(f"{source}: holds neither a store nor runs", "Give the folder that `srbench run --out` wrote to.")
        if source.resolve() == into.resolve():
            raise UsageError(f"{source} is the folder that is written to", "Give the others, or another --out.")
    target, done = Store(into / "store", warn), Merged()
    for source in sources:
        _images(source, target, done, warn, tell)
        _vectors(source / "store", target.root, done)
        _runs(source, into, done)
        done.checkpoints += _folders(source / "store" / "checkpoints", target.root / "checkpoints")
        for step in _inside(source / "studies"):
            done.made_by_studies += _folders(step, into / "studies" / step.name)
    return done


# --- the store -------------------------------------------------------------------------------------------------------------


def _images(source: Path, target: Store, done: Merged, warn: Warn, tell: Tell) -> None:
    """Pictures with their ledger lines, and the scores of all of them."""
    store = Store.peek(source / "store", warn)
    keys = list(store.images)
    for number, part in enumerate(_parts(keys)):
        new = [record for key in part if (record := _new(store, target, key, source, done)) is not None]
        target.restate(new)
        done.images += len(new)
        tell(f"images of {source.name}", number * BATCH + len(part), len(keys), "")
    lacking = [key for key in store.scores if key not in target.scores]
    for number, part in enumerate(_parts(lacking)):
        target.put_scores([store.scores[key] for key in part])
        tell(f"scores of {source.name}", number * BATCH + len(part), len(lacking), "")
    done.scores += len(lacking)


def _new(store: Store, target: Store, key: str, source: Path, done: Merged) -> Record | None:
    """The record of an image that the target lacks, its picture copied; None where there is nothing to add."""
    record, own = store.images[key], target.images.get(key)
    if own is not None:
        done.there += 1
        _compare(own, record, target, source, done)
        return None
    if record.get(DROPPED) or record.get(ELSEWHERE):
        return record
    if record.get(SENSITIVE):
        done.secret += 1
        return None
    path = store.image_path(key)
    try:
        _, inside = picture(path)
        store.agree(key, inside)
        data = path.read_bytes()
    except (Misfit, OSError) as error:
        done.damaged.append(f"{path}: {error}")
        return None
    target.image_path(key).parent.mkdir(exist_ok=True)
    write_atomic(target.image_path(key), data)
    return record


def _compare(own: Record, other: Record, target: Store, source: Path, done: Merged) -> None:
    """Of an image that both have: marks of the other one are taken over, other pixels are named."""
    if own["pixel_sha"] != other["pixel_sha"]:
        done.conflicts.append(f"image {own['key'][:12]} has other pixels in {source}; those that were there first stay")
    marks = {name: True for name in (SENSITIVE, GATED) if other.get(name) and not own.get(name)}
    if marks:
        target.restate([{**own, **marks}])


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
        path, place = folder / "run.json", into / "runs" / folder.name / "run.json"
        if kind_of_path(path) != "file":
            continue
        data = path.read_bytes()
        if kind_of_path(place) == "nothing":
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(place, data)
            done.runs += 1
        elif read_bytes(place) != data:
            done.conflicts.append(f"run {folder.name} is another one in {source}; the one that was there first stays")


def _folders(source: Path, target: Path) -> int:
    """Copy folders whose names, which hold their content's hash, are not there yet; how many."""
    count = 0
    for folder in _inside(source):
        place = target / folder.name
        if kind_of_path(place) != "nothing":
            continue
        target.mkdir(parents=True, exist_ok=True)
        half = temporary_for(place)
        shutil.copytree(folder, half)
        os.replace(half, place)
        fsync_folder(target)
        count += 1
    return count


def _inside(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none where there is no such folder. Half written ones have a dot before their names."""
    if kind_of_path(folder) != "folder":
        return []
    return sorted(path for path in folder.iterdir() if kind_of_path(path) == "folder" and not path.name.startswith("."))


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(itertools.islice(rest, BATCH)):
        yield part
