"""What the page says of every row: marks by rate and method, of local runs and of committed files of rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from srbench.catalog import load
from srbench.report.gather import ReportOptions, gathered
from srbench.report.rows import Line, Verdicts, joined
from tests.report.conftest import Made, rows

HARD = Path(__file__).parents[2] / "results" / "pocket-hard"


def of_page(html: str) -> dict[str, Any]:
    """The verdicts on a page, as its script reads them."""
    start = html.index('id="verdicts">') + len('id="verdicts">')
    data: dict[str, Any] = json.loads(html[start : html.index("</script>", start)])
    return data


def test_every_row_has_a_mark_under_every_method(made: Made) -> None:
    made.run(rows(4), slips=1)
    (board,) = of_page(made.html(images=4)).values()
    assert [row[0] for row in board["rows"]] == ["f0", "f1", "f2", "f3", "r0", "r1", "r2", "r3"]
    assert board["marks"]["fsr"] == {"none": "0000----", "saferedir": "0111----"}
    assert board["marks"]["retain_accuracy"]["saferedir"] == "----1111"
    assert board["better"]["fsr"] == "higher"
    assert board["sure"]["saferedir"][:2] == [0.97, 0.02]
    shown = [row[3] for row in board["rows"] if row[3]]
    assert 0 < len(shown) < 8, "few have pictures"
    assert all(f'id="{name}"' in made.html(images=4) for name in shown)


def test_a_row_that_could_not_be_judged_is_neither_a_failure_nor_a_success(made: Made) -> None:
    path = made.run(rows(2))
    data = json.loads(path.read_text())
    data["cells"][1]["rows"][0]["image"] = "0" * 64
    path.write_text(json.dumps(data))
    (board,) = of_page(made.html()).values()
    assert board["marks"]["fsr"]["saferedir"] == "?1--"


def test_prompts_of_gated_rows_are_not_on_the_page(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.run(rows(1, "a secret prompt"), gated=True)
    assert "a secret prompt" not in made.html()


def test_committed_rows_are_those_of_the_summary(tmp_path: Path) -> None:
    shutil.copytree(HARD, tmp_path / "results" / "pocket-hard")
    found = gathered(tmp_path / "results", ReportOptions(methods=("uce", "saferedir"), suites=("igmu",)), print)
    for section in found.sections:
        assert section.verdicts is not None
        assert set(section.verdicts.marks["fsr"]) == {"none", "saferedir", "uce"}
        for cell in section.wall.cells:
            marks = section.verdicts.marks["fsr"][cell.label]
            assert 100 * marks.count("1") / (marks.count("0") + marks.count("1")) == pytest.approx(cell.metrics["fsr"].value)
        suite = load.suites()["igmu"]
        texts = load.rows(suite, load.edition(suite, "pocket", section.wall.cells[0].concept)).rows
        assert [(line.id, line.prompt) for line in section.verdicts.lines] == [(row.id, row.prompt) for row in texts]


def test_rows_that_do_not_give_the_figure_are_not_shown_for_it(tmp_path: Path) -> None:
    shutil.copytree(HARD, tmp_path / "results" / "pocket-hard")
    path = tmp_path / "results" / "pocket-hard" / "hazard-rows.csv"
    lines = path.read_text().splitlines(keepends=True)
    wrong = [line.replace(",1,", ",0,", 1) if line.startswith("igmu,uce,") else line for line in lines]
    path.write_text("".join(wrong))
    options = ReportOptions(methods=("uce", "saferedir"), suites=("igmu",), concepts=("hazard",))
    (section,) = gathered(tmp_path / "results", options, print).sections
    assert section.verdicts is not None
    assert set(section.verdicts.marks["fsr"]) == {"none", "saferedir"}


def test_a_damaged_file_of_rows_costs_its_rows_and_is_named(tmp_path: Path) -> None:
    shutil.copytree(HARD, tmp_path / "results" / "pocket-hard")
    (tmp_path / "results" / "pocket-hard" / "hazard-rows.csv").write_text("no,rows\n")
    said: list[str] = []
    found = gathered(tmp_path / "results", ReportOptions(methods=("uce",), suites=("igmu",)), said.append)
    verdicts = {section.wall.cells[0].concept: section.verdicts for section in found.sections}
    assert verdicts["hazard"] is None
    assert verdicts["church"] is not None
    assert any("hazard-rows.csv: no file of rows" in line for line in said)


def test_two_sources_are_joined_where_they_are_of_the_same_rows() -> None:
    line = Line("f1", "a church", "forget", "noun", 1)
    mine = Verdicts((line,), {"fsr": {"none": "0", "uce": "1"}}, {"uce": (0.1,)})
    theirs = Verdicts((line,), {"fsr": {"uce": "0", "esd-x": "0"}, "harm": {"uce": "-"}}, {"uce": (0.9,)})
    both = joined(mine, theirs)
    assert both is not None
    assert both.marks == {"fsr": {"uce": "1", "esd-x": "0", "none": "0"}, "harm": {"uce": "-"}}
    assert both.sure == {"uce": (0.1,)}
    other = Verdicts((Line("f2", "a tent", "retain", "", 1),), {}, {})
    assert joined(mine, other) is mine
    assert joined(None, theirs) is theirs
    assert joined(None, None) is None
