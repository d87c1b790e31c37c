"""Finds the images in folders that other tools wrote, and parses their names. `scoring.matching` finds their rows."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from srbench.catalog.specs import LayoutSpec
from srbench.errors import UsageError
from srbench.files import is_system_name
from srbench.scoring.matching import Place

OTHER = "other files"
NO_ROW = "pictures that belong to no row"
SYSTEM = "hidden and system files"
LINKED = "folders that a link leads back to"
MAX_DIGITS = 10
"""Of a number in a file name."""
PLAIN_NAMES = ("all", "image", "images", "imgs", "samples")
"""Folder names that do not name a method: the parent folder's name is used."""
NOT_ASKED = "pictures of another category"


@dataclass(frozen=True)
class ScoreRequest:
    """A user's request to score external images, or existing runs."""

    folders: tuple[tuple[str, Path], ...]
    """(method, its folder); the name is empty where the folder's own name is used."""
    layout: str | None = None
    """None where the folder holds runs."""
    suite: str | None = None
    concept: str | None = None
    backbone: str | None = None
    """Whose split of the suite is used; only needed where there are several."""
    prompts: Path | None = None
    reference: Path | None = None
    categories: tuple[str, ...] = ()
    per_prompt: int = 1
    protocol: str | None = None
    scorers: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    out: Path = Path("results")
    accept_prompts: bool = False
    """Whether a copy of the suite that differs from the published one is accepted."""
    columns: tuple[tuple[str, str], ...] = ()
    """(row field, column of `prompts` that holds it)."""
    shard: str | None = None
    """`I/N` or `auto`: only this part of the pictures is scored, and no run is written."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """An image's file."""

    path: Path
    name: str
    """Its path below the method's folder; bytes that are not UTF-8 are written as backslash escapes."""


@dataclass
class Folder:
    """The images of one method."""

    method: str
    root: Path
    pictures: dict[Place, PictureFile] = field(default_factory=dict)
    doubled: dict[Place, str] = field(default_factory=dict)
    """Place that several files have -> their names."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Why a file is no image of the layout -> how many."""

    def rename(self, renamed: Callable[[Place], Place | None]) -> None:
        """Replace every image's place; one without a new place is left out, and two with the same are both dropped."""
        pictures, doubled = self.pictures, self.doubled
        self.pictures, self.doubled = {}, {}
        for place, file in pictures.items():
            if (other := renamed(place)) is None:
                self.left_out[NO_ROW] += 1
            else:
                self.add(other, file)
        for place, names in doubled.items():
            if (other := renamed(place)) is not None:
                earlier = self.pictures.pop(other, None)
                claims = ([earlier.name] if earlier else []) + ([self.doubled[other]] if other in self.doubled else [])
                self.doubled[other] = ", ".join([*claims, names])

    def add(self, place: Place, file: PictureFile) -> None:
        """Add an image. Where two have the same place, neither is used."""
        if place in self.doubled:
            self.doubled[place] += f", {file.name}"
        elif place in self.pictures:
            self.doubled[place] = f"{self.pictures.pop(place).name}, {file.name}"
        else:
            self.pictures[place] = file


def folders(
    roots: Sequence[tuple[str, Path]], layout: LayoutSpec, categories: Collection[str] = (), per_prompt: int = 1
) -> list[Folder]:
    """The methods' folders: each root that holds images of the layout itself, else those of its sub-folders that do.

    A root without images stays, as a method that has none. roots: (name of the method, folder); the name is empty where the
    folder's own is used. categories: only images of these. per_prompt: how many consecutive numbers are images of one prompt.
    Raises `UsageError` for a path that is no folder, and for two methods of one name.
    """
    methods = [folder for name, path in roots for folder in _named(name, _methods(path, layout, categories, per_prompt))]
    names = Counter(folder.method for folder in methods)
    for folder in methods:
        if names[folder.method] > 1:
            folder.method = f"{folder.root.parent.name}/{folder.method}"
    doubled = [name for name, count in Counter(folder.method for folder in methods).items() if count > 1]
    if doubled:
        raise UsageError(f"two folders are called '{doubled[0]}'", "Rename one: methods are named by their folders.")
    return methods


def _named(name: str, methods: list[Folder]) -> list[Folder]:
    if name and len(methods) > 1:
        raise UsageError(f"'{name}': the folder holds pictures of {len(methods)} methods", "Name their own folders.")
    for folder in methods:
        folder.method = name or folder.method
    return methods


def _methods(path: Path, layout: LayoutSpec, categories: Collection[str], per_prompt: int) -> list[Folder]:
    if not path.is_dir():
        raise UsageError(f"{path}: not a folder", "Give the folder that holds the pictures.")
    whole = _read(path, layout, categories, per_prompt)
    if whole.pictures or whole.doubled:
        return [whole]
    inner = sorted(child for child in path.iterdir() if child.is_dir() and not is_system_name(child.name))
    below = [_read(child, layout, categories, per_prompt) for child in inner]
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
            folder.add(place, PictureFile(path, name))
    return folder


def _why(name: str, layout: LayoutSpec, others: dict[re.Pattern[str], str]) -> str:
    if layout.prompts and name == layout.prompts:
        return "the prompts"
    return next((why for pattern, why in others.items() if pattern.fullmatch(name)), OTHER)


def _place(match: re.Match[str], per_prompt: int) -> Place:
    groups = {"category": "", "index": "", **{name: value or "" for name, value in match.groupdict().items()}}
    case, sample = groups["case"], groups["index"]
    if per_prompt > 1 and case.isdecimal() and len(case) < MAX_DIGITS:
        number = int(case)
        case = str(number // per_prompt)
        sample = ".".join(part for part in (sample, str(number % per_prompt)) if part)
    if groups.get("language"):
        return Place(f"{groups['category']}/{groups['language']}", case, sample)
    return Place(groups["category"], case, sample)


def walk(root: Path, left_out: Counter[str]) -> Iterator[tuple[Path, str]]:
    """Every file below a folder with its relative name, one at a time, without hidden and system files; links are followed, into
    each folder once."""
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
                if is_system_name(entry.name):
                    left_out[SYSTEM] += 1
                elif _is_folder(entry):
                    waiting.append(Path(entry.path))
                else:
                    path = Path(entry.path)
                    yield path, _printable(path.relative_to(root).as_posix())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: no folder, and no image that can be read
        return False


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
