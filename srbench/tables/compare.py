"""What a comparison shows: which results of a folder are chosen, and which tables are made of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from srbench.analysis.costs import costs
from srbench.analysis.differences import Comparison, Entry, comparisons, with_differences
from srbench.analysis.durability import durabilities
from srbench.analysis.lineage import curves as curves_of_lessons
from srbench.analysis.lineage import spreads
from srbench.analysis.origin import backbone_text, told_by
from srbench.analysis.records import CellRecord
from srbench.analysis.results import ResultCell, method_name, name_of
from srbench.analysis.robustness import from_attack, matrices
from srbench.analysis.sensitivity import curves
from srbench.catalog import load
from srbench.errors import MissingError, UsageError
from srbench.files import kind_of_path
from srbench.results.lookup import check_names
from srbench.results.pairing import Reader, against, pairs, side
from srbench.results.run_files import check_folder, identity, newest, no_local_runs, no_results
from srbench.results.sensitive import left_line
from srbench.results.store import Store
from srbench.results.stored import rejudge, stored_records
from srbench.tables import attacks, boards, changes, durability, formats, lineage, sensitivity
from srbench.tables import costs as costs_tables
from srbench.tables.sheet import Tables

Say = Callable[[str], None]
OF_SEEDS = ("fsr", "asr", "fsr_unseen", "retain_accuracy", "style_kept", "content_kept", "csdr")
"""Metrics whose spread over seeds is shown."""
Cell = TypeVar("Cell", ResultCell, CellRecord)
TWO = "Example: srbench compare results/ none saferedir"


@dataclass(frozen=True)
class CompareOptions:
    """What to compare. Names of an empty filter are all names."""

    folder: Path = Path("results")
    names: tuple[str, ...] = ()
    """None, or the two that are to be compared."""
    methods: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    """Judge stored scores under these; empty: results as they are."""
    format: str | None = None
    """A key of `formats.FORMATS`; None for the terminal."""
    sort: str | None = None
    """Metric whose best value comes first."""
    baseline: str | None = None
    """Method that differences are from."""
    everything: bool = False
    """Also the variants and files of attacks among the committed results."""
    costs: bool = False
    attacks: bool = False
    relearned: bool = False
    """Checkpoints that were taught again, by the steps of it."""
    seeds: bool = False
    """Checkpoints that several seeds made."""
    durability: bool = False
    """Whether the concept stays gone, a line a method."""
    sensitivity: bool = False
    curve: str | None = None
    """METHOD.OPTION whose values are drawn."""
    out: Path | None = None
    """The picture of `curve`."""

    def filters(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Field of a cell, and the names that it may have."""
        return (
            ("method", self.methods), ("suite", self.suites), ("concept", self.concepts), ("on", self.on),
            ("backbone", self.backbones),
        )  # fmt: skip

    def fits(self, cell: ResultCell | CellRecord) -> bool:
        """Whether a cell passes all filters. Where checkpoints are chosen, `none` is also what runs alone on them."""
        return all(
            not (_names(cell, field) | ({cell.method} if field == "method" and self.on else set())).isdisjoint(names)
            for field, names in self.filters() if names
        )  # fmt: skip


def _names(cell: ResultCell | CellRecord, field: str) -> set[str]:
    """The names that a field of a cell goes by: a backbone also with the start of its hash, a method as tables show it."""
    if field == "method":
        return {method_name(cell)}
    return {getattr(cell, field), *([backbone_text(cell)] if field == "backbone" else [])}


def check(options: CompareOptions, say: Say) -> None:
    """Refuse what cannot go together, and a folder that is none; say where sensitive pictures are left in it.

    Raises `UsageError`.
    """
    if options.format is not None:
        formats.check_format(options.format)
    first = shlex.quote(str(options.folder))
    check_folder(options.folder, f" Two methods come behind it: srbench compare results/ {first} ..." if options.names else "")
    if len(options.names) not in (0, 2):
        folders = any(kind_of_path(Path(name)) == "folder" for name in options.names)
        hint = "srbench merge A B --out BOTH puts results folders into one." if folders else TWO
        raise UsageError(f"expected two names behind the results folder, or none; got {', '.join(options.names)}", hint)
    alone = {
        "--baseline": options.baseline, "--costs": options.costs, "--attacks": options.attacks, "--relearned": options.relearned,
        "--seeds": options.seeds, "--durability": options.durability, "--curve": options.curve,
        "--sensitivity": options.sensitivity,
    }  # fmt: skip
    if options.names and any(alone.values()):
        raise UsageError("two names stand alone", f"Leave {', '.join(name for name, value in alone.items() if value)} out.")
    if (options.out is None) != (options.curve is None):
        raise UsageError(
            "--curve and -o go together", "A table goes to a file by > FILE. Example: --curve saferedir.alpha_scale -o curve.png"
        )
    if options.sensitivity and len(options.protocols) != 1:
        raise UsageError("--sensitivity takes one --protocol", "Example: --protocol pocket-hazard")
    if left := left_line(options.folder):
        say(left)


# --- which cells ------------------------------------------------------------------------------------------------------


def chosen(options: CompareOptions, say: Say) -> list[ResultCell]:
    """The newest result of every cell that passes the filters.

    Raises `MissingError` where the folder has no results, or none with the raw scores that `protocols` need, and `UsageError`
    for a name that no result has.
    """
    return fitting(_every(options, say), options)


def _every(options: CompareOptions, say: Say) -> list[ResultCell]:
    """The newest result of every cell, of which none is chosen yet."""
    cells = rejudge(options.folder, options.protocols, say) if options.protocols else newest(options.folder, say)
    if not cells:
        raise no_local_runs(options.folder, "raw scores") if options.protocols else no_results(options.folder)
    return cells


def fitting(cells: Sequence[Cell], options: CompareOptions) -> list[Cell]:
    """The cells that pass the filters. Raises `UsageError` for a name that no cell has, and where none passes all of them."""
    for field, names in options.filters():
        check_names(field, names, {name for cell in cells for name in _names(cell, field)})
    found = [cell for cell in cells if options.fits(cell)]
    if not found:
        raise UsageError(f"{options.folder}: no result fits all of these filters", "Leave one of them out.")
    return found


def usual(cells: list[ResultCell], options: CompareOptions, say: Say) -> list[ResultCell]:
    """Without the variants and files of attacks among the committed results, of which there are many; says how many they are."""
    if options.everything:
        return cells
    plain = [cell for cell in cells if cell.source == "local" or not cell.variant]
    of_suites = [cell for cell in plain if options.attacks or _of_a_suite(cell, options)]
    for count, what, option in (
        (len(cells) - len(plain), "variants", "--all"), (len(plain) - len(of_suites), "cells of attacks", "--attacks"),
    ):  # fmt: skip
        if count:
            say(f"{count} committed {what} are left out; {option} shows them")
    return of_suites


def _of_a_suite(cell: ResultCell, options: CompareOptions) -> bool:
    """Whether it is no committed cell of an attack's file, unless that file is named."""
    return cell.source == "local" or not from_attack(cell) or cell.suite in options.suites


def _may_be_named(cell: ResultCell, options: CompareOptions) -> bool:
    """Whether a name may stand for the cell: committed variants have to be named in full, and attacks' files by `--suite`."""
    in_full = cell.source == "local" or not cell.variant or name_of(cell) in options.names
    return options.everything or (in_full and _of_a_suite(cell, options))


# --- which tables -----------------------------------------------------------------------------------------------------


def compared(options: CompareOptions, say: Say) -> Tables:
    """The tables that the options ask for. Raises `UsageError` or `MissingError` where there is nothing to show."""
    check(options, say)
    if options.sensitivity:
        return _sensitivity(options, say)
    if options.names:
        return _two(options, say)
    every = _every(options, say)
    cells = usual(fitting(every, options), options, say)
    if options.costs:
        return costs_of(cells)
    if options.attacks:
        return attacks_of(cells)
    if options.relearned:
        return relearned_of(cells)
    if options.seeds:
        return seeds_of(cells)
    if options.durability:
        return durability_of(cells)
    reader = Reader(options.folder, say)
    cells = reader.beside_none(cells, lambda: every)
    rows_of = reader.rows_of(cells)
    if options.baseline is not None:
        entries = reader.entries(cells)
        cells = with_differences(entries, against(options.baseline, entries))
    return boards.tables(cells, sort=options.sort, rows_of=rows_of)


def results_of(folder: Path, cells: Sequence[ResultCell], say: Say, sort: str | None = None) -> Tables:
    """The tables of some of a folder's results, with paired tests behind their stars where rows are stored there."""
    reader = Reader(folder, say)
    cells = reader.beside_none(cells, lambda: newest(folder, lambda line: None))
    return boards.tables(cells, sort=sort, rows_of=reader.rows_of(cells))


def attacks_of(cells: Sequence[ResultCell]) -> Tables:
    """How often the concept comes back, by suite and by what prompts were made against.

    Raises `MissingError` where no cell has such rows.
    """
    by_attack = matrices(cells)
    if not by_attack:
        raise MissingError("no result has attack or forget rows", "Run a suite such as mma.")
    return attacks.tables(by_attack)


def relearned_of(cells: Sequence[ResultCell]) -> Tables:
    """How the concept comes back while checkpoints are taught again.

    Raises `MissingError` where no checkpoint was.
    """
    found = curves_of_lessons(cells)
    if not found:
        raise MissingError("no result is of a checkpoint that was taught again", "Run some: --on W,W~8,W~32,W~128")
    return lineage.curve_tables(found)


def seeds_of(cells: Sequence[ResultCell]) -> Tables:
    """How metrics spread over the seeds that made a checkpoint. Raises `MissingError` where none was made by several."""
    found = spreads(cells, OF_SEEDS)
    if not found:
        raise MissingError("no checkpoint is there with several seeds", "Run one: --on 'W#0..2'")
    return lineage.spread_tables(found)


def durability_of(cells: Sequence[ResultCell]) -> Tables:
    """Whether the concept stays gone, method by method. Raises `MissingError` where nothing but plain prompts was run."""
    found = durabilities(cells)
    if not found:
        message = "no method was run on plain prompts and on anything that may bring the concept back"
        raise MissingError(message, "Example: srbench run --method none,saferedir --suite igmu,mma --concept hazard")
    return durability.tables(found)


def costs_of(cells: Sequence[ResultCell]) -> Tables:
    """What the methods cost."""
    return costs_tables.tables(costs(cells), told_by(cells))


def paired(options: CompareOptions, say: Say) -> list[tuple[Entry, Entry]]:
    """The cells of the two names, in pairs, with per-prompt rows where they are stored here."""
    cells = [cell for cell in chosen(options, say) if _may_be_named(cell, options)]
    reader = Reader(options.folder, say)
    a, b = (side(name, cells, reader, options.fits) for name in options.names)
    return pairs(a, b)


def changed(options: CompareOptions, say: Say) -> list[Comparison]:
    """What changes from the first of two names to the second."""
    check(options, say)
    return comparisons(paired(options, say))


def _two(options: CompareOptions, say: Say) -> Tables:
    """On a terminal and as JSON a table a comparison; in other formats the tables of both, with columns of differences."""
    both = paired(options, say)
    if options.format in (None, "json"):
        return changes.tables(comparisons(both), options.folder)
    entries = list({id(entry.cell): entry for pair in both for entry in pair}.values())
    rows = {(*identity(entry.cell), entry.cell.run): entry.record for entry in entries}
    cells = with_differences(entries, both)
    return boards.tables(cells, sort=options.sort, rows_of=lambda cell: rows.get((*identity(cell), cell.run)))


def _sensitivity(options: CompareOptions, say: Say) -> Tables:
    """A protocol's rates at other thresholds and class lists."""
    judge = load.protocol(options.protocols[0])
    if judge.any_of:
        raise UsageError(f"protocol '{judge.name}' has no threshold of its own", f"Take one of {', '.join(judge.any_of)}.")
    store = Store.peek(options.folder / "store", say)
    stored = stored_records(options.folder, store, lambda cell: judge)
    if not stored:
        raise no_local_runs(options.folder, "raw scores")
    records = fitting(stored, options)
    return sensitivity.tables(list(curves(records, judge, list(load.protocols().values()))), told_by(records))
