"""What made a cell, beside its names: contents, seed and noise. Two cells are the same one only where all of this agrees."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import PurePath
from typing import Any, Protocol

from srbench.errors import UsageError
from srbench.files import printable

DIGITS = 16
"""Hexadecimal digits of a sha256 that are kept, as of `rows_sha`."""
SHOWN = 8
"""Of these as many are shown."""


@dataclass(frozen=True)
class Origin:
    """Empty fields: there is none, or files of older versions do not say it."""

    backbone_sha: str = ""
    """Start of the sha256 of the backbone's files."""
    noise: str = ""
    """How noise is drawn."""
    seed: int | None = None
    """The run's own seed, where a row has none: it decided pixels. None where every row has its own."""
    method_version: int = 0
    checkpoint_sha: str = ""
    """Of the weights that the method is stacked on."""
    artifact_sha: str = ""
    """Of what the method loaded or learned."""
    folder: str = ""
    """Of pictures made elsewhere: where they lay."""
    images_sha: str = ""
    """Of the keys of all images, row by row: whatever else decides pixels."""
    scorers_sha: str = ""
    """Of the scorers that the user has set, with their weights: one judge's name then stands for several."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value != getattr(UNKNOWN, name)}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Origin:
        """The origin among a cell's other values. Raises `UsageError` for a value of another type."""
        given = {name: data[name] for name in ORIGIN if name in data}
        for name, value in given.items():
            wanted = int if name in ("seed", "method_version") else str
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise UsageError(f"a summary's cell has a '{name}' that is no {_TYPES[wanted]}", "Run the same command again.")
        return cls(**given)


_TYPES = {int: "whole number", str: "text"}
UNKNOWN = Origin()
"""Where nothing is known, and what cells have until something is."""
ORIGIN = tuple(field.name for field in fields(Origin))
"""Keys of an origin, in JSON beside those of the cell's names."""
NAMES = ("backbone", "concept", "suite", "method", "on", "variant", "protocol", "dtype")
"""What a cell is called."""
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
    """As much of a hash as is stored; an empty one stays empty."""
    return sha[:DIGITS]


# --- the same one, the same table -------------------------------------------------------------------------------------


def names_of(cell: Made) -> tuple[str, ...]:
    """What a cell is called; two that are called the same need not be the same."""
    return tuple(getattr(cell, name) for name in NAMES)


def identity(cell: Made) -> Identity:
    """What makes a cell the same one in another run: what it is called, its rows, and what made it."""
    return (*names_of(cell), cell.rows_sha, *(getattr(cell.origin, name) for name in ORIGIN))


def ground_of(cell: Made) -> Identity:
    """What cells share that can be compared on any rows: the backbone by name and content, noise, seed, scorers as set."""
    return cell.backbone, cell.origin.backbone_sha, cell.origin.noise, cell.origin.seed, cell.origin.scorers_sha


def place_of(cell: Made) -> Identity:
    """What cells share that stand in one table and are tested against each other."""
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
    """The backbone, the seed where rows have none, and the scorers where the user has set some."""
    seed, scorers = cell.origin.seed, cell.origin.scorers_sha
    more = [] if seed is None else [f"seed {seed}"]
    return ", ".join([backbone_text(cell), *more, *([f"scorers {scorers[:SHOWN]}"] if scorers else [])])


def noises(cells: Iterable[Made]) -> set[str]:
    """The ways in which noise was drawn, as far as they are known."""
    return {cell.origin.noise for cell in cells if cell.origin.noise}


def folders_text(folders: Iterable[str]) -> dict[str, str]:
    """Folder -> its last parts, as many as tell all of them apart."""
    parts = {folder: PurePath(folder).parts for folder in folders}
    for count in range(2, max(map(len, parts.values()), default=0) + 1):
        texts = {folder: printable("/".join(each[-count:])) for folder, each in parts.items()}
        if len(set(texts.values())) == len(parts):
            return texts
    return {folder: printable(folder) for folder in parts}


# --- cells of one name told apart -------------------------------------------------------------------------------------

MAKING = {"checkpoint_sha": "checkpoint {}", "artifact_sha": "artifact {}", "method_version": "version {}"}
"""What is the same for a method on every suite, and how a mark says it, most telling first."""
HERE = {"folder": "{}", "images_sha": "pictures {}"}
"""What tells cells of one name and one making apart that stand in one table."""
MEANING = {
    "checkpoint": "sha256 of the weights that the method is stacked on",
    "artifact": "sha256 of what the method loaded or learned",
    "version": "the method's own version", "pictures": "sha256 over the keys of its images", "run": "the run that it is of",
}  # fmt: skip
"""First word of a mark -> what it stands for."""


def marks(cells: Sequence[Made], runs: Sequence[str]) -> list[str]:
    """For each cell the shortest text that tells it from others of its name; empty where none is needed.

    What a method was made with is told apart over all suites, since numbers are pooled over suites by name. runs: whose
    cell each is.
    """
    found = [""] * len(cells)
    for own in _grouped(range(len(cells)), lambda i: _line(cells[i])):
        _add(found, own, telling([cells[i] for i in own], MAKING))
    for own in _grouped(range(len(cells)), lambda i: (*place_of(cells[i]), *_line(cells[i]), found[i])):
        _add(found, own, telling([cells[i] for i in own], HERE))
        for same in _grouped(own, lambda i: (found[i],)):
            _add(found, *_by_run(same, cells, runs))
    return found


def _line(cell: Made) -> Identity:
    """What a line of a table is called, on one backbone."""
    return cell.backbone, cell.origin.backbone_sha, cell.concept, cell.method, cell.on, cell.variant, cell.dtype


def _grouped(items: Iterable[int], key: Callable[[int], Identity]) -> list[list[int]]:
    groups: dict[Identity, list[int]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _add(found: list[str], places: Sequence[int], texts: Sequence[str]) -> None:
    for place, text in zip(places, texts, strict=True):
        found[place] = ", ".join(filter(None, (found[place], text)))


def telling(own: Sequence[Made], forms: Mapping[str, str]) -> list[str]:
    """What tells cells of one name apart: a field is said only where those before it leave different ones together."""
    parts: list[tuple[str, ...]] = [()] * len(own)
    for name, form in forms.items():
        values = [getattr(cell.origin, name) for cell in own]
        known: dict[tuple[str, ...], set[Any]] = {}
        for value, said in zip(values, parts, strict=True):
            known.setdefault(said, set()).update({value} if value else ())
        if any(len(each) > 1 for each in known.values()):
            texts = folders_text(filter(None, values)) if name == "folder" else {value: str(value)[:SHOWN] for value in values}
            parts = [(*said, form.format(texts[value])) if value else said for value, said in zip(values, parts, strict=True)]
    return [", ".join(said) for said in parts]


def _by_run(own: Sequence[int], cells: Sequence[Made], runs: Sequence[str]) -> tuple[list[int], list[str]]:
    """Cells that nothing else tells apart; where some of them have pictures and others none, the latter say their run."""
    if len(own) == 1:
        return [], []
    without = [i for i in own if not cells[i].origin.images_sha] if len(own) > 1 else []
    late = without if len(without) == len(own) - 1 else list(own)
    return late, [f"run {runs[i]}" for i in late]


def meanings(texts: Iterable[str]) -> list[str]:
    """What the marks of a table stand for."""
    words = dict.fromkeys(part.split(" ")[0] for text in texts for part in text.split(", ") if part)
    return [f"{word}: {MEANING[word]}" for word in words if word in MEANING]
