"""The notebook in `examples/` runs as it is, and the numbers stored in it are those that a run gives."""

from __future__ import annotations

import copy
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


def tables(notebook: Any) -> list[list[list[str]]]:
    """Of every HTML table among the outputs, its rows."""
    pages = ["".join(output.get("data", {}).get("text/html", "")) for cell in notebook.cells for output in cell.get("outputs", ())]
    return [untimed(Tables(page).rows) for page in pages if "<table" in page]


def executed(path: Path, folder: Path) -> Any:
    """A copy of a notebook without its outputs, run in a folder."""
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(copy.deepcopy(notebook), timeout=LIMIT_SECONDS, resources={"metadata": {"path": str(folder)}})
    return client.execute()


@pytest.fixture(scope="module")
def stored(repository: Path) -> Any:
    return nbformat.read(repository / "examples" / NAME, 4)


@pytest.fixture(scope="module")
def fresh(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return executed(repository / "examples" / NAME, tmp_path_factory.mktemp("notebook"))


def test_a_run_gives_the_numbers_that_are_stored(stored: Any, fresh: Any) -> None:
    before = tables(stored)
    assert len(before) == 5
    assert any("without-directions (limit=4)" in row for row in before[0])
    assert tables(fresh) == before


def test_a_cell_writes_nothing_but_its_output_and_progress(fresh: Any) -> None:
    outputs = [output for cell in fresh.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    streams = "".join(output.text for output in outputs if output.output_type == "stream")
    assert [line for line in streams.replace("\r", "\n").splitlines() if line.strip() and "Loading" not in line] == []


def test_progress_is_one_output_that_says_how_it_ended(fresh: Any) -> None:
    progress = [
        output for cell in fresh.cells for output in cell.get("outputs", ())
        if output.output_type == "display_data" and "samples" in output.data["text/plain"] or "in the store" in output.get(
            "data", {}).get("text/plain", "")
    ]  # fmt: skip
    assert len(progress) == 2
    assert all("images to sample" in output.data["text/plain"] for output in progress)
    assert all("<progress" not in output.data["text/html"] for output in progress)


def test_the_stored_notebook_is_small_and_names_no_machine(stored: Any, repository: Path) -> None:
    path = repository / "examples" / NAME
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < LARGEST_BYTES
    assert str(repository) not in text
    assert str(Path.home()) not in text
    assert "site-packages" not in text
    assert [cell.execution_count for cell in stored.cells if cell.cell_type == "code"] == list(
        range(1, sum(cell.cell_type == "code" for cell in stored.cells) + 1)
    )
