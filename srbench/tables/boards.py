"""Result cells as tables: which cells share a table, in which order, and with which notes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from srbench.analysis.gains import SUFFIX
from srbench.analysis.intervals import FEWEST_PHRASES, resolution
from srbench.analysis.leaders import Leaders, RowsOf, leaders, no_rows
from srbench.analysis.metrics import IF_DRAWN, METRICS, NO_NONE
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
from srbench.analysis.significance import one_family
from srbench.catalog import load
from srbench.results.lookup import check_names
from srbench.tables.numbers import (
    ADDED,
    ARROWS,
    DASH,
    HEADINGS,
    NOT_RESOLVED,
    ONE_BATCH,
    OVER_PHRASES,
    STAR,
    item_of,
    named,
    shown_as,
)
from srbench.tables.sheet import Column, Item, Section, Sheet, Tables

FOLD = 12
"""Characters after which a metric's heading takes another line on a terminal."""
MEASURED = (
    *("metric", "value", "low", "high", "n", "scored", "worst", "best", "better", "reason"),
    *("test", "p", "p_holm", "trials", "phrases", "phrase_low", "phrase_high", "base"),
)
"""Columns of a metric in CSV."""
COARSE = 10.0
"""Percentage points either side of a rate of 50 %; where the interval of so few rows is wider, a note says so."""

TESTS = "exact McNemar where every row has a prompt of its own, else permutation over prompts"
GAINED = f"{SUFFIX}: less the checkpoint alone on the same rows."
STARRED = f"{STAR} the best value, where a test tells it from the next best: "
"""How a star comes about; behind it stands by which test."""

UNRESOLVED = "added_ms: not resolved where its 95 % interval is wider than the difference; within: the interval's far end."
OF_ONE_BATCH = "added_ms: of one timed batch there is no interval, and the machine's other work may be all of it."
RENAMED = "{shown}: the seed-to-seed level, csdr between two seeds of the reference prompt; `{name}` in files and for --sort."
"""Below a table with a metric whose heading is not its name in files."""
PHRASES = f"{OVER_PHRASES}: the interval over phrases, as if the words that name the concept, not the rows, were the sample."
BESIDE_NONE = frozenset(IF_DRAWN.values())
"""Metrics that every cell has and few may have a value of: a column of them is shown where one has."""
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
    stars: Leaders = field(default_factory=Leaders)
    """The best values that a test tells from the next best."""

    @property
    def cells(self) -> tuple[ResultCell, ...]:
        return self.main + self.apart

    def header(self, metric: str) -> str:
        """The metric's name with its direction."""
        return f"{named(metric)} {ARROWS[_better(self.cells, metric)]}"

    def starred(self, cell: ResultCell, metric: str) -> bool:
        """Whether the cell holds the best value among the cells of `main` that failed nowhere, and a test says that it is."""
        return any(cell is each for each in self.stars.cells.get(metric, ()))


def with_stars(board: Board, rows_of: RowsOf) -> Board:
    """The board with its best values marked. rows_of: a cell's rows where they are stored here: the tests are then paired."""
    starred = [name for name in board.metrics if name in METRICS and METRICS[name].starred]
    whole = {metric: [cell for cell in board.main if _whole(cell, metric) is not None] for metric in starred}
    return replace(board, stars=leaders(whole, rows_of))


def star_note(stars: Leaders) -> list[str]:
    """How the stars of a table came about; nothing where it has none."""
    several = f", Holm-corrected over {stars.tests} columns" if stars.tests > 1 else ""
    ways = [f"paired on the same rows ({TESTS}){several}"] if stars.paired else []
    ways += ["of values without rows here, by the interval of their difference as if independent"] if stars.unpaired else []
    return [f"{STARRED}{'; '.join(ways)}."] if ways else []


def family_note(count: int) -> str:
    """How p-values come about, and the family that they are corrected within: all tests of the table."""
    family = f"Holm-corrected over the {count} tests of this table" if count > 1 else "the only test of this table"
    return f"p: two-sided, {TESTS}; {family}."


def _whole(cell: ResultCell, metric: str) -> float | None:
    """The value of a metric where no row of the cell failed."""
    measured = cell.metrics.get(metric)
    whole = measured is not None and measured.scored == measured.n and cell.n_scored == cell.n_run
    return measured.value if measured is not None and whole else None


def _better(cells: Iterable[ResultCell], metric: str) -> str:
    return next(cell.metrics[metric].better for cell in cells if metric in cell.metrics)


def boards(
    cells: Sequence[ResultCell], notes: Mapping[str, str] | None = None, sort: str | None = None, rows_of: RowsOf = no_rows
) -> list[Board]:
    """One board per place (`origin.place_of`): cells of another backbone, by content, of other rows, judge, dtype, seed or noise
    can not be compared and have a board of their own.

    notes: method, checkpoint, suite or concept -> footnote; `NOTES` where not given.
    sort: the metric whose best value comes first; the untouched backbone comes first where not given. Raises `UsageError` where
    no cell has it.
    rows_of: a cell's rows, for the tests behind its stars.
    """
    notes = NOTES if notes is None else notes
    places: dict[Identity, list[ResultCell]] = {}
    for cell in cells:
        places.setdefault(place_of(cell), []).append(cell)
    if sort is not None:
        check_names("metric", [sort], {name for cell in cells for name in cell.metrics})
    several = len(noises(cells)) > 1
    made = [
        with_stars(_board(_told_apart(places[place]), sort, notes, several), rows_of)
        for place in sorted(places, key=_board_order)
    ]
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
    metrics = _metric_names(cells)
    cells, tests = _one_family(cells, metrics)
    main, apart = (_ranked([cell for cell in cells if bool(cell.variant) == changed], sort) for changed in (False, True))
    cells = main + apart
    return Board(
        title=title_of(cells[0]),
        caption=caption_of(cells[0], noise),
        main=tuple(main),
        apart=tuple(apart),
        metrics=metrics,
        notes=_footnotes(cells, metrics, notes, tests),
    )


def _one_family(cells: Sequence[ResultCell], metrics: Sequence[str]) -> tuple[list[ResultCell], int]:
    """The cells with all p-values of the table Holm-corrected together, and how many these are.

    A test without a column is not of the table: it keeps its p, and has no corrected one.
    """
    shown = [(number, name) for number, cell in enumerate(cells) for name in cell.metrics if name in metrics]
    corrected, count = one_family([cells[number].metrics[name] for number, name in shown])
    new = dict(zip(shown, corrected, strict=True))

    def with_family(number: int, name: str, metric: Metric) -> Metric:
        return new.get((number, name)) or replace(metric, p_holm=None)

    return [
        replace(cell, metrics={name: with_family(number, name, metric) for name, metric in cell.metrics.items()})
        for number, cell in enumerate(cells)
    ], count


def _metric_names(cells: Sequence[ResultCell]) -> tuple[str, ...]:
    """Metrics in their order, what scorers and stacking add behind them, and each difference beside its metric.

    Where some cells were run here, those decide: what only committed cells have would be columns without a value of one's own.
    """
    local = [cell for cell in cells if cell.source == "local"] or cells
    present = {name for cell in local for name in cell.metrics if name not in BESIDE_NONE or _some_value(cells, name)}
    plain = {name.removesuffix(DIFFERENCE) for name in present}
    ordered = [*(name for name in METRICS if name in plain), *sorted(plain - set(METRICS))]
    return tuple(each for name in ordered for each in (name, name + DIFFERENCE) if each in present)


def _some_value(cells: Sequence[ResultCell], name: str) -> bool:
    return any(metric.value is not None for metric in of_cells(cells, name))


def _beside_none(cells: Sequence[ResultCell]) -> list[str]:
    """What the rates beside `none` are rates of, and why there are none."""
    lines = []
    for plain, name in IF_DRAWN.items():
        found = of_cells(cells, name)
        valued = [cell for cell in cells if name in cell.metrics and cell.metrics[name].value is not None]
        sizes = {(cell.metrics[name].scored, cell.metrics[plain].n) for cell in valued if plain in cell.metrics}
        rows = " or ".join(f"{n} of {whole}" for n, whole in sorted(sizes))
        unsaid = max((cell.metrics[name].n - cell.metrics[name].scored for cell in valued), default=0)
        more = f", and {unsaid} could not be judged" if unsaid else ""
        reasons = dict.fromkeys(metric.reason for metric in found if metric.value is None and metric.reason == NO_NONE)
        lines += [f"{name}: {plain} on the {rows} rows on which `none` shows the concept{more}."] if sizes else []
        lines += [f"{name}: n/a ({reason})." for reason in reasons] if not sizes else []
    return lines


def _footnotes(
    cells: Sequence[ResultCell], metrics: Sequence[str], notes: Mapping[str, str], tests: int
) -> tuple[str, ...]:
    names = dict.fromkeys(name for cell in cells for name in (cell.method, cell.on, cell.suite, cell.concept))
    lines = [notes[name] for name in names if name in notes]
    judge = load.protocols().get(cells[0].protocol)
    lines += [judge.note] if judge and judge.note else []
    lines += dict.fromkeys(note for cell in cells for note in cell.notes)
    lines += [GAINED] if any(name.endswith(SUFFIX) for name in metrics) else []
    lines += [family_note(tests)] if tests else []
    lines += _beside_none(cells)
    lines += over_phrases({name: of_cells(cells, name) for name in metrics})
    lines += coarse({name: of_cells(cells, name) for name in metrics})
    lines += [RENAMED.format(shown=HEADINGS[name], name=name) for name in metrics if name in HEADINGS]
    if not all(cell.metrics.keys() >= set(metrics) for cell in cells):
        lines.append(f"{DASH} not asked for, or without a meaning for this method.")
    if any(cell.n_excluded for cell in cells):
        lines.append("Rows were excluded (they name minors, or trained a method): n differs from the published suite's.")
    lines += timed(of_cells(cells, ADDED))
    if any(metric.value is not None and metric.scored < metric.n for cell in cells for metric in cell.metrics.values()):
        lines.append(
            "Where rows failed, the value is over the scored ones; the range counts the failures against and for the method."
        )
    return tuple(lines)


def of_cells(cells: Sequence[ResultCell], name: str) -> list[Metric]:
    """A metric of every cell that has it."""
    return [cell.metrics[name] for cell in cells if name in cell.metrics]


def timed(times: Sequence[Metric]) -> list[str]:
    """What is to be said of additional milliseconds."""
    texts = [shown_as(ADDED, metric) for metric in times]
    return [
        *([UNRESOLVED] if any(text.value == NOT_RESOLVED for text in texts) else []),
        *([OF_ONE_BATCH] if any(text.interval == ONE_BATCH for text in texts) else []),
    ]


def over_phrases(measured: Mapping[str, Sequence[Metric]]) -> list[str]:
    """What the intervals over phrases are, and of how many. measured: name of a metric -> its values."""
    named = {name: [metric for metric in metrics if metric.phrases] for name, metrics in measured.items()}
    sizes: dict[str, dict[str, None]] = {}
    for name, metrics in named.items():
        for metric in metrics:
            sizes.setdefault(name, {})[_phrase_size(metric)] = None
    lines = [PHRASES] if any(metric.phrase_low is not None for metrics in named.values() for metric in metrics) else []
    texts = [f"{name} {size}" for name, of_name in sizes.items() for size in of_name]
    return [*lines, *([f"Rows and phrases: {'; '.join(texts)}."] if texts else [])]


def _phrase_size(metric: Metric) -> str:
    size = f"n {metric.scored}, {metric.phrases} phrase{'s' if metric.phrases != 1 else ''}"
    if metric.phrase_low is not None:
        return size
    return f"{size}, too few for an interval" if metric.phrases < FEWEST_PHRASES else f"{size}, some rows name none: no interval"


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


def tables(
    cells: Sequence[ResultCell], notes: Mapping[str, str] | None = None, sort: str | None = None, rows_of: RowsOf = no_rows
) -> Tables:
    """One sheet a board; for programs the cells themselves, in the order of the boards.

    notes, sort and rows_of: as for `boards`.
    """
    shown = boards(cells, notes, sort, rows_of)
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
    columns = (Column("method", "l"), *metrics, *ends)
    return Sheet(board.title, board.caption, columns, tuple(sections), (*star_note(board.stars), *board.notes))


def _line(board: Board, cell: ResultCell) -> tuple[Item, ...]:
    name = Item(cell.label, tail=name_of(cell).removeprefix(cell.label))
    values = (item_of(cell.metrics.get(metric), board.starred(cell, metric), name=metric) for metric in board.metrics)
    return (name, *values, Item(coverage(cell)), Item(cell.source))


def folded(header: str) -> str:
    """A metric's header; long ones take more lines, so that the column stays as narrow as its numbers."""
    if len(header) <= FOLD:
        return header
    if " " in header[:-2]:  # words, with an arrow behind them
        return textwrap.fill(header, FOLD)
    name, mark, rest = header.partition(DIFFERENCE)
    return (name.replace("_", "_\n", 1) if len(name) > FOLD or not mark else name) + (f"\n{mark}{rest}" if mark else "")
