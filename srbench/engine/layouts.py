"""Finds the pictures in folders that other tools wrote, and says which prompt each belongs to. By name, never by order."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from srbench.analysis.metrics import SAMPLE
from srbench.catalog.specs import LayoutSpec, Row
from srbench.errors import UsageError

OTHER = "other files"
LINKED = "folders that a link leads back to"
PLAIN_NAMES = ("all", "image", "images", "imgs", "samples")
"""Folder names that say nothing of the method: their parent's counts."""
NOT_ASKED = "pictures of another category"


@dataclass(frozen=True)
class ScoreRequest:
    """What a user asked of pictures that were made elsewhere, or of existing runs."""

    folders: tuple[tuple[str, Path], ...]
    """Methods by name with their folders; the name is empty where the folder's own counts."""
    layout: str | None
    """None where the folder holds runs."""
    suite: str | None
    concept: str | None
    backbone: str | None
    """Whose edition of the suite; only needed where there are several."""
    prompts: Path | None
    reference: Path | None
    categories: tuple[str, ...]
    per_prompt: int
    protocol: str | None
    scorers: tuple[str, ...]
    settings: tuple[str, ...]
    out: Path
    accept_prompts: bool = False
    """Whether a copy of the suite that is not the published one is taken."""
    columns: tuple[tuple[str, str], ...] = ()
    """(row field, column of `prompts` that holds it)."""


class Place(NamedTuple):
    """Which picture it is: the same in every folder that is compared."""

    category: str
    case: str
    """Which prompt: a number without leading zeros, or a row's id."""
    sample: str
    """Which picture of the prompt; empty where names do not say."""


@dataclass(frozen=True, slots=True)
class Found:
    """A picture's file."""

    path: Path
    name: str
    """Its path below the method's folder; bytes that are not Unicode are written with a backslash."""


@dataclass
class Folder:
    """The pictures of one method."""

    method: str
    root: Path
    pictures: dict[Place, Found] = field(default_factory=dict)
    doubled: dict[Place, str] = field(default_factory=dict)
    """Places that several files claim -> which."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Why a file is no picture of the layout -> how many."""

    def add(self, place: Place, found: Found) -> None:
        """One more picture. Where two have the same place neither can be trusted to be it."""
        if place in self.doubled:
            self.doubled[place] += f", {found.name}"
        elif place in self.pictures:
            self.doubled[place] = f"{self.pictures.pop(place).name}, {found.name}"
        else:
            self.pictures[place] = found


def folders(
    given: Sequence[tuple[str, Path]], layout: LayoutSpec, categories: Collection[str] = (), per_prompt: int = 1
) -> list[Folder]:
    """The methods' folders: each one given that holds pictures of the layout itself, else those of its sub-folders that do.

    One without pictures stays, and counts as a method that has none. given: folders with the name that their method shall have,
    empty where the folder's own counts. categories: only pictures of these. per_prompt: how many
    consecutive numbers are pictures of one prompt. Raises `UsageError` for a path that is no folder, and for methods of one name.
    """
    found = [folder for name, path in given for folder in _named(name, _methods(path, layout, categories, per_prompt))]
    names = Counter(folder.method for folder in found)
    for folder in found:
        if names[folder.method] > 1:
            folder.method = f"{folder.root.parent.name}/{folder.method}"
    doubled = [name for name, count in Counter(folder.method for folder in found).items() if count > 1]
    if doubled:
        raise UsageError(f"two folders are called '{doubled[0]}'", "Rename one: methods are named by their folders.")
    return found


def _named(name: str, found: list[Folder]) -> list[Folder]:
    if name and len(found) > 1:
        raise UsageError(f"'{name}': the folder holds pictures of {len(found)} methods", "Name their own folders.")
    for folder in found:
        folder.method = name or folder.method
    return found


def _methods(path: Path, layout: LayoutSpec, categories: Collection[str], per_prompt: int) -> list[Folder]:
    if not path.is_dir():
        raise UsageError(f"{path}: not a folder", "Give the folder that holds the pictures.")
    whole = _read(path, layout, categories, per_prompt)
    if whole.pictures or whole.doubled:
        return [whole]
    inner = sorted(each for each in path.iterdir() if each.is_dir())
    below = [_read(each, layout, categories, per_prompt) for each in inner]
    return [folder for folder in below if folder.pictures or folder.doubled] or [whole]


def _read(root: Path, layout: LayoutSpec, categories: Collection[str], per_prompt: int) -> Folder:
    here = root.resolve()
    folder = Folder(here.parent.name if here.name in PLAIN_NAMES else here.name, root)
    patterns = [re.compile(pattern, re.DOTALL | re.IGNORECASE) for pattern in layout.patterns]
    others = {re.compile(pattern, re.DOTALL | re.IGNORECASE): why for pattern, why in layout.left_out.items()}
    for path, name in walk(root, folder.left_out):
        match = next(filter(None, (pattern.fullmatch(name) for pattern in patterns)), None)
        if match is None:
            folder.left_out[_why(name, layout, others)] += 1
            continue
        place = _place(match, per_prompt)
        if categories and place.category not in categories:
            folder.left_out[NOT_ASKED] += 1
        else:
            folder.add(place, Found(path, name))
    return folder


def _why(name: str, layout: LayoutSpec, others: dict[re.Pattern[str], str]) -> str:
    if layout.prompts and name == layout.prompts:
        return "the prompts"
    return next((why for pattern, why in others.items() if pattern.fullmatch(name)), OTHER)


def _place(match: re.Match[str], per_prompt: int) -> Place:
    groups = {"category": "", "index": "", **{name: value or "" for name, value in match.groupdict().items()}}
    case, sample = groups["case"], groups["index"]
    if case.isdecimal():
        number = int(case)
        case = str(number // per_prompt)
        sample = ".".join(part for part in (sample, str(number % per_prompt) if per_prompt > 1 else "") if part)
    if groups.get("language"):
        return Place(f"{groups['category']}/{groups['language']}", case, sample)
    return Place(groups["category"], case, sample)


def walk(root: Path, left_out: Counter[str]) -> Iterator[tuple[Path, str]]:
    """Every file below a folder with its name there, one at a time; links are followed, into a folder once."""
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        here = waiting.pop()
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen:
            left_out[LINKED] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(here) as entries:
            for entry in entries:
                if _is_folder(entry):
                    waiting.append(Path(entry.path))
                else:
                    path = Path(entry.path)
                    yield path, _printable(path.relative_to(root).as_posix())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: no folder, and its picture can not be read either
        return False


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# --- rows ---------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Asked:
    """A row and the place of its picture."""

    row: Row
    place: Place | None
    """None where no folder has a picture of the row."""


def unnamed(places: Collection[Place]) -> list[Asked]:
    """Rows for pictures of which nothing is known but their names: each counts as one of a prompt to be forgotten."""
    return [Asked(_sampled(Row(id=_id(place), kind="forget", category=place.category, prompt=""), place.sample), place)
            for place in sorted(places, key=_in_order)]  # fmt: skip


def assigned(rows: Sequence[Row], places: Collection[Place], layout: LayoutSpec) -> tuple[list[Asked], list[Place]]:
    """Every row with the places of its pictures, and the places that belong to no row.

    A name means the row with that id; a number, where no row has it as its id, the row with that number, counted from 0, among
    all or among those of its category, as the layout counts. A row with several pictures is asked for once for each of them.
    """
    known = _Rows(rows, layout.numbered == "category")
    mine: dict[str, list[Place]] = {row.id: [] for row in rows}
    strangers = []
    for place in sorted(places, key=_in_order):
        row = known.of(place)
        if row is None:
            strangers.append(place)
        else:
            mine[row.id].append(place)
    several = any(len(found) > 1 for found in mine.values())
    asked = []
    for row in rows:
        asked += [Asked(_sampled(row, place.sample if several else ""), place) for place in mine[row.id]] or [Asked(row, None)]
    return asked, strangers


class _Rows:
    """Rows by what a picture's name may call them."""

    def __init__(self, rows: Sequence[Row], by_category: bool) -> None:
        self.rows, self.by_id = rows, {row.id: row for row in rows}
        self.of_category: dict[str, list[Row]] = {}
        for row in rows if by_category else ():
            self.of_category.setdefault(row.category, []).append(row)

    def of(self, place: Place) -> Row | None:
        among = self.of_category.get(place.category, self.rows)
        named = _id(place) if among is not self.rows else place.case
        if named in self.by_id:
            return self.by_id[named]
        return among[int(place.case)] if place.case.isdecimal() and int(place.case) < len(among) else None


def _id(place: Place) -> str:
    return "/".join(part for part in (place.category, place.case) if part)


def _sampled(row: Row, sample: str) -> Row:
    return row.model_copy(update={"id": f"{row.id}{SAMPLE}{sample}"}) if sample else row


def _in_order(place: Place) -> tuple[str, int, str, int, str]:
    """Numbers as numbers."""
    numbers = [int(text) if text.isdecimal() else -1 for text in (place.case, place.sample)]
    return place.category, numbers[0], place.case, numbers[1], place.sample
