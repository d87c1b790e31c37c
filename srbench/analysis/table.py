"""Result cells as tables in the terminal, one per concept x suite."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from srbench.analysis.costs import Cost
from srbench.analysis.origin import SHOWN
from srbench.analysis.records import Metric
from srbench.analysis.results import (
    DIFFERENCE,
    STAR,
    Board,
    ResultCell,
    boards,
    brief,
    coverage,
    from_dict,
    name_of,
    result,
    shown,
    to_dict,
)
from srbench.analysis.robustness import OWN, Matrix
from srbench.analysis.sensitivity import Curve

__all__ = ["ResultCell", "from_dict", "render", "result", "to_dict"]

FOLD, GAP = 12, 2
"""Characters after which words in a metric's column take another line, and between columns."""
NAME_LEAST = 16
"""Characters that names have at least; beyond, they take no more than half of the width."""
RULED = box.Box("    \n    \n ── \n    \n ╌╌ \n    \n    \n    \n")
"""A rule below the header, and one where a section ends."""
RULED_PLAIN = box.Box("    \n    \n -- \n    \n .. \n    \n    \n    \n", ascii=True)
"""The same for files and pipes."""


def ruled(plain: bool) -> Table:
    """An empty table with rules; plain: of ASCII."""
    return Table(box=RULED_PLAIN if plain else RULED, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)


def render(
    cells: Sequence[ResultCell], notes: Mapping[str, str] | None = None, width: int = 120, sort: str | None = None,
    plain: bool = False,
) -> RenderableType:
    """All cells; metrics that do not fit into `width` characters go on in a further table below.

    notes: method, checkpoint, suite or concept -> footnote; the built-in ones where not given.
    sort: the metric whose best value comes first. plain: without box characters.
    """
    if not cells:
        return Text("no results")
    return Group(*(part for board in boards(cells, notes, sort) for part in _render_board(board, width, plain)))


def _render_board(board: Board, width: int, plain: bool) -> Iterator[RenderableType]:
    reasons: list[str] = []
    columns = {name: _column(board, name, reasons) for name in board.metrics}
    columns |= {"coverage": _extra(board, "coverage", coverage), "source": _extra(board, "source", lambda cell: cell.source)}
    yield Text.assemble((board.title, "bold"), "   ", (board.caption, "dim"))
    names = _name_width(map(name_of, board.cells), width)
    for block in _blocks(columns, board.metrics, width - names):
        yield _block(board, {name: columns[name] for name in block}, names, plain)
    for index, reason in enumerate(reasons, 1):
        yield Text(f"{index}) n/a: {reason}", style="dim")
    for note in board.notes:
        yield Text(f"* {note}", style="dim")
    yield Text("")


def _column(board: Board, name: str, reasons: list[str]) -> list[Text]:
    """Header, then one text per cell."""
    return [Text(folded(board.header(name))), *(_value(board, cell, name, reasons) for cell in board.cells)]


def folded(header: str) -> str:
    """A metric's header; long ones take more lines, so that the column stays as narrow as its numbers."""
    if len(header) <= FOLD:
        return header
    name, mark, rest = header.partition(DIFFERENCE)
    return (name.replace("_", "_\n", 1) if len(name) > FOLD or not mark else name) + (f"\n{mark}{rest}" if mark else "")


def _extra(board: Board, header: str, said: Callable[[ResultCell], str]) -> list[Text]:
    return [Text(header), *(Text(said(cell)) for cell in board.cells)]


def _value(board: Board, cell: ResultCell, name: str, reasons: list[str]) -> Text:
    found = shown(cell.metrics.get(name))
    if found.reason:
        return Text(textwrap.fill(f"n/a ({brief(found.reason, reasons)})", FOLD), style="dim")
    star = board.starred(cell, name)
    text = Text.assemble((f"{STAR} {found.value}", "bold") if star else found.value)
    for line in filter(None, (found.interval, *found.bounds)):
        text.append(f"\n{line}", style="dim")
    return text


def _name_width(names: Iterable[str], width: int) -> int:
    """Characters of the column of methods."""
    return min(max(map(cell_len, ("method", *names))), max(NAME_LEAST, width // 2))


def _needed(texts: Sequence[Text]) -> int:
    return GAP + max(cell_len(line) for text in texts for line in text.plain.splitlines() or [""])


def _blocks(columns: Mapping[str, Sequence[Text]], metrics: Sequence[str], room: int) -> list[list[str]]:
    """Columns per table: coverage and source stand in the first one, in a last one where they leave no room for a metric."""
    extras = [name for name in columns if name not in metrics]
    reserved = sum(_needed(columns[name]) for name in extras)
    fits = bool(metrics) and reserved + _needed(columns[metrics[0]]) <= room
    blocks: list[list[str]] = [[]]
    left = room - reserved if fits else room
    for name in metrics:
        needed = _needed(columns[name])
        if needed > left and blocks[-1]:
            blocks.append([])
            left = room
        blocks[-1].append(name)
        left -= needed
    if fits:
        return [blocks[0] + extras, *blocks[1:]]
    return [*filter(None, blocks), *([extras] if extras else [])]


def _block(board: Board, columns: Mapping[str, Sequence[Text]], names: int, plain: bool) -> Table:
    table = ruled(plain)
    table.add_column("method", max_width=names, overflow="fold")
    for name, (header, *_) in columns.items():
        table.add_column(header, justify="left" if name == "source" else "right", no_wrap=True)
    for index, cell in enumerate(board.cells):
        if index == len(board.main):
            table.add_section()
        line = Text.assemble(cell.label, (name_of(cell).removeprefix(cell.label), "dim"))
        table.add_row(line, *(texts[index + 1] for texts in columns.values()))
    return table


def render_costs(found: Sequence[Cost], plain: bool = False) -> RenderableType:
    """What methods cost, a line each."""
    table = ruled(plain)
    several = len({cost.backbone for cost in found}) > 1
    table.add_column("method", overflow="fold")
    for name in ("backbone",) * several:
        table.add_column(name, overflow="fold")
    for name in ("prepare s", "added ms an image", "parameters", "peak MB", "cells"):
        table.add_column(name, justify="right", no_wrap=name not in ("prepare s", "added ms an image"))
    for cost in found:
        made, peak = _plain(cost.prepare_seconds, ".1f"), _plain(cost.peak_mb, ",.0f")
        numbers = (made, _added(cost), _plain(cost.parameters, ",d"), peak, str(cost.cells))
        table.add_row(Text(cost.method), *(Text(cost.backbone),) * several, *numbers)
    notes = (
        "prepare: making the checkpoint and what the method learns or reads, on the machine that made it",
        "added: beside 'none' on the same checkpoint, mean over the cells, with the least and the most",
        "peak: of the whole process on a CPU, of torch on CUDA",
    )
    return Group(table, *(Text(f"* {note}", style="dim") for note in notes))


def render_sensitivity(found: Sequence[Curve], width: int = 160, plain: bool = False) -> RenderableType:
    """Rates by threshold, one table a concept, suite, backbone, set of rows and list of classes; further ones below where it
    is too narrow."""
    groups: dict[tuple[str, ...], list[Curve]] = {}
    for curve in found:
        place = (curve.concept, curve.suite, curve.backbone, curve.dtype, curve.rows_sha[:SHOWN])
        groups.setdefault((*place, curve.metric, ", ".join(curve.classes)), []).append(curve)
    blocks: list[RenderableType] = []
    for (concept, suite, backbone, dtype, rows, metric, classes), own in groups.items():
        caption = f"{classes} · {backbone} · {dtype} · rows {rows}"
        blocks.append(Text.assemble((f"{concept} x {suite}: {metric} by threshold", "bold"), "   ", (caption, "dim")))
        blocks += [*_by_threshold(own, width, plain), Text()]
    return Group(*blocks)


def _by_threshold(own: Sequence[Curve], width: int, plain: bool) -> Iterator[Table]:
    thresholds = [f"{at:g}" for at, _ in own[0].rates]
    columns = {name: [Text(name), *(_stacked(curve.rates[i][1]) for curve in own)] for i, name in enumerate(thresholds)}
    yield from _lines([curve.method for curve in own], columns, width, plain)


def _lines(methods: Sequence[str], columns: Mapping[str, Sequence[Text]], width: int, plain: bool) -> Iterator[Table]:
    """A line a method under headers; columns that do not fit go on in a further table."""
    names = _name_width(methods, width)
    for block in _blocks(columns, list(columns), width - names):
        table = ruled(plain)
        table.add_column("method", max_width=names, overflow="fold")
        for name in block:
            table.add_column(columns[name][0], justify="right", no_wrap=True)
        for index, method in enumerate(methods, 1):
            table.add_row(Text(method), *(columns[name][index] for name in block))
        yield table


def _stacked(metric: Metric | None, mark: str = "") -> Text:
    """A value above its interval."""
    found = shown(metric)
    return Text.assemble(found.value, *((f"\n{line}", "dim") for line in (found.interval, *found.bounds, mark) if line))


def render_matrices(found: Sequence[Matrix], width: int = 120, plain: bool = False) -> RenderableType:
    """Methods x suites, and methods x prompts made against a method."""
    blocks: list[RenderableType] = []
    for matrix in found:
        columns = {
            name: [Text(name.replace(" against ", "\nagainst\n")), *(
                _stacked(own.get(name), OWN if matrix.own(method, name) else "") for method, own in matrix.rows.items()
            )]
            for name in matrix.columns
        }  # fmt: skip
        blocks.append(Text.assemble((matrix.title, "bold"), "   ", (matrix.caption, "dim")))
        blocks += [*_lines(list(matrix.rows), columns, width, plain), Text()]
    return Group(*blocks)


def _plain(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


def _added(cost: Cost) -> Text:
    if cost.added_ms is None or cost.added_low is None or cost.added_high is None:
        return Text("n/a", style="dim")
    spread = f" [{cost.added_low:.1f}, {cost.added_high:.1f}]" if cost.cells > 1 else ""
    return Text.assemble(f"{cost.added_ms:.1f}", (spread, "dim"))
