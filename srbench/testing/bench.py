"""A tiny random pipeline with a harmless concept, and short ways to make a method ready and to sample with it."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.engine.sample import PromptCache, sample
from srbench.methods.base import Active, BackboneInfo
from srbench.results.keys import ImageSpec
from srbench.testing.families import MADE, SIDE_PX, tiny
from srbench.testing.tiny import tiny_pipeline

PROMPTS = ("ab box", "cd", "zyxw", "box ef")
"""The tokenizers have one token a letter."""
TOKENS = 16
TRUE_GUIDANCE = {"flux": 3.0}
"""Family -> the true guidance; without it the family uses no negative prompt."""
SMALL = ("pocket", "sd", "tiny")
"""Families whose pipeline here is the smallest one, of 8 x 8 px."""
FAMILIES = ("pocket", *MADE)
"""Families that have a tiny pipeline."""
BOX = ConceptWords(
    names=("a box",), words=("box", "bin"), counterparts={"box": "cup", "bin": "jar"}, neighbours=("tin", "bag"), protocol="none"
)


def concept_of(words: ConceptWords, family: str) -> ConceptSpec:
    """An object that a family of backbones calls by these words; by the first one alone where an encoder reads twelve letters."""
    name = words.words[0]
    words = words if family in SMALL else words.model_copy(update={"words": words.words[:1]})
    return ConceptSpec(name=name, title=f"{name}es", kind="object", sensitive=False, families={family: words})


@dataclass
class Bench:
    """A tiny pipeline with everything that a method asks for."""

    family: str
    pipeline: Any
    prompts: PromptCache
    concept: ConceptSpec
    side_px: int = 8
    steps: int = 4
    """Of each image that is drawn."""

    def info(self, **changes: Any) -> BackboneInfo:
        """The pipeline as methods see it. changes: other values of its fields."""
        return BackboneInfo(**({"name": "tiny", "family": self.family, "sha256": "sha", "pipeline": self.pipeline} | changes))

    def active(self, method: Any, options: Any, concept: Any = None) -> Active:
        """A method's class, prepared for the concept."""
        return Active(method, method.prepare(self.info(), concept or self.concept, options), options)

    def spec(self, prompt: str, steps: int | None = None, guidance: float = 5.0, negative: str = "") -> ImageSpec:
        """One image, its seed the sum of its prompt's code points. guidance: 1 is none."""
        return ImageSpec(
            backbone_sha="", checkpoint_sha="", method="m", method_version=1, options="", artifact_sha="", concept_sha="",
            prompt=prompt, negative_prompt=negative, seed=sum(map(ord, prompt)), steps=steps or self.steps, guidance=guidance,
            eta=0.0, guidance_rescale=0.0, clip_skip=None, scheduler="", width=self.side_px, height=self.side_px, dtype="fp32",
            true_guidance=TRUE_GUIDANCE.get(self.family, 1.0) if guidance > 1 else 1.0,
        )

    def draw(self, active: Active, texts: Sequence[str], **recipe: Any) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Pixels uint8 (B, side, side, 3) and traces, as the engine samples them. recipe: as for `spec`."""
        pixels, traces, _ = sample(self.pipeline, self.prompts, active, [self.spec(text, **recipe) for text in texts])
        return pixels, traces

    def embeddings(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, T, D), as the sampler encodes them."""
        return self.prompts.encode(texts, None).embeds

    def hooks(self) -> dict[str, int]:
        """Module of the pipeline -> how many forward hooks it has, where it has any."""
        parts = [(name, part) for name, part in self.pipeline.components.items() if isinstance(part, torch.nn.Module)]
        modules = [(f"{part}.{name}", module) for part, whole in parts for name, module in whole.named_modules()]
        counts = {name: len(module._forward_pre_hooks) + len(module._forward_hooks) for name, module in modules}
        return {name.removesuffix("."): count for name, count in counts.items() if count}

    def more_hooks(self, before: Mapping[str, int]) -> list[str]:
        """Modules that have more hooks than before; some libraries have hooks of their own on a text encoder."""
        return [name for name, count in self.hooks().items() if count > before.get(name, 0)]


def small_pipeline() -> Any:
    """The smallest pipeline, in which the text matters to the image."""
    return tiny_pipeline(TOKENS, letters=string.ascii_lowercase + ",", spread=20.0)


@cache
def bench(family: str) -> Bench:
    """The bench of a family of backbones, made once a process. family: one of `FAMILIES`, or `tiny`."""
    small = family in SMALL
    pipeline = small_pipeline() if small else tiny(family)
    side, steps = (8, 4) if small else (SIDE_PX, 3)
    return Bench(family, pipeline, PromptCache(pipeline), concept_of(BOX, family), side, steps)
