"""Published tables, or their pocket editions, as sheets that every format writes; the two never stand in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from srbench.analysis.judging import NOT_FINITE
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.analysis.significance import one_family
from srbench.tables.boards import GAINED, family_note
from srbench.tables.numbers import ARROWS, DASH, shown
from srbench.tables.papers.fill import NOT_RUN, Line, PocketLine, better_of, lines, makings, mixed, pocket_lines
from srbench.tables.papers.spec import POCKET, Column, PocketColumn, Source, TableSpec
from srbench.tables.sheet import Align, Item, Layout, Section, Sheet, Tables
from srbench.tables.sheet import Column as SheetColumn

UNKNOWN, MEANINGLESS = "not known", "has no meaning for this row"
PUBLISHED = "published"
"""The edition that is not pocket's."""
COLUMNS: tuple[tuple[str, Align], ...] = (
    ("row", "w"), ("metric", "l"), ("published", "r"), ("n", "r"), ("k of n", "w"), ("measured", "r"), ("difference", "r"),
    ("verdict", "w"), ("source", "l"),
)  # fmt: skip
VERDICTS = (
    "agrees: the published value lies in the measured 95 % interval; higher, lower: it does not, and the measured value is.",
    "difference: measured less published.",
)
CUT_NOTE = "cut off: k / n gives the printed digits only if those after them are dropped, not rounded."
LABORATORY = "Measured on pocket, a laboratory: these figures rank and debug methods and say nothing of Stable Diffusion."


def tables(specs: Sequence[TableSpec], cells: Sequence[ResultCell], pocket: bool) -> Tables:
    """Published tables with what was measured beside each figure; pocket: their pocket editions, which have several sheets."""
    editions = [_pocket_edition(spec, cells) if pocket else _published(spec, cells) for spec in specs]
    sheets = tuple(sheet for of_spec, _ in editions for sheet in of_spec)
    return Tables(
        title=sheets[0].title if len(sheets) == 1 else "srbench tables",
        sheets=sheets,
        fields=RECORD,
        records=[record for _, records in editions for record in records],
        data={"tables": [_as_data(spec, *parts, pocket) for spec, parts in zip(specs, editions, strict=True)]},
        layout=Layout(paper=True, blocks=False),
    )


def _as_data(spec: TableSpec, sheets: Sequence[Sheet], records: Sequence[dict[str, Any]], pocket: bool) -> dict[str, Any]:
    """One table as JSON: what it is, its notes, and its values, each null with a reason where there is none."""
    return {
        "name": spec.name, "edition": POCKET if pocket else PUBLISHED, "title": spec.title, "paper": spec.paper,
        "where": spec.where, "about": spec.about,
        "notes": list(dict.fromkeys(note for sheet in sheets for note in sheet.notes if note)),
        "values": [{name: record.get(name) for name in RECORD} for record in records],
    }  # fmt: skip


# --- published --------------------------------------------------------------------------------------------------------


def _published(table: TableSpec, cells: Sequence[ResultCell]) -> tuple[list[Sheet], list[dict[str, Any]]]:
    """Published figures, each with what was measured here: as a sheet, and as records."""
    filled = lines(table, cells)
    caption = f"{table.paper}, {table.where}. {table.about}"
    columns = tuple(SheetColumn(heading, align) for heading, align in COLUMNS)
    body = Section("", tuple(tuple(_fields(line)) for line in filled))
    sheet = Sheet(table.title, caption, columns, (body,), tuple(_notes(table, filled)), table.name)
    return [sheet], list(_published_records(table, filled))


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
    return "z.3f" if column.unit == "share" else "z.2f"


def signed(difference: float, column: Column) -> str:
    """A difference with its sign, in the unit of the column."""
    return f"{difference:+{_form(column)}}"


def _notes(table: TableSpec, filled: Sequence[Line]) -> Iterator[str]:
    yield from table.notes
    remarks = [(row.label, row.note) for row in table.rows]
    remarks += [(f"{row.label}, {table.column(f.column).title} {f.value}", f.note) for row in table.rows for f in row.figures]
    yield from _together(remarks)
    yield from _together([(f"{column.title} {NOT_RUN}", column.unmeasured) for column in table.columns])
    yield from makings(filled)
    if any("cut off" in line.fits for line in filled):
        yield CUT_NOTE
    if any(line.metric for line in filled):
        yield from VERDICTS
    yield from (cited(key, source) for key, source in table.sources.items())


def _together(remarks: Sequence[tuple[str, str]]) -> Iterator[str]:
    """`what: remark`, once for all that share a remark."""
    for remark in dict.fromkeys(remark for _, remark in remarks if remark):
        yield f"{'; '.join(what for what, other in remarks if other == remark)}: {remark}"


def cited(key: str, source: Source) -> str:
    """A source on one line."""
    where = f" ({source.where})" if source.where else ""
    return f"Source {key}: {source.title}{where}." + (f" {source.note}" if source.note else "")


# --- pocket -----------------------------------------------------------------------------------------------------------


def _pocket_edition(table: TableSpec, cells: Sequence[ResultCell]) -> tuple[list[Sheet], list[dict[str, Any]]]:
    """The pocket edition: a sheet a concept, or one without lines that says why there is none; and its records."""
    edition = table.pocket
    if edition.cannot:
        sheet = Sheet(f"{table.title}: no pocket edition", edition.cannot, (), (), (edition.note,), f"{table.name}-{POCKET}")
        return [sheet], []
    filled = {concept: _corrected(pocket_lines(table, concept, cells)) for concept in edition.concepts}
    sheets = [_pocket_sheet(table, concept, of_concept) for concept, of_concept in filled.items()]
    return sheets, [record for concept, of_concept in filled.items() for record in _pocket_records(table, concept, of_concept)]


def _corrected(filled: Sequence[PocketLine]) -> list[PocketLine]:
    """The lines of one sheet, with the p-values of its gains Holm-corrected together."""
    metrics, _ = one_family([metric for line in filled for metric in line.metrics])
    rest = iter(metrics)
    return [replace(line, metrics=tuple(next(rest) for _ in line.metrics)) for line in filled]


def _pocket_sheet(table: TableSpec, concept: str, filled: Sequence[PocketLine]) -> Sheet:
    columns = table.pocket.columns_of(concept)
    sizes = [_size(line.metrics[index] for line in filled) for index in range(len(columns))]
    headings = (_heading(column, size) for column, size in zip(columns, sizes, strict=True))
    body = tuple((Item(line.row.label), *_pocket_items(line, sizes)) for line in filled)
    cells = [cell for line in filled for cell in line.cells if cell]
    tests = sum(metric is not None and metric.p_holm is not None for line in filled for metric in line.metrics)
    return Sheet(
        title=f"{table.title}: pocket, {concept}",
        caption=_origin(cells),
        columns=(SheetColumn("method", "w"), *map(SheetColumn, headings)),
        sections=(Section("", body),),
        notes=(table.pocket.note, *([GAINED, family_note(tests)] if tests else []), *mixed(cells), LABORATORY),
        name=f"{table.name}-{POCKET}",
    )


def _size(metrics: Any) -> int | None:
    """The n that all values of a column share; None where they differ or there are none."""
    sizes = {metric.scored for metric in metrics if metric is not None and metric.value is not None}
    return sizes.pop() if len(sizes) == 1 else None


def _heading(column: PocketColumn, size: int | None) -> str:
    prompts = f"{column.attack}\nagainst it" if column.attack else column.suite
    return f"{prompts}\n{column.metric} {ARROWS[better_of(column.metric)]}" + (f"\n(n {size})" if size else "")


def _origin(cells: Sequence[ResultCell]) -> str:
    """Judge, dtype and place of what stands in the sheet."""
    if not cells:
        return "nothing was run yet"
    of_each = zip(*((f"judge {cell.protocol}", cell.dtype, f"{cell.source} runs") for cell in cells), strict=True)
    return " · ".join(", ".join(dict.fromkeys(part)) for part in of_each)


def _pocket_items(line: PocketLine, sizes: Sequence[int | None]) -> Iterator[Item]:
    for cell, metric, meaningless, size in zip(line.cells, line.metrics, line.meaningless, sizes, strict=True):
        yield _pocket_item(metric, size) if cell and metric else Item(DASH if meaningless else NOT_RUN)


def _pocket_item(metric: Metric, size: int | None) -> Item:
    text = shown(metric)
    n = "" if size is not None or text.reason else f"n {metric.scored}"
    return Item(text.value, ", ".join(filter(None, (text.interval, *text.bounds, n))), reason=text.reason)


# --- as records, for CSV ----------------------------------------------------------------------------------------------

RECORD = (
    "table", "edition", "concept", "row", "metric", "unit", "better", "published", "sign", "published_n", "fits", "value", "low",
    "high", "n", "reason", "difference", "verdict", "backbone", "suite", "method", "on", "variant", "protocol", "dtype", "run",
    "origin", "source", "backbone_sha", "seed", "rows_sha",
)  # fmt: skip
"""`published`: the digits of the paper, empty where they are not known; `sign`: `<` or `>` before them where it gives a bound,
or `≈`; `reason`: why there is no value."""
OF_CELL = ("concept", "backbone", "suite", "method", "on", "variant", "protocol", "dtype", "run")


def _published_records(table: TableSpec, filled: Sequence[Line]) -> Iterator[dict[str, Any]]:
    """One record a figure, numbers unrounded."""
    for line in filled:
        column, figure = line.column, line.figure
        source = cited(figure.source, table.sources[figure.source]) if figure else ""
        yield {
            "table": table.name, "edition": PUBLISHED, "row": line.row.label, "metric": column.title, "unit": column.unit,
            "better": column.better, "published": figure.digits if figure else None, "sign": figure.sign if figure else None,
            "published_n": line.n if column.rate else None, "fits": line.fits, "difference": line.difference,
            "verdict": line.verdict, "source": source, **_of_metric(line.cell, line.metric),
        }  # fmt: skip



def _of_metric(cell: ResultCell | None, metric: Metric | None) -> dict[str, Any]:
    if cell is None or metric is None:
        return {"reason": NOT_RUN}
    making = {name: getattr(cell, name) for name in OF_CELL} | {"origin": cell.source, "rows_sha": cell.rows_sha}
    making |= {"backbone_sha": cell.origin.backbone_sha, "seed": cell.origin.seed}
    if metric.value is None:
        return making | {"reason": metric.reason or NOT_FINITE}
    return making | {"value": metric.value, "low": metric.low, "high": metric.high, "n": metric.scored}


def _pocket_records(table: TableSpec, concept: str, filled: Sequence[PocketLine]) -> Iterator[dict[str, Any]]:
    """One record a value of the pocket edition, numbers unrounded."""
    for line in filled:
        for column, cell, metric, meaningless in zip(
            table.pocket.columns_of(concept), line.cells, line.metrics, line.meaningless, strict=True
        ):
            measured = {"reason": MEANINGLESS} if meaningless else _of_metric(cell, metric)
            yield {
                "table": table.name, "edition": POCKET, "row": line.row.label, "metric": column.metric,
                "better": better_of(column.metric), "concept": concept, "suite": column.suite, "backbone": POCKET,
                "method": line.row.method, "on": line.row.on, "variant": line.row.variant, **measured,
            }  # fmt: skip
