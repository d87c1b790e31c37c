"""Files of rows beside summaries: what is read, and that rows of another run are not shown for a figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.errors import UsageError
from srbench.results import row_files

HEAD = "suite,method,row,image,sure,fsr,retain_accuracy\n"
LINES = "igmu,uce,f1,00ff,0.900,0,\nigmu,uce,f2,00fe,0.010,1,\nigmu,uce,r1,00fd,,,1\nigmu,esd-x,f1,00fc,0.5,1,\n"
CELL = ResultCell(
    "pocket", "church", "igmu", "none", "uce", "", "pocket-church", "fp32", "0", "r", "committed", 3, 0, 3, 3, 0,
    {"fsr": Metric("higher", 50.0, 9.0, 91.0, 2, 2), "retain_accuracy": Metric("higher", 100.0, 20.0, 100.0, 1, 1)},
)  # fmt: skip


def written(folder: Path, text: str) -> Path:
    path = folder / "mine" / "church-rows.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_what_a_line_says(tmp_path: Path) -> None:
    written(tmp_path, HEAD + LINES)
    (path,) = row_files.paths(tmp_path, "church")
    first, _, third, _ = row_files.read(path)
    assert (first.row, first.image, first.sure, first.marks) == ("f1", "00ff", 0.9, {"fsr": False, "retain_accuracy": None})
    assert (third.sure, third.marks["retain_accuracy"]) == (None, True)
    assert row_files.paths(tmp_path, "hazard") == []


def test_the_lines_of_a_cell_are_those_that_its_figures_follow_from(tmp_path: Path) -> None:
    lines = row_files.read(written(tmp_path, HEAD + LINES))
    assert [line.row for line in row_files.of_cell(lines, CELL)] == ["f1", "f2", "r1"]
    higher = {**CELL.metrics, "fsr": Metric("higher", 100.0, 9.0, 100.0, 2, 2)}
    assert row_files.of_cell(lines, replace(CELL, metrics=higher)) == []
    assert row_files.of_cell(lines, replace(CELL, n_run=4)) == []
    assert row_files.of_cell([], replace(CELL, n_run=0)) == []
    assert row_files.of_cell(lines, replace(CELL, on="mace")) == []
    unmeasured = {**CELL.metrics, "fsr": Metric("higher", None, None, None, 2, 0, reason="no score")}
    assert row_files.of_cell(lines, replace(CELL, metrics=unmeasured)) == []


@pytest.mark.parametrize("text", [
    "", "a,b\n", "suite,method,row,image,sure,fsr,fsr\n", HEAD + "igmu,uce,f1,00ff,0.9,0\n", HEAD + "igmu,uce,f1,00ff,nan,0,\n",
    HEAD + "igmu,uce,f1,00ff,1.5,0,\n", HEAD + "igmu,uce,f1,00ff,0.9,yes,\n", HEAD + "igmu,uce,f1,00ff,0.9,0,,\n",
])  # fmt: skip
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"church-rows\.csv"):
        row_files.read(written(tmp_path, text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        row_files.read(path)


def test_rows_are_found_by_id_and_by_key(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + LINES)
    said: list[str] = []

    def found(what: str) -> list[str]:
        return [line.method for _, lines in row_files.named(tmp_path, what, 3, said.append) for line in lines]

    assert found("f1") == ["uce", "esd-x"]
    assert found("00fc") == ["esd-x"]
    assert found("00") == [], "too short for a key"
    assert found("00fc" + "0" * 60) == []
    path.write_text("damaged")
    assert found("f1") == []
    assert "church-rows.csv: no file of rows" in said[0]
