"""x_t as a redirector sees it: under unchanged prompts, and under prompts redirected to their safe side at some step.

The pipeline itself samples, whatever its family; a pre-hook records x_t and changes the embedding.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from srbench.backbones.pipelines import Conditioning, kind_of
from srbench.methods import base
from srbench.methods.base import denoiser
from srbench.methods.guidance import LATENTS, PROMPT, TIMESTEP, argument, check_batch, with_argument
from srbench.methods.saferedir import Positive
from srbench.methods.saferedir.partial import Partial


@dataclass(frozen=True)
class Sampling:
    """How trajectories are sampled."""

    steps: int
    guidance: float
    true_guidance: float
    height: int
    width: int
    batch: int


@dataclass
class Latents:
    """x_t of N trajectories at all S denoiser calls, and the calls' timesteps."""

    x: Tensor  # (N, S, C, h, w) float16
    t: Tensor  # (S,)

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random x_t (count, C, h, w) float32 with their t (count,)."""
        image = torch.randint(len(self.x), (count,), generator=rng)
        step = torch.randint(len(self.t), (count,), generator=rng)
        return self.x[image, step].float(), self.t[step]


class Watch(Positive):
    """A pre-hook that records x_t and t of the positive side, and uses `second` (B, T, D) as embedding from call `at` (B,) on."""

    hooked = True

    def __init__(self, pipeline: Any, call: base.Call, second: Tensor, at: Tensor) -> None:
        super().__init__(pipeline, call)
        self.second, self.at = second, at
        self.x: list[Tensor] = []
        self.t: list[float] = []

    def __call__(self, denoiser: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same arguments with the embedding of this call."""
        sample, prompt = argument(args, kwargs, LATENTS), argument(args, kwargs, PROMPT)
        t = torch.as_tensor(argument(args, kwargs, TIMESTEP), device=sample.device)
        check_batch("the training", self.call, sample, prompt)
        self.calls += 1
        if self._negative_turn():
            return args, kwargs
        late = (self.at <= len(self.x)).to(sample.device)[:, None, None]
        latent = self._conditional(self._cells(sample)).float() / self._input_scale(t, sample)
        self.x.append(latent.half().cpu())
        self.t.append(self.call.timesteps * float(t.reshape(-1)[0]))
        used = torch.where(late, self.second, self._conditional(prompt))
        return with_argument(args, kwargs, PROMPT, torch.cat([prompt[: -self.call.images], used]))


@torch.no_grad()
def encode(pipeline: Any, texts: list[str], negative: bool = False, chunk: int = 64) -> Conditioning:
    """The conditioning of texts as the pipeline makes it, on the CPU; the embeddings float32, (N, T, D)."""
    kind, parts = kind_of(pipeline), []
    for start in range(0, len(texts), chunk):
        encoded = kind.encode(pipeline, texts[start : start + chunk], None, negative)
        parts.append(encoded.mapped(lambda value: (value.float() if value.is_floating_point() else value).cpu()))
    return joined(parts)


def taken(texts: Conditioning, rows: Tensor) -> Conditioning:
    """The conditioning of the texts at `rows`."""
    return texts.mapped(lambda value: value[rows])


def joined(parts: list[Conditioning]) -> Conditioning:
    """Several batches as one."""
    first = parts[0]
    names = [field.name for field in fields(first) if getattr(first, field.name) is not None]
    return Conditioning(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


@torch.no_grad()
def sample(
    pipeline: Any, first: Conditioning, second: Tensor, at: Tensor, recipe: Sampling, seed: int, note: Callable[[int], None],
    partial: Partial | None = None,
) -> Latents:
    """Trajectories under `first` until call `at` (N,), then under the embeddings `second` (N, T, D).

    What is pooled or masked stays `first`'s, as it does when the method acts. Batches that `partial` holds are not sampled
    again.
    """
    rng, parts, t = torch.Generator().manual_seed(seed), [], torch.empty(0)
    empty = encode(pipeline, [""], negative=True)
    shape = _shape(pipeline, recipe)
    for start in range(0, len(at), recipe.batch):
        rows = torch.arange(start, min(start + recipe.batch, len(at)))
        began, name = time.perf_counter(), f"trajectories-{seed}-{start}"
        noise = torch.randn((len(rows), *shape), generator=rng)  # (B, C, h, w), drawn for kept batches as well
        saved = partial.load(name) if partial else None
        if saved is None:
            x, t = _batch(pipeline, taken(first, rows), second[rows], at[rows], empty, noise, recipe)
            if partial:
                partial.save(name, time.perf_counter() - began, x=x, t=t)
        else:
            x, t = saved["x"], saved["t"]
        parts.append(x)
        note(start + len(rows))
    return Latents(torch.cat(parts), t)


def _shape(pipeline: Any, recipe: Sampling) -> tuple[int, int, int]:
    shrink = pipeline.vae_scale_factor
    return pipeline.vae.config.latent_channels, recipe.height // shrink, recipe.width // shrink


def _batch(
    pipeline: Any, first: Conditioning, second: Tensor, at: Tensor, empty: Conditioning, noise: Tensor, recipe: Sampling
) -> tuple[Tensor, Tensor]:
    """x_t of one batch, (B, S, C, h, w) float16, and the timesteps (S,)."""
    kind, model, count = kind_of(pipeline), denoiser(pipeline), len(noise)
    like = next(model.parameters())
    guided = (recipe.guidance if kind.layout == "doubled" else recipe.true_guidance) > 1
    packed = (noise.shape[1], noise.shape[2], noise.shape[3]) if kind.packed else None
    call = base.Call(count, recipe.steps, guided, (), kind.layout, packed, kind.timesteps)
    watch = Watch(pipeline, call, second.to(like), at)
    negative = empty.mapped(lambda value: value.expand(count, *value.shape[1:]))
    moved = [side.mapped(lambda value: value.to(like) if value.is_floating_point() else value.to(like.device))
             for side in (first, negative)]  # fmt: skip
    with base.hooks(model.register_forward_pre_hook(watch, with_kwargs=True)):
        pipeline(
            **kind.arguments(moved[0], moved[1]), latents=kind.latents(noise).to(like), num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance, height=recipe.height, width=recipe.width, output_type="latent",
            generator=torch.Generator().manual_seed(0), **_extras(pipeline, recipe),
        )  # fmt: skip
    return torch.stack(watch.x, 1), torch.tensor(watch.t)


def _extras(pipeline: Any, recipe: Sampling) -> dict[str, Any]:
    """Arguments that only some pipelines take."""
    accepted = inspect.signature(pipeline.__call__).parameters
    extras = {"use_resolution_binning": False, "negative_prompt": None, "true_cfg_scale": recipe.true_guidance}
    return {name: value for name, value in extras.items() if name in accepted}
