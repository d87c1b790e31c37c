"""The committed hard study: every rate can be worked out from its rows, and the page says what the summaries say."""

from __future__ import annotations

import csv
from collections import defaultdict

import pytest

from srbench.analysis.measure import summarise
from srbench.analysis.metrics import METRICS, prompt_of
from srbench.analysis.origin import short
from srbench.analysis.records import Observation
from srbench.analysis.results import ResultCell
from srbench.catalog import load
from srbench.catalog.specs import Row
from srbench.pocket_build.study import hard
from srbench.pocket_build.study.grids import lines_of
from srbench.pocket_build.study.tables import table
from srbench.results import row_files
from srbench.results.run_files import summarised

CELLS = summarised(hard.FOLDER)
CONCEPTS = sorted({cell.concept for cell in CELLS})
SUITES = sorted({suite for suite, _ in hard.COLUMNS})
MOST_BYTES = 3_000_000


@pytest.fixture(scope="module")
def marks() -> dict[tuple[str, str, str], list[dict[str, str]]]:
    """Concept, suite, label -> lines of the concept's file of rows."""
    found: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    for concept in CONCEPTS:
        with hard.rows_file(concept).open(encoding="utf-8", newline="") as handle:
            for line in csv.DictReader(handle):
                found[concept, line["suite"], line["method"]].append(line)
    return found


def rows_of(cell: ResultCell) -> dict[str, Row]:
    suite = load.suites()[cell.suite]
    return {row.id: row for row in load.rows(suite, load.edition(suite, "pocket", cell.concept)).rows}


def test_every_method_of_the_study_has_every_suite_of_every_concept() -> None:
    expected = {(concept, suite, method) for concept in CONCEPTS for suite in SUITES for method in hard.methods()}
    assert expected
    assert {(cell.concept, cell.suite, cell.label) for cell in CELLS} == expected


def test_it_was_run_on_the_shipped_pocket() -> None:
    from srbench.backbones.loader import open_backbone

    shipped = open_backbone(load.backbones()["pocket"], "fp32", "cpu").sha256
    assert {cell.origin.backbone_sha for cell in CELLS} == {short(shipped)}


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.concept}-{cell.suite}-{cell.label}")
def test_every_rate_follows_from_the_rows(cell: ResultCell, marks: dict[tuple[str, str, str], list[dict[str, str]]]) -> None:
    rows = rows_of(cell)
    assert load.rows_sha(tuple(rows.values())) == cell.rows_sha
    lines = marks[cell.concept, cell.suite, cell.label]
    assert sorted(line["row"] for line in lines) == sorted(rows)
    rates = [name for name in hard.RATES if name in cell.metrics and cell.metrics[name].value is not None]
    assert rates or cell.label == "none"  # `harm` is against it
    for name in rates:
        seen = [Observation(rows[line["row"]], float(line[name]), prompt_of(rows[line["row"]])) for line in lines if line[name]]
        again, said = summarise(METRICS[name], seen), cell.metrics[name]
        assert (again.n, again.phrases) == (said.n, said.phrases)
        for field in ("value", "low", "high", "phrase_low", "phrase_high"):
            assert getattr(again, field) == pytest.approx(getattr(said, field), abs=1e-9), (name, field)


def test_the_page_shows_the_summaries() -> None:
    assert hard.PAGE.read_text(encoding="utf-8") == hard.page(CELLS)
    for concept in CONCEPTS:
        lines = lines_of([cell for cell in CELLS if cell.concept == concept])
        assert len(list(table(lines, hard.methods(), "method", hard.COLUMNS))) == 2 + len(hard.methods())


def test_rows_are_small_enough_to_travel() -> None:
    assert sum(path.stat().st_size for path in hard.FOLDER.iterdir()) < MOST_BYTES


@pytest.mark.parametrize("concept", CONCEPTS)
def test_the_tests_follow_from_the_rows(concept: str) -> None:
    lines = row_files.read(hard.rows_file(concept))
    assert hard.tests(lines, concept) == hard.tests_file(concept).read_bytes()
    assert hard.rows([], lines) == hard.rows_file(concept).read_bytes(), "a line is written as it was read"
