"""A tiny Stable Diffusion in memory, a harmless concept, and a check that a pipeline is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.methods.base import BackboneInfo
from tests.tiny import tiny_pipeline


def _toy() -> StableDiffusionPipeline:
    """The tests' tiny pipeline, in which the text matters; parts of its U-Net ask for gradients, as a user's may."""
    pipeline = tiny_pipeline(spread=20.0)
    for name, value in pipeline.unet.named_parameters():
        value.requires_grad_("conv_in" in name)
    return pipeline


@pytest.fixture(scope="session")
def build_toy() -> Callable[[], StableDiffusionPipeline]:
    """Makes the tiny pipeline anew."""
    return _toy


@pytest.fixture
def toy() -> StableDiffusionPipeline:
    """The tiny pipeline."""
    return _toy()


@pytest.fixture
def on_toy(toy: StableDiffusionPipeline) -> BackboneInfo:
    """What a method is told of the tiny pipeline."""
    return BackboneInfo("toy", "tiny", "backbone-sha", toy)


@pytest.fixture(scope="session")
def box() -> ConceptSpec:
    """Boxes and crates, which give way to cups and bowls."""
    words = ConceptWords(
        names=("a box",), words=("box", "crate"), counterparts={"box": "cup", "crate": "bowl"}, neighbours=("jar", "tin"),
        protocol="none",
    )
    return ConceptSpec(name="box", title="boxes", kind="object", sensitive=False, families={"tiny": words})


@pytest.fixture(scope="session")
def without_anchors(box: ConceptSpec) -> ConceptSpec:
    """The same concept with nothing to take its place."""
    words = box.families["tiny"].model_copy(update={"counterparts": {}})
    return box.model_copy(update={"families": {"tiny": words}})


@pytest.fixture(scope="session")
def pixels() -> Callable[[Any], np.ndarray]:
    """Draws one image of a box with a pipeline, (8, 8, 3)."""

    def draw(pipeline: Any) -> np.ndarray:
        noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(3)).to(pipeline.unet.dtype)
        options = {"num_inference_steps": 3, "guidance_scale": 5.0, "height": 8, "width": 8, "output_type": "np"}
        return pipeline("a box", latents=noise, **options).images[0]

    return draw


def _fingerprint(pipeline: Any) -> dict[str, Any]:
    """Values, gradients, gradient flags and modes of every module, the scheduler's state, and the global noise."""
    found: dict[str, Any] = {"scheduler": copy.deepcopy(vars(pipeline.scheduler)), "noise": torch.get_rng_state()}
    found["parts"] = {name: id(part) for name, part in pipeline.components.items()}
    for part in ("unet", "text_encoder", "vae"):
        module = getattr(pipeline, part)
        found[part] = {name: value.clone() for name, value in module.state_dict().items()}
        found[f"{part} flags"] = [(name, p.requires_grad, p.grad is None) for name, p in module.named_parameters()]
        found[f"{part} modes"] = [(name, m.training, len(m._forward_hooks)) for name, m in module.named_modules()]
    return found


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(first[k], second[k]) for k in first)
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)
    return bool(first == second)


@pytest.fixture(scope="session")
def left_alone() -> Callable[..., AbstractContextManager[None]]:
    """Fails where a pipeline is not bit for bit as before: weights, gradient flags, modes, scheduler, global noise."""

    @contextmanager
    def check(pipeline: Any, but: tuple[str, ...] = ()) -> Iterator[None]:
        before = _fingerprint(pipeline)
        yield
        after = _fingerprint(pipeline)
        assert before.keys() == after.keys()
        assert [key for key in before if key not in but and not _same(before[key], after[key])] == []

    return check
