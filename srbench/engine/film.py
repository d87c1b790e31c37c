"""What a picture looks like at each step of its sampling: watched from beside, without a bit of it being changed.

A scheduler in front of the pipeline's own keeps the clean picture that each step predicts; afterwards these are decoded and
scaled down. Where a scheduler does not say what it predicts and it cannot be worked out, the latents themselves are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srbench.backbones.pipelines import unpack
from srbench.backbones.schedulers import InFront
from srbench.methods import denoising
from srbench.methods.base import Call, denoiser
from srbench.results.strips import MOST_FRAMES, SIDE_PX, Strip


class Film:
    """The steps of one pipeline call of B images."""

    def __init__(self) -> None:
        self.clean: list[Tensor] = []
        """The predicted clean latents of each step, (B, C, h, w), or packed."""
        self.last: Tensor | None = None
        """The latents after the last step, which the pipeline decodes."""
        self.acted: list[Tensor | None] = []
        """(B,) at each step: whether the denoiser read another text than the prompt's own; None where that cannot be said."""
        self.packed: tuple[int, int, int] | None = None

    def take(self, clean: Tensor, after: Tensor) -> None:
        """A step was made."""
        self.clean.append(clean.detach().clone())
        self.last = after
        self.acted += [None] * (len(self.clean) - len(self.acted))

    def look(self, prompt: Any, given: Tensor, call: Call) -> None:
        """What the denoiser reads, before a step. given: (B, T, D), the positive texts as the pipeline was given them."""
        if len(self.acted) > len(self.clean) or not isinstance(prompt, Tensor):
            return  # one of several calls of a step: the positive side is the first
        halves = 2 if call.doubled else 1
        if prompt.shape != (halves * call.images, *given.shape[1:]):
            self.acted.append(None)
            return
        self.acted.append((prompt[-call.images :] != given.to(prompt)).flatten(1).any(1).cpu())

    def strips(self, pipeline: Any, count: int) -> list[tuple[Strip, np.ndarray]]:
        """Of the first `count` images: what the strip shows, and its pixels, uint8 RGB (h, frames * w, 3)."""
        if self.last is None:
            return []
        steps = len(self.clean)
        shown = chosen(steps)
        latents = torch.stack([*(self.clean[step] for step in shown[:-1]), self.last])  # (F, B, C, h, w), or packed
        frames = tuple(step + 1 for step in shown)
        with _precise(pipeline.vae), torch.inference_mode():
            return [(Strip(frames, steps, self._acted(i)), self._pixels(pipeline, latents[:, i])) for i in range(count)]

    def _acted(self, image: int) -> tuple[int, ...]:
        """Numbers of the steps from 1."""
        return tuple(step for step, acted in enumerate(self.acted, 1) if acted is not None and bool(acted[image]))

    def _pixels(self, pipeline: Any, latents: Tensor) -> np.ndarray:
        """uint8 RGB (h, F * w, 3) of one image's latents (F, C, h, w), or packed."""
        decoded = denoising.pixels_of(pipeline, latents if self.packed is None else unpack(latents, self.packed))
        return np.concatenate([small(pixels) for pixels in decoded], axis=1)


def chosen(steps: int) -> list[int]:
    """The steps that a strip shows, from 0: all, or `MOST_FRAMES` evenly spread ones; the first and the last are among them."""
    if steps <= MOST_FRAMES:
        return list(range(steps))
    return [round(i * (steps - 1) / (MOST_FRAMES - 1)) for i in range(MOST_FRAMES)]


def small(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3), scaled down to at most `SIDE_PX` a side."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    return np.asarray(image)


class FilmedScheduler(InFront):
    """A scheduler whose steps are kept on a film."""

    def __init__(self, own: Any, film: Film) -> None:
        super().__init__(own)
        self._film = film

    def stepped(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the scheduler's."""
        asked = {"return_dict": True} if "return_dict" in kwargs else {}  # a tuple does not say what stands in it
        result = super().stepped(model_output, timestep, sample, *args, **{**kwargs, **asked})
        after = result[0] if isinstance(result, tuple) else result.prev_sample
        clean = self._clean(result, model_output, timestep, sample)
        self._film.take(after if clean is None else clean, after)
        return result if isinstance(result, tuple) or kwargs.get("return_dict", True) else result.to_tuple()

    def _clean(self, result: Any, output: Tensor, timestep: Any, sample: Tensor) -> Tensor | None:
        """The predicted clean latents, as the scheduler says; else worked out; None where that is not known."""
        said = getattr(result, "pred_original_sample", None)
        if isinstance(said, Tensor):
            return said
        shares = getattr(self._own, "alphas_cumprod", None)
        if shares is None:
            return self._of_flow(output, sample)
        kind = getattr(self._own.config, "prediction_type", "")
        if float(self._own.init_noise_sigma) != 1.0 or float(timestep) != int(timestep):
            return None
        share = shares[int(timestep)].to(sample)
        if kind == "epsilon":
            return (sample - (1 - share).sqrt() * output) / share.sqrt()
        return share.sqrt() * sample - (1 - share).sqrt() * output if kind == "v_prediction" else None

    def _of_flow(self, output: Tensor, sample: Tensor) -> Tensor | None:
        """x - sigma v, of flow matching; the step is over, so its sigma is the one before."""
        sigmas, place = getattr(self._own, "sigmas", None), getattr(self._own, "step_index", None)
        if not isinstance(sigmas, Tensor) or not isinstance(place, int) or place < 1:
            return None
        return sample - sigmas[place - 1].to(sample) * output


@contextmanager
def filmed(pipeline: Any, film: Film, call: Call) -> Iterator[None]:
    """The pipeline's steps within this context are kept on the film. What a method puts in front of the scheduler comes after."""
    own, film.packed = pipeline.scheduler, call.packed
    pipeline.scheduler = FilmedScheduler(own, film)
    try:
        yield
    finally:
        pipeline.scheduler = own


@contextmanager
def texts_watched(pipeline: Any, film: Film, given: Tensor, call: Call) -> Iterator[None]:
    """The texts that the denoiser reads within this context, behind all hooks of a method. given: as for `Film.look`."""

    def look(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        film.look(kwargs.get("encoder_hidden_states"), given, call)

    handle = denoiser(pipeline).register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _precise(vae: Any) -> Any:
    """A VAE that overflows in half precision is decoded in float32, as its pipeline does; float32 holds every half exactly."""
    if vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False):
        return _as_float32(vae)
    return nullcontext()


@contextmanager
def _as_float32(vae: Any) -> Iterator[None]:
    vae.to(torch.float32)
    try:
        yield
    finally:
        vae.to(torch.float16)
