"""A tiny random Stable Diffusion in memory, a harmless concept, and short ways to prepare, apply and sample a method on it."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.engine.sample import PromptCache, sample
from srbench.methods import base
from srbench.methods.base import Active
from srbench.results.keys import ImageSpec
from tests.tiny import WIDTH, tiny_pipeline

TOKENS = 16


@dataclass
class Bench:
    """The tiny pipeline with everything that a method asks for."""

    pipeline: StableDiffusionPipeline
    prompts: PromptCache
    concept: ConceptSpec
    tokens: int = TOKENS
    width: int = WIDTH

    def info(self, **changes: Any) -> base.BackboneInfo:
        return base.BackboneInfo(**({"name": "tiny", "family": "tiny", "sha256": "sha", "pipeline": self.pipeline} | changes))

    def active(self, method: Any, options: Any) -> Active:
        """The method, prepared for the concept."""
        return Active(method, method.prepare(self.info(), self.concept, options), options)

    def spec(self, prompt: str, steps: int = 4, guidance: float = 5.0, negative: str = "") -> ImageSpec:
        """One image; its seed is made of its prompt's letters."""
        return ImageSpec(
            backbone_sha="", checkpoint_sha="", method="m", method_version=1, options="", artifact_sha="", concept_sha="",
            prompt=prompt, negative_prompt=negative, seed=sum(map(ord, prompt)), steps=steps, guidance=guidance, eta=0.0,
            guidance_rescale=0.0, clip_skip=None, scheduler="", width=8, height=8, dtype="fp32",
        )

    def draw(self, active: Active, texts: Sequence[str], **recipe: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Pixels uint8 (B, 8, 8, 3) and traces, as the engine samples them."""
        pixels, traces, _ = sample(self.pipeline, self.prompts, active, [self.spec(text, **recipe) for text in texts])
        return pixels, traces

    def embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, T, D), as the sampler encodes them."""
        return self.prompts.encode(texts, None).embeds

    def hooks_left(self) -> list[str]:
        """Modules of the pipeline that still have a forward hook."""
        parts = (self.pipeline.unet, self.pipeline.vae, self.pipeline.text_encoder)
        found = [(name, module) for part in parts for name, module in part.named_modules()]
        return [name for name, module in found if module._forward_pre_hooks or module._forward_hooks]


@pytest.fixture(scope="session")
def bench() -> Bench:
    pipeline = tiny_pipeline(TOKENS, letters=string.ascii_lowercase + ",", spread=20.0)
    words = ConceptWords(names=("a box", "bin"), words=("box", "jar"), protocol="none")
    concept = ConceptSpec(name="box", title="boxes", kind="object", sensitive=False, families={"tiny": words})
    return Bench(pipeline, PromptCache(pipeline), concept)
