"""Rates by threshold of the judge as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from srbench.analysis.origin import SHOWN
from srbench.analysis.sensitivity import Curve
from srbench.tables.boards import coarse
from srbench.tables.numbers import ARROWS, item_of
from srbench.tables.sheet import Column, Item, Section, Sheet, Tables

OF_RATE = ("value", "low", "high", "n", "scored", "reason")
OF_CURVE = ("backbone", "concept", "suite", "method", "dtype", "rows_sha", "metric", "classes", "own_threshold")
OWN = "(own): the threshold that the judge itself has."


def tables(curves: Sequence[Curve], notes: Sequence[str] = ()) -> Tables:
    """One sheet a concept, suite, backbone, set of rows and list of classes. notes: below each of them."""
    groups: dict[tuple[str, ...], list[Curve]] = {}
    for curve in curves:
        place = (curve.concept, curve.suite, curve.backbone, curve.dtype, curve.rows_sha[:SHOWN])
        groups.setdefault((*place, curve.metric, ", ".join(curve.classes)), []).append(curve)
    ordered = [curve for group in groups.values() for curve in group]
    return Tables(
        title="srbench compare --sensitivity",
        sheets=tuple(_sheet(group, notes) for group in groups.values()),
        fields=(*OF_CURVE, "threshold", *OF_RATE),
        records=[record for curve in ordered for record in _records(curve)],
        data={"sensitivity": [{**asdict(curve), "rates": list(_rates(curve))} for curve in ordered]},
    )


def _sheet(curves: Sequence[Curve], notes: Sequence[str]) -> Sheet:
    first = curves[0]
    title = f"{first.concept} × {first.suite}: {first.metric} {ARROWS[first.rates[0][1].better]} by threshold"
    caption = f"{', '.join(first.classes)} · {first.backbone} · {first.dtype} · rows {first.rows_sha[:SHOWN]}"
    columns = (Column("method", "l"), *(_column(threshold, first.own_threshold) for threshold, _ in first.rates))
    lines = tuple((Item(curve.method), *(item_of(rate) for _, rate in curve.rates)) for curve in curves)
    own = any(threshold == first.own_threshold for threshold, _ in first.rates)
    few = coarse({first.metric: [rate for curve in curves for _, rate in curve.rates]})
    return Sheet(title, caption, columns, (Section("", lines),), (*([OWN] if own else []), *few, *notes))


def _column(threshold: float, own: float | None) -> Column:
    text = f"{threshold:g}"
    return Column(f"{text} (own)", narrow=f"{text}\n(own)", wraps=False) if threshold == own else Column(text, wraps=False)


def _rates(curve: Curve) -> Iterator[dict[str, Any]]:
    for threshold, rate in curve.rates:
        yield {"threshold": threshold, **{name: getattr(rate, name) for name in OF_RATE}}


def _records(curve: Curve) -> Iterator[dict[str, Any]]:
    """A record a threshold, in percent."""
    shared = {name: getattr(curve, name) for name in OF_CURVE} | {"classes": ", ".join(curve.classes)}
    yield from ({**shared, **rate} for rate in _rates(curve))
