"""Result cells as tables: which cells share a table, in which order, and with which notes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from srbench.analysis.gains import SUFFIX
from srbench.analysis.intervals import resolution
from srbench.analysis.metrics import METRICS
from srbench.analysis.origin import ORIGIN, SHOWN, Identity, in_order, noises, place_of, told_by
from srbench.analysis.records import Metric
from srbench.analysis.results import (
    COUNTS,
    DIFFERENCE,
    IDENTITY,
    ResultCell,
    name_of,
    order_of,
    title_of,
    to_dict,
    told_apart,
)
from srbench.catalog import load
from srbench.results.lookup import check_names
from srbench.tables.numbers import ARROWS, DASH, item_of
from srbench.tables.sheet import Column, Item, Section, Sheet, Tables

FOLD = 12
"""Characters after which a metric's heading takes another line on a terminal."""
MEASURED = (
    *("metric", "value", "low", "high", "n", "scored", "worst", "best", "better", "reason"),
    *("test", "p", "p_holm", "trials"),
)
"""Columns of a metric in CSV."""
COARSE = 10.0
"""Percentage points either side of a rate of 50 %; where the interval of so few rows is wider, a note says so."""

TESTED = (
    "p: two-sided, exact McNemar where every row has a prompt of its own, else permutation over prompts; Holm-corrected over all "
)
"""How p-values come about; behind it stands the family that they are corrected within."""
COMPARED = f"{TESTED}comparisons of a metric in one table."
GAINED = f"{SUFFIX}: less the checkpoint alone on the same rows. {TESTED}gains of a metric in one table of the run."

NOTES = {
    "saferedir-upstream": "saferedir-upstream is the released code, but its countdown does not leak from one image into the next."
}
"""Method, checkpoint, suite or concept -> footnote of every table that has it."""



@dataclass(frozen=True)
class Board:
    """One table: cells that may be compared, those with a variant apart, and the metrics that any of them has."""

    title: str
    caption: str
    main: tuple[ResultCell, ...]
    apart: tuple[ResultCell, ...]
    """Limited or otherwise changed runs; never marked as best."""
    metrics: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def cells(self) -> tuple[ResultCell, ...]:
        return self.main + self.apart

    def header(self, metric: str) -> str:
        """The metric's name with its direction."""
        return f"{metric} {ARROWS[_better(self.cells, metric)]}"

    def starred(self, cell: ResultCell, metric: str) -> bool:
        """Whether the cell holds the best value among the cells of `main` that failed nowhere, and another is worse."""
        value = _whole(cell, metric)
        return value is not None and value == self._best.get(metric) and cell in self.main

    @cached_property
    def _best(self) -> dict[str, float]:
        """The best value of each metric that has one: of at least two that differ."""
        best = {}
        for metric in (name for name in self.metrics if name in METRICS and METRICS[name].starred):
            values = {value for cell in self.main if (value := _whole(cell, metric)) is not None}
            if len(values) > 1:
                best[metric] = (max if _better(self.cells, metric) == "higher" else min)(values)
        return best


def _whole(cell: ResultCell, metric: str) -> float | None:
    """The value of a metric where no row of the cell failed."""
    measured = cell.metrics.get(metric)
    whole = measured is not None and measured.scored == measured.n and cell.n_scored == cell.n_run
    return measured.value if measured is not None and whole else None


def _better(cells: Iterable[ResultCell], metric: str) -> str:
    return next(cell.metrics[metric].better for cell in cells if metric in cell.metrics)


def boards(cells: Sequence[ResultCell], notes: Mapping[str, str] | None = None, sort: str | None = None) -> list[Board]:
    """One board per place (`origin.place_of`): cells of another backbone, by content, of other rows, judge, dtype, seed or noise
    can not be compared and have a board of their own.

    notes: method, checkpoint, suite or concept -> footnote; `NOTES` where not given.
    sort: the metric whose best value comes first; the untouched backbone comes first where not given. Raises `UsageError` where
    no cell has it.
    """
    notes = NOTES if notes is None else notes
    places: dict[Identity, list[ResultCell]] = {}
    for cell in cells:
        places.setdefault(place_of(cell), []).append(cell)
    if sort is not None:
        check_names("metric", [sort], {name for cell in cells for name in cell.metrics})
    several = len(noises(cells)) > 1
    made = [_board(_told_apart(places[place]), sort, notes, several) for place in sorted(places, key=_board_order)]
    titled: dict[str, list[ResultCell]] = {}
    for board in made:
        titled.setdefault(board.title, []).extend(board.cells)
    return [replace(board, notes=(*board.notes, *told_by(titled[board.title]))) for board in made]


def _told_apart(cells: Sequence[ResultCell]) -> Sequence[ResultCell]:
    """The cells as given where no two have one name; else with marks that tell them apart."""
    return cells if len(set(map(name_of, cells))) == len(cells) else told_apart(cells)


def _board_order(place: Identity) -> tuple[tuple[bool, str], ...]:
    """By backbone, concept, suite and judge, then by what else tells boards apart."""
    backbone, sha, noise, seed, scorers, concept, suite, protocol, dtype, rows = place
    return in_order((backbone, concept, suite, protocol, dtype, rows, sha, seed, noise, scorers))


def caption_of(cell: ResultCell, noise: bool = False) -> str:
    """What the cells of a table share beside its title. noise: whether to say how noise was drawn."""
    seed, drawn = cell.origin.seed, cell.origin.noise or "not known"
    parts = [f"judge {cell.protocol}", cell.dtype, f"rows {cell.rows_sha[:SHOWN]}"]
    parts += [] if seed is None else [f"seed {seed}"]
    parts += [f"scorers {cell.origin.scorers_sha[:SHOWN]}"] if cell.origin.scorers_sha else []
    return " · ".join([*parts, f"noise: {drawn}"] if noise else parts)


def _ranked(cells: list[ResultCell], metric: str | None) -> list[ResultCell]:
    """By a metric, the best first and those without a value last; else by name."""
    ordered = sorted(cells, key=order_of)
    return ordered if metric is None else sorted(ordered, key=lambda cell: _rank(cell.metrics.get(metric)))


def _rank(metric: Metric | None) -> tuple[bool, float]:
    if metric is None or metric.value is None or not math.isfinite(metric.value):
        return True, 0.0
    return False, -metric.value if metric.better == "higher" else metric.value


def _board(cells: Sequence[ResultCell], sort: str | None, notes: Mapping[str, str], noise: bool) -> Board:
    main, apart = (_ranked([cell for cell in cells if bool(cell.variant) == changed], sort) for changed in (False, True))
    cells = main + apart
    metrics = _metric_names(cells)
    return Board(
        title=title_of(cells[0]),
        caption=caption_of(cells[0], noise),
        main=tuple(main),
        apart=tuple(apart),
        metrics=metrics,
        notes=_footnotes(cells, metrics, notes),
    )


def _metric_names(cells: Sequence[ResultCell]) -> tuple[str, ...]:
    """Metrics in their order, what scorers and stacking add behind them, and each difference beside its metric.

    Where some cells were run here, those decide: what only committed cells have would be columns without a value of one's own.
    """
    local = [cell for cell in cells if cell.source == "local"] or cells
    present = {name for cell in local for name in cell.metrics}
    plain = {name.removesuffix(DIFFERENCE) for name in present}
    ordered = [*(name for name in METRICS if name in plain), *sorted(plain - set(METRICS))]
    return tuple(each for name in ordered for each in (name, name + DIFFERENCE) if each in present)


def _footnotes(cells: Sequence[ResultCell], metrics: Sequence[str], notes: Mapping[str, str]) -> tuple[str, ...]:
    names = dict.fromkeys(name for cell in cells for name in (cell.method, cell.on, cell.suite, cell.concept))
    lines = [notes[name] for name in names if name in notes]
    judge = load.protocols().get(cells[0].protocol)
    lines += [judge.note] if judge and judge.note else []
    lines += dict.fromkeys(note for cell in cells for note in cell.notes)
    tested = {name.endswith(SUFFIX) for cell in cells for name, metric in cell.metrics.items() if metric.p_holm is not None}
    lines += [note for gain, note in ((True, GAINED), (False, COMPARED)) if gain in tested]
    lines += coarse({name: of_cells(cells, name) for name in metrics})
    if not all(cell.metrics.keys() >= set(metrics) for cell in cells):
        lines.append(f"{DASH} not asked for, or without a meaning for this method.")
    if any(cell.n_excluded for cell in cells):
        lines.append("Rows were excluded (they name minors, or trained a method): n differs from the published suite's.")
    if any(metric.value is not None and metric.scored < metric.n for cell in cells for metric in cell.metrics.values()):
        lines.append(
            "Where rows failed, the value is over the scored ones; the range counts the failures against and for the method."
        )
    return tuple(lines)


def of_cells(cells: Sequence[ResultCell], name: str) -> list[Metric]:
    """A metric of every cell that has it."""
    return [cell.metrics[name] for cell in cells if name in cell.metrics]


def coarse(measured: Mapping[str, Sequence[Metric]]) -> list[str]:
    """Which rates rest on so few rows that they settle only large differences. measured: name of a metric -> its values."""
    few: dict[int, list[str]] = {}
    for name in (name for name in measured if name in METRICS and METRICS[name].rate):
        trials = [metric.trials or metric.scored for metric in measured[name] if metric.value is not None]
        fewest = min(trials, default=0)
        if fewest and resolution(fewest) > COARSE:
            few.setdefault(fewest, []).append(name)
    return [
        f"n = {n} ({', '.join(names)}): ±{resolution(n):.0f} points at a rate of 50 %; less needs a paired test, or more rows."
        for n, names in few.items()
    ]


def coverage(cell: ResultCell) -> str:
    """Rows scored of rows run, and how many were excluded before."""
    return f"{cell.n_scored}/{cell.n_run}" + (f" ({cell.n_excluded} excluded)" if cell.n_excluded else "")


# --- as sheets --------------------------------------------------------------------------------------------------------


def tables(cells: Sequence[ResultCell], notes: Mapping[str, str] | None = None, sort: str | None = None) -> Tables:
    """One sheet a board; for programs the cells themselves, in the order of the boards.

    notes and sort: as for `boards`.
    """
    shown = boards(cells, notes, sort)
    ordered = [cell for board in shown for cell in board.cells]
    return Tables(
        title="srbench compare",
        sheets=tuple(map(_sheet, shown)),
        fields=(*IDENTITY, *ORIGIN, "source", *COUNTS, *MEASURED),
        records=[record for cell in ordered for record in _records(cell)],
        data={"cells": [to_dict(cell) for cell in ordered]},
    )


def _records(cell: ResultCell) -> list[dict[str, Any]]:
    """A record a metric, rates in percent; what does not exist is missing and has a reason."""
    data = to_dict(cell)
    shared = {name: data.get(name) for name in (*IDENTITY, *ORIGIN, *COUNTS)} | {"source": cell.source}
    return [{**shared, "metric": name, **metric} for name, metric in data["metrics"].items()]


def _sheet(board: Board) -> Sheet:
    metrics = [Column(header, narrow=folded(header), wraps=False) for header in map(board.header, board.metrics)]
    ends = [Column("coverage", beside=True, wraps=False), Column("source", "l", beside=True, wraps=False)]
    main, apart = (tuple(_line(board, cell) for cell in cells) for cells in (board.main, board.apart))
    sections = [Section("", main)] if main else []
    if apart:
        sections.append(Section("not the defaults:" if main else "", apart))
    return Sheet(board.title, board.caption, (Column("method", "l"), *metrics, *ends), tuple(sections), board.notes)


def _line(board: Board, cell: ResultCell) -> tuple[Item, ...]:
    name = Item(cell.label, tail=name_of(cell).removeprefix(cell.label))
    values = (item_of(cell.metrics.get(metric), board.starred(cell, metric)) for metric in board.metrics)
    return (name, *values, Item(coverage(cell)), Item(cell.source))


def folded(header: str) -> str:
    """A metric's header; long ones take more lines, so that the column stays as narrow as its numbers."""
    if len(header) <= FOLD:
        return header
    name, mark, rest = header.partition(DIFFERENCE)
    return (name.replace("_", "_\n", 1) if len(name) > FOLD or not mark else name) + (f"\n{mark}{rest}" if mark else "")
