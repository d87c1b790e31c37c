"""How the families of pipelines differ: text encoding, layout of the latents, layout of guidance.

One `Kind` a family; the rest of srbench knows no pipeline class. Facts from diffusers 0.42.1, `pipelines/*/pipeline_*.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from srbench.errors import UsageError

Layout = Literal["doubled", "in turn"]
"""How a guided step calls the denoiser: once with [negative; positive], or first for the positive, then for the negative half."""


@dataclass(frozen=True)
class Conditioning:
    """The text embeddings of a batch, as a pipeline takes them."""

    embeds: Tensor  # (B, T, D), what the denoiser attends to
    pooled: Tensor | None = None  # (B, P), SDXL, SD3, FLUX
    mask: Tensor | None = None  # (B, T), PixArt: which tokens are there

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        """`change` applied to every tensor."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return Conditioning(**{name: change(getattr(self, name)) for name in names})

    def row(self, index: int) -> Conditioning:
        """One text, without the batch."""
        return self.mapped(lambda value: value[index].clone())

    @staticmethod
    def stack(rows: Sequence[Conditioning]) -> Conditioning:
        """A batch of texts."""
        first = rows[0]
        names = [field.name for field in fields(first) if getattr(first, field.name) is not None]
        return Conditioning(**{name: torch.stack([getattr(row, name) for row in rows]) for name in names})


Encode = Callable[[Any, list[str], int | None, bool], Conditioning]
"""(pipeline, texts, clip skip, whether they are negative prompts) -> their conditioning."""


@dataclass(frozen=True)
class Kind:
    """One family of pipelines."""

    name: str
    encode: Encode
    layout: Layout = "doubled"
    packed: bool = False
    """Latents are passed as (B, h/2 * w/2, 4 C): 2 x 2 cells are one token."""
    timesteps: float = 1.0
    """What the denoiser's timesteps are multiplied with to run from 0 to 1000, as the others' do."""

    def arguments(self, positive: Conditioning, negative: Conditioning) -> dict[str, Any]:
        """The conditioning as the pipeline's keyword arguments."""
        names = {"embeds": "prompt_embeds", "pooled": "pooled_prompt_embeds", "mask": "prompt_attention_mask"}
        keywords = {name: getattr(positive, field) for field, name in names.items()}
        keywords |= {f"negative_{name}": getattr(negative, field) for field, name in names.items()}
        return {name: value for name, value in keywords.items() if value is not None}

    def latents(self, noise: Tensor) -> Tensor:
        """Noise (B, C, h, w) as the pipeline takes it."""
        return pack(noise) if self.packed else noise


def pack(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h/2 * w/2, 4 C), as FLUX's `_pack_latents` has it."""
    batch, channels, height, width = x.shape
    cells = x.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(batch, height * width // 4, channels * 4)


def unpack(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The inverse of `pack`; shape: (C, h, w)."""
    channels, height, width = shape
    cells = x.view(len(x), height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(len(x), channels, height, width)


def prompt_width(pipeline: Any) -> int | None:
    """D, the width of the prompt embedding that the denoiser is given; None where its configuration does not say."""
    unet = getattr(pipeline, "unet", None)
    denoiser = pipeline.transformer if unet is None else unet
    for name in ("joint_attention_dim", "caption_channels", "cross_attention_dim"):  # PixArt has the last two
        width = getattr(denoiser.config, name, None)
        if isinstance(width, int):
            return width
    return None


# --- encoding -----------------------------------------------------------------------------------------------------------------


def _sd(pipeline: Any, texts: list[str], clip_skip: int | None, negative: bool) -> Conditioning:
    embeds, _ = pipeline.encode_prompt(texts, pipeline.device, 1, False, clip_skip=clip_skip)
    return Conditioning(embeds)


def _sdxl(pipeline: Any, texts: list[str], clip_skip: int | None, negative: bool) -> Conditioning:
    embeds, _, pooled, _ = pipeline.encode_prompt(
        texts, device=pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=False, clip_skip=clip_skip
    )
    if negative and pipeline.config.force_zeros_for_empty_prompt:
        # The pipeline's own empty negative prompt is no text at all.
        not_empty = torch.tensor([bool(text) for text in texts], device=embeds.device)
        return Conditioning(embeds * not_empty[:, None, None].to(embeds), pooled * not_empty[:, None].to(pooled))
    return Conditioning(embeds, pooled)


def _sd3(pipeline: Any, texts: list[str], clip_skip: int | None, negative: bool) -> Conditioning:
    embeds, _, pooled, _ = pipeline.encode_prompt(
        texts, None, None, device=pipeline.device, do_classifier_free_guidance=False, clip_skip=clip_skip
    )
    return Conditioning(embeds, pooled)


def _flux(pipeline: Any, texts: list[str], clip_skip: int | None, negative: bool) -> Conditioning:
    embeds, pooled, _ = pipeline.encode_prompt(texts, None, device=pipeline.device, max_sequence_length=_longest(pipeline))
    return Conditioning(embeds, pooled)


def _pixart(pipeline: Any, texts: list[str], clip_skip: int | None, negative: bool) -> Conditioning:
    embeds, mask, _, _ = pipeline.encode_prompt(
        texts, do_classifier_free_guidance=False, device=pipeline.device, max_sequence_length=_longest(pipeline)
    )
    return Conditioning(embeds, mask=mask)


def _longest(pipeline: Any) -> int:
    """How many tokens the pipeline reads by default, and no more than its tokenizer says."""
    default = inspect.signature(pipeline.__call__).parameters["max_sequence_length"].default
    tokenizer = getattr(pipeline, "tokenizer_2", None) or pipeline.tokenizer
    return min(int(default), int(tokenizer.model_max_length))


SD = Kind("sd", _sd)
KINDS = {
    "StableDiffusionPipeline": SD,
    "StableDiffusionXLPipeline": Kind("sdxl", _sdxl),
    "StableDiffusion3Pipeline": Kind("sd3", _sd3),
    "FluxPipeline": Kind("flux", _flux, layout="in turn", packed=True, timesteps=1000.0),
    "PixArtAlphaPipeline": Kind("pixart", _pixart),
    "PixArtSigmaPipeline": Kind("pixart", _pixart),
}
"""Class of a pipeline -> its family."""


def kind_of(pipeline: Any) -> Kind:
    """The family of a pipeline, by its class or one above it. Raises `UsageError` where srbench knows none."""
    for cls in type(pipeline).__mro__:
        if cls.__name__ in KINDS:
            return KINDS[cls.__name__]
    raise UsageError(f"srbench does not know how to sample with {type(pipeline).__name__}", f"It knows: {', '.join(KINDS)}.")
