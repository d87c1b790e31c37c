"""What changes from one method to another: per metric the difference with its interval and test, and the rows that flip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from srbench.analysis.gains import SUFFIX
from srbench.analysis.intervals import LEVEL, Interval, unpaired_difference
from srbench.analysis.metrics import METRICS, definition, lens_of, observe, of_scorers
from srbench.analysis.origin import place_of
from srbench.analysis.records import CellRecord, Metric
from srbench.analysis.results import DIFFERENCE, ResultCell, metric_to_dict, name_of, title_of
from srbench.analysis.significance import Answers, Both, PairedTest, answers, compared, corrected_together, matched
from srbench.catalog import load
from srbench.errors import UsageError
from srbench.scorers.base import SET, kind_of

ALPHA = 1 - LEVEL
UNPAIRED = "intervals"
"""In place of a test: no rows were at hand, and the difference is made of two intervals."""
NO_ROWS = "Rows of committed results are not here: a difference is made of both intervals, as if rows were independent, untested."


class Entry(NamedTuple):
    """A cell with its rows, where they are at hand."""

    cell: ResultCell
    record: CellRecord | None = None


@dataclass(frozen=True)
class Change:
    """One metric from a to b."""

    metric: str
    before: Metric
    after: Metric
    difference: Metric
    """b less a. Its test is empty where nothing can be said, with the reason."""
    gained: tuple[str, ...] = ()
    """Ids of the rows on which b is right and a is not; only of rates whose rows are at hand."""
    lost: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `not shown`; empty where there is no difference, or neither is better."""
        found = self.difference
        if found.value is None or not found.test:
            return ""
        if not _settled(found):
            return "not shown"
        return "better" if (found.value > 0) == (found.better == "higher") else "worse"


def _settled(found: Metric) -> bool:
    """Whether the difference is more than chance: by the corrected test, else by an interval that leaves out 0."""
    if found.p_holm is not None:
        return found.p_holm < ALPHA
    return found.low is not None and found.high is not None and not found.low <= 0 <= found.high


@dataclass(frozen=True)
class Comparison:
    """Two cells on the same rows."""

    a: Entry
    b: Entry
    changes: tuple[Change, ...]

    @property
    def paired(self) -> bool:
        """Whether the rows of both are at hand."""
        return self.a.record is not None and self.b.record is not None


# --- which metrics, and how they are looked at ------------------------------------------------------------------------


def has_rows(metric: str) -> bool:
    """Whether a metric is something of each row that another method has, too: no number of a set, no gain, no time."""
    scorers = of_scorers()
    if metric in scorers:
        return kind_of(scorers[metric][1]) != SET
    return metric in METRICS and METRICS[metric].starred


class Known:
    """Answers of records by metric, each made once; equal keys are one object, so that they are compared at a glance."""

    def __init__(self) -> None:
        self._answers: dict[tuple[int, str], Answers] = {}
        self._keys: dict[Any, Any] = {}

    def answers(self, record: CellRecord, metric: str) -> Answers:
        """One metric of a record, which has to outlive this."""
        place = id(record), metric
        if place not in self._answers:
            lens = lens_of(record, load.protocol(record.protocol))
            found = answers(observe(definition(metric), record, lens), record.origin.seed)
            self._answers[place] = replace(found, keys=self._keys.setdefault(found.keys, found.keys))
        return self._answers[place]


# --- from a to b ------------------------------------------------------------------------------------------------------


def comparisons(pairs: Sequence[tuple[Entry, Entry]]) -> list[Comparison]:
    """Each pair (a, b) on every metric that both have: b less a, p-values Holm-corrected within concept x suite x metric."""
    known = Known()
    made = [[_change(a, b, metric, known) for metric in _shared(a.cell, b.cell)] for a, b in pairs]
    tests: dict[tuple[Hashable, ...], list[tuple[int, int, PairedTest]]] = defaultdict(list)
    for i, ((a, _), changes) in enumerate(zip(pairs, made, strict=True)):
        for j, (_, test) in enumerate(changes):
            if test is not None:
                tests[(*place_of(a.cell), test.metric)].append((i, j, test))
    for family in tests.values():
        for (i, j, _), test in zip(family, corrected_together([test for _, _, test in family]), strict=True):
            change, _ = made[i][j]
            made[i][j] = replace(change, difference=replace(change.difference, p_holm=test.p_holm)), test
    return [Comparison(a, b, tuple(change for change, _ in changes)) for (a, b), changes in zip(pairs, made, strict=True)]


def _shared(a: ResultCell, b: ResultCell) -> list[str]:
    """Metrics of both, but for gains, which are differences themselves."""
    return [name for name in a.metrics if name in b.metrics and not name.endswith(SUFFIX)]


def _change(a: Entry, b: Entry, metric: str, known: Known) -> tuple[Change, PairedTest | None]:
    before, after = a.cell.metrics[metric], b.cell.metrics[metric]
    if before.value is None or after.value is None:
        side, why = (a, before.reason) if before.value is None else (b, after.reason)
        return Change(metric, before, after, Metric(after.better, reason=f"{name_of(side.cell)}: {why}")), None
    if a.record is None or b.record is None or not has_rows(metric):
        return Change(metric, before, after, _of_intervals(before, after)), None
    rows = matched(known.answers(b.record, metric), known.answers(a.record, metric))
    rate = definition(metric).rate
    test = compared((name_of(b.cell), name_of(a.cell), metric), rate, rows)
    if test.difference is None:
        return Change(metric, before, after, Metric(after.better, reason="no row is scored in both")), None
    reason = "nothing to resample: no interval" if test.low is None else ""
    found = Metric(after.better, test.difference, test.low, test.high, test.n, test.n, reason, test=test.test, p=test.p)
    return Change(metric, before, after, found, *(_flips(rows, after.better) if rate else ())), test


def _of_intervals(before: Metric, after: Metric) -> Metric:
    """The difference of two numbers whose rows are not at hand."""
    ends = [_ends(each) for each in (after, before)]
    value = (after.value or 0.0) - (before.value or 0.0)
    if ends[0] is None or ends[1] is None:
        return Metric(after.better, value, n=after.n, scored=after.scored, reason="one of them has no interval")
    found: Interval = unpaired_difference(ends[0], ends[1])
    return Metric(after.better, found.value, found.low, found.high, after.n, after.scored, test=UNPAIRED)


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
    """The cells; b of every pair (a, b) has for each metric a further one, what it differs by from a, tested as one family."""
    more: dict[int, dict[str, Metric]] = defaultdict(dict)
    notes: dict[int, tuple[str, ...]] = {}
    _refuse_twice(pairs)
    for found in comparisons(pairs):
        place = id(found.b.cell)
        more[place] |= {f"{change.metric}{DIFFERENCE}": change.difference for change in found.changes if _tells(change)}
        said = f"{DIFFERENCE}: less that of {name_of(found.a.cell)} on the same rows"
        notes[place] = (f"{said}; p: Holm-corrected paired test." if found.paired else f"{said}. {NO_ROWS}",)
    return [
        replace(cell, metrics={**cell.metrics, **more[id(cell)]}, notes=(*cell.notes, *notes.get(id(cell), ())))
        for cell, _ in entries
    ]


def _refuse_twice(pairs: Sequence[tuple[Entry, Entry]]) -> None:
    """Raise `UsageError` where a cell is compared with several: it has one column for differences."""
    first: dict[int, ResultCell] = {}
    for a, b in pairs:
        other = first.setdefault(id(b.cell), a.cell)
        if other is not a.cell:
            lines = f'"{name_of(other)}" or "{name_of(a.cell)}"'
            raise UsageError(f"{title_of(b.cell)}: two lines to compare {name_of(b.cell)} with", f"Name one in full: {lines}")


def _tells(change: Change) -> bool:
    """Whether a column of differences has something to say of it."""
    return has_rows(change.metric) and (change.difference.value is not None or change.before.value is not None)


def to_dict(found: Comparison) -> dict[str, Any]:
    """JSON-ready, with every row that flips."""
    cell = found.b.cell
    place = {name: getattr(cell, name) for name in ("backbone", "concept", "suite", "protocol", "dtype", "rows_sha")}
    ground = {name: value for name, value in cell.origin.to_dict().items() if name in ("backbone_sha", "noise", "seed")}
    place |= ground
    sides = {
        side: {"method": name_of(replace(each.cell, mark="")), "run": each.cell.run, **_making(each.cell, ground)}
        for side, each in (("a", found.a), ("b", found.b))
    }
    return {**place, **sides, "paired": found.paired, "metrics": {each.metric: _change_to_dict(each) for each in found.changes}}


def _making(cell: ResultCell, ground: Mapping[str, Any]) -> dict[str, Any]:
    """What made one side, beside what both share."""
    return {name: value for name, value in cell.origin.to_dict().items() if name not in ground}


def _change_to_dict(change: Change) -> dict[str, Any]:
    numbers = {"a": change.before, "b": change.after, "difference": change.difference}
    found: dict[str, Any] = {name: metric_to_dict(metric) for name, metric in numbers.items()}
    found["verdict"] = change.verdict
    if change.difference.p is not None and definition(change.metric).rate:
        found |= {"gained": list(change.gained), "lost": list(change.lost)}
    return found
