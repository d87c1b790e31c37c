"""Computes a cell's metrics, with intervals, from its rows."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from srbench.analysis.intervals import Interval, bootstrap_mean, clustered_wilson, phrase_wilson
from srbench.analysis.judging import NOT_FINITE, Unscored, raw_of
from srbench.analysis.metrics import COUNTED, IF_DRAWN, Definition, Lens, Times, definition, lens_of, observe, of_scorers
from srbench.analysis.records import CellRecord, ImageRecord, Metric, Observation, RowRecord
from srbench.catalog import plugins
from srbench.catalog.specs import Better, ProtocolSpec
from srbench.errors import SrbenchError
from srbench.faults import contained
from srbench.scorers.base import SET, kind_of

ONE_BATCH = "one batch was timed: no interval"


def measure(
    cell: CellRecord,
    judge: ProtocolSpec,
    none: CellRecord | None,
    times: Times | None = None,
) -> dict[str, Metric]:
    """The metrics of the cell's suite, in its order; rates in percent.

    none: the untouched backbone's cell on the same rows. times: its batches on all suites of the run, for `added_ms`; by
    default those of the cell `none`.
    Raises UsageError for an unknown metric name.
    """
    lens = lens_of(cell, judge, times or baseline_times([none] if none else []))
    counted = (COUNTED,) if judge.unit == "detections" else ()
    names = (*cell.metrics, *(IF_DRAWN[name] for name in cell.metrics if name in IF_DRAWN), *counted)
    return {name: _metric(name, cell, lens, none) for name in dict.fromkeys(names)}


def if_drawn(cell: CellRecord, judge: ProtocolSpec) -> dict[str, Metric]:
    """The cell's rates on the rows on which the untouched backbone shows the concept."""
    names = [name for metric, name in IF_DRAWN.items() if metric in cell.metrics]
    return {name: _metric(name, cell, lens_of(cell, judge), None) for name in names}


def baseline_times(cells: Iterable[CellRecord]) -> Times:
    """Sampling times of the untouched backbone's batches, from its cells."""
    times: dict[tuple[str, str], dict[int, float]] = {}
    for record in (record for cell in cells for record in cell.rows):
        for image in (record.image, record.reference, record.floor):
            if image is not None and image.timing.run:
                taken = image.timing
                times.setdefault((taken.run, taken.recipe), {})[taken.batch] = taken.seconds
    return times


def _metric(name: str, cell: CellRecord, lens: Lens, none: CellRecord | None) -> Metric:
    rule = definition(name)
    reason = cell.blocked or rule.refuse(cell, none)
    if reason:
        return Metric(rule.better, reason=reason)
    if name in of_scorers() and kind_of(of_scorers()[name][1]) == SET:
        return _over_set(name, rule, [record for record in cell.rows if rule.rows(record)])
    metric = summarise(rule, observe(rule, cell, lens))
    return metric if rule.base is None or metric.value is None else _timed(metric, rule, cell, lens)


def _timed(metric: Metric, rule: Definition, cell: CellRecord, lens: Lens) -> Metric:
    """A difference in time, with the number of batches and the mean of what it is a difference from."""
    assert rule.base is not None  # see `_metric`
    bases = observe(replace(rule, value=rule.base), cell, lens)
    values = [each.value for each in bases if each.value is not None]
    batches = len({each.together for each in bases if each.value is not None})
    reason = ONE_BATCH if metric.low is None and batches == 1 else metric.reason
    return replace(metric, reason=reason, trials=batches, base=math.fsum(values) / len(values))


def _over_set(name: str, rule: Definition, rows: Sequence[RowRecord]) -> Metric:
    """One number for the images of `rows` and their reference images; rows that lack one of the two are left out."""
    scorer, meta = of_scorers()[name]
    if not rows:
        return Metric(rule.better, reason=rule.nobody)
    pairs, reasons = [], []
    for record in rows:
        try:
            pairs.append((_vector(record.image, scorer, "image"), _vector(record.reference, scorer, "reference image")))
        except Unscored as unscored:
            reasons.append(unscored.message)
    counts: dict[str, Any] = {"n": len(rows), "scored": len(pairs)}
    if not pairs:
        return Metric(rule.better, reason=most_common(reasons), **counts)
    if len({each.shape for pair in pairs for each in pair}) > 1:
        return Metric(rule.better, reason="stored vectors of several lengths: srbench verify names them", **counts)
    ours, theirs = (np.stack(each) for each in zip(*pairs, strict=True))  # (N, D)
    try:
        with contained(f"{scorer}, comparing sets"):
            numbers = _reduced(scorer, _Vectors(ours), _Vectors(theirs))
            value = float(numbers[meta["metrics"][name]["field"]])
    except SrbenchError as error:
        return Metric(rule.better, reason=error.message, **counts)
    if not math.isfinite(value):
        return Metric(rule.better, reason=NOT_FINITE, **counts)
    return Metric(rule.better, value, reason="of a set: no interval", **counts)


class _Vectors:
    """Vectors (N, D), hashable by content for the cache."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self._content = hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Vectors) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)


@lru_cache(maxsize=64)
def _reduced(scorer: str, ours: _Vectors, theirs: _Vectors) -> dict[str, float]:
    """All numbers that the scorer computes for two sets; cached, since each is a metric of its own."""
    return dict(plugins.load("scorers", scorer).reduce(ours.values, theirs.values))


def _vector(image: ImageRecord | None, scorer: str, what: str) -> np.ndarray:
    return raw_of(image, scorer, what)["feature"]


def summarise(rule: Definition, seen: Sequence[Observation]) -> Metric:
    """Value and interval over the scored rows; for rates also bounds where some rows are not scored."""
    if not seen:
        return Metric(rule.better, reason=rule.nobody)
    scored = [each for each in seen if each.value is not None]
    worst, best = _bounds(rule, scored, len(seen) - len(scored))
    counts: dict[str, Any] = {"n": len(seen), "scored": len(scored), "worst": worst, "best": best}
    if not scored:
        return Metric(rule.better, reason=most_common(each.why for each in seen), **counts)
    values = [each.value for each in seen if each.value is not None]
    groups = [each.together for each in scored]
    if rule.rate and len(set(groups)) < len(groups):
        counts["trials"] = len(set(groups))
    if rule.rate:
        counts |= _over_phrases(scored)
    interval = clustered_wilson([bool(value) for value in values], groups) if rule.rate else bootstrap_mean(values, groups)
    return _finite(rule.better, interval, counts)


def _over_phrases(scored: Sequence[Observation]) -> dict[str, Any]:
    """Number of phrases of a rate's rows, and the interval over them; none where a row names no phrase, or they are few."""
    phrases = [each.row.phrase for each in scored]
    named = {phrase for phrase in phrases if phrase}
    interval = phrase_wilson([bool(each.value) for each in scored], phrases) if all(phrases) else None
    low, high = interval or (None, None)
    return {"phrases": len(named), "phrase_low": low, "phrase_high": high} if named else {}


def _bounds(rule: Definition, scored: Sequence[Observation], missing: int) -> tuple[float | None, float | None]:
    """Worst and best case in percent, by how the missing rows are counted. Means have no such bounds."""
    if not missing or not rule.rate:
        return None, None
    hits, n = sum(bool(each.value) for each in scored), len(scored) + missing
    low, high = 100 * hits / n, 100 * (hits + missing) / n
    return (low, high) if rule.better == "higher" else (high, low)


def most_common(reasons: Iterable[str]) -> str:
    """The reason of most rows, with their number where there are other reasons."""
    counted = Counter(reasons)
    reason, times = min(counted.items(), key=lambda item: (-item[1], item[0]))
    return reason if len(counted) == 1 else f"{reason} ({times} of {counted.total()} rows)"


def _finite(better: Better, interval: Interval, counts: dict[str, Any]) -> Metric:
    if not math.isfinite(interval.value):
        return Metric(better, reason=NOT_FINITE, **counts)
    if interval.low is None or interval.high is None or not math.isfinite(interval.high - interval.low):
        return Metric(better, interval.value, reason="nothing to resample: no interval", **counts)
    return Metric(better, interval.value, interval.low, interval.high, **counts)
