"""Compares two methods: for each metric the difference with its interval and test, and the rows whose verdict flips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from srbench.analysis.gains import SUFFIX
from srbench.analysis.intervals import LEVEL, Interval, unpaired_difference
from srbench.analysis.metrics import METRICS, definition, lens_of, observe, of_scorers
from srbench.analysis.records import CellRecord, Metric
from srbench.analysis.results import DIFFERENCE, ResultCell, metric_to_dict, name_of, title_of
from srbench.analysis.significance import Answers, Both, answers, compared, matched, one_family
from srbench.catalog import load
from srbench.errors import UsageError
from srbench.scorers.base import SET, kind_of

ALPHA = 1 - LEVEL
UNPAIRED = "intervals"
"""In place of a test's name: the rows are not stored here, so the difference is made from two intervals."""
NO_ROWS = "Rows of committed results are not here: a difference is made of both intervals, as if rows were independent, untested."


class Entry(NamedTuple):
    """A cell, with its rows where they are stored here."""

    cell: ResultCell
    record: CellRecord | None = None


@dataclass(frozen=True)
class Change:
    """One metric from a to b."""

    metric: str
    before: Metric
    after: Metric
    difference: Metric
    """b minus a; without a test where there is no comparison, with the reason."""
    gained: tuple[str, ...] = ()
    """Ids of the rows on which b is right and a is not; only for rates whose rows are stored here."""
    lost: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `not shown` (not significant); empty where there is no tested difference."""
        difference = self.difference
        if difference.value is None or not difference.test:
            return ""
        if not _settled(difference):
            return "not shown"
        return "better" if (difference.value > 0) == (difference.better == "higher") else "worse"


def _settled(difference: Metric) -> bool:
    """Whether the difference is significant: by the corrected test, else by an interval that excludes 0."""
    if difference.p_holm is not None:
        return difference.p_holm < ALPHA
    return difference.low is not None and difference.high is not None and not difference.low <= 0 <= difference.high


@dataclass(frozen=True)
class Comparison:
    """Two cells on the same rows."""

    a: Entry
    b: Entry
    changes: tuple[Change, ...]

    @property
    def paired(self) -> bool:
        """Whether the rows of both cells are stored here."""
        return self.a.record is not None and self.b.record is not None


# --- metrics with values per row --------------------------------------------------------------------------------------


def has_rows(metric: str) -> bool:
    """Whether a metric has a value for each row that can be paired with another method's: not of a set, a gain or a time."""
    scorers = of_scorers()
    if metric in scorers:
        return kind_of(scorers[metric][1]) != SET
    return metric in METRICS and METRICS[metric].starred


class AnswerCache:
    """Caches the answers of records by metric; equal keys become one object, so that comparing them is fast."""

    def __init__(self) -> None:
        self._answers: dict[tuple[int, str], Answers] = {}
        self._keys: dict[Any, Any] = {}

    def answers(self, record: CellRecord, metric: str) -> Answers:
        """One metric of a record. The record must outlive the cache, which stores it by `id`."""
        place = id(record), metric
        if place not in self._answers:
            lens = lens_of(record, load.protocol(record.protocol))
            computed = answers(observe(definition(metric), record, lens), record.origin.seed)
            self._answers[place] = replace(computed, keys=self._keys.setdefault(computed.keys, computed.keys))
        return self._answers[place]


# --- from a to b ------------------------------------------------------------------------------------------------------


def comparisons(pairs: Sequence[tuple[Entry, Entry]]) -> list[Comparison]:
    """Each pair (a, b) on every metric that both have: b minus a. A pair is a table: its p-values are corrected together."""
    cache = AnswerCache()
    return [Comparison(a, b, _changes(a, b, cache)) for a, b in pairs]


def _changes(a: Entry, b: Entry, cache: AnswerCache) -> tuple[Change, ...]:
    changes = [_change(a, b, metric, cache) for metric in _shared(a.cell, b.cell)]
    corrected, _ = one_family([change.difference for change in changes])
    return tuple(
        change if difference is None else replace(change, difference=difference)
        for change, difference in zip(changes, corrected, strict=True)
    )


def _shared(a: ResultCell, b: ResultCell) -> list[str]:
    """Metrics that both have, except gains, which are differences themselves."""
    return [name for name in a.metrics if name in b.metrics and not name.endswith(SUFFIX)]


def _change(a: Entry, b: Entry, metric: str, cache: AnswerCache) -> Change:
    before, after = a.cell.metrics[metric], b.cell.metrics[metric]
    if before.value is None or after.value is None:
        side, why = (a, before.reason) if before.value is None else (b, after.reason)
        return Change(metric, before, after, Metric(after.better, reason=f"{name_of(side.cell)}: {why}"))
    if a.record is None or b.record is None or not has_rows(metric):
        return Change(metric, before, after, _of_intervals(before, after))
    rows = matched(cache.answers(b.record, metric), cache.answers(a.record, metric))
    rate = definition(metric).rate
    test = compared((name_of(b.cell), name_of(a.cell), metric), rate, rows)
    if test.difference is None:
        return Change(metric, before, after, Metric(after.better, reason="no row is scored in both"))
    reason = "nothing to resample: no interval" if test.low is None else ""
    difference = Metric(after.better, test.difference, test.low, test.high, test.n, test.n, reason, test=test.test, p=test.p)
    return Change(metric, before, after, difference, *(_flips(rows, after.better) if rate else ()))


def _of_intervals(before: Metric, after: Metric) -> Metric:
    """The difference of two numbers whose rows are not stored here."""
    ends = [_ends(each) for each in (after, before)]
    value = (after.value or 0.0) - (before.value or 0.0)
    if ends[0] is None or ends[1] is None:
        return Metric(after.better, value, n=after.n, scored=after.scored, reason="one of them has no interval")
    difference: Interval = unpaired_difference(ends[0], ends[1])
    return Metric(after.better, difference.value, difference.low, difference.high, after.n, after.scored, test=UNPAIRED)


def _ends(metric: Metric) -> tuple[float, float, float] | None:
    if metric.value is None or metric.low is None or metric.high is None:
        return None
    return metric.value, metric.low, metric.high


def _flips(rows: Both, better: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids of the rows on which only the first is right, and of those on which only the second is."""
    sign = 1 if better == "higher" else -1
    change = sign * (rows.a - rows.b)  # (N,)
    won, lost = (tuple(rows.ids[i] for i in np.flatnonzero(each)) for each in (change > 0, change < 0))
    return won, lost


# --- as columns -------------------------------------------------------------------------------------------------------


def with_differences(entries: Sequence[Entry], pairs: Sequence[tuple[Entry, Entry]]) -> list[ResultCell]:
    """The cells; b of every pair (a, b) gets for each metric its difference from a. A table corrects its p-values together."""
    more: dict[int, dict[str, Metric]] = defaultdict(dict)
    notes: dict[int, tuple[str, ...]] = {}
    _refuse_twice(pairs)
    for comparison in comparisons(pairs):
        place = id(comparison.b.cell)
        more[place] |= {f"{change.metric}{DIFFERENCE}": change.difference for change in comparison.changes if _tells(change)}
        note = f"{DIFFERENCE}: less that of {name_of(comparison.a.cell)} on the same rows"
        notes[place] = (f"{note}." if comparison.paired else f"{note}. {NO_ROWS}",)
    return [
        replace(cell, metrics={**cell.metrics, **more[id(cell)]}, notes=(*cell.notes, *notes.get(id(cell), ())))
        for cell, _ in entries
    ]


def _refuse_twice(pairs: Sequence[tuple[Entry, Entry]]) -> None:
    """Raise `UsageError` where a cell is compared with several others: there is one column of differences per metric."""
    first: dict[int, ResultCell] = {}
    for a, b in pairs:
        other = first.setdefault(id(b.cell), a.cell)
        if other is not a.cell:
            lines = f'"{name_of(other)}" or "{name_of(a.cell)}"'
            raise UsageError(f"{title_of(b.cell)}: two lines to compare {name_of(b.cell)} with", f"Name one in full: {lines}")


def _tells(change: Change) -> bool:
    """Whether the change belongs into a column of differences."""
    return has_rows(change.metric) and (change.difference.value is not None or change.before.value is not None)


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """JSON-ready, with the ids of all rows that flip."""
    cell = comparison.b.cell
    place = {name: getattr(cell, name) for name in ("backbone", "concept", "suite", "protocol", "dtype", "rows_sha")}
    ground = {name: value for name, value in cell.origin.to_dict().items() if name in ("backbone_sha", "noise", "seed")}
    place |= ground
    sides: dict[str, dict[str, Any]] = {}
    for side, cell in (("a", comparison.a.cell), ("b", comparison.b.cell)):
        making = {name: value for name, value in cell.origin.to_dict().items() if name not in ground}
        sides[side] = {"method": name_of(replace(cell, mark="")), "run": cell.run, **making}
    metrics = {change.metric: _change_to_dict(change) for change in comparison.changes}
    return {**place, **sides, "paired": comparison.paired, "metrics": metrics}


def _change_to_dict(change: Change) -> dict[str, Any]:
    numbers = {"a": change.before, "b": change.after, "difference": change.difference}
    data: dict[str, Any] = {name: metric_to_dict(metric) for name, metric in numbers.items()}
    data["verdict"] = change.verdict
    if change.difference.p is not None and definition(change.metric).rate:
        data |= {"gained": list(change.gained), "lost": list(change.lost)}
    return data
