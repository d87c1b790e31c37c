"""`srbench compare`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from srbench.analysis import formats
from srbench.analysis.costs import costs
from srbench.analysis.records import CellRecord
from srbench.analysis.results import ResultCell
from srbench.analysis.sensitivity import Curve, curves
from srbench.catalog import load
from srbench.cli.main import say
from srbench.engine.runs import newest
from srbench.errors import MissingError, UsageError, did_you_mean

MIN_WIDTH, WIDE = 100, 160


def print_cells(cells: Sequence[ResultCell], format: str | None) -> None:
    """Tables on a terminal or as text, or one of the formats, on stdout."""
    if format is not None:
        sys.stdout.write(formats.write(cells, format).rstrip("\n") + "\n")
        return
    from rich.console import Console

    from srbench.analysis.table import render

    console = Console()
    width = max(MIN_WIDTH, console.width) if not console.is_terminal else console.width
    Console(width=width).print(render(cells, width=width))


def print_costs(cells: Sequence[ResultCell], as_json: bool) -> None:
    """What the methods cost, as a table or as JSON on stdout."""
    found = costs(cells)
    if as_json:
        print(json.dumps({"costs": [asdict(cost) for cost in found]}, indent=2, allow_nan=False))
        return
    from rich.console import Console

    from srbench.analysis.table import render_costs

    console = Console()
    Console(width=max(MIN_WIDTH, console.width)).print(render_costs(found))


def _only(cells: list[ResultCell], what: str, names: Sequence[str], value: Callable[[ResultCell], str]) -> list[ResultCell]:
    known = {value(cell) for cell in cells}
    for name in names:
        if name not in known:
            raise UsageError(f"no result has {what} '{name}'", did_you_mean(name, known))
    return [cell for cell in cells if not names or value(cell) in names]


def _rejudged(folder: Path, protocols: Sequence[str]) -> list[ResultCell]:
    from srbench.engine.rejudge import rejudge

    return rejudge(folder, protocols, say)


def print_sensitivity(folder: Path, protocol: str, chosen: Callable[[CellRecord], bool], as_json: bool) -> None:
    """A protocol's rates at other thresholds and class lists, as a table or as JSON on stdout."""
    from rich.console import Console

    from srbench.analysis.table import render_sensitivity
    from srbench.engine.rejudge import stored_records
    from srbench.engine.store import Store

    judge = load.protocol(protocol)
    if judge.any_of:
        raise UsageError(f"protocol '{protocol}' has no threshold of its own", f"Take one of {', '.join(judge.any_of)}.")
    records = stored_records(folder, Store.peek(folder / "store", say), lambda cell: judge)
    found = list(curves([record for record in records if chosen(record)], judge, list(load.protocols().values())))
    if not found:
        raise MissingError(f"{folder}: no stored run fits", "Leave some of --method, --suite and --concept out.")
    if as_json:
        print(json.dumps({"sensitivity": [_curve(curve) for curve in found]}, indent=2, allow_nan=False))
        return
    console = Console()
    Console(width=console.width if console.is_terminal else WIDE).print(render_sensitivity(found))


def _curve(curve: Curve) -> dict[str, Any]:
    rates = [
        {"threshold": threshold, **{name: getattr(rate, name) for name in ("value", "low", "high", "n", "scored", "reason")}}
        for threshold, rate in curve.rates
    ]
    return {**asdict(curve), "rates": rates}


def _plain(cells: list[ResultCell]) -> list[ResultCell]:
    """Without the variants among the committed results, of which there are many; says how many they were."""
    kept = [cell for cell in cells if cell.source == "local" or not cell.variant]
    if len(kept) < len(cells):
        say(f"{len(cells) - len(kept)} committed variants are left out; --all shows them")
    return kept


def compare(
    folder: Path, methods: Sequence[str], suites: Sequence[str], concepts: Sequence[str], protocols: Sequence[str],
    format: str | None, everything: bool, only_costs: bool, sensitivity: bool = False,
) -> int:
    """Print the newest result of every cell under `folder`, filtered."""
    if format is not None and format not in formats.FORMATS:
        raise UsageError(f"there is no format '{format}'", did_you_mean(format, formats.FORMATS))
    if not folder.is_dir():
        raise UsageError(f"{folder}: not a results folder", "Give the folder that `srbench run --out` wrote to.")
    if sensitivity:
        if len(protocols) != 1 or format not in (None, "json"):
            raise UsageError("--sensitivity takes one --protocol, and --json or no format", "Example: --protocol pocket-hazard")

        def chosen(cell: CellRecord) -> bool:
            sides = ((cell.method, methods), (cell.suite, suites), (cell.concept, concepts))
            return all(value in names for value, names in sides if names)

        print_sensitivity(folder, protocols[0], chosen, format == "json")
        return 0
    cells = _rejudged(folder, protocols) if protocols else newest(folder, say)
    if not cells:
        raise MissingError(f"{folder}: no results yet", f"srbench run --method none,saferedir --suite igmu,mma --out {folder}")
    cells = _only(cells, "method", methods, lambda cell: cell.method)
    cells = _only(cells, "suite", suites, lambda cell: cell.suite)
    cells = _only(cells, "concept", concepts, lambda cell: cell.concept)
    cells = cells if everything else _plain(cells)
    if only_costs:
        if format not in (None, "json"):
            raise UsageError(f"--costs has no format '{format}'", "Leave it out for a table, or use --json.")
        print_costs(cells, format == "json")
    else:
        print_cells(cells, format)
    return 0
