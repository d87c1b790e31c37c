"""Result cells as JSON, CSV, Markdown, LaTeX and HTML."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape as html_escape
from typing import Any

from srbench.analysis.origin import ORIGIN
from srbench.analysis.results import (
    ARROWS,
    COUNTS,
    DASH,
    IDENTITY,
    STAR,
    Board,
    ResultCell,
    boards,
    brief,
    coverage,
    name_of,
    shown,
    to_dict,
)
from srbench.analysis.robustness import OWN, Matrix
from srbench.errors import UsageError, did_you_mean
from srbench.files import calm, printable

Notes = Mapping[str, str]
MEASURED = (
    *("metric", "value", "low", "high", "n", "scored", "worst", "best", "better", "reason"),
    *("test", "p", "p_holm", "trials"),
)
"""Columns of a metric in CSV."""


def as_json(cells: Sequence[ResultCell], notes: Notes | None = None, sort: str | None = None) -> str:
    """`{"cells": [...]}`; a value that does not exist is null and has a reason."""
    return json.dumps({"cells": [to_dict(cell) for cell in _ordered(cells, sort)]}, indent=2, ensure_ascii=False, allow_nan=False)


def as_csv(cells: Sequence[ResultCell], notes: Notes | None = None, sort: str | None = None) -> str:
    """One line per cell and metric, rates in percent; what does not exist is empty and has a reason."""
    lines = []
    for cell in _ordered(cells, sort):
        data = to_dict(cell)
        shared = {name: data.get(name) for name in (*IDENTITY, *ORIGIN, *COUNTS)} | {"source": cell.source}
        lines += [{**shared, "metric": name, **metric} for name, metric in data["metrics"].items()]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*IDENTITY, *ORIGIN, "source", *COUNTS, *MEASURED], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(csv_fields, lines))
    return text.getvalue()


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that spreadsheets take for a formula."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?")


def csv_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose texts a spreadsheet shows as they are, and does not carry out; numbers stay what they are."""
    return {name: csv_text(value) if isinstance(value, str) else value for name, value in record.items()}


def csv_text(text: str) -> str:
    """A text of a CSV field, on one line. A `'` stands before one that would be taken for a formula."""
    risky = text.lstrip(" ").startswith(FORMULA) and not _NUMBER.fullmatch(text)
    return ("'" if risky else "") + printable(text)


def _ordered(cells: Sequence[ResultCell], sort: str | None) -> Sequence[ResultCell]:
    """As given, or in the order of the tables that are sorted by a metric."""
    return cells if sort is None else [cell for board in boards(cells, sort=sort) for cell in board.cells]


# --- Markdown ---------------------------------------------------------------------------------------------------------


def as_markdown(cells: Sequence[ResultCell], notes: Notes | None = None, sort: str | None = None) -> str:
    """One table per concept x suite; the best value is bold and has a star."""
    return "\n\n".join(_markdown_board(board) for board in boards(cells, notes, sort)) + "\n"


def _markdown_board(board: Board) -> str:
    header = ["method", *map(board.header, board.metrics), "coverage", "source"]
    rule = ["---", *("---:" for _ in board.metrics), "---:", "---"]
    reasons: list[str] = []
    body = [_markdown_row(board, cell, reasons) for cell in board.main]
    if board.apart and board.main:
        body.append(["*not the defaults:*", *[""] * (len(header) - 1)])
    body += [_markdown_row(board, cell, reasons) for cell in board.apart]
    lines = [f"| {' | '.join(line)} |" for line in [header, rule, *body]]
    parts = [f"**{markdown_text(board.title)}** ({markdown_text(board.caption)})", "\n".join(lines)]
    notes = [f"- {markdown_text(note)}" for note in (*_numbered(reasons), *board.notes)]
    return "\n\n".join([*parts, "\n".join(notes)] if notes else parts)


def _numbered(reasons: Sequence[str]) -> list[str]:
    return [f"n/a ({index}): {reason}" for index, reason in enumerate(reasons, 1)]


def _markdown_row(board: Board, cell: ResultCell, reasons: list[str]) -> list[str]:
    values = [_markdown_value(board, cell, name, reasons) for name in board.metrics]
    return [markdown_text(name_of(cell)), *values, coverage(cell), cell.source]


def _markdown_value(board: Board, cell: ResultCell, name: str, reasons: list[str]) -> str:
    found = shown(cell.metrics.get(name))
    if found.reason:
        return f"n/a ({markdown_text(brief(found.reason, reasons))})"
    value = f"**{found.value}** {STAR}" if board.starred(cell, name) else found.value
    interval = f"<sub>{found.interval}</sub>" if found.interval else ""
    return " ".join(filter(None, [value, interval, _in_brackets(found.bounds)]))


def matrices_markdown(found: Sequence[Matrix]) -> str:
    """One table a matrix."""
    return "\n\n".join(map(_markdown_matrix, found)) + "\n"


def _markdown_matrix(matrix: Matrix) -> str:
    def text(method: str, column: str) -> str:
        found = shown(matrix.rows[method].get(column))
        interval = found.interval and f"<sub>{found.interval}</sub>"
        own = f"({OWN})" if matrix.own(method, column) else ""
        return " ".join(filter(None, (found.value, interval, _in_brackets(found.bounds), own)))

    head = ["method", *map(markdown_text, matrix.columns)]
    body = [[markdown_text(method), *(text(method, column) for column in matrix.columns)] for method in matrix.rows]
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---", *("---:" for _ in matrix.columns)], *body)]
    return f"**{markdown_text(matrix.title)}** ({markdown_text(matrix.caption)})\n\n" + "\n".join(lines)


def _in_brackets(bounds: Sequence[str]) -> str:
    return f"({', '.join(bounds)})" if bounds else ""


def markdown_text(text: str) -> str:
    """Text on one line that Markdown, also inside a table, shows as it is: no markup, no link, no picture, no HTML."""
    line = printable(" ".join(text.split()))
    escaped = "".join(f"\\{mark}" if mark in "\\|*_`<>" else mark for mark in line)
    return _LINK.sub("&#93;", _ENTITY.sub("&amp;", escaped))


_LINK, _ENTITY = re.compile(r"\](?=[(\[:])"), re.compile(r"&(?=#?\w+;)")


# --- LaTeX ------------------------------------------------------------------------------------------------------------


SHRUNK = r"\ifdim\width>\linewidth\linewidth\else\width\fi"
"""The width of a table in LaTeX: its own, or the line's where that is less."""
_LATEX = {mark: f"\\{mark}" for mark in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "<": "$<$",
    ">": "$>$",
    "≈": r"$\approx$",
    "±": r"$\pm$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "τ": r"$\tau$",
    DASH: "--",
    ARROWS["higher"]: r"$\uparrow$",
    ARROWS["lower"]: r"$\downarrow$",
}


def as_latex(cells: Sequence[ResultCell], notes: Notes | None = None, sort: str | None = None) -> str:
    """One `table` per concept x suite, for the packages booktabs and graphicx; the best value is bold."""
    return "\n".join(_latex_board(board) for board in boards(cells, notes, sort))


def _latex_board(board: Board) -> str:
    header = " & ".join(latex_text(text) for text in ["method", *map(board.header, board.metrics), "coverage"])
    reasons: list[str] = []
    main, apart = ([_latex_row(board, cell, reasons) for cell in cells] for cells in (board.main, board.apart))
    rows = [*main, r"\midrule", *apart] if main and apart else [*main, *apart]
    notes = [*(f"{reason}." for reason in _numbered(reasons)), *board.notes]
    columns = f"l{'r' * (len(board.metrics) + 1)}"
    return latex_table(f"{board.title} ({board.caption})", latex_tabular(columns, header, rows), notes)


def _latex_row(board: Board, cell: ResultCell, reasons: list[str]) -> str:
    values = [_latex_value(board, cell, name, reasons) for name in board.metrics]
    return " & ".join([latex_first(name_of(cell)), *values, latex_text(coverage(cell))]) + r" \\"


def _latex_value(board: Board, cell: ResultCell, name: str, reasons: list[str]) -> str:
    found = shown(cell.metrics.get(name))
    if found.reason:
        return f"n/a ({latex_text(brief(found.reason, reasons))})"
    value = rf"\textbf{{{found.value}}}" if board.starred(cell, name) else latex_text(found.value)
    return latex_stacked(value, " ".join(filter(None, [found.interval, _in_brackets(found.bounds)])))


def latex_table(caption: str, tabular: Sequence[str], notes: Iterable[str]) -> str:
    """A `table` in small print with its notes below. tabular: lines of LaTeX; caption and notes: plain text."""
    heading = rf"\caption{{{latex_text(caption)}}}"
    below = r"\par\smallskip\parbox{\linewidth}{\tiny " + r"\par ".join(map(latex_text, notes)) + "}"
    start = [r"\begin{table}", r"\centering\scriptsize\setlength{\tabcolsep}{3pt}", heading]
    return "\n".join([*start, *tabular, below, r"\end{table}", ""])


def latex_tabular(columns: str, header: str, rows: Sequence[str]) -> list[str]:
    """Lines of a `tabular` that is shrunk where it would be wider than the line. header and rows: LaTeX."""
    start = rf"\resizebox{{{SHRUNK}}}{{!}}{{\begin{{tabular}}{{{columns}}}"
    return [start, r"\toprule", rf"{header} \\", r"\midrule", *rows, r"\bottomrule", r"\end{tabular}}"]


def latex_stacked(value: str, small: str, align: str = "r") -> str:
    """A value of LaTeX with plain text in small print under it."""
    if not small:
        return value
    return rf"\begin{{tabular}}[t]{{@{{}}{align}@{{}}}}{value}\\{{\tiny {latex_text(small)}}}\end{{tabular}}"


def latex_text(text: str) -> str:
    """Text on one line that LaTeX shows as it is."""
    return "".join(_LATEX.get(mark, mark) for mark in printable(" ".join(text.split())))


def latex_first(text: str) -> str:
    """The same for the first field of a line: after the end of the one before it `[` and `*` would be read as an option."""
    return ("{}" if text.lstrip().startswith(("[", "*")) else "") + latex_text(text)


# --- HTML -------------------------------------------------------------------------------------------------------------


def escape(text: str) -> str:
    """Text that HTML shows as it is."""
    return html_escape(calm(text))


STYLE = """body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem; color-scheme: light dark }
table { border-collapse: collapse } caption { text-align: left } td { text-align: right; vertical-align: top }
th, td { padding: .25em .7em; border-bottom: 1px solid #8886 } th { text-align: left } small { display: block; opacity: .7 }
section { overflow-x: auto; margin-bottom: 2rem }"""


def as_html(cells: Sequence[ResultCell], notes: Notes | None = None, sort: str | None = None) -> str:
    """One page that needs nothing else, with a table per concept x suite; the best value is bold."""
    head = f'<meta charset="utf-8">\n<title>srbench compare</title>\n<style>\n{STYLE}\n</style>'
    sections = "\n".join(_html_board(board) for board in boards(cells, notes, sort))
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{sections}\n</body>\n</html>\n'


def _html_board(board: Board) -> str:
    texts = ["method", *map(board.header, board.metrics), "coverage", "source"]
    header = "".join(f'<th scope="col">{escape(text)}</th>' for text in texts)
    reasons: list[str] = []
    main, apart = ([_html_row(board, cell, reasons) for cell in cells] for cells in (board.main, board.apart))
    rule = [f'<tr><th colspan="{len(texts)}">not the defaults:</th></tr>'] if main and apart else []
    body = "\n".join([*main, *rule, *apart])
    notes = "".join(f"<li>{escape(note)}</li>" for note in (*_numbered(reasons), *board.notes))
    head = f"<caption>{escape(board.caption)}</caption>\n<thead><tr>{header}</tr></thead>"
    table = f"<table>\n{head}\n<tbody>\n{body}\n</tbody>\n</table>"
    return f"<section>\n<h2>{escape(board.title)}</h2>\n{table}\n<ul>{notes}</ul>\n</section>"


def _html_row(board: Board, cell: ResultCell, reasons: list[str]) -> str:
    values = "".join(f"<td>{_html_value(board, cell, name, reasons)}</td>" for name in board.metrics)
    ends = "".join(f"<td>{escape(text)}</td>" for text in (coverage(cell), cell.source))
    return f'<tr><th scope="row">{escape(name_of(cell))}</th>{values}{ends}</tr>'


def _html_value(board: Board, cell: ResultCell, name: str, reasons: list[str]) -> str:
    found = shown(cell.metrics.get(name))
    if found.reason:
        return f"n/a ({escape(brief(found.reason, reasons))})"
    value = f"<b>{escape(found.value)} {STAR}</b>" if board.starred(cell, name) else escape(found.value)
    small = " ".join(filter(None, [found.interval, _in_brackets(found.bounds)]))
    return value + (f"<small>{escape(small)}</small>" if small else "")


# --- by name ----------------------------------------------------------------------------------------------------------

FORMATS: dict[str, Callable[[Sequence[ResultCell], Notes | None, str | None], str]] = {
    "md": as_markdown,
    "csv": as_csv,
    "latex": as_latex,
    "json": as_json,
    "html": as_html,
}


def write(cells: Sequence[ResultCell], name: str, notes: Notes | None = None, sort: str | None = None) -> str:
    """The cells in the format `name`, a key of `FORMATS`. Raises UsageError for another one.

    sort: the metric whose best value comes first in every table.
    """
    if name not in FORMATS:
        raise UsageError(f"there is no format '{name}'", did_you_mean(name, FORMATS))
    return FORMATS[name](cells, notes, sort)
