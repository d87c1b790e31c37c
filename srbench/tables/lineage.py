"""Tables of checkpoints that were taught again, and of checkpoints that several seeds made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srbench.analysis.lineage import Curve, Point, Spread
from srbench.tables.numbers import DASH, digits, named, shown
from srbench.tables.sheet import Column, Item, Layout, Section, Sheet, Tables

OF_CURVES = (
    "back: percent of the forget rows on which the concept is seen after so many steps, with its interval over rows",
    "area: its mean over log2(1 + steps); half: steps until it is back on half of the rows, read between two points",
    "kept: retain accuracy before the first step and after the last; 'none' is the untouched backbone",
)
OF_SPREADS = (
    "between seeds: standard deviation of the metric over the seeds; over rows: half the mean interval over rows, beside it",
    "where the first is not small against the second, one seed does not stand for the method",
)


def curve_tables(curves: Sequence[Curve]) -> Tables:
    """A sheet for each concept, suite and lesson, a line a checkpoint."""
    records = [record for curve in curves for record in _records(curve)]
    names = tuple(records[0]) if records else ()
    places = dict.fromkeys((curve.backbone, curve.concept, curve.suite, curve.lesson) for curve in curves)
    sheets = tuple(
        _curve_sheet(place, [curve for curve in curves if (curve.backbone, curve.concept, curve.suite, curve.lesson) == place])
        for place in places
    )
    layout = Layout(blocks=False)
    return Tables("srbench compare --relearned", sheets, names, records, {"relearned": records}, layout)


def _curve_sheet(place: tuple[str, str, str, str], curves: Sequence[Curve]) -> Sheet:
    backbone, concept, suite, lesson = place
    steps = sorted({point.steps for curve in curves for point in curve.points})
    ends = (Column("area"), Column("half"), Column("kept"))
    columns = (Column("checkpoint", "l"), *(Column(f"back at {k}") for k in steps), *ends)
    lines = tuple(_curve_line(curve, steps) for curve in curves)
    return Sheet(f"{concept} × {suite} taught {lesson}", f"on {backbone}", columns, (Section("", lines),), OF_CURVES)


def _curve_line(curve: Curve, steps: Sequence[int]) -> tuple[Item, ...]:
    by_steps = {point.steps: point for point in curve.points}
    half = f"> {curve.points[-1].steps}" if curve.half is None else digits(curve.half)
    return (
        Item(_title(curve.method, curve.on, curve.variant)), *(_back(by_steps.get(k)) for k in steps), Item(digits(curve.area)),
        Item(half), Item(_kept(curve)),
    )  # fmt: skip


def _title(method: str, on: str, variant: str) -> str:
    """A checkpoint, the method on it, and the options that were changed."""
    return (on if method == "none" else f"{method} on {on}") + (f" ({variant})" if variant else "")


def _back(point: Point | None) -> Item:
    if point is None:
        return Item(DASH)
    text = shown(point.back)
    return Item(text.value, text.interval)


def _kept(curve: Curve) -> str:
    ends = [curve.points[0].kept, curve.points[-1].kept]
    return " → ".join(DASH if metric is None or metric.value is None else digits(metric.value) for metric in ends)


def _records(curve: Curve) -> list[dict[str, Any]]:
    same = {
        "backbone": curve.backbone, "concept": curve.concept, "suite": curve.suite, "method": curve.method, "on": curve.on,
        "variant": curve.variant, "lesson": curve.lesson, "area": curve.area, "half": curve.half,
    }  # fmt: skip
    return [
        {
            **same, "steps": point.steps, "back": point.back.value, "low": point.back.low, "high": point.back.high,
            "n": point.back.n, "kept": None if point.kept is None else point.kept.value,
        }
        for point in curve.points
    ]  # fmt: skip


def spread_tables(spreads: Sequence[Spread]) -> Tables:
    """A sheet for each concept and suite, a line a checkpoint and metric."""
    records = [
        {
            "backbone": each.backbone, "concept": each.concept, "suite": each.suite, "method": each.method, "on": each.on,
            "variant": each.variant, "metric": each.metric, "seeds": len(each.seeds), "mean": each.mean,
            "least": min(each.values), "most": max(each.values), "between_seeds": each.deviation, "over_rows": each.half_width,
        }
        for each in spreads
    ]  # fmt: skip
    places = dict.fromkeys((each.backbone, each.concept, each.suite) for each in spreads)
    sheets = tuple(
        _spread_sheet(place, [each for each in spreads if (each.backbone, each.concept, each.suite) == place]) for place in places
    )
    names = tuple(records[0]) if records else ()
    return Tables("srbench compare --seeds", sheets, names, records, {"seeds": records}, Layout(blocks=False))


def _spread_sheet(place: tuple[str, str, str], spreads: Sequence[Spread]) -> Sheet:
    backbone, concept, suite = place
    columns = (
        Column("checkpoint", "l"), Column("metric", "l"), Column("seeds"), Column("mean"), Column("least to most"),
        Column("between seeds"), Column("over rows"),
    )  # fmt: skip
    lines = tuple(
        (
            Item(_title(each.method, each.on, each.variant)), Item(named(each.metric)), Item(str(len(each.seeds))),
            Item(digits(each.mean)), Item(f"{digits(min(each.values))} to {digits(max(each.values))}"),
            Item(f"± {digits(each.deviation)}"),
            Item(DASH if each.half_width is None else f"± {digits(each.half_width)}"),
        )
        for each in spreads
    )  # fmt: skip
    return Sheet(f"{concept} × {suite}: seeds", f"on {backbone}", columns, (Section("", lines),), OF_SPREADS)
