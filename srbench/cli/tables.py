"""`srbench tables`."""

from __future__ import annotations

from pathlib import Path

from srbench.cli import output
from srbench.cli.console import say
from srbench.tables.papers.chosen import TablesOptions, tables_of, write_tables


def tables(options: TablesOptions, folder: Path | None, plain: bool) -> int:
    """Print published tables with what was measured, or their pocket editions; or write them to a folder. plain: as in a pipe."""
    if folder is not None:
        write_tables(options, folder, say)
    else:
        output.print_tables(tables_of(options, say), options.format, plain)
    return 0
