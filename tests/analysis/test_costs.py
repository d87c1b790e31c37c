"""What methods cost: each concept counted once, and nothing made up where nothing is known."""

from __future__ import annotations

import pytest

from srbench.analysis.costs import costs
from srbench.analysis.records import Metric
from srbench.analysis.results import from_dict, result, to_dict


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
