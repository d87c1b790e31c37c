"""Sheets as Markdown, CSV, LaTeX, HTML, and on a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from srbench.analysis.formats import (
    csv_fields,
    escape,
    latex_first,
    latex_stacked,
    latex_table,
    latex_tabular,
    latex_text,
    markdown_text,
)
from srbench.analysis.results import ResultCell
from srbench.errors import UsageError, did_you_mean
from srbench.tables import sheets
from srbench.tables.sheets import Item, Sheet
from srbench.tables.spec import TableSpec

MARKDOWN_RULE = {"l": "---", "w": "---", "r": "---:"}
FOLD = 12
"""Characters after which a heading of LaTeX goes on below."""
WRAPPED = 0.2
"""Of a line's width in LaTeX, for a column of words."""
STYLE = "caption, th, td { padding: .2em .6em; text-align: left } td.r { text-align: right }"


# --- Markdown ---------------------------------------------------------------------------------------------------------


def as_markdown(given: Sequence[Sheet]) -> str:
    """A heading, a table and its notes for each sheet."""
    return "\n\n".join(_markdown_sheet(sheet) for sheet in given) + "\n"


def _markdown_sheet(sheet: Sheet) -> str:
    parts = [f"## {markdown_text(sheet.title)}", markdown_text(sheet.caption)]
    if sheet.body:
        rows = [[markdown_text(text) for text in sheet.header], [MARKDOWN_RULE[mark] for mark in sheet.align]]
        rows += [[_markdown_item(item) for item in row] for row in sheet.body]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    parts.append("\n".join(f"- {markdown_text(note)}" for note in sheet.notes))
    return "\n\n".join(filter(None, parts))


def _markdown_item(item: Item) -> str:
    return markdown_text(item.text) + (f" <sub>{markdown_text(item.small)}</sub>" if item.small else "")


# --- LaTeX ------------------------------------------------------------------------------------------------------------


def as_latex(given: Sequence[Sheet]) -> str:
    """One `table` a sheet, for the packages booktabs and graphicx."""
    return "\n".join(_latex_sheet(sheet) for sheet in given)


def _latex_sheet(sheet: Sheet) -> str:
    return latex_table(f"{sheet.title}. {sheet.caption}", _latex_tabular(sheet) if sheet.body else [], sheet.notes)


def _latex_tabular(sheet: Sheet) -> list[str]:
    columns = "".join(rf"p{{{WRAPPED}\linewidth}}" if mark == "w" else mark for mark in sheet.align)
    header = " & ".join(_latex_heading(text) for text in sheet.header)
    return latex_tabular(columns, header, [" & ".join(map(_latex_item, row, sheet.align)) + r" \\" for row in sheet.body])


def _latex_heading(text: str) -> str:
    folded = [line.replace("_", "_\n", 1) if len(line) > FOLD else line for line in text.splitlines()]
    lines = [latex_text(line) for line in "\n".join(folded).splitlines()]
    stacked = r"\\".join(lines)
    return rf"\shortstack{{{stacked}}}" if len(lines) > 1 else stacked


def _latex_item(item: Item, mark: str) -> str:
    text = (r"\raggedright " if mark == "w" and item.text else "") + latex_first(item.text)
    return latex_stacked(text, item.small, "r" if mark == "r" else "l")


# --- HTML -------------------------------------------------------------------------------------------------------------


def as_html(given: Sequence[Sheet]) -> str:
    """One page with a section a sheet."""
    title = escape(given[0].title if len(given) == 1 else "srbench tables")
    head = f'<meta charset="utf-8">\n<title>{title}</title>\n<style>{STYLE}</style>'
    sections = "\n".join(_html_sheet(sheet) for sheet in given)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{sections}\n</body>\n</html>\n'


def _html_sheet(sheet: Sheet) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in sheet.notes if note)
    table = _html_table(sheet) if sheet.body else f"<p>{escape(sheet.caption)}</p>"
    return f"<section>\n<h2>{escape(sheet.title)}</h2>\n{table}\n<ul>{notes}</ul>\n</section>"


def _html_table(sheet: Sheet) -> str:
    header = "".join(f'<th scope="col">{escape(text)}</th>' for text in sheet.header)
    rows = "\n".join(_html_row(row, sheet.align) for row in sheet.body)
    caption = f"<caption>{escape(sheet.caption)}</caption>"
    return f"<table>\n{caption}\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _html_row(row: Sequence[Item], align: str) -> str:
    rest = "".join(_html_item(item, mark) for item, mark in zip(row[1:], align[1:], strict=True))
    return f'<tr><th scope="row">{escape(row[0].text)}</th>{rest}</tr>'


def _html_item(item: Item, mark: str) -> str:
    small = f" <small>{escape(item.small)}</small>" if item.small else ""
    opening = '<td class="r">' if mark == "r" else "<td>"
    return f"{opening}{escape(item.text)}{small}</td>"


# --- by name ----------------------------------------------------------------------------------------------------------

FORMATS: dict[str, Callable[[Sequence[Sheet]], str]] = {"md": as_markdown, "latex": as_latex, "html": as_html}
CSV = "csv"
ENDINGS = {"md": "md", "csv": "csv", "latex": "tex", "html": "html"}
"""Format -> the end of a file's name."""


def write(tables: Sequence[TableSpec], cells: Sequence[ResultCell], format: str, pocket: bool) -> str:
    """The tables, or their pocket editions, in a format. Raises `UsageError` for an unknown one."""
    if format == CSV:
        return _as_csv(tables, cells, pocket)
    if format not in FORMATS:
        raise UsageError(f"there is no format '{format}'", did_you_mean(format, ENDINGS))
    return FORMATS[format](laid_out(tables, cells, pocket))


def laid_out(tables: Sequence[TableSpec], cells: Sequence[ResultCell], pocket: bool) -> list[Sheet]:
    """The sheets of the tables, or of their pocket editions: the two never stand in one."""
    if pocket:
        return [sheet for table in tables for sheet in sheets.pocket_sheets(table, cells)]
    return [sheets.published_sheet(table, cells) for table in tables]


def _as_csv(tables: Sequence[TableSpec], cells: Sequence[ResultCell], pocket: bool) -> str:
    make = sheets.pocket_records if pocket else sheets.published_records
    text = io.StringIO()
    writer = csv.DictWriter(text, sheets.RECORD, lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv_fields(record) for table in tables for record in make(table, cells))
    return text.getvalue()
