"""Result cells as tables in the terminal, one per concept x suite."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from srbench.analysis.costs import Cost
from srbench.analysis.records import Metric
from srbench.analysis.results import STAR, Board, ResultCell, boards, brief, coverage, from_dict, name_of, result, shown, to_dict
from srbench.analysis.sensitivity import Curve

__all__ = ["ResultCell", "from_dict", "render", "result", "to_dict"]

FOLD, GAP = 12, 2
"""Characters after which words in a metric's column take another line, and between columns."""
RULED = box.Box("    \n    \n ── \n    \n ╌╌ \n    \n    \n    \n")
"""A rule below the header, and one where a section ends."""


def render(cells: Sequence[ResultCell], notes: Mapping[str, str] | None = None, width: int = 120) -> RenderableType:
    """All cells; metrics that do not fit into `width` characters go on in a further table below.

    notes: method, checkpoint, suite or concept -> footnote; the built-in ones where not given.
    """
    if not cells:
        return Text("no results")
    return Group(*(part for board in boards(cells, notes) for part in _render_board(board, width)))


def _render_board(board: Board, width: int) -> Iterator[RenderableType]:
    reasons: list[str] = []
    columns = {name: _column(board, name, reasons) for name in board.metrics}
    yield Text.assemble((board.title, "bold"), "   ", (board.caption, "dim"))
    for index, names in enumerate(_blocks(board, columns, width)):
        yield _block(board, {name: columns[name] for name in names}, first=index == 0)
    for index, reason in enumerate(reasons, 1):
        yield Text(f"{index}) n/a: {reason}", style="dim")
    for note in board.notes:
        yield Text(f"* {note}", style="dim")
    yield Text("")


def _column(board: Board, name: str, reasons: list[str]) -> list[Text]:
    """Header, then one text per cell."""
    header = board.header(name)
    # Long names take two lines, so that the column stays as narrow as its numbers.
    folded = header.replace("_", "_\n", 1) if len(header) > FOLD else header
    return [Text(folded), *(_value(board, cell, name, reasons) for cell in board.cells)]


def _value(board: Board, cell: ResultCell, name: str, reasons: list[str]) -> Text:
    found = shown(cell.metrics.get(name))
    if found.reason:
        return Text(textwrap.fill(f"n/a ({brief(found.reason, reasons)})", FOLD), style="dim")
    star = board.starred(cell, name)
    text = Text.assemble((f"{STAR} {found.value}", "bold") if star else found.value)
    for line in filter(None, (found.interval, *found.bounds)):
        text.append(f"\n{line}", style="dim")
    return text


def _blocks(board: Board, columns: Mapping[str, Sequence[Text]], width: int) -> list[list[str]]:
    """Metrics per table; the first table also holds coverage and source."""
    room = width - max(cell_len(name_of(cell)) for cell in board.cells)
    extras = [max(map(cell_len, texts)) for texts in zip(*map(_extras, board.cells), ("coverage", "source"), strict=True)]
    blocks: list[list[str]] = [[]]
    left = room - sum(extras) - len(extras) * GAP
    for name, texts in columns.items():
        needed = GAP + max(cell_len(line) for text in texts for line in text.plain.splitlines())
        if needed > left and blocks[-1]:
            blocks.append([])
            left = room
        blocks[-1].append(name)
        left -= needed
    return blocks


def _extras(cell: ResultCell) -> tuple[str, str]:
    return coverage(cell), cell.source


def _block(board: Board, columns: Mapping[str, Sequence[Text]], first: bool) -> Table:
    table = Table(box=RULED, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("method", no_wrap=True)
    for header, *_ in columns.values():
        table.add_column(header, justify="right", no_wrap=True)
    if first:
        table.add_column("coverage", justify="right", no_wrap=True)
        table.add_column("source", no_wrap=True)
    for index, cell in enumerate(board.cells):
        if index == len(board.main):
            table.add_section()
        name = Text.assemble(cell.label, (f" ({cell.variant})" if cell.variant else "", "dim"))
        table.add_row(name, *(texts[index + 1] for texts in columns.values()), *(map(Text, _extras(cell)) if first else ()))
    return table


def render_costs(found: Sequence[Cost]) -> RenderableType:
    """What methods cost, a line each."""
    table = Table(box=RULED, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for name in ("method", "prepare s", "added ms an image", "parameters", "peak MB", "cells"):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for cost in found:
        made, peak = _plain(cost.prepare_seconds, ".1f"), _plain(cost.peak_mb, ",.0f")
        table.add_row(cost.method, made, _added(cost), _plain(cost.parameters, ",d"), peak, str(cost.cells))
    notes = (
        "prepare: making the checkpoint and what the method learns or reads, on the machine that made it",
        "added: beside 'none' on the same checkpoint, mean over the cells, with the least and the most",
        "peak: of the whole process on a CPU, of torch on CUDA",
    )
    return Group(table, *(Text(f"* {note}", style="dim") for note in notes))


def render_sensitivity(found: Sequence[Curve]) -> RenderableType:
    """Rates by threshold, one table a concept, suite and list of classes."""
    groups: dict[tuple[str, ...], list[Curve]] = {}
    for curve in found:
        groups.setdefault((curve.concept, curve.suite, curve.metric, ", ".join(curve.classes)), []).append(curve)
    blocks: list[RenderableType] = []
    for (concept, suite, metric, classes), own in groups.items():
        blocks.append(Text.assemble((f"{concept} x {suite}: {metric} by threshold", "bold"), "   ", (classes, "dim")))
        table = Table(box=RULED, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
        table.add_column("method", no_wrap=True)
        for threshold, _ in own[0].rates:
            table.add_column(f"{threshold:g}", justify="right")
        for curve in own:
            table.add_row(curve.method, *(_stacked(metric) for _, metric in curve.rates))
        blocks += [table, Text()]
    return Group(*blocks)


def _stacked(metric: Metric) -> Text:
    """A value above its interval."""
    found = shown(metric)
    return Text.assemble(found.value, (f"\n{found.interval}", "dim"))


def _plain(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


def _added(cost: Cost) -> Text:
    if cost.added_ms is None or cost.added_low is None or cost.added_high is None:
        return Text("n/a", style="dim")
    spread = f" [{cost.added_low:.1f}, {cost.added_high:.1f}]" if cost.cells > 1 else ""
    return Text.assemble(f"{cost.added_ms:.1f}", (spread, "dim"))
