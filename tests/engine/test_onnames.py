"""`--on W#SEED` and `--on W~STEPS`: how names are taken apart, and that each has a checkpoint of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from srbench.analysis.lineage import OnName
from srbench.backbones.checkpoint import Checkpoint, read_card
from srbench.engine.checkpoints import check_on
from srbench.engine.onnames import expanded, taken_apart
from srbench.engine.plan import plan
from srbench.engine.relearned import settings_of, taught
from srbench.errors import MissingError, UsageError
from srbench.methods import base
from srbench.methods.base import quiet
from srbench.testing.tiny import tiny_pipeline
from tests.worlds import ShiftMethod

QUICK = ("relearn.judged=false", "relearn.images=2", "relearn.batch=2", "relearn.steps=2", "relearn.lr=0.01")


@pytest.mark.parametrize(("name", "parts"), [
    ("esd-x", OnName("esd-x")),
    ("esd-x#2", OnName("esd-x", 2)),
    ("esd-x~32", OnName("esd-x", None, 32)),
    ("esd-x#2~32", OnName("esd-x", 2, 32)),
    ("uce~8:other", OnName("uce", None, 8, True)),
    ("none~8", OnName("none", None, 8)),
    ("none", OnName("none")),
    ("esd-x~", OnName("esd-x~")),
    ("esd-x~x", OnName("esd-x~x")),
    ("esd-x#", OnName("esd-x#")),
    ("esd-x:other", OnName("esd-x:other")),
])  # fmt: skip
def test_names_are_taken_apart(name: str, parts: OnName) -> None:
    assert taken_apart(name) == parts


def test_a_file_of_just_that_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "esd-x#1").mkdir()
    (tmp_path / "mine#0..2").mkdir()
    assert taken_apart("esd-x#1") == OnName("esd-x#1")
    assert expanded(["mine#0..2"]) == ("mine#0..2",)


def test_ranges_are_written_out_once() -> None:
    assert expanded(["none", "esd-x#0..2", "esd-x#1"]) == ("none", "esd-x#0", "esd-x#1", "esd-x#2")
    assert expanded(["esd-x#0..1~8"]) == ("esd-x#0~8", "esd-x#1~8")


@pytest.mark.parametrize("name", ["esd-x#2..1", "esd-x#0..1000"])
def test_no_range_is_one_line(name: str) -> None:
    with pytest.raises(UsageError, match="no range of seeds"):
        expanded([name])


@pytest.mark.parametrize(("name", "message"), [
    ("uce#1", "draws nothing at random"),
    ("saferedir#1", "acts while sampling"),
    ("nothing-like-it#1", "nothing-like-it"),
    ("none#1", "draws nothing at random"),
    ("esd-x~200000", "200000 steps"),
    ("esd-x~x", "esd-x~x"),
])  # fmt: skip
def test_what_is_no_checkpoint_is_said(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_on(name)


# --- seeds -----------------------------------------------------------------------------------------------------------------


class Seeded(ShiftMethod):
    """Shifts by a random number."""

    class Options(base.Options):
        size: float = 1.0
        seed: int = 0

    @staticmethod
    def erase(backbone: base.BackboneInfo, concept: Any, options: Any, tell: base.Tell) -> base.Edit:
        rng = torch.Generator().manual_seed(options.seed)
        own = backbone.pipeline.unet.state_dict()
        names = [name for name in own if name.endswith("attn2.to_out.0.bias")]
        return base.Edit({"unet": {name: own[name] + torch.randn(own[name].shape, generator=rng) for name in names}})


def test_every_seed_is_a_checkpoint_with_the_seed_in_its_name(world: Any) -> None:
    world.methods["shift"] = Seeded
    cells = plan(world.request(methods=("none",), on=("shift", "shift#0", "shift#1")), world.backbone())
    assert [(cell.on, cell.variant) for cell in cells] == [("shift", ""), ("shift#0", ""), ("shift#1", "")]
    shas = [cell.checkpoint.sha256 for cell in cells]
    assert shas[0] == shas[1]  # the preset's own seed is 0
    assert shas[1] != shas[2]


def test_a_seed_given_twice_is_refused(world: Any) -> None:
    world.methods["shift"] = Seeded
    with pytest.raises(UsageError, match=r"both give shift\.seed"):
        plan(world.request(methods=("none",), on=("shift#1",), settings=("shift.seed=2",)), world.backbone())


# --- taught again ----------------------------------------------------------------------------------------------------------


def checkpoint_of(world: Any, on: str, *settings: str) -> Checkpoint:
    request = world.request(methods=("none",), on=(on,), settings=(*QUICK, *settings) if taken_apart(on).steps else ())
    (cell,) = plan(request, world.backbone())
    assert cell.blocked is None, cell.blocked
    assert isinstance(cell.checkpoint, Checkpoint)
    return cell.checkpoint


def test_a_lesson_begins_from_the_checkpoint_and_stands_alone(world: Any) -> None:
    shift, after = checkpoint_of(world, "shift", *()), checkpoint_of(world, "shift~2")
    assert set(shift.tensors["unet"]) < set(after.tensors["unet"])
    for name, value in shift.tensors["unet"].items():
        assert torch.equal(after.tensors["unet"][name], value)  # biases, which adapters do not move
    moved = [name for name in after.tensors["unet"] if name not in shift.tensors["unet"]]
    assert moved
    assert all(".attn1." in name or ".attn2." in name for name in moved)


def test_lessons_lie_on_one_way(world: Any) -> None:
    """K steps are the first K of more: training goes on where it was."""
    pipeline, latents = tiny_pipeline(spread=20.0), torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    settings = settings_of(list(QUICK), world.concept, "toy")
    sizes = []
    for steps in (1, 2, 6):
        new = taught(pipeline, latents, ["a box"] * 4, settings, steps, quiet)
        state = pipeline.unet.state_dict()
        sizes.append(sum(float((value - state[name]).square().sum()) for name, value in new.items()))
    assert sizes[0] < sizes[1] < sizes[2]


def test_all_weights_may_learn_and_the_pipeline_stays(world: Any) -> None:
    pipeline, latents = tiny_pipeline(spread=20.0), torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    asked = [value.requires_grad for value in pipeline.unet.parameters()]
    settings = settings_of([*QUICK, "relearn.parameters=all"], world.concept, "toy")
    new = taught(pipeline, latents, ["a box"] * 4, settings, 2, quiet)
    assert any("conv_in" in name for name in new)
    assert all(torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())
    assert [value.requires_grad for value in pipeline.unet.parameters()] == asked
    assert all(value.grad is None for value in pipeline.unet.parameters())


def test_steps_and_what_is_taught_make_other_checkpoints_and_each_is_stored_once(world: Any) -> None:
    shas = [checkpoint_of(world, name).sha256 for name in ("shift", "none~2", "shift~1", "shift~2")]
    assert len(set(shas)) == 4
    folders = list((world.out / "store" / "checkpoints").glob("relearn-*"))
    assert len(folders) == 3
    assert {read_card(folder)["preset"] for folder in folders} == {"none~2", "shift~1", "shift~2"}
    assert checkpoint_of(world, "shift~2").sha256 == shas[3]
    assert checkpoint_of(world, "shift~0").sha256 == shas[0]


def test_pictures_of_the_users_own_are_part_of_the_key(world: Any, tmp_path: Path) -> None:
    from PIL import Image

    folders = []
    for number in range(2):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        Image.new("RGB", (9, 7), (200, 30 * number, 10)).save(folder / "a.png")
        folders.append(folder)
    one, other = (checkpoint_of(world, "shift~1", f"relearn.folder={folder}").sha256 for folder in folders)
    assert one != other
    with pytest.raises(UsageError, match="no images in it"):
        checkpoint_of(world, "shift~1", "relearn.folder=nowhere")


def test_a_sensitive_concept_needs_the_users_own_pictures(world: Any) -> None:
    world.concept = world.concept.model_copy(update={"sensitive": True})
    (cell,) = plan(world.request(methods=("none",), on=("shift~1",), settings=QUICK), world.backbone())
    assert isinstance(cell.blocked, MissingError)
    assert "relearn.folder" in cell.blocked.hint


def test_a_setting_of_lessons_without_a_lesson_is_refused(world: Any) -> None:
    with pytest.raises(UsageError, match="'relearn' is not part of this run"):
        plan(world.request(methods=("none",), on=("shift",), settings=("relearn.rank=2",)), world.backbone())
