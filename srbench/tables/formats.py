"""Tables as Markdown, LaTeX, HTML, CSV and JSON: one writer a format, for every table."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape as html_escape
from typing import Any

from srbench.errors import UsageError, did_you_mean
from srbench.files import calm, escaped_json, printable
from srbench.tables.numbers import ARROWS, DASH, STAR
from srbench.tables.sheet import Column, Item, Layout, Reasons, Sheet, Tables


def _small(item: Item) -> str:
    """Everything in small print, as plain text."""
    return " ".join(filter(None, [item.small, _in_brackets(item.bounds), _in_brackets(filter(None, [item.mark]))]))


def _in_brackets(texts: Iterable[str]) -> str:
    joined = ", ".join(texts)
    return f"({joined})" if joined else ""


def _texts(lines: Iterable[Item]) -> list[str]:
    return [item.whole for item in lines]


# --- Markdown ---------------------------------------------------------------------------------------------------------

MARKDOWN_RULE = {"l": "---", "w": "---", "r": "---:"}


def as_markdown(tables: Tables) -> str:
    """Title, table and notes of each sheet; the best value is bold and has a star."""
    return "\n\n".join(_markdown_sheet(sheet, tables.layout) for sheet in tables.sheets) + "\n"


def _markdown_sheet(sheet: Sheet, layout: Layout) -> str:
    reasons = Reasons()
    table = _markdown_table(sheet, reasons) if sheet.columns else ""
    details = [f"{markdown_text(detail.heading)}\n\n{_listed(_texts(detail.lines))}" for detail in sheet.details]
    notes = _listed(filter(None, [*reasons.notes(), *sheet.notes]))
    parts = [*_markdown_title(sheet, layout), table, markdown_text(sheet.summary), notes, *details]
    return "\n\n".join(filter(None, parts))


def _listed(texts: Iterable[str]) -> str:
    return "\n".join(f"- {markdown_text(text)}" for text in texts)


def _markdown_title(sheet: Sheet, layout: Layout) -> list[str]:
    title, caption = markdown_text(sheet.title), markdown_text(sheet.caption)
    if layout.paper:
        return [f"## {title}", caption]
    return [f"**{title}**" + (f" ({caption})" if caption else "")]


def _markdown_table(sheet: Sheet, reasons: Reasons) -> str:
    header = [_markdown_heading(column.heading) for column in sheet.columns]
    rows = [header, [MARKDOWN_RULE[column.align] for column in sheet.columns]]
    for section in sheet.sections:
        if section.heading:
            rows.append([f"*{markdown_text(section.heading)}*", *[""] * (len(header) - 1)])
        rows += [[_markdown_item(item, reasons) for item in line] for line in section.lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _markdown_heading(heading: str) -> str:
    """A metric's name is left as it is: an underscore inside of a word is no markup."""
    return heading if _METRIC.fullmatch(heading) else markdown_text(heading)


def _markdown_item(item: Item, reasons: Reasons) -> str:
    if item.reason:
        return f"{markdown_text(item.text)} ({markdown_text(reasons.brief(item.reason))})"
    text = markdown_text(item.whole)
    if item.best or item.strong:
        text = f"**{text}** {STAR}" if item.best else f"**{text}**"
    small = f"<sub>{markdown_text(item.small)}</sub>" if item.small else ""
    bounds = markdown_text(_in_brackets(item.bounds)).replace(r"\< ", "< ")  # before a blank it begins no tag
    return " ".join(filter(None, [text, small, bounds, markdown_text(_in_brackets(filter(None, [item.mark])))]))


def markdown_text(text: str) -> str:
    """Text on one line that Markdown, also inside a table, shows as it is: no markup, no link, no picture, no HTML."""
    line = printable(" ".join(text.split()))
    escaped = "".join(f"\\{mark}" if mark in "\\|*_`<>" else mark for mark in line)
    return _LINK.sub("&#93;", _ENTITY.sub("&amp;", escaped))


_METRIC = re.compile(r"[^\W_]([\w.@+-]*[^\W_])? [↑↓]")
_LINK, _ENTITY = re.compile(r"\](?=[(\[:])"), re.compile(r"&(?=#?\w+;)")


# --- LaTeX ------------------------------------------------------------------------------------------------------------


SHRUNK = r"\ifdim\width>\linewidth\linewidth\else\width\fi"
"""The width of a table in LaTeX: its own, or the line's where that is less."""
WRAPPED = 0.2
"""Of a line's width, for a column of words."""
FOLD = 12
"""Characters after which a heading of a paper's table goes on below."""
_LATEX = {mark: f"\\{mark}" for mark in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "<": "$<$",
    "§": r"\S{}",
    STAR: r"\textbf{Bold}:",  # in notes: the best value itself is bold here, and has no star
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


def as_latex(tables: Tables) -> str:
    """One `table` a sheet, for the packages booktabs and graphicx; the best value is bold."""
    return "\n".join(_latex_sheet(sheet, tables.layout) for sheet in tables.sheets)


def _latex_sheet(sheet: Sheet, layout: Layout) -> str:
    reasons = Reasons()
    tabular = _latex_tabular(sheet, layout, reasons) if sheet.columns else []
    if layout.paper:
        caption, end = ". ".join(filter(None, (sheet.title, sheet.caption))), ""
    else:
        caption, end = sheet.title + (f" ({sheet.caption})" if sheet.caption else ""), "."
    details = [text for detail in sheet.details for text in (detail.heading, *_texts(detail.lines))]
    notes = [*filter(None, [sheet.summary, *(f"{note}{end}" for note in reasons.notes()), *sheet.notes]), *details]
    below = [r"\par\smallskip\parbox{\linewidth}{\tiny " + r"\par ".join(map(latex_text, notes)) + "}"] if notes else []
    start = [r"\begin{table}", r"\centering\scriptsize\setlength{\tabcolsep}{3pt}", rf"\caption{{{latex_text(caption)}}}"]
    return "\n".join([*start, *tabular, *below, r"\end{table}", ""])


def _latex_tabular(sheet: Sheet, layout: Layout, reasons: Reasons) -> list[str]:
    """Lines of a `tabular` that is shrunk where it would be wider than the line."""
    letters = "".join(rf"p{{{WRAPPED}\linewidth}}" if column.align == "w" else column.align for column in sheet.columns)
    header = " & ".join(_latex_heading(column.heading, layout) for column in sheet.columns)
    rows = [rf"{header} \\"]
    for section in sheet.sections:
        lines = (zip(line, sheet.columns, strict=True) for line in section.lines)
        fields = ([_latex_item(item, column, reasons) for item, column in line] for line in lines)
        apart = rf"\multicolumn{{{len(sheet.columns)}}}{{l}}{{\emph{{{latex_text(section.heading)}}}}} \\"
        rows += [r"\midrule", *([apart] if section.heading else []), *(" & ".join(texts) + r" \\" for texts in fields)]
    start = rf"\resizebox{{{SHRUNK}}}{{!}}{{\begin{{tabular}}{{{letters}}}"
    return [start, r"\toprule", *rows, r"\bottomrule", r"\end{tabular}}"]


def _latex_heading(heading: str, layout: Layout) -> str:
    if not layout.paper:
        return latex_text(heading)
    folded = [line.replace("_", "_\n", 1) if len(line) > FOLD else line for line in heading.splitlines()]
    lines = [latex_text(line) for line in "\n".join(folded).splitlines()]
    stacked = r"\\".join(lines)
    return rf"\shortstack{{{stacked}}}" if len(lines) > 1 else stacked


def _latex_item(item: Item, column: Column, reasons: Reasons) -> str:
    if item.reason:
        return f"{latex_first(item.text)} ({latex_text(reasons.brief(item.reason))})"
    text = latex_first(item.whole)
    if item.best or item.strong:
        text = rf"\textbf{{{text}}}"
    if column.align == "w" and item.text:
        text = rf"\raggedright {text}"
    small = _small(item)
    if not small:
        return text
    side = "r" if column.align == "r" else "l"
    return rf"\begin{{tabular}}[t]{{@{{}}{side}@{{}}}}{text}\\{{\tiny {latex_text(small)}}}\end{{tabular}}"


def latex_text(text: str) -> str:
    """Text on one line that LaTeX shows as it is."""
    return "".join(_LATEX.get(mark, mark) for mark in printable(" ".join(text.split())))


def latex_first(text: str) -> str:
    """The same for the first field of a line: after the end of the one before it `[` and `*` would be read as an option."""
    return ("{}" if text.lstrip().startswith(("[", "*")) else "") + latex_text(text)


# --- HTML -------------------------------------------------------------------------------------------------------------


STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem; color-scheme: light dark }
table { border-collapse: collapse } caption { text-align: left } td { text-align: right; vertical-align: top }
th, td { padding: .25em .7em; border-bottom: 1px solid #8886 } th { text-align: left } small { display: block; opacity: .7 }
section { overflow-x: auto; margin-bottom: 2rem }
"""
PAPER_STYLE = "caption, th, td { padding: .2em .6em; text-align: left } td.r { text-align: right }"


def as_html(tables: Tables) -> str:
    """One page that needs nothing else, with a section a sheet; the best value is bold."""
    style = PAPER_STYLE if tables.layout.paper else STYLE
    head = f'<meta charset="utf-8">\n<title>{escape(tables.title)}</title>\n<style>{style}</style>'
    sections = "\n".join(_html_sheet(sheet, tables.layout) for sheet in tables.sheets)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{sections}\n</body>\n</html>\n'


def _html_sheet(sheet: Sheet, layout: Layout) -> str:
    reasons = Reasons()
    table = _html_table(sheet, layout, reasons) if sheet.columns else _html_words("p", sheet.caption)
    details = [
        part for detail in sheet.details
        for part in (_html_words("p", detail.heading), _html_list(_texts(detail.lines)))
    ]  # fmt: skip
    notes = _html_list([*reasons.notes(), *sheet.notes])
    parts = [_html_words("h2", sheet.title), table, _html_words("p", sheet.summary), notes, *details]
    return "\n".join(["<section>", *filter(None, parts), "</section>"])


def _html_words(tag: str, text: str) -> str:
    """A text in its tag; nothing without a text."""
    return f"<{tag}>{escape(text)}</{tag}>" if text else ""


def _html_list(texts: Iterable[str]) -> str:
    items = "".join(_html_words("li", text) for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def _html_table(sheet: Sheet, layout: Layout, reasons: Reasons) -> str:
    header = "".join(f'<th scope="col">{escape(column.heading)}</th>' for column in sheet.columns)
    rows: list[str] = []
    for section in sheet.sections:
        if section.heading:
            rows.append(f'<tr><th colspan="{len(sheet.columns)}">{escape(section.heading)}</th></tr>')
        rows += [_html_row(line, sheet.columns, layout, reasons) for line in section.lines]
    body = "\n".join(rows)
    head = f"<thead><tr>{header}</tr></thead>\n<tbody>"
    return "\n".join(filter(None, ("<table>", _html_words("caption", sheet.caption), head, body, "</tbody>\n</table>")))


def _html_row(line: Sequence[Item], columns: Sequence[Column], layout: Layout, reasons: Reasons) -> str:
    classes = [' class="r"' if layout.paper and column.align == "r" else "" for column in columns[1:]]
    fields = [f"<td{side}>{_html_item(item, layout, reasons)}</td>" for item, side in zip(line[1:], classes, strict=True)]
    return f'<tr><th scope="row">{escape(line[0].whole)}</th>{"".join(fields)}</tr>'


def _html_item(item: Item, layout: Layout, reasons: Reasons) -> str:
    if item.reason:
        return f"{escape(item.text)} ({escape(reasons.brief(item.reason))})"
    text = escape(item.whole)
    if item.best or item.strong:
        text = f"<b>{text} {STAR}</b>" if item.best else f"<b>{text}</b>"
    small = _small(item)
    return text + (f"{' ' * layout.paper}<small>{escape(small)}</small>" if small else "")


def escape(text: str) -> str:
    """Text that HTML shows as it is."""
    return html_escape(calm(text))


# --- CSV and JSON -----------------------------------------------------------------------------------------------------


def as_json(tables: Tables) -> str:
    """The data; a value that does not exist is null and has a reason."""
    return json.dumps(tables.data, indent=2, ensure_ascii=False, allow_nan=False)


def as_csv(tables: Tables) -> str:
    """The records, a line each; what does not exist is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, tables.fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(csv_fields, tables.records))
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


# --- by name ----------------------------------------------------------------------------------------------------------

FORMATS: dict[str, Callable[[Tables], str]] = {
    "md": as_markdown,
    "csv": as_csv,
    "latex": as_latex,
    "json": as_json,
    "html": as_html,
}
ENDINGS = {"md": "md", "csv": "csv", "latex": "tex", "html": "html", "json": "json"}
"""Format -> the end of a file's name."""


def check_format(name: str, *more: str) -> None:
    """Raises UsageError where `name` is no key of `FORMATS`, nor one of `more`."""
    known = (*more, *FORMATS)
    if name not in known:
        raise UsageError(f"there is no format {printable(repr(name)):.60}", did_you_mean(str(name), known))


def write(tables: Tables, name: str) -> str:
    """The tables in the format `name`, a key of `FORMATS`, with one line end behind them. Raises UsageError for another one."""
    check_format(name)
    return FORMATS[name](tables).rstrip("\n") + "\n"


def file_of(tables: Tables, name: str) -> bytes:
    """The same as the content of a file, in which nothing acts on the terminal that prints it."""
    text = write(tables, name)
    return calm(escaped_json(text) if name == "json" else text).encode()
