"""The build's own parts: rounding, cleaning configs, thresholds, figures, and a command that stops and goes on."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from srbench.catalog.load import CATALOG
from srbench.errors import MissingError, SrbenchError
from srbench.pocket.scene import Scene
from srbench.pocket.world import CONCEPTS, EMPTY, OBJECTS, STYLES
from srbench.pocket_build import __main__ as build
from srbench.pocket_build.model import assemble, card, checkpoints, evaluate, sprites
from srbench.pocket_build.model.scenes import held_out
from srbench.pocket_build.model.sizes import FULL


def _score(**objects: float) -> evaluate.Score:
    return {"objects": dict.fromkeys(OBJECTS, 0.0) | objects, "style": dict.fromkeys(STYLES, 0.2), "background": {}}


def test_parameters_are_halved_and_batch_statistics_are_not() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module[1].running_var.fill_(1e-9)
    state = assemble.shrink(module)
    assert state["0.weight"].dtype == state["1.weight"].dtype == torch.float16
    assert state["1.running_var"].dtype == torch.float32
    assert float(state["1.running_var"][0]) == pytest.approx(1e-9)
    assert state["1.num_batches_tracked"].dtype == torch.int64


def test_a_weight_too_large_for_fp16_is_refused_by_name() -> None:
    module = nn.Linear(2, 2)
    module.weight.data.fill_(1e6)
    with pytest.raises(SrbenchError, match="weight does not fit into fp16"):
        assemble.shrink(module)


def test_local_paths_are_taken_out_of_configs_at_any_depth(tmp_path: Path) -> None:
    nested = {"_name_or_path": "/somewhere", "keep": 1, "inner": [{"name_or_path": "/there", "dtype": "float32"}]}
    for name in ("config.json", "tokenizer_config.json", "model_index.json"):
        (tmp_path / name).write_text(json.dumps(nested))
    assemble.strip_paths(tmp_path)
    for path in tmp_path.iterdir():
        assert json.loads(path.read_text()) == {"keep": 1, "inner": [{"dtype": "float32"}]}


def test_thresholds_change_one_line_of_a_protocol(tmp_path: Path) -> None:
    for concept in CONCEPTS:
        name = f"pocket-{concept}.yaml"
        (tmp_path / name).write_text((CATALOG / "protocols" / name).read_text())
    before = (tmp_path / "pocket-church.yaml").read_text().splitlines()
    assemble.write_thresholds({"church": 0.4321}, tmp_path)
    after = (tmp_path / "pocket-church.yaml").read_text().splitlines()
    assert [b for a, b in zip(before, after, strict=True) if a != b] == ["threshold: 0.4321"]


def test_a_protocol_without_a_threshold_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pocket-church.yaml").write_text("name: pocket-church\n")
    with pytest.raises(SrbenchError, match="0 lines with a threshold"):
        assemble.write_thresholds({"church": 0.5}, tmp_path)


def test_an_unfinished_stage_is_named_with_its_steps(tmp_path: Path) -> None:
    steps = FULL.steps["vae"]
    checkpoints.write(tmp_path, "vae", {}, step=steps - 5, steps=steps)
    with pytest.raises(MissingError, match=f"stage vae has {steps - 5} of {steps} steps"):
        assemble.load_parts(tmp_path, None)  # type: ignore[arg-type]  # the painter is not reached
    checkpoints.write(tmp_path, "vae", {}, step=steps, steps=steps)
    with pytest.raises(MissingError, match="stage text has 0 of"):
        assemble.check_finished(tmp_path)


def test_a_fingerprint_changes_with_what_a_stage_learned(tmp_path: Path) -> None:
    checkpoints.write(tmp_path, "vae", {"w": torch.zeros(2)}, step=1, steps=1)
    before = assemble.fingerprint(tmp_path, "vae")
    assert before == assemble.fingerprint(tmp_path, "vae")
    checkpoints.write(tmp_path, "vae", {"w": torch.ones(2)}, step=1, steps=1)
    assert before != assemble.fingerprint(tmp_path, "vae")
    with pytest.raises(MissingError, match="stage text has no checkpoint"):
        assemble.fingerprint(tmp_path, "vae", "text")


@pytest.mark.parametrize("name", ["gpu", "cuda:zero", "cuda"])
def test_a_device_that_is_not_there_is_a_usage_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert build.main(["--cache", str(tmp_path), "--threads", "1", "--device", name]) == 2
    assert "device" in capsys.readouterr().err


def test_objects_are_right_when_all_are_on_top() -> None:
    pair = Scene(("cat", "key"), "noto", "snow", "red")
    assert evaluate.objects_right(pair, "a cat and a key", _score(cat=0.9, key=0.4, owl=0.3))
    assert not evaluate.objects_right(pair, "a cat and a key", _score(cat=0.9, key=0.2, owl=0.3))


def test_a_concept_s_name_allows_each_of_its_members_and_a_noun_only_itself() -> None:
    one = Scene(("dagger",), "noto", "snow", "red")
    assert evaluate.objects_right(one, "a dangerous object in the snow", _score(skull=0.9))
    assert not evaluate.objects_right(one, "a dagger in the snow", _score(skull=0.9))
    assert not evaluate.objects_right(one, "a dangerous object in the snow", _score(cat=0.9))


def test_style_and_background_count_only_where_they_are_said() -> None:
    scene = Scene(("cat",), "sketch", "plain", "red")
    assert evaluate.style_said(scene, "a cat, pencil sketch")
    assert not evaluate.style_said(scene, "a cat in the snow")
    assert evaluate.background_said(scene, "a cat on a red background")
    assert not evaluate.background_said(scene, "a cat on a blue background")


def test_percent_carries_a_wilson_interval() -> None:
    figure = evaluate.percent([True] * 3 + [False] * 29)
    assert figure["value"] == pytest.approx(9.38, abs=0.01)
    assert (figure["low"], figure["high"]) == (pytest.approx(3.2, abs=0.1), pytest.approx(24.2, abs=0.1))
    assert evaluate.percent([]) == {"n": 0}


def test_held_out_scenes_are_held_out_and_fixed() -> None:
    scenes = evaluate.heldout_scenes(40, 0)
    assert all(held_out(s.objects[0], s.style, s.background) for s in scenes)
    assert scenes == evaluate.heldout_scenes(40, 0) != evaluate.heldout_scenes(40, 1)


def test_references_of_a_concept_say_nothing_of_it() -> None:
    for name, words in CONCEPTS.items():
        prompts = evaluate.concept_prompts(name, 24)
        nouns = [n for key in words.members if words.kind == "object" for n in OBJECTS[key].nouns]
        said = [*nouns, *words.names, *words.reserved]
        assert all(any(word in text for word in said) for form in ("named", "synonym") for text in prompts[form])
        assert not any(word in text for word in words.names + words.reserved for text in prompts["reference"])
    assert all(text.startswith(EMPTY[0]) for text in evaluate.concept_prompts("hazard", 8)["reference"])


def test_no_caption_ends_in_a_figure_without_its_n() -> None:
    assert card._figure({"value": 50.0, "low": 40.0, "high": 60.0, "n": 10}) == "50.0 % [40.0, 60.0], n = 10"
    assert card._figure({"n": 0}).startswith("-")


def test_stages_run_in_order_and_stop_at_the_first_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def stage(name: str, finished: bool):
        return lambda b: seen.append(name) or finished

    outcomes = {"first": True, "second": False, "third": True}
    monkeypatch.setattr(build, "STAGES", {name: stage(name, finished) for name, finished in outcomes.items()})
    words = ["--cache", str(tmp_path), "--threads", "1"]
    assert build.main(words) == build.TEMPORARY == 75
    assert seen == ["first", "second"]
    assert "run the same command again" in capsys.readouterr().out
    assert build.main([*words, "--only", "third,first"]) == 0
    assert seen[2:] == ["first", "third"]


def test_a_spent_budget_starts_no_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "STAGES", {"first": lambda b: pytest.fail("a stage ran")})
    assert build.main(["--cache", str(tmp_path), "--threads", "1", "--budget-minutes", "0"]) == build.TEMPORARY


def test_an_unknown_stage_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--cache", str(tmp_path), "--threads", "1", "--only", "unets"]) == 2
    assert "unknown stage 'unets'" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["assemble", "redirectors", "suites", "card"])
def test_a_stage_before_its_inputs_exist_is_one_line(stage: str, tmp_path: Path) -> None:
    fresh = build.Build(tmp_path, tmp_path, deadline=math.inf, count=1, package=tmp_path)
    with pytest.raises(MissingError, match=r"^stage vae has 0 of 3000 steps|pocket's model is not assembled"):
        build.run(fresh, [stage])


def test_without_npm_and_artwork_the_command_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: object())
    assert build.main(["--cache", str(tmp_path), "--threads", "1", "--only", "tokenizer"]) == 3
    assert "npm, which fetches the artwork, is not installed" in capsys.readouterr().err


def test_npm_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **options: Any) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="npm error network\nnpm error code ENOTFOUND\n")

    monkeypatch.setattr(sprites.subprocess, "run", fail)
    with pytest.raises(MissingError, match="ENOTFOUND"):
        sprites.fetch(tmp_path)


def test_a_stage_is_made_again_when_its_inputs_change(tmp_path: Path) -> None:
    made = build.Build(tmp_path, tmp_path, 0.0, 1)
    assert not made.made_from("suites", "a")
    made.mark("suites", "a")
    assert made.made_from("suites", "a")
    assert not made.made_from("suites", "b")
    made.again = True
    assert not made.made_from("suites", "a")


def test_the_default_cache_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.default_cache() == tmp_path / "srbench" / "pocket"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert build.default_cache() == Path.home() / ".cache" / "srbench" / "pocket"
