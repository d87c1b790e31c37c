"""`srbench compare`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srbench.analysis import formats
from srbench.analysis.costs import costs
from srbench.analysis.origin import backbone_text
from srbench.analysis.results import ResultCell, name_of
from srbench.analysis.robustness import from_attack
from srbench.analysis.sensitivity import Curve, curves
from srbench.catalog import load
from srbench.cli import console
from srbench.cli.console import say
from srbench.errors import MissingError, UsageError, did_you_mean
from srbench.outputs import CURVE, check_file
from srbench.results.run_files import newest
from srbench.results.sensitive import left_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from srbench.analysis.differences import Entry
    from srbench.analysis.records import CellRecord

PIPE_WIDTH, WIDE = 100, 160
"""Characters of a line where nobody says: of tables in a pipe, and of rates by threshold."""


@dataclass(frozen=True)
class Asked:
    """The command's options."""

    folder: Path
    names: tuple[str, ...] = ()
    """None, or the two that are to be compared."""
    methods: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    format: str | None = None
    sort: str | None = None
    baseline: str | None = None
    everything: bool = False
    costs: bool = False
    attacks: bool = False
    sensitivity: bool = False
    plain: bool = False
    curve: str | None = None
    out: Path | None = None

    def chosen(self, cell: ResultCell | CellRecord) -> bool:
        """Whether a cell is asked for."""
        return all(not _said(cell, what).isdisjoint(names) for what, names in self.sides() if names)

    def sides(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Field of a cell, and the names that it may have."""
        return (
            ("method", self.methods), ("suite", self.suites), ("concept", self.concepts), ("on", self.on),
            ("backbone", self.backbones),
        )  # fmt: skip


def _said(cell: ResultCell | CellRecord, what: str) -> set[str]:
    """The names that a field of a cell goes by: a backbone also with the start of its hash."""
    return {getattr(cell, what), *([backbone_text(cell)] if what == "backbone" else [])}


# --- output -----------------------------------------------------------------------------------------------------------


def width_of(plain: bool, wide: int = PIPE_WIDTH) -> tuple[int, bool]:
    """Characters of a line, and whether to write plain text: asked for, or because no terminal reads it."""
    there = console.console()
    known = there.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return (there.width if known else wide), plain or not there.is_terminal


def show(made: RenderableType, width: int, plain: bool) -> None:
    """Print on stdout; plain: without escapes, and without blanks at the ends of lines."""
    if not plain:
        console.console(width).print(console.calmed(made))
        return
    there = console.console(width, plain=True)
    with there.capture() as captured:
        there.print(console.calmed(made))
    console.write("".join(f"{line.rstrip()}\n" for line in captured.get().split("\n")[:-1]))  # cells are filled with blanks


def print_cells(cells: Sequence[ResultCell], format: str | None, sort: str | None = None, plain: bool = False) -> None:
    """Tables on a terminal or as text, or one of the formats, on stdout."""
    if format is not None:
        console.write_document(formats.write(cells, format, sort=sort).rstrip("\n") + "\n", format)
        return
    from srbench.analysis.table import render

    width, plain = width_of(plain)
    show(render(cells, width=width, sort=sort, plain=plain), width, plain)


def print_costs(cells: Sequence[ResultCell], as_json: bool, plain: bool = False) -> None:
    """What the methods cost, as a table or as JSON on stdout."""
    found = costs(cells)
    if as_json:
        console.write_json({"costs": [asdict(cost) for cost in found]})
        return
    from srbench.analysis.table import render_costs

    width, plain = width_of(plain)
    show(render_costs(found, plain), width, plain)


def print_matrices(cells: Sequence[ResultCell], format: str | None, plain: bool = False) -> None:
    """How often the concept comes back, by suite and by what prompts were made against: a table, Markdown or JSON on stdout."""
    from srbench.analysis.robustness import matrices, to_dict
    from srbench.analysis.table import render_matrices

    found = matrices(cells)
    if format not in (None, "md", "json"):
        raise UsageError(f"--attacks has no format '{format}'", "Take md or json, or leave it out for a table.")
    if not found:
        raise MissingError("no result has attack or forget rows", "Run a suite such as mma.")
    if format == "json":
        console.write_json({"attacks": [to_dict(matrix) for matrix in found]})
    elif format == "md":
        console.write_document(formats.matrices_markdown(found), "md")
    else:
        width, plain = width_of(plain)
        show(render_matrices(found, width, plain), width, plain)


# --- one table after another ------------------------------------------------------------------------------------------


def _check_names(cells: Sequence[ResultCell], what: str, names: Sequence[str]) -> None:
    known = {name for cell in cells for name in _said(cell, what)}
    for name in names:
        if name not in known:
            raise UsageError(f"no result has {what} '{name}'", did_you_mean(name, known))


def _plain(cells: list[ResultCell], asked: Asked) -> list[ResultCell]:
    """Without the variants and files of attacks among the committed results, of which there are many; says how many they were."""
    usual = [cell for cell in cells if cell.source == "local" or not cell.variant]
    kept = [cell for cell in usual if asked.attacks or _of_a_suite(cell, asked)]
    _left_out(len(cells) - len(usual), "variants", "--all")
    _left_out(len(usual) - len(kept), "cells of attacks", "--attacks")
    return kept


def _of_a_suite(cell: ResultCell, asked: Asked) -> bool:
    """Whether it is no committed cell of an attack's file, unless that file is named."""
    return cell.source == "local" or not from_attack(cell) or cell.suite in asked.suites


def _left_out(count: int, what: str, option: str) -> None:
    if count:
        say(f"{count} committed {what} are left out; {option} shows them")


def _cells(asked: Asked) -> list[ResultCell]:
    """The newest result of every cell asked for."""
    if asked.protocols:
        from srbench.results.stored import rejudge

        cells = rejudge(asked.folder, asked.protocols, say)
    else:
        cells = newest(asked.folder, say)
    if not cells:
        command = f"srbench run --method none,saferedir --suite igmu,mma --out {shlex.quote(str(asked.folder))}"
        raise MissingError(f"{asked.folder}: no results yet", command)
    for what, names in asked.sides():
        _check_names(cells, what, names)
    cells = [cell for cell in cells if asked.chosen(cell)]
    if not cells:
        raise UsageError(f"{asked.folder}: no result fits all of these filters", "Leave one of them out.")
    return cells


def _check_sort(cells: Sequence[ResultCell], metric: str | None) -> None:
    known = {name for cell in cells for name in cell.metrics}
    if metric is not None and metric not in known:
        raise UsageError(f"no result has metric '{metric}'", did_you_mean(metric, known))


def compare(asked: Asked) -> int:
    """Print the newest result of every cell under the folder, filtered; or what changes from one to another."""
    _check(asked)
    if left := left_line(asked.folder):
        say(left)
    if asked.sensitivity:
        _sensitivity(asked)
    elif asked.curve is not None:
        _curve(asked, asked.curve)
    elif asked.names:
        _versus(asked)
    else:
        _tables(asked)
    return 0


def _check(asked: Asked) -> None:
    """Refuse what cannot go together."""
    if asked.format is not None and asked.format not in formats.FORMATS:
        raise UsageError(f"there is no format '{asked.format}'", did_you_mean(asked.format, formats.FORMATS))
    if not asked.folder.is_dir():
        hint = "Give the folder that `srbench run --out` wrote to."
        first = shlex.quote(str(asked.folder))
        more = f" Two methods come behind it: srbench compare results/ {first} ..." if asked.names else ""
        raise UsageError(f"{asked.folder}: not a results folder", hint + more)
    if len(asked.names) not in (0, 2):
        raise UsageError(f"{len(asked.names)} names: expected two, or none", "Example: srbench compare results/ none saferedir")
    if asked.names and (asked.baseline or asked.costs or asked.attacks or asked.curve or asked.sensitivity):
        raise UsageError("two names stand alone", "Leave --baseline, --costs, --attacks, --curve and --sensitivity out.")
    if (asked.out is None) != (asked.curve is None):
        raise UsageError("--curve and -o go together", "Example: --curve saferedir.alpha_scale -o curve.png")


def _tables(asked: Asked) -> None:
    cells = _cells(asked)
    cells = cells if asked.everything else _plain(cells, asked)
    if asked.costs:
        if asked.format not in (None, "json"):
            raise UsageError(f"--costs has no format '{asked.format}'", "Leave it out for a table, or use --json.")
        print_costs(cells, asked.format == "json", asked.plain)
        return
    if asked.attacks:
        print_matrices(cells, asked.format, asked.plain)
        return
    if asked.baseline is not None:
        from srbench.analysis.differences import with_differences
        from srbench.results.pairing import Reader, against

        entries = Reader(asked.folder, say).entries(cells)
        cells = with_differences(entries, against(asked.baseline, entries))
    _check_sort(cells, asked.sort)
    print_cells(cells, asked.format, asked.sort, asked.plain)


# --- two names --------------------------------------------------------------------------------------------------------


def _versus(asked: Asked) -> None:
    from srbench.analysis.differences import comparisons, to_dict, with_differences
    from srbench.results.pairing import Reader, pairs, side

    cells, reader = [cell for cell in _cells(asked) if _named(cell, asked)], Reader(asked.folder, say)
    found = pairs(*(side(name, cells, reader, asked.chosen) for name in asked.names))
    if asked.format == "json":
        console.write_json({"comparisons": [to_dict(each) for each in comparisons(found)]})
    elif asked.format is not None:
        print_cells(with_differences(_both(found), found), asked.format, asked.sort)
    else:
        from srbench.analysis.changes import render

        width, plain = width_of(asked.plain)
        show(render(comparisons(found), asked.folder, width, plain), width, plain)


def _named(cell: ResultCell, asked: Asked) -> bool:
    """Whether a name may stand for the cell: committed variants have to be named in full, and attacks' files by `--suite`."""
    in_full = cell.source == "local" or not cell.variant or name_of(cell) in asked.names
    return asked.everything or (in_full and _of_a_suite(cell, asked))


def _both(found: Sequence[tuple[Entry, Entry]]) -> list[Entry]:
    """Every cell of the pairs, each once."""
    return list({id(entry.cell): entry for pair in found for entry in pair}.values())


# --- thresholds and curves --------------------------------------------------------------------------------------------


def _sensitivity(asked: Asked) -> None:
    """A protocol's rates at other thresholds and class lists, as a table or as JSON on stdout."""
    from srbench.analysis.table import render_sensitivity
    from srbench.results.store import Store
    from srbench.results.stored import stored_records

    if len(asked.protocols) != 1 or asked.format not in (None, "json"):
        raise UsageError("--sensitivity takes one --protocol, and --json or no format", "Example: --protocol pocket-hazard")
    judge = load.protocol(asked.protocols[0])
    if judge.any_of:
        raise UsageError(f"protocol '{judge.name}' has no threshold of its own", f"Take one of {', '.join(judge.any_of)}.")
    records = stored_records(asked.folder, Store.peek(asked.folder / "store", say), lambda cell: judge)
    found = list(curves([record for record in records if asked.chosen(record)], judge, list(load.protocols().values())))
    if not found:
        raise UsageError(f"{asked.folder}: no stored run fits", "Leave some of --method, --suite and --concept out.")
    if asked.format == "json":
        console.write_json({"sensitivity": [_rates(curve) for curve in found]})
        return
    width, plain = width_of(asked.plain, WIDE)
    show(render_sensitivity(found, width, plain), width, plain)


def _rates(curve: Curve) -> dict[str, Any]:
    rates = [
        {"threshold": threshold, **{name: getattr(rate, name) for name in ("value", "low", "high", "n", "scored", "reason")}}
        for threshold, rate in curve.rates
    ]
    return {**asdict(curve), "rates": rates}


def _curve(asked: Asked, option: str) -> None:
    """What a swept option trades, as a picture."""
    from srbench.analysis.swept import swept
    from srbench.report.curve import draw, form_of

    assert asked.out is not None  # see `_check`
    form_of(asked.out)
    check_file(asked.out, CURVE)
    found = swept(_cells(asked), option)
    draw(found, option, asked.out)
    values = sorted({point.said for line in found for point in line.points})
    panels = len({line.panel for line in found})
    say(f"{asked.out}: {option} at {', '.join(values)}; {panels} {'panel' if panels == 1 else 'panels'}")
