"""What methods cost as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

from srbench.analysis.costs import Cost
from srbench.tables.sheet import Column, Item, Layout, Section, Sheet, Tables

NOTES = (
    "prepare: making the checkpoint and what the method learns or reads, on the machine that made it",
    "added: beside 'none' on the same checkpoint, mean over the cells, with the least and the most",
    "peak: of the whole process on a CPU, of torch on CUDA",
)
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
        *(Column(heading, wraps=False) for heading in ("parameters", "peak MB", "cells")),
    )  # fmt: skip
    lines = tuple((Item(cost.method), *(Item(cost.backbone),) * several, *_numbers(cost)) for cost in costs)
    where = "" if several or not costs else f"on {costs[0].backbone}"
    return Sheet("What methods cost", where, columns, (Section("", lines),), (*NOTES, *notes))


def _numbers(cost: Cost) -> tuple[Item, ...]:
    prepared, peak = _number(cost.prepare_seconds, "z.1f"), _number(cost.peak_mb, "z,.0f")
    return prepared, _added(cost), _number(cost.parameters, ",d"), peak, Item(str(cost.cells))


def _number(value: float | None, form: str) -> Item:
    return Item(MISSING if value is None else format(value, form))


def _added(cost: Cost) -> Item:
    if cost.added_ms is None or cost.added_low is None or cost.added_high is None:
        return Item("", tail=MISSING)
    spread = f" [{cost.added_low:z.1f}, {cost.added_high:z.1f}]" if cost.cells > 1 else ""
    return Item(f"{cost.added_ms:z.1f}", tail=spread)
