"""The example studies can be read, and say what their remarks promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from srbench.studies.read import read
from srbench.studies.spec import Study

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_study(path: Path) -> None:
    assert all(step.jobs for step in read(path).steps)


def named(name: str) -> Study:
    return read(next(path for path in EXAMPLES if path.stem == name))


def test_methods_by_attacks_is_five_lines() -> None:
    found, matrix = named("robustness").steps
    assert (len(found.jobs), len(matrix.jobs)) == (2 * 3, 2 * 3)
    assert all(job.values["methods"] == ("none", "negative-prompt", "saferedir") for job in matrix.jobs)
    lines = [line for line in EXAMPLES[-1].read_text().splitlines() if not line.startswith("#")]
    assert EXAMPLES[-1].stem == "robustness"
    assert len(lines) == 5


def test_every_training_is_run_on_its_concept() -> None:
    steps = {step.name: step.jobs for step in named("redirectors").steps}
    assert len(steps["trained"]) == 2 * 4
    assert all(job.needs[0].concepts == job.concepts for job in steps["trained"])
    assert [job.needs[0].step for job in steps["best"]] == ["tuned"] * 2
