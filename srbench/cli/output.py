"""Tables on stdout: for people as wide as their terminal is, or one of the formats."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from srbench.cli import console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from srbench.analysis.results import ResultCell
    from srbench.tables.sheet import Tables


WIDTH = 100
"""Characters of a line in a pipe."""


def print_tables(tables: Tables, format: str | None, plain: bool = False) -> None:
    """Tables for people, or in one of the formats. plain: without escapes and box characters, as in a pipe."""
    if format is not None:
        from srbench.tables import formats

        console.write_document(formats.write(tables, format), format)
        return
    from srbench.tables.terminal import render

    width, plain = width_of(plain)
    show(render(tables, width, plain), width, plain)


def print_cells(cells: Sequence[ResultCell], as_json: bool, folder: Path) -> None:
    """The results of a run into `folder`, as tables or as JSON."""
    from srbench.tables.compare import results_of

    print_tables(results_of(folder, cells, console.say), "json" if as_json else None)


def width_of(plain: bool) -> tuple[int, bool]:
    """Characters of a line, `WIDTH` where nothing says how many; and whether to write plain text: by request, or into a pipe."""
    terminal = console.console()
    has_width = terminal.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return (terminal.width if has_width else WIDTH), plain or not terminal.is_terminal


def show(renderable: RenderableType, width: int, plain: bool) -> None:
    """Print on stdout; plain: without escapes, and without blanks at the ends of lines."""
    from srbench.tables import terminal

    if plain:
        console.write(terminal.plain_text(renderable, width))
    else:
        console.console(width).print(terminal.Calmed(renderable))
