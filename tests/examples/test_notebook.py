"""The notebook in `examples/` runs as it is, and the numbers stored in it are those that a run gives."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NAME = "patched_pipeline.ipynb"
LARGEST_BYTES = 400_000
TIMED = "added_ms"
"""The column of milliseconds: no two runs agree on it."""
NUMBER = re.compile(r"-?\d+\.?\d*")
LIMIT_SECONDS = 900
"""Of one cell, on a busy machine."""


class Tables(HTMLParser):
    """Rows of texts of every `<tr>` in a page; a `<small>` is apart from what stands before it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self._inside = True
        elif tag == "small":
            self.rows[-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


def untimed(rows: list[list[str]]) -> list[list[str]]:
    """Without the columns that are called `TIMED`; a row that begins with `method` is a header."""
    kept, timed = [], -1
    for row in rows:
        heads = [each.split()[0] if each else "" for each in row]
        if "method" in heads:
            timed = heads.index(TIMED) if TIMED in heads else -1
        if TIMED not in heads or "method" in heads:
            kept.append([each for i, each in enumerate(row) if i != timed])
    return kept


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def tables(notebook: Any) -> list[list[list[str]]]:
    """Of every HTML table among the outputs, its rows."""
    pages = [output.get("data", {}).get("text/html", "") for output in outputs(notebook)]
    return [untimed(Tables(page).rows) for page in pages if "<table" in page]


def numbers(rows: list[list[str]]) -> tuple[list[str], list[float]]:
    """The words of a table and its numbers, apart: another processor's rounding may move the last digit."""
    texts = [text for row in rows for text in row]
    return [NUMBER.sub("#", text) for text in texts], [float(each) for text in texts for each in NUMBER.findall(text)]


def executed(path: Path, folder: Path) -> Any:
    """A notebook without its outputs, run in a folder."""
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    where = {"metadata": {"path": str(folder)}}
    return nbclient.NotebookClient(notebook, timeout=LIMIT_SECONDS, resources=where).execute()


@pytest.fixture(scope="module")
def stored(repository: Path) -> Any:
    return nbformat.read(repository / "examples" / NAME, 4)


@pytest.fixture(scope="module")
def fresh(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return executed(repository / "examples" / NAME, tmp_path_factory.mktemp("notebook"))


def test_a_run_gives_the_numbers_that_are_stored(stored: Any, fresh: Any) -> None:
    before, now = tables(stored), tables(fresh)
    assert len(before) == len(now) == 5
    assert any("without-directions (limit=4)" in row for row in before[0])
    for table, again in zip(before, now, strict=True):
        words, values = numbers(table)
        assert (words, pytest.approx(values, rel=0.02, abs=0.05)) == numbers(again)


def test_the_comparison_sees_a_number_that_moved_and_no_time(stored: Any) -> None:
    page = next(page for each in outputs(stored) if "csdr_floor" in (page := each.get("data", {}).get("text/html", "")))
    table = untimed(Tables(page).rows)
    words, values = numbers(table)
    assert not any(TIMED in text for row in table for text in row)
    assert len(values) > 30
    moved = numbers(untimed(Tables(page.replace("75.0", "50.0")).rows))
    assert words == moved[0]
    assert pytest.approx(values, rel=0.02, abs=0.05) != moved[1]


def test_a_cell_writes_its_output_and_its_progress_and_nothing_else(fresh: Any) -> None:
    kinds = [output.output_type for output in outputs(fresh)]
    assert kinds.count("display_data") == 2
    assert set(kinds) == {"display_data", "execute_result"}


def test_progress_is_one_output_that_says_how_it_ended(fresh: Any) -> None:
    shown = [output.data for output in outputs(fresh) if output.output_type == "display_data"]
    assert ["56 images to sample" in shown[0]["text/plain"], "20 in the store" in shown[1]["text/plain"]] == [True, True]
    assert ["images 56/56" in shown[0]["text/html"], "images 12/12" in shown[1]["text/html"]] == [True, True]
    assert not any("<progress" in each["text/html"] for each in shown)


def test_the_stored_notebook_is_whole_and_small_and_names_no_machine(stored: Any, repository: Path) -> None:
    path = repository / "examples" / NAME
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < LARGEST_BYTES
    assert not re.search(r"[\"' (](/[a-z]+/[a-z]|~/|[A-Z]:\\)", text)
    assert "site-packages" not in text
    assert any("image/png" in output.get("data", {}) for output in outputs(stored))
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
