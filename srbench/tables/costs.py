"""What methods cost as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

from srbench.analysis.costs import Cost
from srbench.tables.numbers import NOT_RESOLVED, Shown, added
from srbench.tables.sheet import Column, Item, Layout, Section, Sheet, Tables

NOTES = (
    "prepare: making the checkpoint and what the method learns or reads, on the machine that made it",
    "added: beside 'none' on the same checkpoint, mean over the cells, with the least and the most; of one cell its interval",
    "peak: of the whole process on a CPU, of torch on CUDA",
)
UNRESOLVED = "added: not resolved where that range is wider than the mean; within: its far end"
MISSING = "n/a"


def tables(costs: Sequence[Cost], notes: Sequence[str] = ()) -> Tables:
    """One sheet, a line a method. notes: below it."""
    records = [asdict(cost) for cost in costs]
    names = tuple(field.name for field in fields(Cost))
    layout = Layout(blocks=False, titled=False)
    return Tables("srbench compare --costs", (_sheet(costs, notes),), names, records, {"costs": records}, layout)


def _sheet(costs: Sequence[Cost], notes: Sequence[str]) -> Sheet:
    several = len({cost.backbone for cost in costs}) > 1
    columns = (
        Column("method", "l"), *(Column("backbone", "l"),) * several, Column("prepare s"), Column("added ms an image"),
        *(Column(heading, wraps=False) for heading in ("parameters", "peak MB", "cells")), Column("source", "l", wraps=False),
    )  # fmt: skip
    lines = tuple(
        (Item(cost.method), *(Item(cost.backbone),) * several, *_numbers(cost), Item(cost.source)) for cost in costs
    )
    where = "" if several or not costs else f"on {costs[0].backbone}"
    return Sheet("What methods cost", where, columns, (Section("", lines),), (*NOTES, *_unresolved(costs), *notes))


def _unresolved(costs: Sequence[Cost]) -> list[str]:
    return [UNRESOLVED] if any(text is not None and text.value == NOT_RESOLVED for text in map(added_of, costs)) else []


def _numbers(cost: Cost) -> tuple[Item, ...]:
    prepared, peak = _number(cost.prepare_seconds, "z.1f"), _number(cost.peak_mb, "z,.0f")
    return prepared, _added(cost), _number(cost.parameters, ",d"), peak, Item(str(cost.cells))


def _number(value: float | None, form: str) -> Item:
    return Item(MISSING if value is None else format(value, form))


def added_of(cost: Cost) -> Shown | None:
    """Additional milliseconds as text, with their range; None where no cell has any."""
    return None if cost.added_ms is None else added(cost.added_ms, cost.added_low, cost.added_high, cost.added_base)


def _added(cost: Cost) -> Item:
    text = added_of(cost)
    if text is None:
        return Item("", tail=MISSING)
    return Item(text.value, tail=f", {text.interval}" if text.value == NOT_RESOLVED else f" {text.interval}")
