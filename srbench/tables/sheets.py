"""Lays a published table, or a concept of its pocket edition, out as a sheet: text that every format writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from srbench.analysis.records import Metric
from srbench.analysis.results import ARROWS, DASH, ResultCell, brief, shown
from srbench.tables.fill import NOT_RUN, Line, PocketLine, better_of, lines, makings, mixed, pocket_lines
from srbench.tables.spec import POCKET, Column, Figure, PocketColumn, Source, TableSpec

UNKNOWN = "not known"
HEADER = ("row", "metric", "published", "n", "k of n", "measured", "difference", "verdict", "source")
ALIGN = "wlrrwrrwl"
VERDICTS = (
    "agrees: the published value lies in the measured 95 % interval; higher, lower: it does not, and the measured value is.",
    "difference: measured less published.",
)
CUT_NOTE = "cut off: k / n gives the printed digits only if those after them are dropped, not rounded."
LABORATORY = "Measured on pocket, a laboratory: these figures rank and debug methods and say nothing of Stable Diffusion."


class Item(NamedTuple):
    """One field of a sheet: its text, and what stands small behind it."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table as text."""

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    """A line end stands where a narrow column may go on below."""
    align: str
    """A letter a column: `l`eft, `r`ight, `w`rapped."""
    body: tuple[tuple[Item, ...], ...]
    notes: tuple[str, ...]


# --- published --------------------------------------------------------------------------------------------------------


def published_sheet(table: TableSpec, cells: Sequence[ResultCell]) -> Sheet:
    """Published figures, each with what was measured here."""
    found = lines(table, cells)
    body = tuple(tuple(_fields(line)) for line in found)
    caption = f"{table.paper}, {table.where}. {table.about}"
    return Sheet(table.name, table.title, caption, HEADER, ALIGN, body, tuple(_notes(table, found)))


def titled(column: Column) -> str:
    """The column's title with its unit and direction."""
    return " ".join(filter(None, (column.title, "%" * (column.unit == "percent"), ARROWS[column.better])))


def _fields(line: Line) -> Iterator[Item]:
    yield Item(line.row.label)
    yield Item(titled(line.column))
    yield Item(line.figure.value if line.figure else UNKNOWN)
    yield Item(str(line.n) if line.n and line.column.rate else "")
    yield Item(line.fits)
    yield _measured(line)
    yield Item("" if line.difference is None else signed(line.difference, line.column))
    yield Item(line.verdict)
    yield Item(line.figure.source if line.figure else "")


def _measured(line: Line) -> Item:
    metric, form = line.metric, _form(line.column)
    if metric is None or line.cell is None:
        return Item(NOT_RUN)
    if metric.value is None:
        return Item("n/a", metric.reason)
    interval = f"[{metric.low:{form}}, {metric.high:{form}}]" if metric.low is not None and metric.high is not None else ""
    n = f"n {metric.scored}" + (f"/{metric.n}" if metric.scored < metric.n else "")
    small = (interval, n, "" if line.row.run and line.row.run.protocol else line.cell.protocol)
    return Item(f"{metric.value:{form}}", ", ".join(filter(None, small)))


def _form(column: Column) -> str:
    return ".3f" if column.unit == "share" else ".2f"


def signed(difference: float, column: Column) -> str:
    """A difference with its sign, in the unit of the column."""
    return f"{difference:+{_form(column)}}"


def _notes(table: TableSpec, found: Sequence[Line]) -> Iterator[str]:
    yield from table.notes
    remarks = [(row.label, row.note) for row in table.rows]
    remarks += [(f"{row.label}, {table.column(f.column).title} {f.value}", f.note) for row in table.rows for f in row.figures]
    yield from _together(remarks)
    yield from _together([(f"{column.title} {NOT_RUN}", column.unmeasured) for column in table.columns])
    yield from makings(found)
    if any("cut off" in line.fits for line in found):
        yield CUT_NOTE
    if any(line.metric for line in found):
        yield from VERDICTS
    yield from (cited(key, source) for key, source in table.sources.items())


def _together(remarks: Sequence[tuple[str, str]]) -> Iterator[str]:
    """`what: remark`, once for all that share a remark."""
    for remark in dict.fromkeys(remark for _, remark in remarks if remark):
        yield f"{'; '.join(what for what, own in remarks if own == remark)}: {remark}"


def cited(key: str, source: Source) -> str:
    """A source on one line."""
    where = f" ({source.where})" if source.where else ""
    return f"Source {key}: {source.title}{where}." + (f" {source.note}" if source.note else "")


# --- pocket -----------------------------------------------------------------------------------------------------------


def pocket_sheets(table: TableSpec, cells: Sequence[ResultCell]) -> list[Sheet]:
    """The pocket edition: a sheet a concept, or one without rows that says why there is none."""
    edition, name = table.pocket, f"{table.name}-{POCKET}"
    if edition.cannot:
        return [Sheet(name, f"{table.title}: no pocket edition", edition.cannot, (), "", (), (edition.note,))]
    return [_pocket_sheet(table, concept, pocket_lines(table, concept, cells)) for concept in edition.concepts]


def _pocket_sheet(table: TableSpec, concept: str, found: Sequence[PocketLine]) -> Sheet:
    reasons: list[str] = []
    columns = table.pocket.columns_of(concept)
    sizes = [_size(line.metrics[index] for line in found) for index in range(len(columns))]
    body = tuple((Item(line.row.label), *_pocket_items(line, sizes, reasons)) for line in found)
    header = ("method", *(_heading(column, size) for column, size in zip(columns, sizes, strict=True)))
    numbered = (f"n/a ({index}): {reason}" for index, reason in enumerate(reasons, 1))
    return Sheet(
        name=f"{table.name}-{POCKET}",
        title=f"{table.title}: pocket, {concept}",
        caption=_origin(found),
        header=header,
        align="w" + "r" * len(columns),
        body=body,
        notes=(*numbered, table.pocket.note, *mixed([cell for line in found for cell in line.cells if cell]), LABORATORY),
    )


def _size(metrics: Any) -> int | None:
    """The n that all values of a column share; None where they differ or there are none."""
    sizes = {metric.scored for metric in metrics if metric is not None and metric.value is not None}
    return sizes.pop() if len(sizes) == 1 else None


def _heading(column: PocketColumn, size: int | None) -> str:
    asked = f"{column.attack}\nagainst it" if column.attack else column.suite
    return f"{asked}\n{column.metric} {ARROWS[better_of(column.metric)]}" + (f"\n(n {size})" if size else "")


def _origin(found: Sequence[PocketLine]) -> str:
    """Judge, dtype and place of what stands in the sheet."""
    cells = [cell for line in found for cell in line.cells if cell]
    if not cells:
        return "nothing was run yet"
    of_each = zip(*((f"judge {cell.protocol}", cell.dtype, f"{cell.source} runs") for cell in cells), strict=True)
    return " · ".join(", ".join(dict.fromkeys(part)) for part in of_each)


def _pocket_items(line: PocketLine, sizes: Sequence[int | None], reasons: list[str]) -> Iterator[Item]:
    for cell, metric, meaningless, size in zip(line.cells, line.metrics, line.meaningless, sizes, strict=True):
        yield _pocket_item(cell, DASH if meaningless else NOT_RUN, metric, size, reasons)


def _pocket_item(
    cell: ResultCell | None, otherwise: str, metric: Metric | None, size: int | None, reasons: list[str]
) -> Item:
    found = shown(metric)
    if cell is None or metric is None:
        return Item(otherwise)
    if found.reason:
        return Item(f"n/a ({brief(found.reason, reasons)})")
    n = "" if size is not None else f"n {metric.scored}"
    return Item(found.value, ", ".join(filter(None, (found.interval, *found.bounds, n))))


# --- as records, for CSV ----------------------------------------------------------------------------------------------

RECORD = (
    "table", "edition", "concept", "row", "metric", "unit", "better", "published", "published_n", "fits", "value", "low", "high",
    "n", "difference", "verdict", "backbone", "suite", "method", "on", "variant", "protocol", "dtype", "run", "origin", "source",
    "backbone_sha", "seed", "rows_sha",
)  # fmt: skip
OF_CELL = ("concept", "backbone", "suite", "method", "on", "variant", "protocol", "dtype", "run")


def published_records(table: TableSpec, cells: Sequence[ResultCell]) -> Iterator[dict[str, Any]]:
    """One record a figure, numbers unrounded."""
    for line in lines(table, cells):
        column, figure = line.column, line.figure
        yield {
            "table": table.name, "edition": "published", "row": line.row.label, "metric": column.title, "unit": column.unit,
            "better": column.better, "published": figure.value if figure else UNKNOWN,
            "published_n": line.n if column.rate else None, "fits": line.fits, "difference": line.difference,
            "verdict": line.verdict, "source": _source(table, figure), **_of_metric(line.cell, line.metric),
        }  # fmt: skip


def _source(table: TableSpec, figure: Figure | None) -> str:
    return cited(figure.source, table.sources[figure.source]) if figure else ""


def _of_metric(cell: ResultCell | None, metric: Metric | None) -> dict[str, Any]:
    if cell is None or metric is None:
        return {"value": NOT_RUN}
    own = {name: getattr(cell, name) for name in OF_CELL} | {"origin": cell.source, "rows_sha": cell.rows_sha}
    own |= {"backbone_sha": cell.origin.backbone_sha, "seed": cell.origin.seed}
    if metric.value is None:
        return own | {"value": f"n/a: {metric.reason}"}
    return own | {"value": metric.value, "low": metric.low, "high": metric.high, "n": metric.scored}


def pocket_records(table: TableSpec, cells: Sequence[ResultCell]) -> Iterator[dict[str, Any]]:
    """One record a value of the pocket edition, numbers unrounded; none where there is no edition."""
    for concept in table.pocket.concepts:
        for line in pocket_lines(table, concept, cells):
            for column, cell, metric, meaningless in zip(
                table.pocket.columns_of(concept), line.cells, line.metrics, line.meaningless, strict=True
            ):
                measured = {} if meaningless else _of_metric(cell, metric)
                yield {
                    "table": table.name, "edition": POCKET, "row": line.row.label, "metric": column.metric,
                    "better": better_of(column.metric), "concept": concept, "suite": column.suite, "backbone": POCKET,
                    "method": line.row.method, "on": line.row.on, "variant": line.row.variant, **measured,
                }  # fmt: skip
