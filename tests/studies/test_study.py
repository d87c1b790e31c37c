"""A study carried out on a toy: what is done, what is left alone the second time, and what a failure costs."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from srbench.analysis.results import ResultCell
from srbench.engine import worker
from srbench.errors import OK, SOME_FAILED, UsageError
from srbench.results.run_files import read_run
from srbench.studies import steps
from tests.hands import search_here
from tests.studies.conftest import Desk

FIVE_LINES = """
limit: 1
steps:
  found: {attack: [whisper, shout], method: [none, shift], suite: toys}
  matrix: {run: [none, push, shift], prompts: {attack: found}}
"""


def places(cells: tuple[ResultCell, ...]) -> set[tuple[str, str, str]]:
    return {(cell.suite, cell.method, cell.on) for cell in cells}


def test_methods_by_attacks_in_five_lines(desk: Desk) -> None:
    done = desk.run(FIVE_LINES)
    assert done.exit_code == OK, desk.said
    suites = {f"{attack}-{victim}" for attack in ("whisper", "shout") for victim in ("none", "shift")}
    methods = {("none", "none"), ("push", "none"), ("none", "shift")}
    assert places(done.cells) == {(suite, *method) for suite in suites for method in methods}
    assert {cell.made_against for cell in done.cells if cell.suite == "whisper-shift"} == {"whisper against shift"}
    assert "step 1/2 attack found (1/4): whisper against none, box" in desk.said


def test_the_second_time_nothing_is_done(desk: Desk) -> None:
    first = desk.run(FIVE_LINES)
    runs = sorted(path.name for path in (desk.out / "runs").iterdir())
    again = desk.run(f"# a remark that changes nothing\n{FIVE_LINES}")
    assert desk.names == []
    assert [line for line in desk.said if line.startswith("step")] == [
        "step 1/2 attack found: there already", "step 2/2 run matrix: there already",
    ]  # fmt: skip
    assert again.cells == first.cells
    assert sorted(path.name for path in (desk.out / "runs").iterdir()) == runs


def test_a_changed_step_is_done_anew_with_what_needs_it_and_nothing_else(desk: Desk) -> None:
    text = """
limit: 1
steps:
  mine: {train: saferedir}
  plain: {run: push, suite: toys}
  found: {attack: whisper, suite: toys, set: {word: WORD}}
  taught: {run: taught, suite: toys, set: {taught.file: {train: mine}}}
  attacked: {run: push, prompts: {attack: found}}
"""
    desk.run(text.replace("WORD", "tiny"))
    assert desk.names == ["mine", "plain", "whisper-none", "taught", "attacked"]
    desk.run(text.replace("WORD", "huge"))
    assert desk.names == ["whisper-none", "attacked"]
    desk.run(text.replace("WORD", "tiny"))
    assert desk.names == [], "by content: what was made before is still there"
    desk.run(text.replace("WORD", "tiny").replace("train: saferedir", "train: saferedir, seed: 3"))
    assert desk.names == ["mine", "taught"]


def test_what_was_damaged_or_is_gone_is_made_again(desk: Desk) -> None:
    text = """
steps:
  mine: {train: saferedir}
  taught: {run: taught, suite: toys, limit: 1, set: {taught.file: {train: mine}}}
"""
    desk.run(text)
    (weights,) = desk.out.glob("studies/mine/*/mine/weights.bin")
    weights.write_bytes(b"damaged")
    desk.run(text)
    assert desk.names == ["mine"], "it gives what it gave, so the run stays"
    for path in desk.out.glob("runs/*/run.json"):
        path.unlink()
    desk.run(text)
    assert desk.names == ["taught"]
    (record,) = desk.out.glob("studies/taught/*/job.json")
    record.write_text("{")
    desk.run(text)
    assert desk.names == ["taught"]


def test_a_failure_blocks_only_what_needs_it(desk: Desk) -> None:
    text = """
limit: 1
steps:
  bad: {attack: whisper, suite: toys, set: {broken: true}}
  good: {attack: whisper, suite: toys}
  on-bad: {run: push, prompts: {attack: bad}}
  on-good: {run: push, prompts: {attack: good}}
"""
    done = desk.run(text)
    assert done.exit_code == SOME_FAILED
    assert places(done.cells) == {("good-whisper-none", "push", "none")}
    failed, blocked = done.failures
    assert "study.yaml:6: step 'bad'" in failed
    assert "the attack is broken" in failed
    assert "study.yaml:8: step 'on-bad'" in blocked
    assert "needs step 'bad'" in blocked
    assert f"not done: {failed}" in desk.said
    desk.run(text.replace("true", "false"))
    assert desk.names == ["whisper-none", "on-bad"]


def test_a_run_that_fails_in_part_is_tried_again(desk: Desk) -> None:
    text = "limit: 1\nsteps: {plain: {run: push, suite: toys, set: {push.silent: true}}, other: {run: none, suite: toys}}"
    done = desk.run(text)
    assert done.exit_code == SOME_FAILED
    assert len(done.cells) == 2, "its table shows what is there"
    desk.run(text)
    assert desk.names == ["plain"]


@pytest.mark.parametrize("when", [2, 3])
def test_after_an_interrupt_it_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch, when: int) -> None:
    carry_out = steps.carry_out

    def interrupted(bench: Any, job: Any, key: str) -> Any:
        if len(desk.done) + 1 == when:
            signal.raise_signal(signal.SIGINT)
        return carry_out(bench, job, key)

    text = "limit: 1\nsteps: {one: {run: none, suite: toys}, two: {run: push, suite: toys}, three: {run: shift, suite: toys}}"
    with monkeypatch.context() as patch:
        patch.setattr(steps, "carry_out", interrupted)
        with pytest.raises(KeyboardInterrupt):
            desk.run(text)
    done = desk.run(text)
    assert done.exit_code == OK
    assert desk.names == ["one", "two", "three"][when - 1 :]


def test_records_hold_the_studys_text(desk: Desk) -> None:
    done = desk.run(FIVE_LINES)
    text = (desk.folder / "study.yaml").read_text()
    for run in {cell.run for cell in done.cells}:
        record = read_run(desk.out / "runs" / run / "run.json")
        sha = hashlib.sha256(text.encode()).hexdigest()
        assert record["study"] == {"name": "study", "step": "matrix", "sha256": sha, "text": text}
        assert record["schema"] == 1


def test_a_damaged_study_in_a_record_is_named(desk: Desk) -> None:
    done = desk.run("steps: {plain: {run: none, suite: toys, limit: 1}}")
    path = desk.out / "runs" / done.cells[0].run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "study": {"name": 3}}))
    with pytest.raises(steps.SrbenchError, match=r"study\.name: expected a text"):
        read_run(path)


# --- kinds of steps ---------------------------------------------------------------------------------------------------


def test_lists_become_products(desk: Desk) -> None:
    study = desk.study("""
concepts: [box, lid]
steps:
  mine: {train: saferedir, seed: [0, 1], set: {pairs: [10, 20]}}
  swept: {run: push, suite: toys, set: [{push.strength: [1, 2]}, {push.silent: true}], limit: [1, 2]}
  taught: {run: taught, suite: toys, set: {taught.file: {train: mine}}}
  stacked: {run: [none, push, none@shift, push@shift], suite: toys}
""")
    mine, swept, taught, stacked = study.steps
    assert [job.called for job in mine.jobs[:4]] == [f"mine-seed-{seed}-pairs-{pairs}" for seed in (0, 1) for pairs in (10, 20)]
    assert len(mine.jobs) == 8
    assert len(swept.jobs) == 2 * 3 * 2
    assert [(job.concepts, job.needs[0].concepts) for job in taught.jobs] == [(("box",),) * 2] * 4 + [(("lid",),) * 2] * 4
    assert [(job.values["methods"], job.values["on"]) for job in stacked.jobs[:2]] == [
        (("none", "push"), ("none",)), (("none", "push"), ("shift",)),
    ]  # fmt: skip


def test_one_training_for_several_concepts_serves_each(desk: Desk) -> None:
    done = desk.run("""
concepts: [box, lid]
limit: 1
steps:
  joint: {train: saferedir, concept: box+lid}
  taught: {run: taught, suite: toys, set: {taught.file: {train: joint}}}
""")
    assert done.exit_code == OK, desk.said
    assert [cell.concept for cell in done.cells] == ["box", "lid"]
    assert {cell.variant.partition("@")[0] for cell in done.cells} == {"file=joint"}


def test_a_checkpoint_of_a_step_is_named_by_it(desk: Desk) -> None:
    done = desk.run("""
limit: 1
steps:
  strong: {erase: shift, set: {size: 9}}
  plain: {run: [none, push], on: [shift, {erase: strong}], suite: toys}
""")
    assert done.exit_code == OK, desk.said
    assert {cell.on.partition("@")[0] for cell in done.cells} == {"shift", "strong"}


def test_a_grid_chooses_on_dev_and_its_choice_has_a_name(desk: Desk) -> None:
    done = desk.run("""
concepts: [box, lid]
limit: 1
steps:
  tuned: {grid: push, suites: toys, options: [{}, {strength: [2, 8]}], by: [[fsr, retain_accuracy], content_kept], per: kind}
  best: {run: push, suite: toys, set: {grid: tuned}}
""")
    assert done.exit_code == OK, desk.said
    tried = [cell for cell in done.cells if "part=dev" in cell.variant and cell.method == "push"]
    assert {cell.variant for cell in tried} == {f"{each}part=dev,limit=1" for each in ("", "strength=2.0,", "strength=8.0,")}
    for path in desk.out.glob("studies/tuned/*/grid.json"):
        lines = json.loads(path.read_text())
        assert len(lines) == 3
        best = max(lines, key=lambda line: line["score"])
        record = json.loads((path.parent / "job.json").read_text())
        assert record["settings"] == best["settings"]
    assert [cell.concept for cell in done.cells if "part=dev" not in cell.variant] == ["box", "lid"]
    desk.run((desk.folder / "study.yaml").read_text().split("\n", 2)[2])
    assert desk.names == []


def test_the_score_of_a_grid_point(desk: Desk) -> None:
    from srbench.analysis.records import Metric
    from srbench.studies.spec import Choice

    metrics = {"fsr": Metric("higher", 80.0), "asr": Metric("lower", 40.0), "retain_accuracy": Metric("higher", 35.0)}
    cells: Any = [type("Cell", (), {"metrics": metrics})]
    choice = Choice(options=[{}], by=[["fsr", "asr"], ["retain_accuracy"]])
    assert steps._worth(choice, cells)["score"] == pytest.approx(2 / (1 / 70 + 1 / 35))
    with pytest.raises(steps.UsageError, match="no value of 'csdr'"):
        steps._worth(Choice(options=[{}], by=[["csdr"]]), cells)


def test_pictures_made_elsewhere_and_more_scorers(desk: Desk, compared: Any) -> None:
    folder = desk.folder / "theirs"
    folder.mkdir()
    for row in compared.rows.rows:
        Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(folder / f"{row.id}.png")
    text = """
steps:
  plain: {run: none, suite: toys, limit: 1}
  theirs: {score: {other: theirs}, as: flat, suite: toys, concept: box}
  more: {score: {run: plain}, scorers: gap}
"""
    done = desk.run(text)
    assert {cell.method for cell in done.cells} == {"none", "other"}, desk.said
    assert any("gap" in cell.metrics for cell in done.cells)
    assert "0 images to sample" in " ".join(desk.said) or desk.names[-1] == "more"
    (folder / "f0.png").unlink()
    desk.run(text)
    assert "theirs" in desk.names, "other pictures are another input"


def test_options_for_the_whole_study(desk: Desk) -> None:
    done = desk.run("steps: {plain: {run: none, suite: toys, limit: 1}}", reference=True, device="cpu")
    record = json.loads((desk.out / "runs" / done.cells[0].run / "run.json").read_text())
    assert record["runtime"]["reference"] is True
    assert record["request"]["device"] == "cpu"
    with pytest.raises(steps.UsageError, match="--gpus and --device"):
        desk.run("steps: {plain: {run: none, suite: toys}}", device="cpu", gpus="0")


def test_a_file_of_prompts_counts_by_what_it_holds(desk: Desk) -> None:
    (desk.folder / "q.txt").write_text("a box in the sea\n")
    text = "steps: {mine: {run: none, prompts: q.txt}}"
    first = desk.run(text)
    assert first.exit_code == OK, desk.said
    (desk.folder / "q.txt").write_text("a box on the moon\n")
    desk.run(text)
    assert desk.names == ["mine"]


def test_everything_of_a_step_lies_below_the_results(desk: Desk, tmp_path: Path) -> None:
    desk.run(FIVE_LINES)
    assert sorted(path.name for path in (desk.out / "studies").iterdir()) == ["found", "matrix"]
    assert sorted(path.name for path in desk.out.parent.iterdir()) == ["results", "study.yaml"]


# --- shards -----------------------------------------------------------------------------------------------------------

SHARED = """
limit: 1
steps:
  found: {attack: [whisper, shout], suite: toys}
  plain: {run: [none, push], suite: toys}
  attacked: {run: push, prompts: {attack: found}}
"""


def test_shards_share_a_study_and_the_study_without_them_joins_it(desk: Desk) -> None:
    """Searches are done by one shard each, runs by parts; what waits for another shard is a failure until that one has ended."""
    out, desk.out = desk.out, desk.folder / "alone"
    alone = desk.run(SHARED)
    desk.out = out
    carried, codes = [], []
    for _ in range(2):
        for shard in ("1/2", "2/2"):
            codes.append(desk.run(SHARED, shard=shard, sample_only=True).exit_code)
            carried += desk.names
    assert sorted(carried) == ["shout-none", "whisper-none"], "each search is done once"
    assert codes[2:] == [OK, OK], desk.said
    assert not list((out / "runs").glob("*")), "a part of a run is no run"
    joined = desk.run(SHARED)
    assert joined.exit_code == OK
    assert len(desk.names) == 3, "three runs, and no search"
    assert all(line.startswith("0 images ") for line in desk.said if " images to sample" in line)
    assert places(joined.cells) == places(alone.cells)


def test_a_shard_says_who_makes_what_it_lacks(desk: Desk) -> None:
    """Of two searches it makes its own; a run on what another shard searches for waits, and is a failure."""
    done = desk.run(SHARED, shard="1/3", sample_only=True)
    made_elsewhere = [line for line in desk.said if " is made by shard " in line]
    assert len(made_elsewhere) == 2 - len(desk.names)
    assert len(done.failures) == len(made_elsewhere)
    assert done.exit_code == (SOME_FAILED if made_elsewhere else OK)
    assert all("which is not done" in line for line in done.failures)


@pytest.mark.parametrize(("options", "problem"), [
    ({"shard": "3/2"}, "there is no part 3 of 2"), ({"sample_only": True}, "--sample-only goes with a study's shards"),
])  # fmt: skip
def test_shards_that_cannot_be_are_refused_before_the_first_step(options: dict[str, Any], problem: str, desk: Desk) -> None:
    with pytest.raises(UsageError, match=problem):
        desk.run(SHARED, **options)
    assert desk.names == []


def test_the_attack_steps_of_a_study_are_done_by_actors(desk: Desk, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "open_backbone", lambda spec, dtype, device: world.backbone(dtype))
    threads, found = torch.get_num_threads(), "steps: {found: {attack: whisper, suite: toys}}"
    whole = desk.out
    try:
        desk.out = whole.with_name("alone")
        assert not desk.run(found).failures
        desk.out = whole
        hands = search_here(monkeypatch)
        assert not desk.run(found, gpus="cpu,cpu").failures
    finally:
        torch.set_num_threads(threads)
    assert len(hands) == 1
    assert hands[0].actors
    one, two = ((out / "studies").rglob("whisper-none.json") for out in (whole.with_name("alone"), whole))
    assert next(one).read_bytes() == next(two).read_bytes()
    desk.run(found)
    assert not desk.done, "who searches is no input of a step"
