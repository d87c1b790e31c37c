"""Shared by the methods that draw: prompts as a U-Net reads them (Stable Diffusion, SDXL), and walks between noise and image."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srbench.backbones.pipelines import Conditioning, kind_of
from srbench.errors import UsageError
from srbench.methods.finetune import unet_of

Visit = Callable[[int], None]
"""Called before each step of a walk with its number, from 0."""


def unseen(step: int) -> None:
    """A `Visit` that does nothing."""


@torch.no_grad()
def encoded(pipeline: Any, texts: Sequence[str], negative: bool = False) -> Conditioning:
    """Texts as the pipeline's own encoders make them, float32, a row each. negative: whether they are negative prompts."""
    return kind_of(pipeline).encode(pipeline, list(texts), None, negative).mapped(Tensor.float)


def chosen(prompts: Conditioning, rows: Any) -> Conditioning:
    """Some rows of prompts. rows: indices, a mask or a slice."""
    return prompts.mapped(lambda value: value[rows])


def expanded(prompts: Conditioning, count: int) -> Conditioning:
    """One prompt (1, ...) for `count` images."""
    return prompts.mapped(lambda value: value.expand(count, *value.shape[1:]))


def joined(*parts: Conditioning) -> Conditioning:
    """Prompts one after another; all of one kind of pipeline."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return Conditioning(torch.cat([part.embeds for part in parts]), torch.cat(pooled) if pooled else None)


def trainable(unet: Any) -> Any:
    """A copy of a U-Net in float32 and evaluation mode, in which nothing asks for gradients."""
    return copy.deepcopy(unet).float().eval().requires_grad_(False)


def frozen(pipeline: Any, method: str) -> Any:
    """The pipeline's own U-Net where it is float32, else a float32 copy. Raises `UsageError` where there is none."""
    unet = unet_of(pipeline, method)
    return unet if unet.dtype == torch.float32 else trainable(unet)


@dataclass(frozen=True)
class Denoising:
    """Draws with copies of the pipeline's scheduler, at the U-Net's own size; the pipeline's scheduler is never stepped.

    Raises `UsageError` where the U-Net reads what srbench does not know.
    """

    pipeline: Any
    steps: int = 50
    """Inference steps from noise to image."""
    guidance: float = 7.5

    def __post_init__(self) -> None:
        more = getattr(self.pipeline.unet.config, "addition_embed_type", None)
        if more not in (None, "text_time"):
            raise UsageError(f"this U-Net also reads {more}", "Give a Stable Diffusion 1, 2 or XL backbone.")

    @cached_property
    def empty(self) -> Conditioning:
        """The empty prompt as the pipeline's negative side, one row."""
        return encoded(self.pipeline, [""], negative=True)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the latents."""
        size = self.pipeline.unet.config.sample_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def predict(self, unet: Any, x: Tensor, t: Tensor, prompts: Conditioning) -> Tensor:
        """The U-Net's output (B, C, h, w) for x (B, C, h, w), t (B,) or of one value, and a prompt for each."""
        if prompts.pooled is None:
            return unet(x, t, encoder_hidden_states=prompts.embeds).sample
        height, width = (side * self.pipeline.vae_scale_factor for side in self.size)
        ids = torch.tensor([[height, width, 0, 0, height, width]], device=x.device, dtype=x.dtype).expand(len(x), -1)  # (B, 6)
        more = {"text_embeds": prompts.pooled, "time_ids": ids}
        return unet(x, t, encoder_hidden_states=prompts.embeds, added_cond_kwargs=more).sample

    def schedule(self) -> Any:
        """A copy of the pipeline's scheduler, set to the steps."""
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(self.steps, device=self.pipeline.unet.device)
        return scheduler

    def noise(self, count: int, rng: torch.Generator) -> Tensor:
        """(B, C, h, w) float32 on the U-Net's device."""
        unet = self.pipeline.unet
        return torch.randn((count, unet.config.in_channels, *self.size), generator=rng).to(unet.device)

    @torch.no_grad()
    def walk(
        self, unet: Any, prompts: Conditioning, rng: torch.Generator, *, stop: int | None = None, start: int = 0,
        x: Tensor | None = None, negatives: Conditioning | None = None, visit: Visit = unseen,
    ) -> Tensor:
        """x after the guided steps `start` to `stop`; all of them by default, from noise.

        x: (B, C, h, w) at step `start`. negatives: in place of the empty prompt, a row for each.
        """
        scheduler, count = self.schedule(), len(prompts.embeds)
        x = self.noise(count, rng) * scheduler.init_noise_sigma if x is None else x
        both = joined(expanded(self.empty, count) if negatives is None else negatives, prompts)  # (2B, ...)
        options = _options(scheduler, rng)
        for step, t in enumerate(scheduler.timesteps[start:stop], start):
            visit(step)
            doubled = scheduler.scale_model_input(torch.cat([x, x]), t)
            negative, wanted = self.predict(unet, doubled, t, both).chunk(2)
            x = scheduler.step(negative + self.guidance * (wanted - negative), t, x, **options).prev_sample
        return x

    def noisy(self, unet: Any, prompts: Conditioning, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """x_t at one random step for the whole batch, as the U-Net reads it, and t."""
        scheduler = self.schedule()
        step = int(torch.randint(len(scheduler.timesteps), (), generator=rng))
        t = scheduler.timesteps[step]
        return scheduler.scale_model_input(self.walk(unet, prompts, rng, stop=step), t), t

    def redrawn(
        self, unet: Any, clean: Tensor, prompts: Conditioning, negatives: Conditioning, strength: float, rng: torch.Generator
    ) -> Tensor:
        """Image to image: latents (B, C, h, w) noised to a share of the steps, and that share run again under new prompts.

        strength: the share; at 1 nothing of the image is left, at 0 all of it.
        """
        scheduler = self.schedule()
        start = self.steps - min(round(self.steps * strength), self.steps)
        if start == len(scheduler.timesteps):
            return clean
        noise = self.noise(len(clean), rng)
        t = scheduler.timesteps[start : start + 1]
        x = scheduler.add_noise(clean, noise, t.expand(len(clean))) if start else noise * scheduler.init_noise_sigma
        return self.walk(unet, prompts, rng, x=x, start=start, negatives=negatives)

    def at(self, steps: int | None = None, guidance: float | None = None) -> Denoising:
        """The same with other steps or guidance."""
        return replace(self, steps=steps or self.steps, guidance=self.guidance if guidance is None else guidance)


def _options(scheduler: Any, rng: torch.Generator) -> dict[str, Any]:
    """Stochastic schedulers draw noise of their own; without this they draw it from the global generator."""
    return {"generator": rng} if "generator" in inspect.signature(scheduler.step).parameters else {}


def added_noise(scheduler: Any, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise under the backbone's training schedule, whatever solver it samples with.

    clean and noise (B, C, h, w), t (B,) from 0 to 999.
    """
    share = scheduler.alphas_cumprod.to(clean.device)[t].view(-1, 1, 1, 1)  # (B, 1, 1, 1)
    return share.sqrt() * clean + (1 - share).sqrt() * noise


def wanted(scheduler: Any, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the U-Net is trained to predict for x_t: the noise, or the velocity. Raises `UsageError` for another kind."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        share = scheduler.alphas_cumprod.to(clean.device)[t].view(-1, 1, 1, 1)
        return share.sqrt() * noise - (1 - share).sqrt() * clean
    raise UsageError(f"no training knows predictions of the kind '{kind}'", "It knows epsilon and v_prediction.")


@torch.no_grad()
def pixels_of(pipeline: Any, latents: Tensor) -> np.ndarray:
    """uint8 RGB (N, H, W, 3) of scaled latents (N, C, h, w), image by image, as the pipeline decodes them."""
    vae, images = pipeline.vae, []
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    for one in latents.to(vae.device, vae.dtype):
        decoded = vae.decode(one[None] / vae.config.scaling_factor + shift).sample.float()  # (1, 3, H, W)
        images.append((decoded[0].clamp(-1, 1) / 2 + 0.5).mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())
    return np.stack(images)
