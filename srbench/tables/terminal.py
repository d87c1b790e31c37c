"""Tables on a terminal, or as plain text."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from srbench.files import calm
from srbench.tables.numbers import STAR
from srbench.tables.sheet import Column, Item, Layout, Reasons, Sheet, Tables

FOLD, GAP = 12, 2
"""Characters after which words in a metric's column take another line, and between columns."""
NAME_LEAST = 16
"""Characters that names have at least; beyond, they take no more than half of the width."""
RULED = box.Box("    \n    \n ── \n    \n ╌╌ \n    \n    \n    \n")
"""A rule below the header, and one where a section ends."""
RULED_PLAIN = box.Box("    \n    \n -- \n    \n .. \n    \n    \n    \n", ascii=True)
"""The same for files and pipes."""


# --- consoles ---------------------------------------------------------------------------------------------------------


def console(file: TextIO, width: int | None = None, plain: bool = False) -> Console:
    """A console that prints text as it is: no markup, no emoji codes, no colouring of what looks like a number.

    plain: without escapes.
    """
    more: dict[str, Any] = {"force_terminal": False, "color_system": None} if plain else {}
    more["force_jupyter"] = False  # a notebook's console would display each text, also one that is captured
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False, **more)


class Calmed:
    """A renderable, with every character that would act on a terminal escaped."""

    def __init__(self, renderable: RenderableType) -> None:
        self.renderable = renderable

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Segment]:
        for segment in console.render(self.renderable, options):
            yield segment if segment.control else Segment(calm(segment.text), segment.style)


def plain_text(renderable: RenderableType, width: int) -> str:
    """As text without escapes, and without blanks at the ends of lines."""
    file = io.StringIO()
    console(file, width, plain=True).print(Calmed(renderable))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().split("\n")[:-1])  # cells are filled with blanks


# --- sheets -----------------------------------------------------------------------------------------------------------


def render(tables: Tables, width: int, plain: bool = False) -> RenderableType:
    """Every sheet: title, table, notes. width: characters of a line; plain: without box characters."""
    if not tables.sheets:
        return Text("no results")
    return Group(*(part for sheet in tables.sheets for part in _parts(sheet, tables.layout, width, plain)))


def _parts(sheet: Sheet, layout: Layout, width: int, plain: bool) -> Iterator[RenderableType]:
    reasons = Reasons()
    yield from _title(sheet, layout)
    if sheet.columns and layout.blocks:
        yield from _blocks(sheet, reasons, width, plain)
    elif sheet.columns:
        yield _whole(sheet, reasons, plain)
    if sheet.summary:
        yield Text(sheet.summary)
    if layout.blocks:
        yield from (Text(f"{number}) n/a: {reason}", style="dim") for number, reason in enumerate(reasons.long, 1))
        yield from _notes(sheet.notes)
    else:
        yield from _notes([*reasons.notes(), *sheet.notes])
    for detail in sheet.details:
        yield Text(detail.heading, style="bold")
        yield from (Text(f"  {line.whole}", style="" if line.text else "dim") for line in detail.lines)
    if layout.titled:
        yield Text("")


def _title(sheet: Sheet, layout: Layout) -> Iterator[Text]:
    if layout.titled:
        yield Text.assemble((sheet.title, "bold"), "   ", (sheet.name if layout.paper else sheet.caption, "dim"))
    if layout.titled and layout.paper:
        yield Text(sheet.caption, style="dim")


def _notes(notes: Iterable[str]) -> Iterator[Text]:
    return (Text(f"* {note}", style="dim") for note in notes if note)


def ruled(plain: bool) -> Table:
    """An empty table with rules; plain: of ASCII."""
    return Table(box=RULED_PLAIN if plain else RULED, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)


def _text(item: Item, reasons: Reasons, fold: bool) -> Text:
    """The text, with each piece of small print on a line of its own. fold: whether a reason is broken into short lines."""
    if item.reason:
        words = f"{item.text} ({reasons.brief(item.reason)})"
        return Text(textwrap.fill(words, FOLD), style="dim") if fold else Text(words)
    value = f"{STAR} {item.text}" if item.best else item.narrow or item.text
    lines = [line for line in (item.small, *item.bounds, item.mark) if line]
    if not lines and (item.strong or (item.tail and not value)):
        return Text(value + item.tail, style="bold" if item.strong else "dim")
    text = Text.assemble((value, "bold" if item.best or item.strong else ""), (item.tail, "dim"))
    return text.append_tokens((f"\n{line}", "dim") for line in lines)


def _heading(column: Column) -> Text:
    return Text(column.narrow or column.heading)


def _side(column: Column) -> Literal["left", "right"]:
    return "right" if column.align == "r" else "left"


# --- one table, or one below another ----------------------------------------------------------------------------------


def _whole(sheet: Sheet, reasons: Reasons, plain: bool) -> Table:
    """A single table; where it is too wide, items of columns that wrap are broken."""
    table = ruled(plain)
    for column in sheet.columns:
        table.add_column(_heading(column), justify=_side(column), no_wrap=not column.wraps, overflow="fold")
    for section in sheet.sections:
        table.add_section()
        for line in section.lines:
            table.add_row(*(_text(item, reasons, fold=False) for item in line))
    return table


def _blocks(sheet: Sheet, reasons: Reasons, width: int, plain: bool) -> Iterator[Table]:
    """Tables of the same lines, each with the columns that fit."""
    lines = list(sheet.lines)
    columns = [
        [_heading(column), *(_text(line[place], reasons, fold=place > 0) for line in lines)]
        for place, column in enumerate(sheet.columns)
    ]
    longest = max(map(cell_len, (sheet.columns[0].heading, *(line[0].whole for line in lines))))
    names = min(longest, max(NAME_LEAST, width // 2))
    beside = [place for place, column in enumerate(sheet.columns) if column.beside]
    for block in _that_fit([_needed(texts) for texts in columns], beside, width - names):
        table = ruled(plain)
        table.add_column(_heading(sheet.columns[0]), max_width=names, overflow="fold")
        for place in block:
            table.add_column(columns[place][0], justify=_side(sheet.columns[place]), no_wrap=True)
        rows = zip(*(columns[place][1:] for place in (0, *block)), strict=True)
        for section in sheet.sections:
            table.add_section()
            for _ in section.lines:
                table.add_row(*next(rows))
        yield table


def _needed(texts: Sequence[Text]) -> int:
    return GAP + max(cell_len(line) for text in texts for line in text.plain.splitlines() or [""])


def _that_fit(needed: Sequence[int], beside: Sequence[int], room: int) -> list[list[int]]:
    """Columns of each table but the first one, which is in all of them.

    needed: characters of each column; beside: columns that are in the first table, or in a last one where they leave no room
    for another column; room: characters behind the first column.
    """
    others = [place for place in range(1, len(needed)) if place not in beside]
    reserved = sum(needed[place] for place in beside)
    fits = bool(others) and reserved + needed[others[0]] <= room
    blocks: list[list[int]] = [[]]
    left = room - reserved if fits else room
    for place in others:
        if needed[place] > left and blocks[-1]:
            blocks.append([])
            left = room
        blocks[-1].append(place)
        left -= needed[place]
    if fits:
        return [blocks[0] + [*beside], *blocks[1:]]
    return [*filter(None, blocks), *([[*beside]] if beside else [])]
