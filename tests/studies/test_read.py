"""What is wrong with a study's file is one line with file, line and key, before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from srbench.errors import UsageError
from srbench.studies import expand
from srbench.studies import read as reading
from srbench.studies.read import read
from tests.studies.conftest import Desk

A = "steps:\n  a: "
BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcde", "bcdef", strict=True)
)
WRONG = {
    # the file
    "empty": ("", 1, "the file is empty"),
    "not a table": ("- a", 1, "expected a table with `steps`"),
    "no steps": ("limit: 1", 1, "expected steps by name"),
    "empty steps": ("limit: 1\nsteps: {}", 2, "expected steps by name"),
    "steps as a list": ("steps:\n  - run: push", 1, "expected steps by name"),
    "python's tag": (f"{A}!!python/object/apply:os.system [ls]", 2, "is no plain value"),
    "another tag": (f"{A}!secret x", 2, "'!secret' is no plain value"),
    "bomb": (f"{BOMB}steps: *f", 5, "more than 100000 values"),
    "anchor that holds itself": (f"{A}&x {{run: *x}}", 2, "an anchor that holds itself"),
    "unknown anchor": (f"{A}{{run: *x}}", 2, "undefined alias"),
    "deep": (f"{A}{'[' * 80}{']' * 80}", 2, "nested more than 50 levels deep"),
    "key twice": (f"{A}{{run: push}}\n  a: {{run: none}}", 3, "key 'a' appears twice"),
    "key that is a number": (f"{A}{{run: push, 3: 4}}", 2, "the key '3' is no text"),
    "key that is a list": (f"{A}{{run: push, [x]: 4}}", 2, "the key that is a list or a table is no text"),
    "date": (f"{A}{{run: push, seed: 2020-01-01}}", 2, "2020-01-01 is read as a date"),
    "broken": (f"{A}{{run: push]", 2, "expected ',' or '}'"),
    "two documents": (f"{A}{{run: push}}\n---\nb: 1", 3, "found another document"),
    # names
    "unknown word of the study": (f"bakcbone: toy\n{A}{{run: push}}", 1, "unknown key 'bakcbone'", "backbone"),
    "a name with a slash": ("steps:\n  a/b: {run: push}", 2, "a step's name has letters"),
    "the study's name": (f"study: ../x\n{A}{{run: push}}", 1, "expected a name of letters"),
    "step that is a text": (f"{A}push", 2, "expected a table"),
    "unknown step": (f"{A}{{rum: push}}", 2, "does not say what to do", "Did you mean 'run'?"),
    "two verbs": (f"{A}{{run: push, train: saferedir}}", 2, "the step says 'train' and 'run'"),
    "unknown word": (f"{A}{{run: push,\n     sead: 3}}", 3, "unknown key 'sead'", "Did you mean 'seed'?"),
    "word of another kind": (f"{A}{{train: saferedir, suite: toys}}", 2, "unknown key 'suite'"),
    "word twice": (f"{A}{{run: push, suite: toys, suites: [toys]}}", 2, "'suite' is given twice"),
    "unknown method": (f"{A}{{run: [none, psuh]}}", 2, "unknown method 'psuh'", "Did you mean 'push'?"),
    "unknown concept": (f"concepts: [box, bxo]\n{A}{{run: push}}", 1, "unknown concept 'bxo'", "Did you mean 'box'?"),
    "concept of another backbone": (f"{A}{{run: push, concept: lone}}", 2, "does not know concept 'lone'"),
    "unknown suite": (f"{A}{{run: push, suite: toyz}}", 2, "unknown suite 'toyz'", "Did you mean 'toys'?"),
    "unknown backbone": (f"{A}{{run: push, backbone: toi}}", 2, "unknown backbone 'toi'", "Did you mean 'toy'?"),
    "unknown scorer": (f"{A}{{run: push, scorers: [brigtness]}}", 2, "unknown scorer 'brigtness'"),
    "unknown protocol": (f"{A}{{run: push, protocol: brigt}}", 2, "unknown protocol 'brigt'"),
    "unknown checkpoint": (f"{A}{{run: push, on: shfit}}", 2, "unknown checkpoint 'shfit'", "Did you mean 'shift'?"),
    "unknown attack": (f"{A}{{attack: whispr, suite: toys}}", 2, "unknown attack 'whispr'", "Did you mean 'whisper'?"),
    "not trained": (f"{A}{{train: push}}", 2, "'push' is not trained"),
    "no weights": (f"{A}{{erase: push}}", 2, "there is nothing to erase"),
    "no layout": (f"{A}{{score: folder}}", 2, "which layout have the pictures?"),
    # values
    "no number": (f"{A}{{run: push, limit: many}}", 2, "expected a whole number, found 'many'", "Write it"),
    "a number as text": (f'{A}{{run: push, seed: "3"}}', 2, "expected a whole number, found '3'", "without quotes"),
    "a truth value as number": (f"{A}{{run: push, seed: true}}", 2, "expected a whole number, found true"),
    "a table for a value": (f"{A}{{run: push, seed: {{x: 1}}}}", 2, "expected a value, found a table"),
    "a list in a list": (f"{A}{{run: push, seed: [[1]]}}", 2, "a list in a list"),
    "no number at all": (f"{A}{{run: push, seed: .nan}}", 2, "no plain one"),
    "nothing": (f"{A}{{run: push, seed: }}", 2, "is empty"),
    "empty list": (f"{A}{{run: push, suites: []}}", 2, "is empty"),
    "empty list of methods": (f"{A}{{run: []}}", 2, "is empty"),
    "empty list in set": (f"{A}{{run: push, set: {{push.strength: []}}}}", 2, "is empty"),
    "a method that is a number": (f"{A}{{run: [push, 3]}}", 2, "expected a name, found 3"),
    "set as a text": (f"{A}{{run: push, set: push.strength=3}}", 2, "expected options by name"),
    "unknown option": (f"{A}{{run: push,\n     set: {{push.strenght: 3}}}}", 3, "has no option 'strenght'", "'strength'"),
    "option of a wrong kind": (f"{A}{{run: push, set: {{push.strength: much}}}}", 2, "expected a number, found 'much'"),
    "option of another method": (f"{A}{{run: push, set: {{shift.size: 3}}}}", 2, "not part of this run"),
    "option of an attack": (f"{A}{{attack: whisper, suite: toys, set: {{wrod: x}}}}", 2, "there is no option 'wrod'", "'word'"),
    "option of a training": (f"{A}{{train: saferedir, set: {{piars: 3}}}}", 2, "there is no option 'piars'", "'pairs'"),
    "an attack without targets": (f"{A}{{attack: whisper}}", 2, "an attack needs targets"),
    "an attack that never sees the method": (f"{A}{{attack: whisper, method: push, suite: toys}}", 2, "never sees push"),
    "weights on weights": (f"{A}{{run: shift, on: shift-more}}", 2, "cannot be stacked"),
    "checkpoints twice": (f"{A}{{run: [push@shift], on: shift}}", 2, "name their checkpoints already"),
    "no file": (f'{A}{{run: push, prompts: "q*.csv"}}', 2, "no file is called like"),
    # grids
    "grid without options": (f"{A}{{grid: push, by: fsr}}", 2, "key 'steps.a.options': is missing", "Add it."),
    "grid without by": (f"{A}{{grid: push, options: {{strength: [1, 2]}}}}", 2, "key 'steps.a.by': is missing", "Add it."),
    "grid by a number": (f"{A}{{grid: push, options: {{strength: [1, 2]}},\n     by: 3}}", 3, "expected a text, found 3"),
    "grid by a list of nothing": (f"{A}{{grid: push, options: {{strength: 1}}, by: []}}", 2, "key 'steps.a.by': is empty"),
    "grid by no metric":
        (f"{A}{{grid: push, options: {{strength: [1, 2]}}, by: fsrr}}", 2, "there is no metric 'fsrr'", "Did you mean 'fsr'?"),
    "limit of nothing": (f"{A}{{run: push, limit: 0}}", 2, "limit 0: expected 1 or more"),
    "batch of less than nothing": (f"{A}{{run: push,\n     batch_size: -1}}", 3, "batch_size -1: expected 1 or more"),
    "seed below zero": (f"{A}{{run: push, seed: -1}}", 2, "seed -1: expected 0 to"),
    "grid per what": (f"{A}{{grid: push, options: {{strength: 1}}, by: fsr, per: day}}", 2, "unknown value 'day'", "concept"),
    "grid over no option": (f"{A}{{grid: push, options: {{strenght: [1, 2]}}, by: fsr}}", 2, "has no option 'strenght'"),
    # steps by name
    "a step that is not there": (f"{A}{{run: push, prompts: {{attack: fuond}}}}", 2, "there is no step 'fuond'"),
    "a later step": (
        f"{A}{{run: push, prompts: {{attack: b}}}}\n  b: {{attack: whisper, suite: toys}}", 2, "step 'b' comes later",
    ),
    "itself": (f"{A}{{attack: whisper, targets: {{attack: a}}}}", 2, "names itself"),
    "a circle": (
        f"{A}{{attack: whisper, targets: {{attack: b}}}}\n  b: {{attack: whisper, targets: {{attack: a}}}}", 2, "comes later",
    ),
    "a step of another kind": (
        f"{A}{{run: push, suite: toys}}\n  b: {{run: push, prompts: {{attack: a}}}}", 3, "step 'a' is of kind 'run', not",
    ),
    "a step where none belongs": (f"{A}{{run: push, prompts: {{run: a}}}}", 2, "expected {attack: NAME}"),
    "a step for other concepts": (
        f"{A}{{train: saferedir, concept: lid}}\n  b: {{run: taught, set: {{taught.file: {{train: a}}}}}}", 3,
        "step 'a' makes nothing for box",
    ),
    "more scorers, and another suite": (
        f"{A}{{run: push, suite: toys}}\n  b: {{score: {{run: a}}, scorers: closeness, limit: 3}}", 3, "unknown key 'limit'",
    ),
    # products
    "a huge product": (
        f"{A}{{run: push, seed: [{', '.join(map(str, range(60)))}], limit: [{', '.join(map(str, range(1, 61)))}]}}", 2,
        "come to 3600 jobs",
    ),
    "a huge product of settings": (
        f"{A}{{run: push, set: {{{', '.join(f'push.x{i}: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]' for i in range(30))}}}}}", 2,
        "more than 1000 choices",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_with_file_line_and_key(desk: Desk, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, line, problem, *hint = WRONG[case]
    if case == "concept of another backbone":
        known = expand.load.concepts()
        lone = known["box"].model_copy(update={"name": "lone", "families": {"sd": known["box"].families["toy"]}})
        monkeypatch.setattr(expand.load, "concepts", lambda: {**known, "lone": lone})
    if "steps:" in str(text) and case not in ("unknown backbone", "two documents", "broken"):
        text = f"{text}\nbackbone: toy"
    path = desk.folder / "wrong.yaml"
    path.write_text(str(text))
    with pytest.raises(UsageError) as found:
        read(path)
    assert found.value.message.startswith(f"{path}:{line}: "), found.value.message
    assert str(problem) in found.value.message
    assert "\n" not in found.value.line
    assert all(str(each) in found.value.hint for each in hint), found.value.hint
    assert not desk.out.exists()


def test_a_key_is_named_whole(desk: Desk) -> None:
    with pytest.raises(UsageError, match=r"study\.yaml:5: key 'steps\.a\.limit': expected a whole number, found 'many'"):
        desk.study("steps:\n  a:\n    {run: push, limit: many}")


def test_a_study_of_too_many_jobs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_JOBS", 10)
    text = "".join(f"  s{number}: {{run: push, suite: toys, seed: [0, 1]}}\n" for number in range(6))
    with pytest.raises(UsageError, match=r"study\.yaml:9: key 'steps\.s5': the study comes to more than 10 jobs"):
        desk.study(f"steps:\n{text}")


def test_what_is_no_study_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no such file"):
        read(tmp_path / "nothing.yaml")
    with pytest.raises(UsageError, match=r"ends in \.yaml"):
        read(tmp_path / "study.json")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        read(tmp_path / "bytes.yaml")


def test_on_and_off_are_words(desk: Desk) -> None:
    study = desk.study("steps: {a: {run: push, on: none, compile: off, suite: toys}}")
    assert study.steps[0].jobs[0].values["compile"] == "off"


def test_anchors_serve_to_say_a_list_once(desk: Desk) -> None:
    study = desk.study("steps: {a: {run: &m [none, push], suite: toys}, b: {run: *m, suite: toys, limit: 1}}")
    assert [step.jobs[0].values["methods"] for step in study.steps] == [("none", "push")] * 2


def test_a_run_takes_the_settings_that_the_command_takes(desk: Desk) -> None:
    study = desk.study("steps: {a: {run: push, on: [none, shift~2], suite: toys, set: {backbone.bits: 4, relearn.rank: 2}}}")
    assert dict(study.steps[0].jobs[0].values["settings"]) == {"backbone.bits": "4", "relearn.rank": "2"}
    with pytest.raises(UsageError, match="'relearn' is not part of this run"):
        desk.study("steps: {a: {run: push, suite: toys, set: {relearn.rank: 2}}}")
