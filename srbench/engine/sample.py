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

from srbench.engine.keys import ImageSpec
from srbench.errors import CellError
from srbench.methods.base import Artifact, Call, Method, Options, denoiser

ENCODE_BATCH = 16


@dataclass(frozen=True)
class Active:
    """A method ready to be applied."""

    method: type[Method]
    artifact: Artifact | None
    options: Options


class PromptCache:
    """Prompt embeddings by text, encoded once in one fixed padded shape so that no order changes a bit."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self._known: dict[tuple[str, int | None], Tensor] = {}

    def encode(self, texts: Sequence[str], clip_skip: int | None) -> Tensor:
        """Embeddings (B, tokens, width) of `texts`."""
        missing = sorted({t for t in texts if (t, clip_skip) not in self._known})
        for start in range(0, len(missing), ENCODE_BATCH):
            part = missing[start : start + ENCODE_BATCH]
            padded = part + [part[-1]] * (ENCODE_BATCH - len(part))
            with torch.inference_mode():
                embedded, _ = self.pipeline.encode_prompt(
                    padded, self.pipeline.device, 1, False, clip_skip=clip_skip
                )  # (16, tokens, width)
            for text, row in zip(part, embedded, strict=False):
                self._known[text, clip_skip] = row.clone()
        return torch.stack([self._known[t, clip_skip] for t in texts])


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
    lost = [name for name, value in asked.items() if value and name not in accepted]
    if lost:
        raise CellError(f"{type(pipeline).__name__} takes no {', '.join(lost)}", "Leave it out of the recipe.")
    return {name: value for name, value in asked.items() if name in accepted}


def sample(
    pipeline: Any, prompts: PromptCache, active: Active, batch: Sequence[ImageSpec]
) -> tuple[np.ndarray, list[dict[str, Any]], float]:
    """Pixels uint8 (B, H, W, 3), a trace per image, and the seconds of the call; encoding prompts, done once, is left out.

    All of `batch` share one recipe. Raises `CellError` where the method's hook ran less often than the denoiser.
    """
    recipe = batch[0]
    scale = pipeline.vae_scale_factor
    channels = pipeline.vae.config.latent_channels
    shape = (channels, recipe.height // scale, recipe.width // scale)
    positive = prompts.encode([s.prompt for s in batch], recipe.clip_skip)  # (B, tokens, width)
    negative = prompts.encode([s.negative_prompt for s in batch], recipe.clip_skip)
    began = time.perf_counter()
    generators = [torch.Generator("cpu").manual_seed(s.seed) for s in batch]
    latents = noise(generators, shape).to(positive.device, positive.dtype)  # (B, C, h, w)
    call = Call(len(batch), recipe.steps, recipe.guidance > 1, tuple(s.prompt for s in batch))
    with (
        torch.inference_mode(),
        counted(denoiser(pipeline)) as count,
        active.method.applied(pipeline, active.artifact, active.options, call) as applied,
    ):
        positive, negative = applied.prompts(positive, negative)
        out = pipeline(
            prompt_embeds=positive, negative_prompt_embeds=negative, latents=latents, num_inference_steps=recipe.steps,
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
