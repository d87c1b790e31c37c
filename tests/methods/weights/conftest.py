"""A tiny Stable Diffusion in memory, and a harmless concept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.methods.base import BackboneInfo
from srbench.testing.tiny import tiny_pipeline


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
