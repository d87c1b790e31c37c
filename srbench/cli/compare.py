"""`srbench compare`."""

from __future__ import annotations

from srbench.cli import output
from srbench.cli.console import say
from srbench.tables.compare import CompareOptions, compared


def compare(options: CompareOptions, plain: bool) -> int:
    """Print the tables that the options ask for, or draw a curve. plain: as in a pipe."""
    if options.curve is not None and not options.sensitivity:
        from srbench.report.curve import curve

        curve(options, say)
    else:
        output.print_tables(compared(options, say), options.format, plain)
    return 0
