"""Sheets on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from srbench.analysis.table import GAP, RULED
from srbench.tables.sheets import Item, Sheet


def render(given: Sequence[Sheet]) -> RenderableType:
    """Every sheet: title and name, table, notes."""
    return Group(*(part for sheet in given for part in _parts(sheet)))


def _parts(sheet: Sheet) -> Iterator[RenderableType]:
    yield Text.assemble((sheet.title, "bold"), "   ", (sheet.name, "dim"))
    yield Text(sheet.caption, style="dim")
    if sheet.body:
        yield _table(sheet)
    yield from (Text(f"* {note}", style="dim") for note in sheet.notes if note)
    yield Text("")


def _table(sheet: Sheet) -> Table:
    table = Table(box=RULED, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for text, mark in zip(sheet.header, sheet.align, strict=True):
        table.add_column(Text(text), justify="right" if mark == "r" else "left", no_wrap=False)
    for row in sheet.body:
        table.add_row(*map(_text, row))
    return table


def _text(item: Item) -> Text:
    """What is small takes a line of its own."""
    return Text.assemble(item.text, (f"\n{item.small}", "dim")) if item.small else Text(item.text)
