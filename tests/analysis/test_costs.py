"""What methods cost: each concept counted once, and nothing made up where nothing is known."""

from __future__ import annotations

import pytest

from srbench.analysis.costs import Cost, by_method, costs
from srbench.analysis.records import Metric
from srbench.analysis.results import from_dict, result, to_dict
from srbench.tables.costs import added_of


def cell(make, **fields):
    cost = {"prepare_seconds": 10.0, "parameters": 5, "peak_mb": 900.0}
    given = {"metrics": ("fsr",), "method": "sld-max", "cost": cost} | fields
    added = given.pop("added", None)
    found = result(make.cell(make.forget(0, make.image()), **given), make.hazard)
    more = {} if added is None else {"added_ms": Metric("lower", added, added - 1, added + 1, n=1, scored=1)}
    return make.replace(found, metrics={**found.metrics, **more})


def test_making_is_counted_once_a_concept(make) -> None:
    (found,) = costs([
        cell(make, suite="igmu"), cell(make, suite="mma"),
        cell(make, concept="church", cost={"prepare_seconds": 40.0, "parameters": 7, "peak_mb": 950.0}),
    ])
    assert found.prepare_seconds == pytest.approx(25)
    assert (found.parameters, found.peak_mb, found.cells) == (7, 950, 3)


def test_added_time_is_a_mean_with_its_ends(make) -> None:
    (found,) = costs([cell(make, added=4.0), cell(make, suite="mma", added=10.0), cell(make, concept="church")])
    assert (found.added_ms, found.added_low, found.added_high) == (7, 4, 10)


def test_checkpoints_and_variants_are_lines_of_their_own(make) -> None:
    found = costs([cell(make), cell(make, on="uce"), cell(make, method="none", on="uce"), cell(make, variant="alpha=1")])
    assert [each.method for each in found] == ["sld-max", "sld-max (alpha=1)", "sld-max on uce", "uce"]


def test_an_older_summary_without_costs_is_read_and_shows_none(make) -> None:
    data = to_dict(cell(make, cost={}))
    assert "cost" not in data
    (found,) = costs([from_dict(data)])
    assert (found.prepare_seconds, found.added_ms, found.parameters, found.peak_mb) == (None, None, None, None)
    assert from_dict(to_dict(cell(make))).cost["parameters"] == 5


def test_costs_of_two_machines_are_two_lines(make) -> None:
    found = costs([cell(make, added=4.0, source="committed"), cell(make, suite="mma", added=10.0)])
    assert sorted((each.source, each.added_ms, each.cells) for each in found) == [("committed", 4, 1), ("local", 10, 1)]
    assert by_method(found)["sld-max"].source == "local"


def test_a_single_cell_s_range_is_its_interval(make) -> None:
    (found,) = costs([cell(make, added=4.0)])
    assert (found.added_low, found.added_high, found.added_base) == (3, 5, None)
    once = cell(make)
    once = make.replace(once, metrics={**once.metrics, "added_ms": Metric("lower", 4.0, n=1, scored=1, base=100.0)})
    (found,) = costs([once])
    assert (found.added_ms, found.added_low, found.added_base) == (4, None, 100)


@pytest.mark.parametrize(
    ("ends", "base", "shown"),
    [
        ((2.0, 6.0), None, ("4.00", "[2.00, 6.00]")),
        ((-1.0, 9.0), None, ("not resolved", "within ±9.00 ms")),
        ((-19.0, 9.0), 190.0, ("not resolved", "within ±10.0 %")),
        ((None, None), 190.0, ("4.00", "(one batch)")),
    ],
)  # fmt: skip
def test_a_range_wider_than_the_mean_is_a_bound(ends: tuple, base: float | None, shown: tuple[str, str]) -> None:
    text = added_of(Cost("pocket", "m", 2, None, 4.0, *ends, None, None, added_base=base))
    assert (text.value, text.interval) == shown
