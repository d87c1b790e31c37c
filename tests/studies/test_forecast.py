"""What a dry run says: what is there, what is missing and how it is mended, how many images and how long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import srbench
from srbench.cli.main import app
from srbench.errors import MISSING, OK, SOME_FAILED, USAGE, MissingError
from srbench.studies.forecast import Whole, forecast
from srbench.studies.study import StudyOptions
from tests.studies.conftest import Desk
from tests.worlds import ShiftMethod

TEXT = """
limit: 1
steps:
  plain: {run: [none, push], suite: toys}
  again: {run: [none, taught], suite: toys}
  found: {attack: whisper, suite: toys, limit: 2, with_targets: true}
  matrix: {run: [none, push], prompts: {attack: found}}
  on-made: {run: none, on: shift, suite: toys}
"""


def told(desk: Desk, text: str) -> Whole:
    return forecast(desk.study(text), StudyOptions(desk.out), desk.said.append)


def test_images_are_counted_once_and_nothing_is_made(desk: Desk, world: Any) -> None:
    whole = told(desk, TEXT)
    assert whole.exit_code == OK
    found = {each.step: each for each in whole.steps}
    rows = 3  # one of each kind, and the reserved word
    assert (found["plain"].images, found["plain"].about) == (2 * rows + 2, False)  # a reference and a floor image
    assert found["again"].images == rows, "those of none are counted already"
    assert (found["matrix"].images, found["matrix"].about) == (2 * 2 * 2, True)
    assert (found["on-made"].images, found["on-made"].about) == (rows, True)
    assert {each.seconds for each in whole.steps} == {None}
    assert not desk.out.exists()
    assert not ShiftMethod.made


def test_after_a_run_it_says_what_is_there_and_how_long_the_rest_takes(desk: Desk) -> None:
    desk.run(TEXT)
    again = told(desk, TEXT)
    assert all(each.there == each.jobs for each in again.steps)
    more = told(desk, TEXT.replace("limit: 1\n", "limit: 2\n"))
    plain = next(each for each in more.steps if each.step == "plain")
    assert plain.images == 2 * 2 + 2, "one more row of two kinds each, and its reference and floor"
    assert plain.seconds is not None
    assert plain.seconds > 0


def test_what_is_missing_is_said_with_what_mends_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
steps:
  mine: {run: none, prompts: q.csv}
  theirs: {score: pictures, as: flat, suite: toys, concept: box}
  plain: {run: push, suite: toys, limit: 1}
"""
    whole = told(desk, text)
    assert whole.exit_code == MISSING
    mine, theirs, plain = whole.steps
    assert "q.csv: there is no such file" in mine.missing[0]
    assert "Put the pictures there" in theirs.missing[0]
    assert not plain.missing

    def absent(*given: Any) -> None:
        raise MissingError("backbone 'toy' is not on this machine", "Fetch it: hf download toy")

    monkeypatch.setattr("srbench.studies.steps.open_backbone", absent)
    (line,) = told(desk, "steps: {plain: {run: push, suite: toys}}").steps[0].missing
    assert line == "backbone 'toy' is not on this machine. Fetch it: hf download toy"


# --- from the command line and from Python ----------------------------------------------------------------------------


def call(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    result = CliRunner().invoke(app, ["run", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def written(desk: Desk, text: str) -> str:
    desk.study(text)
    return str(desk.folder / "study.yaml")


def test_the_command_runs_a_study_and_says_the_second_time_that_it_is_there(desk: Desk) -> None:
    path = written(desk, "limit: 1\nsteps: {plain: {run: [none, push], suite: toys}}")
    out = ("--out", str(desk.out))
    code, table, said = call(path, *out, "--dry-run")
    assert code == OK
    assert table.splitlines()[0] == "step 1/1 run plain: 1 to do; 8 images to sample, 0 in the store; time: n/a"
    code, table, said = call(path, *out)
    assert code == OK
    assert "step 1/1 run plain: box" in said
    assert "push" in table
    code, again, said = call(path, *out)
    assert again == table
    assert "step 1/1 run plain: there already" in said
    code, table, said = call(path, *out, "--dry-run", "--json")
    assert json.loads(table)["steps"][0]["there"] == 1


def test_a_step_that_failed_is_exit_code_1(desk: Desk) -> None:
    path = written(desk, "steps: {bad: {attack: whisper, suite: toys, set: {broken: true}}}")
    code, _, said = call(path, "--out", str(desk.out))
    assert code == SOME_FAILED
    assert "the attack is broken" in said


def test_a_missing_file_is_exit_code_3_in_a_dry_run(desk: Desk) -> None:
    path = written(desk, "steps: {mine: {run: none, prompts: q.csv}}")
    code, table, _ = call(path, "--out", str(desk.out), "--dry-run")
    assert code == MISSING
    assert "missing: " in table


@pytest.mark.parametrize("option", [("--method", "saferedir"), ("--limit", "3"), ("--set", "push.strength=2")])
def test_options_of_a_single_run_are_refused(desk: Desk, option: tuple[str, ...]) -> None:
    path = written(desk, "steps: {plain: {run: none, suite: toys}}")
    code, _, said = call(path, *option)
    assert code == USAGE
    assert f"error: {path} says what is run: {option[0]} cannot be given with it" in said


def test_a_study_that_is_wrong_is_one_line(desk: Desk) -> None:
    path = desk.folder / "study.yaml"
    path.write_text("backbone: toy\nsteps: {plain: {run: [none, psuh]}}")
    code, _, said = call(str(path), "--out", str(desk.out))
    assert code == USAGE
    assert f"error: {path}:2: key 'steps.plain.run': unknown method 'psuh'" in said
    assert "hint: Did you mean 'push'?" in said


def test_a_study_from_python(desk: Desk, tmp_path: Path) -> None:
    path = written(desk, "limit: 1\nsteps: {plain: {run: [none, push], suite: toys}}")
    found = srbench.study(path, out=desk.out, progress=False)
    assert found.exit_code == OK
    assert {cell.method for cell in found.cells} == {"none", "push"}
    assert "fsr" in set(found.metrics()["metric"])
