"""What holds for every weight method, whoever wrote it: one test each, over all presets of the kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from srbench.backbones.checkpoint import Checkpoint, Passport, examine, laid_over
from srbench.catalog import plugins
from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods.base import BackboneInfo, Edit, quiet

QUICK = {"iterations": 3, "steps": 3, "images": 4, "batch": 2, "epochs": 2}
"""Taken where a method has such an option."""
META = {name: plugins.plugins("methods")[method].meta for name, (method, _) in plugins.presets().items()}
PRESETS = [name for name, meta in META.items() if meta["kind"] == "weight"]
every_preset = pytest.mark.parametrize("preset", PRESETS)


def chosen(preset: str, **changes: Any) -> tuple[Any, Any]:
    """The preset's class, and its options made quick."""
    method, values = plugins.preset(preset)
    cls = plugins.load("methods", method)
    quick = {key: value for key, value in QUICK.items() if key in cls.Options.model_fields}
    return cls, cls.Options(**(values | quick | changes))


def passport(pipeline: Any, edit: Edit) -> Passport:
    return examine(
        pipeline, edit.tensors, where="here", sha256="sha", kind="srbench", form="safetensors", partial=True
    )


@contextmanager
def based(preset: str, on: BackboneInfo, concept: ConceptSpec) -> Iterator[BackboneInfo]:
    """The backbone as the engine hands it to a method: with the checkpoint that it declares as its base."""
    base = META[preset].get("base")
    if base is None:
        yield on
        return
    cls, options = chosen(base["preset"], **base["options"])
    under = cls.erase(on, concept, options, quiet)
    own = {part: getattr(on.pipeline, part).state_dict() for part in under.tensors}
    original = {part: {name: own[part][name].clone() for name in tensors} for part, tensors in under.tensors.items()}
    with laid_over(on.pipeline, Checkpoint(base["preset"], under.tensors, passport(on.pipeline, under))):
        yield replace(on, original=original)


def erase(preset: str, on: BackboneInfo, concept: ConceptSpec, tell: Any = quiet) -> Edit:
    cls, options = chosen(preset)
    with based(preset, on, concept) as info:
        return cls.erase(info, concept, options, tell)


def test_the_projects_presets_are_here() -> None:
    assert set(PRESETS) >= {
        "esd-x", "esd-u", "esd-x-strict", "esd-x-old", "esd-u-old", "uce", "uce-old", "rece", "ablation",
    }


@every_preset
def test_options_parse_with_their_defaults(preset: str) -> None:
    """Also as JSON, which is how they enter a checkpoint's key."""
    method, values = plugins.preset(preset)
    cls = plugins.load("methods", method)
    assert all(not field.is_required() for field in cls.Options.model_fields.values())
    options = cls.Options(**values)
    assert cls.Options(**json.loads(json.dumps(options.model_dump(mode="json"), allow_nan=False))) == options
    assert cls.meta == META[preset]


@every_preset
def test_erasing_twice_gives_equal_tensors(preset: str, on_toy: BackboneInfo, box: ConceptSpec) -> None:
    """Whatever was drawn from the global generator in between."""
    first = erase(preset, on_toy, box)
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        second = erase(preset, on_toy, box)
    assert first.tensors.keys() == second.tensors.keys()
    for part, tensors in first.tensors.items():
        assert tensors.keys() == second.tensors[part].keys()
        assert all(torch.equal(value, second.tensors[part][name]) for name, value in tensors.items())
    assert first.card == second.card


@every_preset
def test_pipeline_is_left_alone(
    preset: str, on_toy: BackboneInfo, box: ConceptSpec, left_alone: Callable[[Any], Any]
) -> None:
    on_toy.pipeline.scheduler.set_timesteps(7)
    with based(preset, on_toy, box) as info, left_alone(info.pipeline):
        cls, options = chosen(preset)
        cls.erase(info, box, options, quiet)


@every_preset
def test_tensors_are_the_backbones_and_changed(preset: str, on_toy: BackboneInfo, box: ConceptSpec) -> None:
    """Named and shaped as in its state dicts, float32 on the CPU, only what changed, detached, in memory of their own."""
    edit, pipeline = erase(preset, on_toy, box), on_toy.pipeline
    assert edit.tensors
    for part, tensors in edit.tensors.items():
        own = getattr(pipeline, part).state_dict()
        assert tensors
        assert tensors.keys() <= own.keys()
        for name, value in tensors.items():
            assert value.shape == own[name].shape
            assert (value.dtype, value.device.type, value.requires_grad) == (torch.float32, "cpu", False)
            assert value.is_contiguous()
            assert value.data_ptr() != own[name].data_ptr()
            assert not torch.equal(value, own[name])
    found = passport(pipeline, edit)
    assert found.changed == found.matched == sum(len(tensors) for tensors in edit.tensors.values())
    assert found.relative_change > 0


@every_preset
def test_checkpoint_changes_pixels_and_goes_away(
    preset: str, on_toy: BackboneInfo, box: ConceptSpec, pixels: Callable[[Any], np.ndarray], left_alone: Callable[[Any], Any]
) -> None:
    edit, pipeline = erase(preset, on_toy, box), on_toy.pipeline
    before = pixels(pipeline)
    with left_alone(pipeline, but=("scheduler",)):  # drawing steps it
        with laid_over(pipeline, Checkpoint(preset, edit.tensors, passport(pipeline, edit))):
            during = pixels(pipeline)
        after = pixels(pipeline)
    assert np.isfinite(during).all()
    assert np.abs(during - before).max() > 1e-6
    assert np.array_equal(before, after)


@every_preset
def test_card_is_json_and_finite(preset: str, on_toy: BackboneInfo, box: ConceptSpec) -> None:
    card = erase(preset, on_toy, box).card
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert card["phrases"]
    assert card["names"] == len(card["phrases"])
    assert card["changed_tensors"] > 0
    curve = card.get("loss_curve")
    assert curve is None or curve[-1][0] == QUICK["iterations"]


@every_preset
def test_progress_reaches_its_total(preset: str, on_toy: BackboneInfo, box: ConceptSpec) -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    erase(preset, on_toy, box, lambda phase, done, total, note: told.setdefault(phase, []).append((done, total)))
    assert told
    for steps in told.values():
        assert steps == sorted(steps)
        assert all(0 <= done <= total for done, total in steps)
    done, total = list(told.values())[-1][-1]
    assert done == total


@every_preset
def test_family_without_words_is_refused(preset: str, on_toy: BackboneInfo, box: ConceptSpec) -> None:
    cls, options = chosen(preset)
    with based(preset, on_toy, box) as info, pytest.raises(UsageError, match="no words for other"):
        cls.erase(replace(info, family="other"), box, options, quiet)


@every_preset
def test_backbone_without_a_unet_is_refused(preset: str, on_toy: BackboneInfo, box: ConceptSpec) -> None:
    class Transformer:
        """A pipeline of another kind."""

    cls, options = chosen(preset)
    with pytest.raises(UsageError, match="knows U-Nets only"):
        cls.erase(replace(on_toy, pipeline=Transformer()), box, options, quiet)
