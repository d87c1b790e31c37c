"""Measured cells beside published figures, verdicts, and pocket's editions."""

from __future__ import annotations

import copy

import pytest

from srbench.analysis.records import Metric
from srbench.tables.papers import fill
from srbench.tables.papers.spec import CellOf, Figure, TableSpec
from tests.tables.conftest import RUN, SPEC, fsr


def _line(table, cells, column="fsr"):
    return next(line for line in fill.lines(table, cells) if line.row.label == "ours" and line.column.name == column)


@pytest.mark.parametrize(("low", "high", "value", "expected"), [
    (90, 99, "95", "agrees"),
    (95.6, 99, "95", "higher"),
    (80, 94.4, "95", "lower"),
    (95.3, 99, "95", "agrees"),  # 95.3 prints as 95
    (96, 99, ">94", "agrees"),
    (90, 95, ">94", "agrees"),
    (80, 90, ">94", "lower"),
    (1, 2, "<5", "agrees"),
    (6, 7, "<5", "higher"),
    (60, 70, "≈50", "higher"),
    (None, None, "95", "no interval"),
])  # fmt: skip
def test_verdict_of_an_interval(low, high, value, expected) -> None:
    figure = Figure(column="fsr", value=value, source="paper")
    assert fill.compared(figure, Metric("higher", 50.0, low, high, 100, 100)) == expected


def test_nothing_measured_is_not_run_and_has_no_difference(table) -> None:
    line = _line(table, [])
    assert (line.verdict, line.difference, line.cell) == ("not run", None, None)


def test_difference_is_measured_less_published(table, cell) -> None:
    assert _line(table, [cell(fsr(97, 94, 99))]).difference == pytest.approx(2)


def test_a_bound_has_no_difference(table, cell) -> None:
    theirs = [line for line in fill.lines(table, [cell(fsr(97, 94, 99))]) if line.row.label == "theirs"]
    assert theirs[0].difference is None


def test_another_n_is_said(table, cell) -> None:
    assert _line(table, [cell(fsr(97, 94, 99))]).verdict == "agrees"
    assert _line(table, [cell(fsr(97, 94, 99, n=60))]).verdict == "agrees; n differs: 100 published, 60 measured"


def test_a_value_that_could_not_be_computed_is_neither_run_nor_safe(table, cell) -> None:
    assert _line(table, [cell(fsr(None, reason="the judge failed"))]).verdict == "n/a"


def test_complements_and_shares_are_converted_with_their_interval(table, cell) -> None:
    metric = _line(table, [cell({"asr": Metric("lower", 60.0, 55.0, 70.0, 100, 100)})], "dsr").metric
    assert (metric.value, metric.low, metric.high, metric.better) == (0.4, 0.3, 0.45, "higher")


@pytest.mark.parametrize("changes", [
    {"backbone": "sd15"}, {"concept": "vangogh"}, {"suite": "mma"}, {"method": "none"}, {"on": "esd-x"},
    {"variant": "limit=4"}, {"variant": "alpha_scale=3.0"}, {"protocol": "resnet50-v2-church"}, {"backbone": "pocket"},
])  # fmt: skip
def test_no_other_cell_stands_for_a_row(changes, cell) -> None:
    assert fill.stands_for(CellOf(**RUN), [cell(fsr(97), **changes)]) is None


def test_another_dtype_stands_for_a_row_and_a_limited_one_does_not(cell) -> None:
    run = CellOf(**RUN)
    assert fill.stands_for(run, [cell(fsr(97), variant="dtype=bf16", dtype="bf16")])
    assert not fill.stands_for(run, [cell(fsr(97), variant="dtype=bf16,limit=4", dtype="bf16")])


def test_any_judge_stands_for_an_unknown_one(cell) -> None:
    run = CellOf(**{**RUN, "protocol": ""})
    assert fill.stands_for(run, [cell(fsr(97), protocol="whatever")])


def test_the_newest_cell_comes_first_and_is_taken(table, cell) -> None:
    assert _line(table, [cell(fsr(97, 94, 99), run="2"), cell(fsr(10, 5, 15), run="1")]).metric.value == 97


def test_a_row_without_figures_still_shows_what_was_measured(table, cell) -> None:
    line = next(line for line in fill.lines(table, [cell(fsr(1, 0, 5), method="none")]) if line.row.label == "another")
    assert (line.figure, line.metric.value, line.verdict) == (None, 1, "")


@pytest.fixture
def attacked_table() -> TableSpec:
    """`small`, its DSR measured on prompts that an attack made against the row itself."""
    data = copy.deepcopy(SPEC)
    data["columns"][1] |= {"measured": "asr", "attack": "p4d"}
    data["pocket"] |= {"columns": ["igmu.fsr", "p4d@own.asr"], "only": {"p4d@own.asr": ["church"]}}
    return TableSpec.model_validate(data)


def _asr(value: float) -> dict[str, Metric]:
    return {"asr": Metric("lower", value, value - 5, value + 5, 32, 32)}


def test_an_attack_is_measured_on_prompts_made_against_the_row_itself(attacked_table, cell) -> None:
    plain = cell(_asr(1))
    transferred = cell(_asr(2), suite="p4d-none", made_against="p4d against none")
    another = cell(_asr(3), suite="uda", made_against="unlearndiffatk against saferedir")
    own = cell(_asr(60), suite="p4d-saferedir", made_against="p4d against saferedir")
    assert _line(attacked_table, [plain, transferred, another], "dsr").metric is None
    assert _line(attacked_table, [plain, transferred, another, own], "dsr").metric.value == pytest.approx(0.4)
    assert _line(attacked_table, [own, cell(fsr(97, 94, 99))]).metric.value == 97  # the other columns keep to the suite


def test_pockets_attack_column_is_of_prompts_made_against_the_row_itself(attacked_table, pocket) -> None:
    where = {"method": "saferedir", "on": "esd-x"}
    transferred = pocket(_asr(2), suite="p4d-esd-x", made_against="p4d against esd-x", **where)
    own = pocket(_asr(3), suite="any-name", made_against="p4d against saferedir on esd-x", **where)
    assert _pocket(attacked_table, [transferred])["carried over"].metrics == (None, None)
    assert _pocket(attacked_table, [transferred, own])["carried over"].metrics[1].value == 3


# --- pocket -----------------------------------------------------------------------------------------------------------


def _pocket(table, cells):
    return {line.row.label: line for line in fill.pocket_lines(table, "church", cells)}


def test_pocket_picks_up_a_cell_as_soon_as_it_is_there(table, pocket) -> None:
    assert _pocket(table, [])["carried over"].metrics[0] is None
    found = _pocket(table, [pocket(fsr(99), on="esd-x")])
    assert found["carried over"].metrics[0].value == 99
    assert found["trained there"].metrics[0] is None


def test_a_star_stands_for_a_hash_and_not_for_a_limit(table, pocket) -> None:
    own, other = "redirector=on-esd-x@0123abcd", "redirector=seed-1@0123abcd"
    assert _pocket(table, [pocket(fsr(98), on="esd-x", variant=own)])["trained there"].metrics[0].value == 98
    assert not _pocket(table, [pocket(fsr(98), on="esd-x", variant=f"{own},limit=4")])["trained there"].metrics[0]
    assert not _pocket(table, [pocket(fsr(98), on="esd-x", variant=other)])["trained there"].metrics[0]


def test_a_cell_under_another_judge_or_backbone_is_not_pockets(table, pocket, cell) -> None:
    cells = [pocket(fsr(5), method="none", protocol="pocket-hazard"), cell(fsr(5), method="none")]
    assert _pocket(table, cells)["untouched"].metrics[0] is None


def test_a_gain_says_nothing_where_no_method_acts_on_a_checkpoint(table) -> None:
    found = _pocket(table, [])
    assert found["untouched"].meaningless == found["alone"].meaningless == (False, True, False, False)
    assert not any(found["carried over"].meaningless)
