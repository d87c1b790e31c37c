"""Result cells as JSON, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence

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
from srbench.errors import UsageError, did_you_mean

Notes = Mapping[str, str]


def as_json(cells: Sequence[ResultCell], notes: Notes | None = None) -> str:
    """`{"cells": [...]}`; a value that does not exist is null and has a reason."""
    return json.dumps({"cells": [to_dict(cell) for cell in cells]}, indent=2, ensure_ascii=False, allow_nan=False)


def as_csv(cells: Sequence[ResultCell], notes: Notes | None = None) -> str:
    """One line per cell and metric, rates in percent; what does not exist is empty and has a reason."""
    lines = []
    for cell in cells:
        data = to_dict(cell)
        shared = {name: data[name] for name in (*IDENTITY, *COUNTS)} | {"source": cell.source}
        lines += [{**shared, "metric": name, **metric} for name, metric in data["metrics"].items()]
    measured = ["metric", "value", "low", "high", "n", "scored", "worst", "best", "better", "reason"]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*IDENTITY, "source", *COUNTS, *measured], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


# --- Markdown ---------------------------------------------------------------------------------------------------------


def as_markdown(cells: Sequence[ResultCell], notes: Notes | None = None) -> str:
    """One table per concept x suite; the best value is bold and has a star."""
    return "\n\n".join(_markdown_board(board) for board in boards(cells, notes)) + "\n"


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


def _in_brackets(bounds: Sequence[str]) -> str:
    return f"({', '.join(bounds)})" if bounds else ""


def markdown_text(text: str) -> str:
    """Text on one line that Markdown, also inside a table, shows as it is."""
    escaped = "".join(f"\\{mark}" if mark in "|*_`<>" else mark for mark in text)
    return " ".join(escaped.split())


# --- LaTeX ------------------------------------------------------------------------------------------------------------


_LATEX = {mark: f"\\{mark}" for mark in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "<": "$<$",
    ">": "$>$",
    "≈": r"$\approx$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "τ": r"$\tau$",
    DASH: "--",
    ARROWS["higher"]: r"$\uparrow$",
    ARROWS["lower"]: r"$\downarrow$",
}


def as_latex(cells: Sequence[ResultCell], notes: Notes | None = None) -> str:
    """One `table` per concept x suite, for the package booktabs; the best value is bold."""
    return "\n".join(_latex_board(board) for board in boards(cells, notes))


def _latex_board(board: Board) -> str:
    header = " & ".join(latex_text(text) for text in ["method", *map(board.header, board.metrics), "coverage"])
    reasons: list[str] = []
    main, apart = ([_latex_row(board, cell, reasons) for cell in cells] for cells in (board.main, board.apart))
    notes = [f"{reason}." for reason in _numbered(reasons)] + list(board.notes)
    caption = " ".join([f"{latex_text(board.title)} ({latex_text(board.caption)}).", *map(latex_text, notes)])
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(board.metrics) + 1)}}}"]
    lines += [r"\toprule", rf"{header} \\", r"\midrule", *main]
    lines += [r"\midrule", *apart] if main and apart else apart
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_row(board: Board, cell: ResultCell, reasons: list[str]) -> str:
    values = [_latex_value(board, cell, name, reasons) for name in board.metrics]
    return " & ".join([latex_text(name_of(cell)), *values, latex_text(coverage(cell))]) + r" \\"


def _latex_value(board: Board, cell: ResultCell, name: str, reasons: list[str]) -> str:
    found = shown(cell.metrics.get(name))
    if found.reason:
        return f"n/a ({latex_text(brief(found.reason, reasons))})"
    value = rf"\textbf{{{found.value}}}" if board.starred(cell, name) else latex_text(found.value)
    small = " ".join(filter(None, [found.interval, _in_brackets(found.bounds)]))
    return rf"{value} {{\scriptsize {latex_text(small)}}}" if small else value


def latex_text(text: str) -> str:
    """Text on one line that LaTeX shows as it is."""
    return "".join(_LATEX.get(mark, mark) for mark in " ".join(text.split()))


# --- by name ----------------------------------------------------------------------------------------------------------

FORMATS: dict[str, Callable[[Sequence[ResultCell], Notes | None], str]] = {
    "md": as_markdown,
    "csv": as_csv,
    "latex": as_latex,
    "json": as_json,
}


def write(cells: Sequence[ResultCell], name: str, notes: Notes | None = None) -> str:
    """The cells in the format `name` (`md`, `csv`, `latex`, `json`). Raises UsageError for another one."""
    if name not in FORMATS:
        raise UsageError(f"there is no format '{name}'", did_you_mean(name, FORMATS))
    return FORMATS[name](cells, notes)
