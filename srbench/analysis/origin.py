"""What a cell was made with, besides its names: content hashes, seed and noise. Two cells are the same only if all agree."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import PurePath
from typing import Any, Protocol

from srbench.errors import UsageError
from srbench.files import printable

DIGITS = 16
"""Hexadecimal digits of a sha256 that are stored, as for `rows_sha`."""
SHOWN = 8
"""Digits of it that are shown."""


@dataclass(frozen=True)
class Origin:
    """A field is empty where it does not apply, or where a file of an older version lacks it."""

    backbone_sha: str = ""
    """Start of the sha256 of the backbone's files."""
    noise: str = ""
    """How noise is drawn."""
    seed: int | None = None
    """The run's seed, where it was used for rows without their own; None where every row has its own."""
    method_version: int = 0
    checkpoint_sha: str = ""
    """Of the checkpoint that the method is stacked on."""
    artifact_sha: str = ""
    """Of the artifact that the method loaded or trained."""
    folder: str = ""
    """The folder of external images."""
    images_sha: str = ""
    """Of the keys of all images in row order, which cover everything else that decides pixels."""
    scorers_sha: str = ""
    """Of scorers with options set by the user, with their weights: the judge's name alone does not identify them."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without empty fields."""
        return {name: value for name, value in asdict(self).items() if value != getattr(UNKNOWN, name)}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Origin:
        """The origin among a cell's other values. Raises `UsageError` for a value of another type."""
        values = {name: data[name] for name in ORIGIN if name in data}
        for name, value in values.items():
            wanted = int if name in ("seed", "method_version") else str
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise UsageError(f"a summary's cell has a '{name}' that is no {_TYPES[wanted]}", "Run the same command again.")
        return cls(**values)


_TYPES = {int: "whole number", str: "text"}
UNKNOWN = Origin()
"""The origin of cells of which nothing is known yet."""
ORIGIN = tuple(field.name for field in fields(Origin))
"""Keys of an origin, stored in JSON on the same level as the cell's names."""
NAMES = ("backbone", "concept", "suite", "method", "on", "variant", "protocol", "dtype")
"""Fields that make up a cell's name."""
Identity = tuple[Hashable, ...]


class Made(Protocol):
    """A cell, planned or measured."""

    @property
    def backbone(self) -> str: ...
    @property
    def concept(self) -> str: ...
    @property
    def suite(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def on(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def rows_sha(self) -> str: ...
    @property
    def origin(self) -> Origin: ...


def short(sha: str) -> str:
    """The part of a hash that is stored; an empty hash stays empty."""
    return sha[:DIGITS]


# --- the same one, the same table -------------------------------------------------------------------------------------


def names_of(cell: Made) -> tuple[str, ...]:
    """The fields of a cell's name; different cells may share them."""
    return tuple(getattr(cell, name) for name in NAMES)


def identity(cell: Made) -> Identity:
    """Identifies a cell across runs: its name, its rows, and its origin."""
    return (*names_of(cell), cell.rows_sha, *(getattr(cell.origin, name) for name in ORIGIN))


def ground_of(cell: Made) -> Identity:
    """What comparable cells share on any rows: the backbone by name and content, noise, seed, scorer options."""
    return cell.backbone, cell.origin.backbone_sha, cell.origin.noise, cell.origin.seed, cell.origin.scorers_sha


def place_of(cell: Made) -> Identity:
    """What cells share that are in one table and are tested against each other."""
    return (*ground_of(cell), cell.concept, cell.suite, cell.protocol, cell.dtype, cell.rows_sha)


def in_order(place: Identity) -> tuple[tuple[bool, str], ...]:
    """A key to sort places by: numbers and None beside text."""
    return tuple((value is not None, f"{value:020d}" if isinstance(value, int) else str(value)) for value in place)


# --- as text ----------------------------------------------------------------------------------------------------------


def backbone_text(cell: Made) -> str:
    """The backbone's name with the start of its hash, where it is known."""
    sha = cell.origin.backbone_sha
    return f"{cell.backbone}@{sha[:SHOWN]}" if sha else cell.backbone


def ground_text(cell: Made) -> str:
    """The backbone, the run's seed where rows have none, and the scorers' hash where the user has set options of them."""
    seed, scorers = cell.origin.seed, cell.origin.scorers_sha
    more = [] if seed is None else [f"seed {seed}"]
    return ", ".join([backbone_text(cell), *more, *([f"scorers {scorers[:SHOWN]}"] if scorers else [])])


def noises(cells: Iterable[Made]) -> set[str]:
    """The known ways in which the cells' noise was drawn."""
    return {cell.origin.noise for cell in cells if cell.origin.noise}


def folders_text(folders: Iterable[str]) -> dict[str, str]:
    """Folder -> its last parts, as many as are needed to distinguish all folders."""
    parts = {folder: PurePath(folder).parts for folder in folders}
    for count in range(2, max(map(len, parts.values()), default=0) + 1):
        texts = {folder: printable("/".join(each[-count:])) for folder, each in parts.items()}
        if len(set(texts.values())) == len(parts):
            return texts
    return {folder: printable(folder) for folder in parts}


# --- cells of one name told apart -------------------------------------------------------------------------------------

MAKING = {"checkpoint_sha": "checkpoint {}", "artifact_sha": "artifact {}", "method_version": "version {}"}
"""Origin fields that a method shares over all suites -> their text in a mark, the most informative first."""
HERE = {"folder": "{}", "images_sha": "pictures {}"}
"""Origin fields that distinguish cells of one table with the same name and `MAKING` -> their text in a mark."""
MEANING = {
    "checkpoint": "sha256 of the weights that the method is stacked on",
    "artifact": "sha256 of what the method loaded or learned",
    "version": "the method's own version", "pictures": "sha256 over the keys of its images", "run": "the run that it is of",
}  # fmt: skip
"""First word of a mark -> its meaning."""


def marks(cells: Sequence[Made], runs: Sequence[str]) -> list[str]:
    """For each cell the shortest text that distinguishes it from others of its name; empty where none is needed.

    The fields of `MAKING` are compared over all suites, since numbers are pooled over suites by name. runs: the run of each
    cell.
    """
    marked = [""] * len(cells)
    for group in _grouped(range(len(cells)), lambda i: _line(cells[i])):
        _add(marked, group, telling([cells[i] for i in group], MAKING))
    for group in _grouped(range(len(cells)), lambda i: (*place_of(cells[i]), *_line(cells[i]), marked[i])):
        _add(marked, group, telling([cells[i] for i in group], HERE))
        for same in _grouped(group, lambda i: (marked[i],)):
            _add(marked, *_by_run(same, cells, runs))
    return marked


def _line(cell: Made) -> Identity:
    """What a table's line is named by, on one backbone."""
    return cell.backbone, cell.origin.backbone_sha, cell.concept, cell.method, cell.on, cell.variant, cell.dtype


def _grouped(items: Iterable[int], key: Callable[[int], Identity]) -> list[list[int]]:
    groups: dict[Identity, list[int]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _add(marked: list[str], places: Sequence[int], texts: Sequence[str]) -> None:
    for place, text in zip(places, texts, strict=True):
        marked[place] = ", ".join(filter(None, (marked[place], text)))


def telling(cells: Sequence[Made], forms: Mapping[str, str]) -> list[str]:
    """Texts that distinguish cells of one name; a field is used only where those before it leave cells alike."""
    parts: list[tuple[str, ...]] = [()] * len(cells)
    for name, form in forms.items():
        values = [getattr(cell.origin, name) for cell in cells]
        groups: dict[tuple[str, ...], set[Any]] = {}
        for value, mark in zip(values, parts, strict=True):
            groups.setdefault(mark, set()).update({value} if value else ())
        if any(len(mixed) > 1 for mixed in groups.values()):
            texts = folders_text(filter(None, values)) if name == "folder" else {value: str(value)[:SHOWN] for value in values}
            parts = [(*mark, form.format(texts[value])) if value else mark for value, mark in zip(values, parts, strict=True)]
    return [", ".join(mark) for mark in parts]


def _by_run(group: Sequence[int], cells: Sequence[Made], runs: Sequence[str]) -> tuple[list[int], list[str]]:
    """Cells that nothing else distinguishes, and `run ...` as their text; if exactly one has images, only the others get it."""
    if len(group) == 1:
        return [], []
    without = [i for i in group if not cells[i].origin.images_sha] if len(group) > 1 else []
    late = without if len(without) == len(group) - 1 else list(group)
    return late, [f"run {runs[i]}" for i in late]


def meanings(texts: Iterable[str]) -> list[str]:
    """Explanations of the marks in a table."""
    words = dict.fromkeys(part.split(" ")[0] for text in texts for part in text.split(", ") if part)
    return [f"{word}: {MEANING[word]}" for word in words if word in MEANING]


class Shown(Made, Protocol):
    """A cell in a table."""

    @property
    def run(self) -> str: ...
    @property
    def mark(self) -> str: ...


def told_by(cells: Sequence[Shown]) -> list[str]:
    """Notes of a table on what tells its lines of one name apart: marks, and versions of what was made again."""
    marked = [f"Lines of one name differ in what made them. {each}." for each in meanings(cell.mark for cell in cells)]
    return [*marked, *_versions(cells)]


_HASHED = re.compile(r"([^,]+)@([0-9a-f]{8})(?=,|$)")
"""An option of a variant whose value is known by its content, such as `redirector=mine@1a2b3c4d`."""


def _versions(cells: Sequence[Shown]) -> list[str]:
    """For options and rows that have one name and several contents, as after a study's step was changed: the run of each."""
    found: dict[tuple[str, ...], dict[str, set[str]]] = {}
    for cell in cells:
        place = (cell.backbone, cell.origin.backbone_sha, cell.concept, cell.method, cell.on)
        named = [((f"{cell.method}, {name}", *place), f"@{sha}") for name, sha in _HASHED.findall(cell.variant)]
        line = (f"{cell.suite}, rows", *place, _HASHED.sub(r"\1", cell.variant))
        for what, sha in [*named, (line, cell.rows_sha[:SHOWN])]:
            found.setdefault(what, {}).setdefault(sha, set()).add(cell.run)
    return list(dict.fromkeys(
        f"{what}: {len(runs)} versions. {'; '.join(f'{sha} is of {_named(names)}' for sha, names in runs.items())}."
        for (what, *_), runs in found.items() if len(runs) > 1
    ))  # fmt: skip


def _named(runs: set[str]) -> str:
    more = f" and {len(runs) - 1} before it" if len(runs) > 1 else ""
    return f"run {max(runs)}{more}"
