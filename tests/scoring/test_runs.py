"""One more scorer on the images of existing runs."""

from __future__ import annotations

import json

import pytest

from srbench.errors import OK, SOME_FAILED, MissingError, UsageError
from srbench.results.run_files import RunResult, newest
from srbench.scoring.runs import score_runs
from tests.worlds import Gap, World


def again(world: World, *scorers: str) -> RunResult:
    return score_runs(world.out, scorers, (), world.store(), world)


def test_the_columns_are_those_of_a_run_that_asked_for_them(compared: World) -> None:
    compared.run()
    first = again(compared, "gap", "cloud")
    whole = compared.run(scorers=("gap", "cloud"))
    assert first.exit_code == OK
    assert {cell.source for cell in first.cells} == {"local"}
    for ours, theirs in zip(first.cells, whole.cells, strict=True):
        assert {name: ours.metrics[name] for name in ("gap", "cloud")} == {n: theirs.metrics[n] for n in ("gap", "cloud")}
        assert set(ours.metrics) == set(theirs.metrics)
        assert ours.metrics["gap"].n == 4


def test_nothing_is_sampled_and_nothing_scored_twice(compared: World) -> None:
    compared.run()
    images = dict(compared.store().images)
    again(compared, "gap")
    calls = Gap.calls
    found = again(compared, "gap")
    assert calls > 0
    assert Gap.calls == calls
    assert compared.store().images == images
    assert "0 scores to make on stored images" in compared.lines
    assert found.exit_code == OK


def test_compare_shows_the_new_columns_beside_the_old_ones(compared: World) -> None:
    before = {cell.method: cell.metrics for cell in compared.run().cells}
    again(compared, "gap")
    for cell in newest(compared.out, compared.lines.append):
        assert "gap" in cell.metrics
        assert {name: cell.metrics[name] for name in before[cell.method]} == before[cell.method]


def test_a_cell_that_a_later_run_has_is_not_brought_back(compared: World) -> None:
    compared.run(methods=("none", "push"))
    later = compared.run(methods=("push",), scorers=("cloud",))
    again(compared, "gap")
    found = {cell.method: cell for cell in newest(compared.out, compared.lines.append)}
    assert "cloud" in found["push"].metrics
    assert "cloud" not in found["none"].metrics
    assert all("gap" in cell.metrics for cell in found.values())
    assert later.exit_code == OK


def test_the_run_says_what_was_added(compared: World) -> None:
    ran = compared.run().run
    again(compared, "gap")
    (added,) = [path for path in compared.out.glob("runs/*/run.json") if path.parent.name != ran]
    data = json.loads(added.read_text())
    assert data["scored_again"]["from"] == ran
    assert data["scored_again"]["scorers"] == ["gap"]
    assert {"brightness", "closeness", "gap"} <= set(data["scorers"])


def test_a_scorer_that_fails_is_no_number(compared: World, monkeypatch: pytest.MonkeyPatch) -> None:
    compared.run()
    monkeypatch.setattr(Gap, "broken", True)
    found = again(compared, "gap")
    assert found.exit_code == SOME_FAILED
    assert all(cell.metrics["gap"].value is None and "broken" in cell.metrics["gap"].reason for cell in found.cells)


def test_dropped_images_are_said_to_be_dropped(compared: World) -> None:
    compared.run()
    store = compared.store()
    store.drop(list(store.images))
    found = again(compared, "gap")
    assert found.exit_code == SOME_FAILED
    assert all("dropped" in cell.metrics["gap"].reason for cell in found.cells)


def test_unknown_names_and_empty_folders(compared: World) -> None:
    with pytest.raises(MissingError, match="no runs"):
        again(compared, "gap")
    with pytest.raises(UsageError, match="unknown scorer 'gapp'"):
        again(compared, "gapp")
