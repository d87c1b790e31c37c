"""A star where a test tells the best value from the next: paired on the same rows, else by intervals."""

from __future__ import annotations

from typing import Any

import pytest

from srbench.analysis.leaders import leaders
from srbench.analysis.records import CellRecord
from srbench.analysis.results import ResultCell, result
from srbench.catalog import load


@pytest.fixture(autouse=True)
def _judge(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small judge of these tests' pictures under the name that the cells give."""
    monkeypatch.setattr(load, "protocols", lambda: {"pocket-hazard": make.hazard})


def record(make: Any, method: str, seen: range, **fields: Any) -> CellRecord:
    """Forty forget rows; on those in `seen` the concept is drawn."""
    drawn = [make.image(make.raw({"bomb": 0.9} if i in seen else {"cat": 0.9})) for i in range(40)]
    return make.cell(*(make.forget(i, each) for i, each in enumerate(drawn)), method=method, metrics=("fsr",), **fields)


def starred(make: Any, *records: CellRecord, paired: bool = True) -> tuple[list[str], int, bool]:
    """Names of the cells with a star for fsr, the number of paired tests, and whether a star rests on intervals."""
    cells = [result(each, make.hazard) for each in records]
    rows = dict(zip(map(id, cells), records, strict=True))

    def rows_of(cell: ResultCell) -> CellRecord | None:
        return rows[id(cell)] if paired else None

    found = leaders({"fsr": cells}, rows_of)
    return [cell.method for cell in found.cells.get("fsr", ())], found.tests, found.unpaired


def test_six_rows_to_none_are_told_apart_and_five_are_not(make) -> None:
    """Exact McNemar: 2 * 0.5^6 = 0.031, and 2 * 0.5^5 = 0.063."""
    assert starred(make, record(make, "a", range(0)), record(make, "b", range(6))) == (["a"], 1, False)
    assert starred(make, record(make, "a", range(0)), record(make, "b", range(5))) == ([], 1, False)


def test_without_rows_the_interval_of_the_difference_decides(make) -> None:
    assert starred(make, record(make, "a", range(0)), record(make, "b", range(20)), paired=False) == (["a"], 0, True)
    assert starred(make, record(make, "a", range(0)), record(make, "b", range(2)), paired=False) == ([], 0, False)


def test_the_next_value_counts_not_the_worst_one(make) -> None:
    cells = [record(make, "a", range(0)), record(make, "b", range(1)), record(make, "c", range(30))]
    assert starred(make, *cells) == ([], 1, False)


def test_equal_best_values_share_a_star(make) -> None:
    cells = [record(make, "a", range(0)), record(make, "b", range(0)), record(make, "c", range(20))]
    assert starred(make, *cells) == (["a", "b"], 1, False)
    assert starred(make, *cells[:2]) == ([], 0, False), "an even field"


def test_stars_of_one_table_are_one_family(make) -> None:
    """p = 0.03 in one column; with a second column that is not settled it is 0.06."""
    a, b = record(make, "a", range(0)), record(make, "b", range(6))
    cells = [result(each, make.hazard) for each in (a, b)]
    copies = [make.replace(cell, metrics={**cell.metrics, "asr": cell.metrics["fsr"]}) for cell in cells]
    rows = {id(copies[0]): a, id(copies[1]): b}
    both = leaders({"fsr": copies, "asr": copies}, lambda cell: rows[id(cell)])
    assert both.tests == 2
    assert both.cells == {}
