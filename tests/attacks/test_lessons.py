"""`srbench attack relearn`: what it runs, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srbench.attacks.command import AttackOptions
from srbench.attacks.lessons import is_of, planned, steps_of
from srbench.errors import UsageError
from tests.tables.inputs import cell


def asked(**changes: Any) -> AttackOptions:
    return AttackOptions(**({"name": "relearn", "concept": "church", "on": "uce", "out": Path("results")} | changes))


def test_steps_are_in_order_and_begin_before_any() -> None:
    assert steps_of("32,8, 8") == (0, 8, 32)


@pytest.mark.parametrize("text", ["", "a", "8,,9", "-1", "8.5", "0", "999999999"])
def test_what_are_no_steps_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="--steps"):
        steps_of(text)


def test_every_checkpoint_is_run_before_and_after() -> None:
    run = planned(asked(on="uce,esd-x#0..1", limit=4, dev=True), "0,8", False)
    assert run.on == ("uce", "uce~8", "esd-x#0", "esd-x#0~8", "esd-x#1", "esd-x#1~8")
    assert (run.methods, run.suites, run.concepts, run.limit, run.dev) == (("none",), ("igmu",), ("church",), 4, True)
    assert planned(asked(), "8", True).on == ("uce", "uce~8:other")


def test_settings_without_a_name_are_of_the_lesson() -> None:
    assert planned(asked(settings=("rank=2", "uce.lam=1")), "8", False).settings == ("relearn.rank=2", "uce.lam=1")


@pytest.mark.parametrize(("changes", "message"), [
    ({"on": "uce~8"}, "told by --steps"),
    ({"budget": "small"}, "--budget is for attacks that search"),
    ({"targets": Path("x.csv")}, "--targets is for attacks that search"),
    ({"with_targets": True}, "--with-targets is for attacks that search"),
    ({"out": Path("a.json")}, "writes a results folder"),
])  # fmt: skip
def test_what_belongs_to_searches_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(asked(**changes), "8", False)


def test_results_of_other_runs_are_not_shown() -> None:
    run = planned(asked(), "8", False)
    mine = {"concept": "church", "suite": "igmu"}
    assert is_of(cell("none", on="uce~8", **mine), run)
    assert not is_of(cell("none", on="esd-x", **mine), run)
    assert not is_of(cell("none", on="uce~8", concept="hazard", suite="igmu"), run)
    assert not is_of(cell("saferedir", on="uce~8", **mine), run)
