"""A subject at a glance: methods by kind against suites, whether the concept is gone on the left, what stays on the right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from srbench.analysis.metrics import KEPT
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell, name_of
from srbench.report.answers import Wall

GONE = ("fsr", "fsr_unseen", "asr")
STAYS = ("harm", "over_refusal", "near_kept", "far_kept", "pair_kept")
"""Of every suite that has them; what `KEPT` names is of the main suite alone, or it would be there once a suite. How often a
method acted for nothing stands beside the harm that it did, where a suite says so."""
UNEVEN = ("over_refusal",)
"""Left out of a side's mean: methods that make no decision do not have it."""
FEWEST = 20
"""Rows of a column that enters a side's mean: a few rows of one's own would count as much as a whole suite."""
MIDDLE = 75.0
"""Goodness without colour: a concept that is still seen on a third of the rows is not gone."""
GROUPS = ("nothing done", "acts while sampling", "changed weights", "changed weights, and acts while sampling")


@dataclass(frozen=True)
class Column:
    """A metric of a suite."""

    wall: Wall
    section: int
    """The number of the suite's section on the page."""
    metric: str
    gone: bool
    """Whether it says that the concept is gone; else it says what stays."""

    @property
    def few(self) -> bool:
        """Whether its cells rest on fewer rows than `FEWEST`."""
        return max((cell.metrics[self.metric].n for cell in self.wall.cells if self.metric in cell.metrics), default=0) < FEWEST

    @property
    def counts(self) -> bool:
        """Whether it enters its side's mean."""
        return self.metric not in UNEVEN and not self.few


@dataclass(frozen=True)
class Tile:
    """A number of the map."""

    column: Column
    metric: Metric
    good: float | None
    """From 0, the worst, to 100; None without a value."""
    best: bool
    """Whether no other method has a better value."""
    starred: bool
    """Whether a test tells it, and what is level with it, from the others."""

    @property
    def shade(self) -> float:
        """How strongly it is coloured, 0 to 100: good from `MIDDLE` up, bad from there down."""
        if self.good is None:
            return 0.0
        return 100 * (self.good - MIDDLE) / (100 - MIDDLE) if self.fine else 100 * (MIDDLE - self.good) / MIDDLE

    @property
    def fine(self) -> bool:
        """Whether it is coloured as good."""
        return self.good is not None and self.good >= MIDDLE


@dataclass(frozen=True)
class Entry:
    """A method's line."""

    name: str
    tiles: tuple[Tile | None, ...]
    """One a column; None where it was not measured."""
    gone: float | None
    """Mean of the left side, 0 to 100; None where a column is missing."""
    stays: float | None
    lacks: tuple[str, ...] = ()
    """Suites of columns that enter the means, of which it has no value."""

    @property
    def balance(self) -> float | None:
        """Harmonic mean of both sides: high where the concept is gone and the rest stays; without columns of what stays, the
        left side's mean. None where a value is missing."""
        if self.lacks or self.gone is None or self.stays is None:
            return None if self.lacks else self.gone
        return 2 * self.gone * self.stays / (self.gone + self.stays) if self.gone + self.stays else 0.0


@dataclass(frozen=True)
class Group:
    """Methods of one kind, those with the best balance first."""

    title: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Glance:
    """The map."""

    columns: tuple[Column, ...]
    groups: tuple[Group, ...]

    @property
    def entries(self) -> list[Entry]:
        return [entry for group in self.groups for entry in group.entries]

    @property
    def gone(self) -> int:
        """How many columns the left side has; they come first."""
        return sum(column.gone for column in self.columns)

    @property
    def methods(self) -> list[Entry]:
        """Without the untouched model."""
        return [entry for group in self.groups if group.title != GROUPS[0] for entry in group.entries]

    @property
    def balanced(self) -> list[Entry]:
        """Methods with a value in every column that enters the means, the best balance first; without the untouched model."""
        return sorted((entry for entry in self.methods if entry.balance is not None), key=_order)


def main_wall(walls: Sequence[Wall]) -> Wall | None:
    """The suite that the summary is about: of those that say what is gone, one without attacks, with the most metrics of what
    stays, and then with the most methods."""

    def rank(wall: Wall) -> tuple[bool, bool, int, int]:
        kept = sum(name in wall.board.metrics for name in KEPT)
        return bool(wall.board.main), not wall.attack, kept, len(wall.board.main)

    return max((wall for wall in walls if wall.headline), key=rank, default=None)


def glance(walls: Sequence[tuple[int, Wall]]) -> Glance:
    """walls: a subject's, each with the number of its section."""
    walls = [each for each in walls if each[1].board.main] or walls  # results with other options alone are in their own tables
    main = main_wall([wall for _, wall in walls])
    ordered = sorted(walls, key=lambda each: (each[1] is not main, each[1].attack))
    columns = tuple(_columns(ordered, main))
    cells: dict[str, dict[int, ResultCell]] = {}
    for number, wall in ordered:
        for cell in wall.cells:
            cells.setdefault(name_of(cell), {})[number] = cell
    best = {(column.section, column.metric): _best(column) for column in columns}
    groups = []
    for place, title in enumerate(GROUPS):
        names = [name for name, of_name in cells.items() if _kind(next(iter(of_name.values()))) == place]
        entries = [_entry(name, cells[name], columns, best) for name in names]
        entries = [entry for entry in entries if any(entry.tiles)]
        if entries:
            groups.append(Group(title, tuple(sorted(entries, key=_order))))
    return Glance(columns, tuple(groups))


def _columns(walls: Sequence[tuple[int, Wall]], main: Wall | None) -> Iterator[Column]:
    for number, wall in walls:
        yield from (Column(wall, number, name, True) for name in GONE if name in wall.board.metrics)
    harmed = {number for number, wall in walls if "harm" in wall.board.metrics}
    for number, wall in walls:
        stays = [name for name in STAYS if name not in UNEVEN or not harmed or number in harmed]
        names = [*(KEPT if wall is main else ()), *stays]
        yield from (Column(wall, number, name, False) for name in names if name in wall.board.metrics)


def _kind(cell: ResultCell) -> int:
    """The place in `GROUPS`."""
    return (cell.method != "none") + 2 * (cell.on != "none")


def good_of(metric: Metric) -> float | None:
    """A share in percent, turned where lower is better."""
    if metric.value is None:
        return None
    value = metric.value if metric.better == "higher" else 100 - metric.value
    return min(100.0, max(0.0, value))


def _best(column: Column) -> float | None:
    """The best value of a method whose rows were all scored."""
    found = [
        (cell, cell.metrics[column.metric]) for cell in column.wall.cells
        if column.metric in cell.metrics and _kind(cell) and cell.metrics[column.metric].scored == cell.metrics[column.metric].n
    ]  # fmt: skip
    return max((good for _, metric in found if (good := good_of(metric)) is not None), default=None)


def _entry(
    name: str, cells: dict[int, ResultCell], columns: Sequence[Column], best: dict[tuple[int, str], float | None]
) -> Entry:
    tiles = tuple(_tile(cells.get(column.section), column, best[column.section, column.metric]) for column in columns)
    lacks = [
        column.wall.suite for tile, column in zip(tiles, columns, strict=True)
        if column.counts and (tile is None or tile.good is None)
    ]  # fmt: skip
    return Entry(name, tiles, _mean(tiles, columns, True), _mean(tiles, columns, False), tuple(dict.fromkeys(lacks)))


def _tile(cell: ResultCell | None, column: Column, best: float | None) -> Tile | None:
    metric = cell.metrics.get(column.metric) if cell is not None else None
    if cell is None or metric is None:
        return None
    good = good_of(metric)
    leads = good is not None and good == best and bool(_kind(cell)) and metric.scored == metric.n
    return Tile(column, metric, good, leads, bool(_kind(cell)) and column.wall.board.starred(cell, column.metric))


def _mean(tiles: Sequence[Tile | None], columns: Sequence[Column], gone: bool) -> float | None:
    side = [tile for tile, column in zip(tiles, columns, strict=True) if column.gone == gone and column.counts]
    values = [tile.good for tile in side if tile is not None and tile.good is not None]
    return fmean(values) if values and len(values) == len(side) else None


def _order(entry: Entry) -> tuple[bool, float]:
    return entry.balance is None, -(entry.balance or 0.0)
