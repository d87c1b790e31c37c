"""Which published tables are shown, with which results, and the files that they are written to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from srbench.analysis.results import ResultCell
from srbench.catalog import load
from srbench.errors import MissingError
from srbench.outputs import check_results, write_into
from srbench.results.run_files import NOT_A_FOLDER, newest
from srbench.tables.formats import ENDINGS, check_format, file_of
from srbench.tables.papers.sheets import tables
from srbench.tables.papers.spec import POCKET, TableSpec, published
from srbench.tables.sheet import Tables

Say = Callable[[str], None]


@dataclass(frozen=True)
class TablesOptions:
    """What `srbench tables` shows."""

    names: tuple[str, ...] = ()
    """Empty: all tables."""
    pocket: bool = False
    """Their pocket editions."""
    results: Path = Path("results")
    format: str | None = None
    """A key of `formats.FORMATS`; None for the terminal, and for every format in a folder."""


def specs(names: Sequence[str]) -> list[TableSpec]:
    """Published tables by name; all without one. Raises `UsageError` for an unknown name, `MissingError` where there are none."""
    known = published()
    if not known:
        raise MissingError("no published table is at hand", "Run srbench in its repository, or install it anew.")
    return [load.named("table", name, known) for name in dict.fromkeys(names)] or list(known.values())


def tables_of(options: TablesOptions, say: Say) -> Tables:
    """The tables with what was measured. Raises `UsageError` and `MissingError`."""
    chosen = _checked(options)
    return tables(chosen, _measured(options, say), options.pocket)


def write_tables(options: TablesOptions, folder: Path, say: Say) -> None:
    """Write a file a table and format into the folder. Raises `UsageError` where a file there is not srbench's."""
    chosen = _checked(options)
    check_results(folder, "-o")
    cells = _measured(options, say)
    formats = (options.format,) if options.format else tuple(ENDINGS)
    contents: dict[str, bytes] = {}
    for spec in chosen:
        sheets = tables([spec], cells, options.pocket)
        name = f"{spec.name}-{POCKET}" if options.pocket else spec.name
        contents |= {f"{name}.{ENDINGS[format]}": file_of(sheets, format) for format in formats}
    write_into(folder, contents, "srbench tables", "-o")
    what = "pocket editions" if options.pocket else "tables"
    say(f"{len(chosen)} {what} as {', '.join(formats)} in {folder}")


def _checked(options: TablesOptions) -> list[TableSpec]:
    if options.format is not None:
        check_format(options.format)
    return specs(options.names)


def _measured(options: TablesOptions, say: Say) -> list[ResultCell]:
    if not options.results.is_dir():
        say(f"{options.results}: {NOT_A_FOLDER}; nothing is taken as measured")
    return newest(options.results, say)
