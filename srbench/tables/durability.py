"""The table that asks of each method whether the concept stays gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from srbench.analysis.durability import AXES, Durability, Stays, reversals
from srbench.analysis.records import Metric
from srbench.tables.numbers import DASH, digits, shown
from srbench.tables.sheet import Column, Item, Layout, Section, Sheet, Tables

HEADINGS = {
    "plain": "plain prompts", "text": "attacks in text", "pictures": "from pictures", "taught": "taught again",
    "rounded": "rounded",
}  # fmt: skip
UNTAUGHT = "acts while sampling: there are no weights to teach"
NOTES = (
    "percent of rows on which the judge does not see the concept, with its interval; weakest: the lowest of those that there are",
    "of several suites of a column the one that brings the concept back most often: it stands behind the number",
)


def tables(lines: Sequence[Durability]) -> Tables:
    """A sheet for each backbone and concept, a line a method."""
    places = dict.fromkeys((line.backbone, line.concept, line.rows) for line in lines)
    records = [record for line in lines for record in _records(line)]
    sheets = tuple(
        _sheet(place, [line for line in lines if (line.backbone, line.concept, line.rows) == place]) for place in places
    )
    layout = Layout(blocks=False)
    names = tuple(records[0]) if records else ()
    return Tables("srbench compare --durability", sheets, names, records, {"durability": records}, layout)


def _sheet(place: tuple[str, str, str], lines: Sequence[Durability]) -> Sheet:
    backbone, concept, rows = place
    columns = (
        Column("method", "l"), *(Column(text, narrow=text.replace(" ", "\n")) for text in HEADINGS.values()),
        Column("weakest"), Column("objects kept", narrow="objects\nkept"), Column("harm"),
    )  # fmt: skip
    title = f"Does {concept} stay gone on {backbone}?"
    return Sheet(title, rows, columns, (Section("", tuple(map(_line, lines))),), (*NOTES, *_measured(lines), *_turned(lines)))


def _line(line: Durability) -> tuple[Item, ...]:
    weakest = Item(DASH if line.weakest is None else digits(line.weakest))
    stays = (_stays(axis, line.axes.get(axis)) if axis in line.asked else Item("n/a", reason=UNTAUGHT) for axis in AXES)
    return Item(line.name), *stays, weakest, _item(line.kept), _item(line.harm)


def _stays(axis: str, stays: Stays | None) -> Item:
    if stays is None:
        return Item(DASH)
    text = shown(stays.metric)
    where = {"taught": f"after {stays.where}", "rounded": f"{stays.where} bits", "plain": ""}.get(axis, stays.where)
    return Item(text.value, text.interval, (where,) if where else ())


def _item(metric: Metric | None) -> Item:
    text = shown(metric)
    return Item(text.value, text.interval, reason=text.reason)


FILLED = {
    "text": "--suite mma", "pictures": "--suite image-to-image,half-denoised,inverted,inpaint",
    "taught": "--on W~32 --suite igmu", "rounded": "--suite igmu --set backbone.bits=4",
}  # fmt: skip
"""Axis -> what `srbench run` is to be given for it."""


def _measured(lines: Sequence[Durability]) -> list[str]:
    """The suites behind the columns that have several, and how columns without a number are filled."""
    found = [f"{HEADINGS[axis]}: not run; srbench run ... {how}" for axis, how in FILLED.items()
             if not any(axis in line.axes for line in lines)]  # fmt: skip
    for axis in ("text", "pictures"):
        suites = dict.fromkeys(suite for line in lines for suite in line.suites.get(axis, ()))
        found += [f"{HEADINGS[axis]}: {', '.join(suites)}"] if suites else []
    return found


def _turned(lines: Sequence[Durability]) -> list[str]:
    """Where the order on plain prompts turns round, a line an axis."""
    found: dict[str, dict[str, list[str]]] = {}
    for each in reversals(lines):
        found.setdefault(each.axis, {}).setdefault(each.plainly, []).append(each.along)
    return [
        f"{HEADINGS[axis]}: the order on plain prompts turns round for "
        + "; ".join(f"{name}, which falls behind {', '.join(others)}" for name, others in pairs.items())
        for axis, pairs in found.items()
    ]


def _records(line: Durability) -> list[dict[str, Any]]:
    same = {"backbone": line.backbone, "concept": line.concept, "rows": line.rows, "method": line.name}
    return [
        {
            **same, "axis": axis, "where": stays.where, "gone": stays.metric.value, "low": stays.metric.low,
            "high": stays.metric.high, "n": stays.metric.n,
        }
        for axis, stays in line.axes.items()
    ]  # fmt: skip
