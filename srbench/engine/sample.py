"""One pipeline call: a padded batch of prompts to pixels, with a method applied."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srbench.backbones.pipelines import Conditioning, kind_of
from srbench.engine.keys import ImageSpec
from srbench.errors import CellError
from srbench.methods.base import Artifact, Call, Method, Options, denoiser

ENCODE_BATCH = 16


AS_ASKED = {"use_resolution_binning": False, "negative_prompt": None}
"""Arguments of single pipelines (PixArt) that would draw another size than was asked for, or another text."""


@dataclass(frozen=True)
class Active:
    """A method ready to be applied."""

    method: type[Method]
    artifact: Artifact | None
    options: Options


class PromptCache:
    """What texts are for a pipeline, encoded once in one fixed padded shape so that no order changes a bit."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline, self.kind = pipeline, kind_of(pipeline)
        self._known: dict[tuple[str, int | None, bool], Conditioning] = {}

    def encode(self, texts: Sequence[str], clip_skip: int | None, negative: bool = False) -> Conditioning:
        """The conditioning of `texts`. negative: whether they stand on the negative side."""
        missing = sorted({t for t in texts if (t, clip_skip, negative) not in self._known})
        for start in range(0, len(missing), ENCODE_BATCH):
            part = missing[start : start + ENCODE_BATCH]
            padded = part + [part[-1]] * (ENCODE_BATCH - len(part))
            with torch.inference_mode():
                encoded = self.kind.encode(self.pipeline, padded, clip_skip, negative)
            for i, text in enumerate(part):
                self._known[text, clip_skip, negative] = encoded.row(i)
        return Conditioning.stack([self._known[t, clip_skip, negative] for t in texts])


def noise(generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
    """Initial noise (B, *shape) float32; one CPU generator an image, so nothing but its seed decides it."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators])


@contextmanager
def counted(denoiser: torch.nn.Module) -> Iterator[list[int]]:
    """Counts the denoiser's calls in a one-element list."""
    count = [0]

    def tick(module: torch.nn.Module, args: Any) -> None:
        count[0] += 1

    handle = denoiser.register_forward_pre_hook(tick)
    try:
        yield count
    finally:
        handle.remove()


def _extras(pipeline: Any, recipe: ImageSpec) -> dict[str, Any]:
    """Recipe values that only some pipelines take; a value that would be ignored is an error."""
    import inspect

    accepted = inspect.signature(pipeline.__call__).parameters
    asked = {"eta": recipe.eta, "guidance_rescale": recipe.guidance_rescale, "clip_skip": recipe.clip_skip}
    true_guidance = recipe.true_guidance if recipe.true_guidance > 1 else None
    lost = [name for name, value in {**asked, "true_cfg_scale": true_guidance}.items() if value and name not in accepted]
    if lost:
        raise CellError(f"{type(pipeline).__name__} takes no {', '.join(lost)}", "Leave it out of the recipe.")
    found = {**asked, "true_cfg_scale": recipe.true_guidance, **AS_ASKED}
    return {name: value for name, value in found.items() if name in accepted}


def sample(
    pipeline: Any, prompts: PromptCache, active: Active, batch: Sequence[ImageSpec]
) -> tuple[np.ndarray, list[dict[str, Any]], float]:
    """Pixels uint8 (B, H, W, 3), a trace per image, and the seconds of the call; encoding prompts, done once, is left out.

    All of `batch` share one recipe. Raises `CellError` where the method's hook ran less often than the denoiser.
    """
    recipe = batch[0]
    kind, scale = prompts.kind, pipeline.vae_scale_factor
    channels = pipeline.vae.config.latent_channels
    shape = (channels, recipe.height // scale, recipe.width // scale)
    positive = prompts.encode([s.prompt for s in batch], recipe.clip_skip)
    negative = prompts.encode([s.negative_prompt for s in batch], recipe.clip_skip, negative=True)
    began = time.perf_counter()
    generators = [torch.Generator("cpu").manual_seed(s.seed) for s in batch]
    latents = kind.latents(noise(generators, shape)).to(positive.embeds)  # (B, C, h, w), or packed
    guided = (recipe.guidance if kind.layout == "doubled" else recipe.true_guidance) > 1
    call = Call(
        len(batch), recipe.steps, guided, tuple(s.prompt for s in batch), kind.layout, shape if kind.packed else None,
        kind.timesteps,
    )
    with (
        torch.inference_mode(),
        counted(denoiser(pipeline)) as count,
        active.method.applied(pipeline, active.artifact, active.options, call) as applied,
    ):
        positive, negative = applied.conditioning(positive, negative)
        out = pipeline(
            **kind.arguments(positive, negative), latents=latents, num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance, height=recipe.height, width=recipe.width, output_type="np",
            generator=generators, **_extras(pipeline, recipe),
        ).images  # (B, H, W, 3) in [0, 1]
        traces = applied.trace() or [{} for _ in batch]
        if applied.hooked and applied.calls < count[0]:
            raise CellError(
                f"{recipe.method}: its hook ran {applied.calls} times in {count[0]} denoiser calls",
                "The method does not fit this pipeline.",
            )
    if not np.isfinite(out).all():
        raise CellError(f"{recipe.method}: the pipeline returned values that are not numbers", "Try --dtype fp32.")
    return (out * 255).round().astype(np.uint8), traces, time.perf_counter() - began
