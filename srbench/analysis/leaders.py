"""Which cells hold the best value of a column, and whether a test tells that value from the next best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from srbench.analysis.differences import AnswerCache, has_rows
from srbench.analysis.intervals import LEVEL, unpaired_difference
from srbench.analysis.metrics import definition
from srbench.analysis.records import CellRecord, Metric
from srbench.analysis.results import ResultCell
from srbench.analysis.significance import compared, holm, matched

ALPHA = 1 - LEVEL
RowsOf = Callable[[ResultCell], CellRecord | None]
"""A cell's rows, where they are stored here."""


def no_rows(cell: ResultCell) -> CellRecord | None:
    """`RowsOf` where no rows are at hand."""
    return None


class Contest(NamedTuple):
    """The best value of one metric against the next best."""

    best: tuple[ResultCell, ...]
    """Cells that share the best value."""
    p: float | None
    """The largest p of the paired tests between the two values' cells; None where none of them is paired."""
    unpaired: bool
    """Whether any of these differences has no paired test."""
    apart: bool
    """Whether the intervals of those leave out 0."""


@dataclass(frozen=True)
class Leaders:
    """The cells with a star, by metric, and what tells them from the rest."""

    cells: Mapping[str, tuple[ResultCell, ...]] = field(default_factory=dict)
    tests: int = 0
    """Paired tests of the table, a metric each, Holm-corrected together."""
    paired: bool = False
    """Whether a star rests on paired tests."""
    unpaired: bool = False
    """Whether a star rests on intervals, alone or besides."""


def leaders(whole: Mapping[str, Sequence[ResultCell]], rows_of: RowsOf = no_rows) -> Leaders:
    """The stars of one table. whole: metric -> the cells that have it on every row and may be the best.

    The best value of a metric is tested against the next best one: on the same rows where these are stored here, else by the
    interval of the difference of two independent values. Where several cells share a value, every pair has to differ.
    """
    cache = AnswerCache()
    contests = {metric: found for metric, cells in whole.items() if (found := _contest(metric, cells, rows_of, cache))}
    paired = [metric for metric, contest in contests.items() if contest.p is not None]
    corrected = dict(zip(paired, holm([contests[metric].p or 0.0 for metric in paired]), strict=True))
    won = {
        metric: contest for metric, contest in contests.items() if contest.apart and corrected.get(metric, 0.0) < ALPHA
    }
    unpaired = any(contest.unpaired for contest in won.values())
    best = {metric: contest.best for metric, contest in won.items()}
    return Leaders(best, len(paired), any(metric in corrected for metric in won), unpaired)


def _contest(metric: str, cells: Sequence[ResultCell], rows_of: RowsOf, cache: AnswerCache) -> Contest | None:
    """None where all values are the same, or there is only one."""
    values = sorted({_value(cell, metric) for cell in cells})
    if len(values) < 2:
        return None
    if cells[0].metrics[metric].better == "higher":
        values.reverse()
    best, others = (tuple(cell for cell in cells if _value(cell, metric) == value) for value in values[:2])
    found = [_differ(metric, a, b, rows_of, cache) for a in best for b in others]
    tested = [p for p, _ in found if p is not None]
    return Contest(best, max(tested, default=None), len(tested) < len(found), all(apart for p, apart in found if p is None))


def _value(cell: ResultCell, metric: str) -> float:
    value = cell.metrics[metric].value
    assert value is not None  # only cells with a value are asked
    return value


def _differ(
    metric: str, a: ResultCell, b: ResultCell, rows_of: RowsOf, cache: AnswerCache
) -> tuple[float | None, bool]:
    """p of the paired test, or None and whether the interval of the difference leaves out 0."""
    records = [rows_of(cell) for cell in (a, b)] if has_rows(metric) else []
    if records and records[0] is not None and records[1] is not None:
        both = matched(*(cache.answers(record, metric) for record in records if record is not None))
        p = compared(("", "", metric), definition(metric).rate, both).p
        if p is not None:
            return p, True
    return None, clearly_differ(a.metrics[metric], b.metrics[metric])


def clearly_differ(a: Metric, b: Metric) -> bool:
    """Whether the interval of the difference, as if rows were independent, leaves out 0; no without intervals."""
    if None in (a.value, a.low, a.high, b.value, b.low, b.high):
        return False
    difference = unpaired_difference((a.value, a.low, a.high), (b.value, b.low, b.high))  # type: ignore[arg-type]  # no None
    return difference.low is not None and difference.high is not None and not difference.low <= 0 <= difference.high
