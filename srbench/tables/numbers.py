"""A metric as text."""

from __future__ import annotations

import math
from dataclasses import dataclass

from srbench.analysis.judging import NOT_FINITE
from srbench.analysis.records import Metric
from srbench.tables.sheet import Item

ARROWS = {"higher": "↑", "lower": "↓"}
STAR = "★"
DASH = "–"
"""Stands where a line has no such metric."""


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
        return Shown(digits(metric.value), interval, _bounds(metric))
    tested = () if metric.p_holm is None else (p_text(metric.p_holm),)
    return Shown(f"{'+' * (metric.value > 0)}{digits(metric.value)}", interval, (*_bounds(metric), *tested))


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


def item_of(metric: Metric | None, best: bool = False, mark: str = "") -> Item:
    """A metric as a field of a table."""
    text = shown(metric)
    return Item(text.value, text.interval, text.bounds, mark, reason=text.reason, best=best)
