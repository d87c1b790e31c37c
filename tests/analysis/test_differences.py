"""From one method to another: the right sign, the right rows, and no test where there is nothing to test."""

from __future__ import annotations

import json

import pytest

from srbench.analysis.differences import Entry, comparisons, to_dict, with_differences
from srbench.analysis.intervals import unpaired_difference, wilson
from srbench.analysis.metrics import lens_of
from srbench.analysis.records import Metric
from srbench.analysis.results import result
from srbench.analysis.significance import holm, mcnemar
from srbench.catalog import load
from srbench.tables.boards import boards, family_note


def entry(make, bombs: range, rows: bool = True, **fields) -> Entry:
    """40 forget rows, of which those in `bombs` still show one, and 10 retain rows."""
    forget = [make.forget(i, make.image(make.raw({"bomb": 0.99} if i in bombs else {"cat": 0.99}))) for i in range(40)]
    keep = [make.retain(i, make.image(make.raw({"cat": 0.99}))) for i in range(10)]
    given = {"method": "saferedir", "metrics": ("fsr", "retain_accuracy", "csdr", "csdr_floor", "added_ms"), **fields}
    record = make.cell(*forget, *keep, **given)
    return Entry(result(record, load.protocol("pocket-hazard")), record if rows else None)


@pytest.fixture(autouse=True)
def _judge(make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small judge of these tests' pictures under the name that the cells give."""
    monkeypatch.setattr(load, "protocols", lambda: {"pocket-hazard": make.hazard})


def changed(make, a: Entry, b: Entry) -> dict:
    (found,) = comparisons([(a, b)])
    return {change.metric: change for change in found.changes}


def test_a_change_has_the_sign_of_b_less_a_and_names_the_rows(make) -> None:
    found = changed(make, entry(make, range(20), method="none"), entry(make, range(18, 25)))["fsr"]
    assert (found.before.value, found.after.value) == (50, 82.5)
    assert found.difference.value == pytest.approx(32.5)
    assert found.gained == tuple(f"forget-{i}" for i in range(18))
    assert found.lost == tuple(f"forget-{i}" for i in range(20, 25))
    gone = [i not in range(18, 25) for i in range(40)]
    assert found.difference.p == pytest.approx(mcnemar(gone, [i not in range(20) for i in range(40)]))
    assert found.verdict == "better"


def test_where_less_is_better_the_rows_that_broke_are_lost(make) -> None:
    a, b = (entry(make, bombs, metrics=("asr",), method=name) for name, bombs in (("none", range(3)), ("x", range(2, 20))))
    found = changed(make, a, b)["asr"]
    assert found.difference.value == pytest.approx(37.5)
    assert found.gained == ("forget-0", "forget-1")
    assert len(found.lost) == 17
    assert found.verdict == "worse"


def test_a_difference_that_chance_makes_is_not_shown(make) -> None:
    assert changed(make, entry(make, range(5), method="none"), entry(make, range(4)))["fsr"].verdict == "not shown"
    assert changed(make, entry(make, range(5), method="none"), entry(make, range(5)))["retain_accuracy"].verdict == "not shown"


def test_without_rows_there_is_an_interval_and_no_test(make) -> None:
    found = changed(make, entry(make, range(20), rows=False, method="none"), entry(make, range(5)))["fsr"].difference
    assert (found.test, found.p) == ("intervals", None)
    assert (found.value, found.low, found.high) == pytest.approx(unpaired_difference(wilson(35, 40), wilson(20, 40)))


def test_what_a_cell_has_no_value_for_has_a_reason(make) -> None:
    blocked = entry(make, range(3), blocked="the detector is missing")
    found = changed(make, entry(make, range(20), method="none"), blocked)["fsr"]
    assert found.difference.value is None
    assert found.difference.reason == "saferedir: the detector is missing"
    assert found.verdict == ""


def test_all_p_values_of_one_comparison_are_corrected_together(make) -> None:
    none = entry(make, range(20), method="none")
    others = [entry(make, range(k), method=f"m{k}") for k in (5, 12, 18)]
    church = entry(make, range(20), method="none", concept="church"), entry(make, range(19), concept="church")
    for found in comparisons([*((none, other) for other in others), church]):
        tests = [change.difference for change in found.changes if change.difference.p is not None]
        assert len(tests) > 1, "several metrics"
        assert [test.p_holm for test in tests] == pytest.approx(holm([test.p for test in tests]))


def test_gains_and_floors_are_no_metrics_of_a_method(make) -> None:
    a, b = entry(make, range(20), method="none"), entry(make, range(5))
    gain = Metric("higher", 5.0, 1.0, 9.0, 40, 40, test="mcnemar", p=0.1, p_holm=0.1)
    with_gain = [each._replace(cell=make.replace(each.cell, metrics={**each.cell.metrics, "fsr_gain": gain})) for each in (a, b)]
    found = changed(make, *with_gain)
    assert "fsr_gain" not in found
    assert found["csdr_floor"].difference.p is None


def test_the_lens_is_the_cell_s_own(make) -> None:
    lens = lens_of(make.cell(backbone="elsewhere", described_by=("clip-b16", "clip-l14")), make.hazard)
    assert (lens.judge.name, lens.content_scorer, lens.clip_scorer) == ("pocket-hazard", "clip-b16", "clip-l14")


# --- as columns -------------------------------------------------------------------------------------------------------


def columns(make, **fields) -> list:
    entries = [entry(make, range(20), method="none", **fields), entry(make, range(5), **fields)]
    return with_differences(entries, [(entries[0], entries[1])])


def test_a_column_of_differences_stands_beside_its_metric(make) -> None:
    none, mine = columns(make)
    assert mine.metrics["fsr_diff"].value == pytest.approx(37.5)
    assert "fsr_diff" not in none.metrics
    (board,) = boards([none, mine])
    assert board.metrics[:3] == ("fsr", "fsr_diff", "retain_accuracy")
    assert "csdr_floor_diff" not in board.metrics
    assert any("less that of none on the same rows" in note for note in board.notes)
    tests = sum(metric.p is not None for metric in mine.metrics.values())
    assert family_note(tests) in board.notes
    assert f"over the {tests} tests of this table" in family_note(tests)


def test_differences_of_committed_results_say_that_they_are_untested(make) -> None:
    cells = columns(make, rows=False)
    assert cells[1].metrics["fsr_diff"].p is None
    assert any("untested" in note for note in cells[1].notes)
    assert cells[1].metrics["fsr_diff"].value == pytest.approx(37.5)


def test_json_names_every_row(make) -> None:
    (found,) = comparisons([(entry(make, range(20), method="none"), entry(make, range(18, 25)))])
    data = json.loads(json.dumps(to_dict(found), allow_nan=False))
    assert (data["a"]["method"], data["b"]["method"], data["paired"]) == ("none", "saferedir", True)
    assert len(data["metrics"]["fsr"]["gained"]) == 18
    assert data["metrics"]["fsr"]["verdict"] == "better"
    assert "gained" not in data["metrics"]["csdr"]
