"""The battery of `srbench.testing` over every attack that srbench brings."""

from __future__ import annotations

from typing import Any

import pytest

from srbench.catalog import plugins
from srbench.testing import checks
from srbench.testing.attacks import CHECKS, AttackCase, case_of, frozen_pipeline
from tests.attacks import victims

PREFIX = {"iterations": 3, "timesteps": 4, "learning_rate": 0.3, "probes": 2}
FREE = {"tokens": 4, "iterations": 12, "check_every": 3, "probes": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "mma": {"tokens": 6, "steps": 6, "topk": 12, "batch": 12, "finalists": 3},
    "ring-a-bell": {"tokens": 4, "eta": 1.0, "population": 12, "generations": 8, "mutation": 0.75, "finalists": 2},
    "unlearndiffatk": PREFIX, "p4d": FREE, "concept-inversion": {**FREE, "tokens": 2, "learning_rate": 0.1},
    "adaptive": PREFIX, "adaptive-p4d": FREE,
}  # fmt: skip
"""What makes them quick."""
FOR_SAFEREDIR = ("adaptive", "adaptive-p4d")


@pytest.fixture(scope="module")
def case() -> Any:
    """An attack by name, with its victim; what it finds is searched once."""
    made: dict[str, AttackCase] = {}

    def of(name: str) -> AttackCase:
        if name not in made:
            victim = victims.redirected(frozen_pipeline()) if name in FOR_SAFEREDIR else None
            made[name] = case_of(name, SETTINGS[name], victim)
        return made[name]

    return of


def test_every_attack_is_here() -> None:
    assert set(SETTINGS) == set(plugins.plugins("attacks"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", SETTINGS)
def test_battery(case: Any, name: str, check: checks.Check[AttackCase]) -> None:
    checks.run([check], case(name))


@pytest.mark.parametrize("name", SETTINGS)
def test_another_seed_finds_other_prompts(case: Any, name: str) -> None:
    made = case(name)
    assert [found.prompt for found in made.run(seed=1)] != [found.prompt for found in made.once]
