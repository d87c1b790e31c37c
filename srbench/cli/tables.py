"""`srbench tables`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from srbench.analysis.results import ResultCell
from srbench.catalog import load
from srbench.cli import console
from srbench.cli.console import say
from srbench.errors import MissingError, UsageError, did_you_mean
from srbench.files import calm
from srbench.outputs import check_results, write_into
from srbench.results.run_files import newest
from srbench.tables.spec import POCKET, TableSpec, published
from srbench.tables.write import ENDINGS, laid_out, write

WIDTH = 160


def tables(names: Sequence[str], format: str | None, pocket: bool, folder: Path | None, results: Path) -> int:
    """Print published tables beside what was measured, or their pocket editions; or write them to a folder.

    format: a key of `ENDINGS`; where None a table for people on the terminal, and every format in a folder.
    """
    if format is not None and format not in ENDINGS:
        raise UsageError(f"there is no format '{format}'", did_you_mean(format, ENDINGS))
    chosen = _chosen(names)
    if folder is not None:
        check_results(folder, "-o")
    if not results.is_dir():
        say(f"{results}: not a results folder; nothing is taken as measured")
    cells = newest(results, say)
    if folder is not None:
        _write_all(chosen, cells, (format,) if format else tuple(ENDINGS), pocket, folder)
    elif format is not None:
        console.write_document(write(chosen, cells, format, pocket), format)
    else:
        _print(chosen, cells, pocket)
    return 0


def _chosen(names: Sequence[str]) -> list[TableSpec]:
    known = published()
    if not known:
        raise MissingError("no published table is at hand", "Run srbench in its repository, or install it anew.")
    return [load.named("table", name, known) for name in dict.fromkeys(names)] or list(known.values())


def _write_all(
    chosen: Sequence[TableSpec], cells: Sequence[ResultCell], formats: Sequence[str], pocket: bool, folder: Path
) -> None:
    contents = {
        f"{table.name}{'-' + POCKET if pocket else ''}.{ENDINGS[name]}": calm(write([table], cells, name, pocket)).encode()
        for table in chosen for name in formats
    }
    write_into(folder, contents, "srbench tables", "-o")
    what = "pocket editions" if pocket else "tables"
    say(f"{len(chosen)} {what} as {', '.join(formats)} in {folder}")


def _print(chosen: Sequence[TableSpec], cells: Sequence[ResultCell], pocket: bool) -> None:
    from srbench.tables.terminal import render

    there = console.console()
    wide = console.console(there.width if there.is_terminal else WIDTH)
    wide.print(console.calmed(render(laid_out(chosen, cells, pocket))))
