"""Curves over the steps of teaching checkpoints again, and spreads over the seeds that made them."""

from __future__ import annotations

import math
from statistics import stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srbench.analysis.lineage import OnName, curves, lineage, spreads
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.tables.lineage import curve_tables, spread_tables
from tests.tables.inputs import cell


def of(on: str, fsr: float | None, kept: float = 90.0, **more: Any) -> ResultCell:
    """A cell of `none` on a checkpoint with two metrics."""
    rate = Metric("higher", fsr, None if fsr is None else fsr - 5, None if fsr is None else fsr + 5, n=40, scored=40)
    metrics = {"fsr": rate, "retain_accuracy": Metric("higher", kept, kept - 5, kept + 5, n=40, scored=40)}
    return cell("none", on=on, **({"metrics": metrics} | more))


@pytest.mark.parametrize(("on", "parts"), [
    ("none", ("none", None, 0, False)), ("esd-x#1~32:other", ("esd-x", 1, 32, True)),
    ("mine@1a2b3c4d~8", ("mine@1a2b3c4d", None, 8, False)), ("odd~name", ("odd~name", None, 0, False)),
])  # fmt: skip
def test_a_checkpoints_name_is_taken_apart(on: str, parts: tuple[Any, ...]) -> None:
    assert lineage(on) == OnName(*parts)


def test_a_curve_begins_before_any_step_and_turns_the_rate() -> None:
    (found,) = curves([of("uce~7", 75), of("uce", 100), of("uce~1", 95, 60.0), of("esd-x", 80)])
    assert [(point.steps, point.back.value) for point in found.points] == [(0, 0), (1, 5), (7, 25)]
    assert (found.points[1].back.low, found.points[1].back.high) == (0, 10)
    assert found.points[1].kept is not None
    assert found.points[1].kept.value == 60
    # log2(1 + steps) is 0, 1, 3: trapezoids of 2.5 and 30 over 3
    assert found.area == pytest.approx((2.5 + 30) / 3)
    assert found.half is None


@pytest.mark.parametrize(("rates", "half"), [
    ((100, 40), 2 ** (50 / 60 * 3) - 1),  # from 0 to 60 percent back between 0 and 3 in log2
    ((40, 10), 0.0),
    ((100, 50), 7.0),
])  # fmt: skip
def test_half_is_read_between_two_points(rates: tuple[float, float], half: float) -> None:
    (found,) = curves([of("uce", rates[0]), of("uce~7", rates[1])])
    assert found.half == pytest.approx(half)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_area_and_half_stay_within_what_was_measured(rates: list[float]) -> None:
    steps = [2**i - 1 for i in range(len(rates))]
    (found,) = curves([of("uce" if k == 0 else f"uce~{k}", rate) for k, rate in zip(steps, rates, strict=True)])
    back = [100 - rate for rate in rates]
    assert min(back) - 1e-9 <= found.area <= max(back) + 1e-9
    assert (found.half is None) == (max(back) < 50)
    assert found.half is None or 0 <= found.half <= steps[-1] + 1e-9


def test_lessons_seeds_methods_and_rows_have_curves_of_their_own() -> None:
    cells = [of(f"{on}{lesson}", 90) for on in ("uce", "esd-x#0", "esd-x#1") for lesson in ("", "~8", "~8:other")]
    cells += [cell("safree", on=on, metrics=of("", 90).metrics) for on in ("uce", "uce~8")]
    cells += [of(on, 90, rows_sha="other") for on in ("uce", "uce~8")]
    found = [(curve.method, curve.on, curve.lesson) for curve in curves(cells)]
    assert len(found) == 8
    assert found.count(("none", "uce", "the concept")) == 2
    assert ("none", "uce", "other things") in found
    assert ("safree", "uce", "the concept") in found
    assert ("none", "esd-x#1", "other things") in found


def test_without_a_second_point_or_a_rate_there_is_no_curve() -> None:
    assert curves([of("uce~8", 90)]) == []
    assert curves([of("uce", None), of("uce~8", 90)]) == []
    assert curves([of("uce", 90), of("esd-x", 80)]) == []


def test_a_table_shows_steps_area_and_what_is_never_reached() -> None:
    tables = curve_tables(curves([of("uce", 100), of("uce~8", 95), of("none", 10), of("none~8", 0)]))
    (sheet,) = tables.sheets
    assert [column.heading for column in sheet.columns] == ["checkpoint", "back at 0", "back at 8", "area", "half", "kept"]
    lines = [[item.text for item in line] for section in sheet.sections for line in section.lines]
    assert [line[0] for line in lines] == ["none", "uce"]
    assert lines[0][4] == "0"
    assert lines[1][4] == "> 8"
    assert {record["steps"] for record in tables.records} == {0, 8}


# --- seeds -----------------------------------------------------------------------------------------------------------------


def test_the_spread_is_the_deviation_of_the_seeds_beside_the_interval_over_rows() -> None:
    values = (70.0, 80.0, 93.0)
    found = spreads([of(f"esd-x#{seed}", value) for seed, value in enumerate(values)], ["fsr", "csdr"])
    (fsr,) = found
    assert (fsr.on, fsr.seeds, fsr.values) == ("esd-x", (0, 1, 2), values)
    assert fsr.deviation == pytest.approx(stdev(values))
    assert fsr.half_width == pytest.approx(5)
    assert math.isclose(fsr.mean, 81)


def test_one_seed_and_other_rows_have_no_spread() -> None:
    assert spreads([of("esd-x#0", 70), of("esd-x", 80)], ["fsr"]) == []
    assert spreads([of("esd-x#0", 70), of("esd-x#1", 80, rows_sha="other")], ["fsr"]) == []


def test_a_table_of_seeds_has_a_line_a_metric() -> None:
    tables = spread_tables(spreads([of("esd-x#0", 70), of("esd-x#1", 80, 50.0)], ["fsr", "retain_accuracy"]))
    (sheet,) = tables.sheets
    lines = [[item.text for item in line] for section in sheet.sections for line in section.lines]
    assert [line[:3] for line in lines] == [["esd-x", "fsr", "2"], ["esd-x", "retain_accuracy", "2"]]
    assert lines[0][4] == "70.0 to 80.0"
