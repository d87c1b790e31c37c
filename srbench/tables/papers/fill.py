"""Finds the measured cell for each published figure, and pocket's cells for each table's pocket edition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache

from srbench.analysis.attacks import against
from srbench.analysis.gains import SUFFIX
from srbench.analysis.metrics import definition
from srbench.analysis.origin import SHOWN, Identity, ground_of, ground_text
from srbench.analysis.records import Metric, turned
from srbench.analysis.results import ResultCell
from srbench.catalog import load
from srbench.catalog.specs import Better
from srbench.errors import UsageError
from srbench.results.origins import first_shipped
from srbench.tables.papers import check
from srbench.tables.papers.spec import POCKET, CellOf, Column, Figure, PocketColumn, PocketRow, PublishedRow, TableSpec

NOT_RUN = "not run"
AGREES, HIGHER, LOWER, NO_INTERVAL, NO_VALUE = "agrees", "higher", "lower", "no interval", "n/a"
DTYPE = "dtype="


@dataclass(frozen=True)
class Line:
    """One published figure, or one that is not known here, with what was measured."""

    row: PublishedRow
    column: Column
    figure: Figure | None
    fits: str
    cell: ResultCell | None
    metric: Metric | None
    """In the unit of the column."""
    others: tuple[ResultCell, ...] = ()
    """Further results that fit the row: older ones, and those of other rows or seeds."""

    @property
    def n(self) -> int | None:
        """Behind the published figure, where known."""
        return (self.figure.n or self.column.n) if self.figure else None

    @property
    def difference(self) -> float | None:
        """Measured less published, in the unit of the column; None where one of them is missing or the published is a bound."""
        if self.figure is None or self.figure.sign or self.metric is None or self.metric.value is None:
            return None
        return self.metric.value - float(self.figure.digits)

    @property
    def verdict(self) -> str:
        """What the measured interval says of the published figure; `higher` and `lower` are said of the measured value."""
        if self.metric is None:
            return NOT_RUN
        if self.metric.value is None:
            return NO_VALUE
        if self.figure is None:
            return ""
        outcome = compared(self.figure, self.metric)
        differs = self.n is not None and self.metric.scored != self.n
        return outcome + (f"; n differs: {self.n} published, {self.metric.scored} measured" if differs else "")


def compared(figure: Figure, metric: Metric) -> str:
    """`agrees` where the published value, to its last printed digit, lies in the measured interval, else which way it misses.

    Of a bound (`>94`) every value on its side is published.
    """
    if metric.low is None or metric.high is None:
        return NO_INTERVAL
    value, half = float(figure.digits), float(check.step(figure.digits)) / 2
    if value - half > metric.high and figure.sign != "<":
        return LOWER
    if value + half < metric.low and figure.sign != ">":
        return HIGHER
    return AGREES


# --- published tables -------------------------------------------------------------------------------------------------


def lines(table: TableSpec, cells: Sequence[ResultCell]) -> list[Line]:
    """Every figure of the table, in the order of its rows."""
    common = {column.name: _common(table, column) for column in table.columns if column.rate}
    filled = []
    for row in table.rows:
        fits_of = {attack: fitting(row.run, cells, attack) for attack in {column.attack for column in table.columns}}
        published = [(table.column(figure.column), figure) for figure in row.figures]
        for column, figure in [*published, *((table.column(name), None) for name in row.unknown)]:
            cell, others = next(iter(fits_of[column.attack]), None), tuple(fits_of[column.attack][1:])
            fits = _fits(figure, column, common.get(column.name)) if figure else ""
            filled.append(Line(row, column, figure, fits, cell, _measured(column, cell), others))
    return filled


def _full(column: Column) -> int:
    return 100 if column.unit == "percent" else 1


def _common(table: TableSpec, column: Column) -> int | None:
    """The smallest n that fits all rates of the column for which no size is known or likely."""
    figures = [figure for row in table.rows for figure in row.figures if figure.column == column.name and not figure.sign]
    return check.smallest_common([figure.digits for figure in figures if not _sizes(figure, column)], _full(column))


def _sizes(figure: Figure, column: Column) -> tuple[int, ...]:
    n = figure.n or column.n
    return (*([n] if n else []), *(figure.candidates or column.candidates))


def _fits(figure: Figure, column: Column, common: int | None) -> str:
    if figure.sign or not column.rate:
        return ""
    full = _full(column)
    if not _sizes(figure, column):
        return f"{check.verdict(figure.digits, common, full=full)}, the smallest for the column" if common else ""
    return check.verdict(figure.digits, figure.n or column.n, figure.candidates or column.candidates, full)


def fitting(run: CellOf | None, cells: Iterable[ResultCell], attack: str = "") -> list[ResultCell]:
    """Cells that a row corresponds to, the newest first; a limited run never stands for one, another dtype may.

    attack: then a cell on the prompts that it made against the row itself, in place of the row's suite.
    """
    if run is None:
        return []
    fits = []
    wanted = (run.backbone, run.concept, run.method, run.on, run.variant)
    for cell in cells:
        same = (cell.backbone, cell.concept, cell.method, cell.on, without_dtype(cell.variant)) == wanted
        if same and run.protocol in ("", cell.protocol) and _asks(cell, run.suite, attack):
            fits.append(cell)
    return sorted(fits, key=lambda cell: cell.source != "local")


def stands_for(run: CellOf | None, cells: Iterable[ResultCell], attack: str = "") -> ResultCell | None:
    """The newest cell that a row corresponds to."""
    return next(iter(fitting(run, cells, attack)), None)


def makings(filled: Sequence[Line]) -> Iterator[str]:
    """Remarks on the measured cells: rows that several results fit, and cells of different backbones, seeds or rows."""
    for line in {line.row.label: line for line in filled if line.others}.values():
        yield f"{line.row.label}: {len(line.others) + 1} results fit, of other makings; shown is {_origin(line.cell)}"
    yield from mixed([line.cell for line in filled if line.cell is not None])


def mixed(cells: Sequence[ResultCell]) -> Iterator[str]:
    """A remark for each suite whose cells in one table are of several backbones by content, seeds, noises or sets of rows."""
    places: dict[tuple[str, ...], dict[Identity, ResultCell]] = {}
    for cell in cells:
        if cell.variant in ("", *(part for part in cell.variant.split(",") if part.startswith(DTYPE))):
            place = (cell.backbone, cell.concept, cell.made_against or cell.suite)
            rows = "" if cell.made_against else cell.rows_sha
            places.setdefault(place, {}).setdefault((*ground_of(cell), rows), cell)
    for (_, concept, suite), kinds in places.items():
        if len(kinds) > 1:
            yield f"{concept} × {suite}: not of one making, and not to be compared: {'; '.join(map(_origin, kinds.values()))}"


def _origin(cell: ResultCell | None) -> str:
    """Backbone, seed, rows and run of a cell."""
    return "" if cell is None else f"{ground_text(cell)}, rows {cell.rows_sha[:SHOWN]}, run {cell.run}"


def _asks(cell: ResultCell, suite: str, attack: str) -> bool:
    """Whether the cell's prompts are the suite's, or where an attack is named those that it made against the cell itself."""
    return cell.made_against == against(attack, cell) if attack else cell.suite == suite


def without_dtype(variant: str) -> str:
    """The variant less its dtype: the paper's is seldom known, and the table names ours."""
    return ",".join(part for part in variant.split(",") if not part.startswith(DTYPE))


def _measured(column: Column, cell: ResultCell | None) -> Metric | None:
    """The column's metric of the cell, in the column's unit."""
    metric = cell.metrics.get(column.measured) if cell else None
    if metric is None or metric.value is None:
        return metric
    if column.complement:
        metric = replace(turned(metric), better=column.better)
    return _divided(metric) if column.unit == "share" else metric


def _divided(metric: Metric) -> Metric:
    value, low, high = (None if each is None else each / 100 for each in (metric.value, metric.low, metric.high))
    return replace(metric, value=value, low=low, high=high)


# --- pocket's editions ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PocketLine:
    """One row of a pocket table: a metric a column, or None where it was not run or has no meaning."""

    row: PocketRow
    cells: tuple[ResultCell | None, ...]
    metrics: tuple[Metric | None, ...]
    meaningless: tuple[bool, ...]
    """Columns that say nothing of this row: what a method adds, where none acts on a checkpoint."""


def pocket_lines(table: TableSpec, concept: str, cells: Sequence[ResultCell]) -> list[PocketLine]:
    """The table's pocket edition for one concept."""
    ours = list(_of_pocket(concept, cells))
    return [_pocket_line(row, table.pocket.columns_of(concept), ours) for row in table.pocket.rows]


def _of_pocket(concept: str, cells: Iterable[ResultCell]) -> Iterator[ResultCell]:
    """Cells of the model that srbench ships, under the concept's own judge; where a suite has some on the rows that it ships,
    no others. A folder that is called like it is another backbone.
    """
    judge, sha = load.concepts()[concept].families[POCKET].protocol, first_shipped(POCKET)
    ours = [
        cell for cell in cells if (cell.backbone, cell.concept, cell.protocol) == (POCKET, concept, judge)
        and cell.origin.backbone_sha in ("", sha) and cell.origin.seed is None
    ]  # fmt: skip
    whole = {suite: _whole_suite(suite, concept) for suite in {cell.suite for cell in ours}}
    complete = {cell.suite for cell in ours if not cell.variant and cell.rows_sha == whole[cell.suite]}
    return (cell for cell in ours if cell.variant or cell.suite not in complete or cell.rows_sha == whole[cell.suite])


@cache
def _whole_suite(suite: str, concept: str) -> str:
    """`rows_sha` of a suite's prompts for pocket; empty where they are not srbench's own."""
    spec = load.suites().get(suite)
    try:
        edition = load.edition(spec, POCKET, concept) if spec else None
        return load.rows_sha(load.rows(spec, edition).rows) if spec and edition and edition.file else ""
    except UsageError:
        return ""


def _pocket_line(row: PocketRow, columns: Sequence[PocketColumn], cells: Sequence[ResultCell]) -> PocketLine:
    of_columns = [_pocket_cell(row, column, cells) for column in columns]
    metrics = [cell.metrics.get(column.metric) if cell else None for cell, column in zip(of_columns, columns, strict=True)]
    alone = row.method == "none" or row.on == "none"
    return PocketLine(row, tuple(of_columns), tuple(metrics), tuple(alone and c.metric.endswith(SUFFIX) for c in columns))


def _pocket_cell(row: PocketRow, column: PocketColumn, cells: Iterable[ResultCell]) -> ResultCell | None:
    for cell in cells:
        same = (cell.method, cell.on) == (row.method, row.on) and _asks(cell, column.suite, column.attack)
        if same and _fits_variant(cell.variant, row.variant):
            return cell
    return None


def _fits_variant(variant: str, pattern: str) -> bool:
    """Option by option: `*` stands for anything in one option, never for a further option such as a limit."""
    options, wanted = variant.split(","), pattern.split(",")
    return len(options) == len(wanted) and all(map(fnmatchcase, options, wanted))


def better_of(metric: str) -> Better:
    """The direction of a metric, or of the difference that a method makes in it. Raises `UsageError` for an unknown one."""
    return definition(metric.removesuffix(SUFFIX)).better
