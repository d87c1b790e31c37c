"""Every table in every format, with names that are markup in one of them: each text reads back as what it was made of."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from srbench.analysis.differences import Comparison
from srbench.files import calm
from srbench.tables import attacks, boards, changes, costs, formats, sensitivity, terminal
from srbench.tables.papers import sheets
from srbench.tables.papers.spec import TableSpec
from srbench.tables.sheet import Tables
from tests.tables import inputs
from tests.tables.conftest import SPEC

EVIL = inputs.HOSTILE
VOID = ("meta",)
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "section", "h2", "p", "table", "caption", "thead", "tbody", "tr", "th"),
    *("td", "small", "b", "ul", "li"),
}  # fmt: skip


def _paper() -> TableSpec:
    """The table of `conftest` with evil words wherever it has any."""
    sources = {"paper": {"title": EVIL, "where": EVIL, "note": EVIL}}
    rows, lines = ([{**row, "label": f"{row['label']} {EVIL}"} for row in spec["rows"]] for spec in (SPEC, SPEC["pocket"]))
    rows = [row | {"note": EVIL} for row in rows]
    columns = [{**column, "title": f"{column['title']} {EVIL}"} for column in SPEC["columns"]]
    pocket = SPEC["pocket"] | {"note": EVIL, "rows": lines}
    words = {"title": EVIL, "about": EVIL, "notes": [EVIL]}
    return TableSpec.model_validate(SPEC | words | {"sources": sources, "rows": rows, "columns": columns, "pocket": pocket})


def _changes() -> list[Comparison]:
    """With a metric of an evil name, which the summary names too."""
    (comparison,) = inputs.comparisons(EVIL)
    return [replace(comparison, changes=(*comparison.changes, replace(comparison.changes[-1], metric=EVIL)))]


def _made() -> dict[str, Tables]:
    paper, cannot = _paper(), {"cannot": EVIL, "note": EVIL}
    return {
        "boards": boards.tables([*inputs.cells(), *inputs.evil_cells()]),
        "boards, sorted": boards.tables([*inputs.cells(), *inputs.evil_cells()], {"igmu": EVIL}, "fsr"),
        "nothing": boards.tables([]),
        "changes": changes.tables(_changes(), Path("my results")),
        "attacks": attacks.tables([*inputs.matrices(), *inputs.matrices(EVIL)]),
        "costs": costs.tables([cost for name in inputs.EVIL for cost in inputs.costs(name, EVIL)]),
        "sensitivity": sensitivity.tables([curve for name in inputs.EVIL for curve in inputs.curves(name)]),
        "papers": sheets.tables([paper], inputs.cells_of_papers(), pocket=False),
        "papers, pocket": sheets.tables([paper], inputs.cells_of_papers(), pocket=True),
        "papers, no edition": sheets.tables([paper.model_copy(update={"pocket": type(paper.pocket)(**cannot)})], [], pocket=True),
    }


TABLES = _made()
every_table = pytest.mark.parametrize("tables", TABLES.values(), ids=TABLES.keys())


@every_table
@pytest.mark.parametrize("format", formats.FORMATS)
def test_a_file_has_nothing_that_acts_on_a_terminal(tables: Tables, format: str) -> None:
    text = formats.file_of(tables, format).decode()
    assert calm(text) == text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@every_table
def test_json_reads_back(tables: Tables) -> None:
    as_it_is = json.loads(json.dumps(tables.data))
    assert json.loads(formats.write(tables, "json")) == as_it_is
    assert json.loads(formats.file_of(tables, "json")) == as_it_is


@every_table
def test_csv_reads_back_and_is_no_formula(tables: Tables) -> None:
    header, *lines = csv.reader(io.StringIO(formats.write(tables, "csv")))
    assert tuple(header) == tables.fields
    assert len(lines) == len(tables.records)
    for line, record in zip(lines, tables.records, strict=True):
        assert len(line) == len(header)
        for text, field in zip(line, header, strict=True):
            value = record.get(field)
            assert text == (formats.csv_text(value) if isinstance(value, str) else "" if value is None else str(value))
            assert not text.startswith(("=", "@", "\t", "\r")), "a spreadsheet carries it out"
            assert not re.match(r"[+-](?![\d.])", text), "a spreadsheet carries it out"


@every_table
def test_markdown_lines_have_as_many_cells_as_their_header(tables: Tables) -> None:
    text = formats.write(tables, "md")
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    shown = [sheet for sheet in tables.sheets if sheet.columns]
    assert len(blocks) == len(shown)
    for block, sheet in zip(blocks, shown, strict=True):
        widths = {len(re.sub(r"\\.", "", line).split("|")) - 2 for line in block}
        assert widths == {len(sheet.columns)}
        headings = sum(bool(section.heading) for section in sheet.sections)
        assert len(block) == 2 + headings + len(list(sheet.lines))
    assert "](" not in text
    assert not re.search(r"(?<!\\)(?:\\\\)*<(?!/?sub>| )", text), "a tag"


@every_table
def test_latex_braces_balance_and_rows_are_equally_wide(tables: Tables) -> None:
    text = formats.write(tables, "latex")
    depth, marks = 0, iter(text)
    for mark in marks:
        if mark == "\\":
            next(marks)
        depth += {"{": 1, "}": -1}.get(mark, 0)
        assert depth >= 0
    assert depth == 0
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert text.count(r"\begin{table}") == len(tables.sheets)
    for tabular in re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL):
        rows = [line for line in tabular.splitlines() if line != r"\midrule" and not line.startswith(r"\multicolumn")]
        assert all(row.endswith(r"\\") for row in rows)
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
        assert not [row for row in rows if row.startswith(("[", "*"))], "an option of the line before"
    assert not re.search(r"(?<!\\)[%#~]", text)
    assert text.isascii()


class Page(HTMLParser):
    """Which tags a page has, whether each is closed, and the texts of each line of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.lines: list[list[str]] = []
        self.widths: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.lines.append([])
            self.widths.append(0)
        elif tag in ("td", "th"):
            self.lines[-1].append("")
            self.widths[-1] += int(dict(attrs).get("colspan") or 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "tr" in self.open:
            self.lines[-1][-1] += data


@every_table
def test_html_reads_back(tables: Tables) -> None:
    page = Page(formats.write(tables, "html"))
    assert page.open == []
    assert page.tags <= TAGS
    widths = iter(page.widths)
    lines = iter(page.lines)
    for sheet in (sheet for sheet in tables.sheets if sheet.columns):
        assert next(lines) == [calm(column.heading) for column in sheet.columns]
        assert next(widths) == len(sheet.columns)
        for section in sheet.sections:
            if section.heading:
                assert next(lines) == [section.heading]
                assert next(widths) == len(sheet.columns)
            for line in section.lines:
                texts = next(lines)
                assert next(widths) == len(sheet.columns)
                assert texts[0] == calm(line[0].whole)
                assert all(text.startswith(calm(item.whole)) for text, item in zip(texts, line, strict=True))
    assert next(lines, None) is None


@every_table
@pytest.mark.parametrize("width", [40, 60, 100, 160])
def test_a_terminal_gets_every_value_and_nothing_that_acts_on_it(tables: Tables, width: int) -> None:
    text = terminal.plain_text(terminal.render(tables, width, plain=True), width)
    assert calm(text) == text
    assert "…" not in text, "cut off"
    assert not set("─╌│┃━") & set(text)
    values = [item for sheet in tables.sheets for line in sheet.lines for item in line[1:] if item.small and not item.reason]
    for value in {item.text for item in values}:
        assert value in text or width < 100


def test_the_same_numbers_in_every_format() -> None:
    """One value of each table, as a person and as a program read it."""
    for name, value, number in (
        ("boards", "98.2", 98.25), ("changes", "+50.0", 50.0), ("attacks", "40.0", 40), ("costs", "271.4", 271.44),
        ("sensitivity", "50.0", 50), ("papers", "97.25", 97.25), ("papers, pocket", "75.0", 75),
    ):  # fmt: skip
        tables = TABLES[name]
        assert all(value in formats.write(tables, format) for format in ("md", "latex", "html")), name
        assert number in set(_numbers(tables.data)), name
        assert number in {each for record in tables.records for each in record.values() if isinstance(each, int | float)}, name


def _numbers(data: Any) -> list[float]:
    if isinstance(data, dict | list):
        return [number for each in (data.values() if isinstance(data, dict) else data) for number in _numbers(each)]
    return [data] if isinstance(data, int | float) else []
