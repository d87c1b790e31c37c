"""What checkpoints of one name have in common: curves over the steps of teaching them again, spread over training seeds."""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from srbench.analysis.origin import backbone_text, place_of
from srbench.analysis.records import Metric, turned
from srbench.analysis.results import ResultCell

FORM = re.compile(r"(?P<base>.+?)(?:#(?P<seed>\d+))?(?:~(?P<steps>\d+)(?P<other>:other)?)?")
"""`W#SEED~STEPS:other`: a checkpoint's name with the seed that made it and the steps of teaching it again."""
HALF = 50.0
"""Percent of the rows on which the concept is back."""


@dataclass(frozen=True)
class OnName:
    """A checkpoint's name, taken apart."""

    base: str
    """`none`, a weight preset, a baseline or a path."""
    seed: int | None = None
    """Of the training that made it; None: the preset's."""
    steps: int = 0
    """Of teaching it again."""
    other: bool = False
    """Whether it is taught other things than the concept."""

    @property
    def before(self) -> str:
        """The name of what is taught again."""
        return self.base if self.seed is None else f"{self.base}#{self.seed}"

    @property
    def settings(self) -> tuple[str, ...]:
        """The seed as a `--set`; nothing without one."""
        return () if self.seed is None else (f"{self.base}.seed={self.seed}",)


def lineage(on: str) -> OnName:
    """The name of a result cell's checkpoint, taken apart."""
    match = FORM.fullmatch(on)
    assert match is not None  # every text is a base at least
    seed = None if match["seed"] is None else int(match["seed"])
    return OnName(match["base"], seed, int(match["steps"] or 0), match["other"] is not None)


# --- taught again ----------------------------------------------------------------------------------------------------------


class Point(NamedTuple):
    """A checkpoint after some steps."""

    steps: int
    back: Metric
    """Percent of the forget rows on which the concept is seen."""
    kept: Metric | None
    """Retain accuracy."""


@dataclass(frozen=True)
class Curve:
    """One method on one checkpoint while that is taught again."""

    backbone: str
    concept: str
    suite: str
    method: str
    on: str
    """With its seed, where it has one."""
    variant: str
    lesson: str
    """`the concept` or `other things`."""
    points: tuple[Point, ...]
    """By steps; the first is before any."""

    @property
    def area(self) -> float:
        """Mean of the rate over log2(1 + steps), in percent; 0 where the concept never comes back."""
        marks = [(math.log2(1 + point.steps), value(point.back)) for point in self.points]
        spans = itertools.pairwise(marks)
        return sum((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in spans) / (marks[-1][0] - marks[0][0])

    @property
    def half(self) -> float | None:
        """Steps until it is back on half of the rows, between two points by log2(1 + steps); None where it never is."""
        marks = [(math.log2(1 + point.steps), value(point.back)) for point in self.points]
        if marks[0][1] >= HALF:
            return 0.0
        for (x1, y1), (x2, y2) in itertools.pairwise(marks):
            if y2 >= HALF:
                return float(2 ** (x1 + (x2 - x1) * (HALF - y1) / (y2 - y1)) - 1)
        return None


def value(metric: Metric) -> float:
    """A metric's value, which is there."""
    assert metric.value is not None
    return metric.value


def curves(cells: Sequence[ResultCell]) -> list[Curve]:
    """A curve for each method and checkpoint that was taught again, in the order of names.

    Cells without a rate are left out, and so are curves of a single point.
    """
    groups: dict[tuple[object, ...], dict[int, Point]] = defaultdict(dict)
    firsts: dict[tuple[object, ...], tuple[ResultCell, OnName]] = {}
    plain: dict[tuple[object, ...], Point] = {}
    for cell in cells:
        rate = cell.metrics.get("fsr")
        if rate is None or rate.value is None:
            continue
        own = lineage(cell.on)
        key = (place_of(cell), cell.method, own.before, _without_lessons(cell.variant))
        point = Point(own.steps, turned(rate), _there(cell.metrics.get("retain_accuracy")))
        if own.steps:
            groups[*key, own.other][own.steps] = point
            firsts.setdefault((*key, own.other), (cell, own))
        else:
            plain[key] = point
    return [
        _curve(*firsts[key], {**({0: plain[key[:-1]]} if key[:-1] in plain else {}), **points})
        for key, points in sorted(groups.items(), key=lambda pair: _order(*firsts[pair[0]]))
        if len(points) + (key[:-1] in plain) > 1
    ]


def _without_lessons(variant: str) -> str:
    """A variant less how the checkpoint was taught, which the plain one does not have."""
    return ",".join(part for part in variant.split(",") if part and not part.startswith("relearn."))


def _there(metric: Metric | None) -> Metric | None:
    return metric if metric is not None and metric.value is not None else None


def _order(cell: ResultCell, own: OnName) -> tuple[object, ...]:
    return backbone_text(cell), cell.concept, cell.suite, own.other, own.base != "none", own.base, own.seed or 0, cell.method


def _curve(cell: ResultCell, own: OnName, points: dict[int, Point]) -> Curve:
    lesson = "other things" if own.other else "the concept"
    ordered = tuple(points[steps] for steps in sorted(points))
    return Curve(backbone_text(cell), cell.concept, cell.suite, cell.method, own.before, cell.variant, lesson, ordered)


# --- seeds -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """One metric of a checkpoint over the seeds that made it."""

    backbone: str
    concept: str
    suite: str
    method: str
    on: str
    variant: str
    metric: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    half_width: float | None
    """Mean over the seeds of half the interval over rows."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.values)

    @property
    def deviation(self) -> float:
        """Between the seeds: the standard deviation of a sample."""
        return stdev(self.values)


def spreads(cells: Sequence[ResultCell], metrics: Iterable[str]) -> list[Spread]:
    """The metrics of each checkpoint that two or more seeds made, on the same rows."""
    groups: dict[tuple[object, ...], list[tuple[int, ResultCell]]] = defaultdict(list)
    for cell in cells:
        own = lineage(cell.on)
        if own.seed is not None:
            groups[place_of(cell), cell.method, own.base, own.steps, own.other, cell.variant].append((own.seed, cell))
    found = []
    for members in groups.values():
        ordered = sorted(members, key=lambda pair: pair[0])
        found += [spread for name in metrics if (spread := _spread(name, ordered)) is not None]
    return found


def _spread(name: str, members: Sequence[tuple[int, ResultCell]]) -> Spread | None:
    having = [(seed, cell, cell.metrics[name]) for seed, cell in members if _there(cell.metrics.get(name)) is not None]
    if len(having) < 2:
        return None
    cell, own = having[0][1], lineage(having[0][1].on)
    lesson = f"~{own.steps}{':other' if own.other else ''}" if own.steps else ""
    ends = [(metric.high - metric.low) / 2 for _, _, metric in having if metric.low is not None and metric.high is not None]
    return Spread(
        backbone_text(cell), cell.concept, cell.suite, cell.method, f"{own.base}{lesson}", cell.variant, name,
        tuple(seed for seed, _, _ in having), tuple(value(metric) for _, _, metric in having), fmean(ends) if ends else None,
    )
