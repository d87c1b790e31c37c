"""A metric as text."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from srbench.analysis.judging import NOT_FINITE
from srbench.analysis.records import Metric, resolved
from srbench.tables.sheet import Item

ARROWS = {"higher": "↑", "lower": "↓"}
STAR = "★"
HEADINGS = {"csdr_floor": "csdr seed-to-seed"}
"""Metric -> its name in tables, where that of files would mislead: two pictures of one seed may be nearer than two seeds."""
DASH = "–"
"""Stands where a line has no such metric."""


def named(metric: str) -> str:
    """A metric's name as tables show it; files and options keep its own."""
    return HEADINGS.get(metric, metric)


OVER_PHRASES = "§"
"""Before an interval over phrases."""
ADDED = "added_ms"
NOT_RESOLVED, ONE_BATCH = "not resolved", "(one batch)"


@dataclass(frozen=True)
class Shown:
    """A metric as text: its value, its interval, the bounds where rows failed, or the reason why there is no value."""

    value: str
    interval: str = ""
    """For a difference also its corrected p-value."""
    bounds: tuple[str, ...] = ()
    reason: str = ""


def shown(metric: Metric | None) -> Shown:
    """A metric as text; a dash where there is none."""
    if metric is None:
        return Shown(DASH)
    if metric.value is None or not math.isfinite(metric.value):
        return Shown("n/a", reason=metric.reason or NOT_FINITE)
    interval = "" if metric.low is None or metric.high is None else f"[{digits(metric.low)}, {digits(metric.high)}]"
    if not metric.test:
        return Shown(digits(metric.value), interval, (*_over_phrases(metric), *_bounds(metric)))
    tested = () if metric.p_holm is None else (p_text(metric.p_holm),)
    return Shown(f"{'+' * (metric.value > 0)}{digits(metric.value)}", interval, (*_bounds(metric), *tested))


def _over_phrases(metric: Metric) -> tuple[str, ...]:
    if metric.phrase_low is None or metric.phrase_high is None:
        return ()
    return (f"{OVER_PHRASES} [{digits(metric.phrase_low)}, {digits(metric.phrase_high)}]",)


def shown_as(name: str, metric: Metric | None) -> Shown:
    """A metric as text, by its name: a time is shown with what its interval leaves of it."""
    text = shown(metric)
    if name != ADDED or metric is None or metric.value is None or text.reason:
        return text
    return replace(added(metric.value, metric.low, metric.high, metric.base), bounds=text.bounds)


def added(value: float, low: float | None, high: float | None, base: float | None = None) -> Shown:
    """Additional milliseconds as text: a bound where the interval is wider than the difference. base: what it adds to."""
    if low is None or high is None:
        return Shown(digits(value), ONE_BATCH)
    if resolved(value, low, high):
        return Shown(digits(value), f"[{digits(low)}, {digits(high)}]")
    far = max(abs(low), abs(high))
    return Shown(NOT_RESOLVED, f"within ±{digits(100 * far / base)} %" if base else f"within ±{digits(far)} ms")


def p_text(p: float) -> str:
    """A p-value with two digits of meaning."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _bounds(metric: Metric) -> tuple[str, ...]:
    if metric.scored == metric.n:
        return ()
    counted = f"n {metric.scored}/{metric.n}"
    if metric.worst is None or metric.best is None:
        return (counted,)
    return f"{digits(metric.worst)} to {digits(metric.best)}", counted


def digits(value: float) -> str:
    """Three decimals below 0.1, two below 10, one from there on; 0 and 100 without any are exact. No zero has a minus."""
    if value in (0, 100):
        return f"{value:z.0f}"
    if abs(value) < 0.0995:
        return f"{value:z.3f}"
    return f"{value:z.2f}" if abs(value) < 9.995 else f"{value:z.1f}"


def item_of(metric: Metric | None, best: bool = False, mark: str = "", name: str = "") -> Item:
    """A metric as a field of a table. name: the metric's, where it decides what is shown."""
    text = shown_as(name, metric)
    return Item(text.value, text.interval, text.bounds, mark, reason=text.reason, best=best)
