"""`srbench tables`."""

from __future__ import annotations

from pathlib import Path

from srbench.cli import console, output
from srbench.cli.console import say
from srbench.tables.papers.chosen import TablesOptions, tables_of, write_tables


def tables(options: TablesOptions, folder: Path | None) -> int:
    """Print published tables beside what was measured, or their pocket editions; or write them to a folder."""
    if folder is not None:
        write_tables(options, folder, say)
    elif options.format is not None:
        output.print_tables(tables_of(options, say), options.format)
    else:
        _print(options)
    return 0


def _print(options: TablesOptions) -> None:
    """With box characters, in a pipe too, and as wide there as these tables need."""
    from srbench.tables.terminal import render

    tables, terminal = tables_of(options, say), console.console()
    width = terminal.width if terminal.is_terminal else tables.layout.width
    output.show(render(tables, width), width, plain=False)
