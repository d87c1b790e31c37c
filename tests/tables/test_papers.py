"""Markdown, CSV, LaTeX, HTML and the terminal: nothing lost, everything escaped, pocket never beside the papers."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from srbench.analysis.records import Metric
from srbench.catalog import resolve
from srbench.errors import UsageError
from srbench.results.run_files import newest
from srbench.tables import formats, terminal
from srbench.tables.papers import sheets
from srbench.tables.papers.spec import published
from tests.tables.conftest import fsr

TEX = next((path for name in ("pdflatex", "tectonic") if (path := shutil.which(name))), None)


@pytest.fixture
def cells(cell, pocket) -> list:
    """One measured cell of Stable Diffusion, four of pocket."""
    gain = {"fsr_gain": Metric("higher", 12.0, 4.0, 20.0, 100, 100, test="mcnemar", p=0.01, p_holm=0.02)}
    return [
        cell(fsr(97.25, 94.5, 99.25, n=60)),
        pocket(fsr(0, 0, 3.7), method="none"),
        pocket(fsr(88.5, 80, 93), method="none", on="esd-x"),
        pocket(fsr(100, 96, 100) | gain, on="esd-x"),
    ]


def written(specs: list, cells: list, format: str, pocket: bool) -> str:
    """Published tables, or their pocket editions, in a format."""
    return formats.write(sheets.tables(specs, cells, pocket), format)


def _rows(text: str) -> list[list[str]]:
    return [[field.strip() for field in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_markdown_shows_every_part_of_a_line(table, cells) -> None:
    header, _, *rows = _rows(written([table], cells, "md", pocket=False))
    found = dict(zip(header, rows[0], strict=True))
    assert found == {
        "row": "ours", "metric": "FSR % ↑", "published": "95", "n": "100", "k of n": "fits n = 100 (k = 95)",
        "measured": "97.25 <sub>[94.50, 99.25], n 60</sub>", "difference": "+2.25",
        "verdict": "agrees; n differs: 100 published, 60 measured", "source": "paper",
    }  # fmt: skip
    assert [row[5] for row in rows[1:]] == ["not run"] * 4
    assert len({len(row) for row in (header, *rows)}) == 1


def test_notes_name_sources_reasons_and_rows(table, cells) -> None:
    found = written([table], cells, "md", pocket=False)
    assert "- Source paper: the paper (Table 1)." in found
    assert "- PP not run: its weights are not here." in found
    assert "- theirs: srbench has no such method." in found
    assert "higher, lower:" in found
    assert "higher, lower:" not in written([table], [], "md", pocket=False)


def test_the_judge_is_named_where_the_papers_is_not_known(table, cells) -> None:
    row = table.rows[0].model_copy(update={"run": table.rows[0].run.model_copy(update={"protocol": ""})})
    found = written([table.model_copy(update={"rows": (row,)})], cells, "md", pocket=False)
    assert "n 60, igmu-church" in found


def test_rows_that_failed_are_counted(table, cell) -> None:
    failed = {"fsr": Metric("higher", 97.0, 94.0, 99.0, 100, 90, worst=87.3, best=97.3)}
    assert "[94.00, 99.00], n 90/100" in written([table], [cell(failed)], "md", pocket=False)


@pytest.mark.parametrize("format", sorted(formats.FORMATS))
def test_pocket_and_the_papers_never_stand_in_one_table(table, cells, format) -> None:
    papers, ours = (written([table], cells, format, pocket) for pocket in (False, True))
    assert "0.820" in papers
    assert "0.820" not in ours
    assert "97.25" not in ours
    assert "88.5" in ours
    assert "88.5" not in papers


def test_pocket_shows_gains_with_their_p_and_what_has_no_meaning(table, cells) -> None:
    _, _, untouched, alone, over, there = _rows(written([table], cells, "md", pocket=True))
    assert alone[1:3] == ["88.5 <sub>[80.0, 93.0]</sub>", "–"]
    assert over[2] == "+12.0 <sub>[4.00, 20.0], p = 0.01</sub>"
    assert there[1:] == ["not run"] * 4
    assert untouched[3] == "not run"


def test_a_shared_n_stands_in_the_heading_and_another_one_in_the_field(table, cells, pocket) -> None:
    assert "igmu fsr ↑ (n 100)" in written([table], cells, "md", pocket=True)
    mixed = [*cells[:3], pocket(fsr(100, 96, 100, n=40), on="esd-x")]
    found = written([table], mixed, "md", pocket=True)
    assert "igmu fsr ↑ |" in found
    assert "[96.0, 100], n 40" in found


def test_csv_has_unrounded_numbers_and_whole_sources(table, cells) -> None:
    lines = list(csv.DictReader(io.StringIO(written([table], cells, "csv", pocket=False))))
    assert len(lines) == 5
    assert (lines[0]["value"], lines[0]["high"], lines[0]["n"], lines[0]["published_n"]) == ("97.25", "99.25", "60", "100")
    assert lines[0]["source"].startswith("Source paper: the paper")
    assert (lines[1]["value"], lines[1]["reason"], lines[1]["verdict"]) == ("", "not run", "not run")
    ours = list(csv.DictReader(io.StringIO(written([table], cells, "csv", pocket=True))))
    assert len(ours) == 16
    for line in (*lines, *ours):
        numbers = [line[name] for name in ("published", "published_n", "value", "low", "high", "n", "difference") if line[name]]
        assert all(map(math.isfinite, map(float, numbers)))
        assert bool(line["value"]) != bool(line["reason"])
    assert {(line["published"], line["sign"]) for line in lines} >= {("94", ">"), ("", "")}
    assert {line["edition"] for line in ours} == {"pocket"}


class _Tables(HTMLParser):
    """Fields of each row, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[int] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append(0)
        elif tag in ("td", "th"):
            self.rows[-1] += 1


def test_html_is_escaped_and_its_rows_are_equally_wide(table, cells) -> None:
    found = written([table], cells, "html", pocket=False)
    parsed = _Tables(found)
    assert "<b>" not in found
    assert "A table &amp; 5 % &lt;b&gt;of_it&lt;/b&gt;" in found
    assert set(parsed.rows) == {9}
    assert {"caption", "thead", "tbody"} <= set(parsed.tags)
    assert "script" not in parsed.tags


def test_latex_is_escaped_and_its_rows_are_equally_wide(table, cells) -> None:
    for pocket in (False, True):
        found = written([table], cells, "latex", pocket)
        rows = [line for line in found.splitlines() if line.endswith(r"\\")]
        assert r"A table \& 5 \% $<$b$>$of\_it" in found
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in rows}) == 1
        assert found.count(r"\begin{") == found.count(r"\end{")


def test_the_terminal_shows_the_same_rows(table, cells) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(terminal.render(sheets.tables([table], cells, pocket=False), 160))
    found = console.export_text()
    assert "fits n = 100 (k = 95)" in found
    assert "[94.50, 99.25]" in found
    assert "Source paper" in found


def test_a_format_that_does_not_exist_is_refused(table) -> None:
    with pytest.raises(UsageError, match="there is no format 'markdown'"):
        written([table], [], "markdown", pocket=False)


# --- those that travel with srbench -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def latex() -> str:
    """All tables and all pocket editions."""
    tables = list(published().values())
    cells = newest(resolve.PACKAGE.parent / "results", pytest.fail)
    return "\n".join(written([table], cells, "latex", pocket) + r"\clearpage" for table in tables for pocket in (False, True))


def test_every_sign_of_every_table_has_a_latex_form(latex: str) -> None:
    assert {mark for mark in latex if not mark.isascii()} == set()


@pytest.mark.skipif(TEX is None, reason="no TeX here")
def test_every_table_compiles(latex: str, tmp_path: Path) -> None:
    page = f"\\documentclass{{article}}\n\\usepackage{{booktabs,graphicx}}\n\\begin{{document}}\n{latex}\n\\end{{document}}\n"
    (tmp_path / "page.tex").write_text(page)
    assert TEX is not None
    options = [] if TEX.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run([TEX, *options, "page.tex"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "page.pdf").stat().st_size > 10_000
    too_wide = [line for line in done.stdout.splitlines() if line.startswith(r"Overfull \hbox") and "alignment" not in line]
    assert not too_wide
