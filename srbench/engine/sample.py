"""One pipeline call: a padded batch of prompts to pixels, with a method applied."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srbench.backbones.pipelines import Conditioning, kind_of
from srbench.catalog.contracts import GUIDE
from srbench.engine.film import Film, filmed, texts_watched
from srbench.engine.memory import largest_px
from srbench.engine.starts import Begun, beginning
from srbench.errors import CellError
from srbench.faults import at
from srbench.hashing import canonical
from srbench.methods.base import Active, Applied, Call, denoiser
from srbench.results import records
from srbench.results.keys import ImageSpec

ENCODE_BATCH = 16
MOST_PX = 2**24
"""Pixels of the largest image on any machine."""

AS_ASKED = {"use_resolution_binning": False, "negative_prompt": None}
"""Arguments of single pipelines (PixArt) whose defaults would change the size or the text."""


class UnfitError(CellError):
    """None of the images of a recipe can be made."""


class PromptCache:
    """A pipeline's text embeddings, encoded once in batches of one fixed size, so that the order of texts changes no bit."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline, self.kind = pipeline, kind_of(pipeline)
        self._encoded: dict[tuple[str, int | None, bool], Conditioning] = {}

    def encode(self, texts: Sequence[str], clip_skip: int | None, negative: bool = False) -> Conditioning:
        """The conditioning of `texts`. negative: whether they are negative prompts."""
        missing = sorted({t for t in texts if (t, clip_skip, negative) not in self._encoded})
        for start in range(0, len(missing), ENCODE_BATCH):
            part = missing[start : start + ENCODE_BATCH]
            padded = part + [part[-1]] * (ENCODE_BATCH - len(part))
            with torch.inference_mode():
                encoded = self.kind.encode(self.pipeline, padded, clip_skip, negative)
            for i, text in enumerate(part):
                self._encoded[text, clip_skip, negative] = encoded.row(i)
        return Conditioning.stack([self._encoded[t, clip_skip, negative] for t in texts])


def noise(generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
    """Initial noise (B, *shape) float32; one CPU generator per image, so that it depends on the seed alone."""
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
    """Arguments that only some pipelines take. Raises `UnfitError` for a recipe's value that would be ignored."""
    import inspect

    accepted = inspect.signature(pipeline.__call__).parameters
    of_recipe = {"eta": recipe.eta, "guidance_rescale": recipe.guidance_rescale, "clip_skip": recipe.clip_skip}
    true_guidance = recipe.true_guidance if recipe.true_guidance > 1 else None
    lost = [name for name, value in {**of_recipe, "true_cfg_scale": true_guidance}.items() if value and name not in accepted]
    if lost:
        raise UnfitError(f"{type(pipeline).__name__} takes no {', '.join(lost)}", "Leave it out of the recipe.")
    arguments = {**of_recipe, "true_cfg_scale": recipe.true_guidance, **AS_ASKED}
    return {name: value for name, value in arguments.items() if name in accepted}


def side_step(pipeline: Any) -> int:
    """Pixels that width and height must be multiples of: from the VAE's scale, the denoiser's patches, and diffusers' own 8."""
    patch = 2 if kind_of(pipeline).packed else getattr(denoiser(pipeline).config, "patch_size", None)
    return math.lcm(8, int(pipeline.vae_scale_factor) * (patch if isinstance(patch, int) and patch > 0 else 1))


def refused_size(pipeline: Any, width: int, height: int, dtype: str) -> CellError | None:
    """Why the pipeline cannot draw images of that size, in pixels, or None."""
    step = side_step(pipeline)
    if width % step or height % step:
        fit = " x ".join(str(max(step, round(side / step) * step)) for side in (width, height))
        return CellError(f"{width} x {height}: both sides have to be multiples of {step}; {fit} would do", "")
    most = min(MOST_PX, largest_px(pipeline.device, dtype) or MOST_PX)
    if width * height > most:
        return CellError(f"{width} x {height}: more than the {most / 1e6:.1f} million pixels that fit into memory", "")
    return None


def sample(
    pipeline: Any, prompts: PromptCache, active: Active, batch: Sequence[ImageSpec], begun: Sequence[Begun] = (),
    film: Film | None = None,
) -> tuple[np.ndarray, list[dict[str, Any]], float]:
    """Pixels uint8 (B, H, W, 3), a trace per image, and the seconds of the call without encoding of prompts.

    All of `batch` share one recipe. begun: where each begins, if not in noise. film: gets the steps; no pixel depends on it.

    Raises `CellError` where the method or the pipeline breaks its contract, `UnfitError` where the method's hook ran less often
    than the denoiser; and whatever foreign code raises.
    """
    recipe = batch[0]
    kind, scale = prompts.kind, pipeline.vae_scale_factor
    channels = pipeline.vae.config.latent_channels
    shape = (channels, recipe.height // scale, recipe.width // scale)
    positive = prompts.encode([s.prompt for s in batch], recipe.clip_skip)
    negative = prompts.encode([s.negative_prompt for s in batch], recipe.clip_skip, negative=True)
    began = time.perf_counter()
    generators = [torch.Generator("cpu").manual_seed(s.seed) for s in batch]
    latents = kind.latents(noise(generators, shape))  # (B, C, h, w), or packed; drawn also where it is not begun from
    latents = (torch.stack([each.latents for each in begun]) if begun else latents).to(positive.embeds)
    guided = (recipe.guidance if kind.layout == "doubled" else recipe.true_guidance) > 1
    run = recipe.steps - (begun[0].first if begun else 0)
    call = Call(
        len(batch), run, guided, tuple(s.prompt for s in batch), kind.layout, shape if kind.packed else None, kind.timesteps,
        tuple(s.negative_prompt for s in batch), recipe.clip_skip,
    )
    with (
        torch.inference_mode(),
        counted(denoiser(pipeline)) as count,
        beginning(pipeline, begun, generators) if begun else nullcontext(),
        filmed(pipeline, film, call) if film is not None else nullcontext(),
        _applied(recipe.method, pipeline, active, call) as applied,
    ):
        _check_applied(recipe.method, active, applied)
        ours, theirs = _conditioned(recipe.method, applied, positive, negative)
        with texts_watched(pipeline, film, ours.embeds, call) if film is not None else nullcontext():
            out = pipeline(
                **kind.arguments(ours, theirs), latents=latents, num_inference_steps=recipe.steps,
                guidance_scale=recipe.guidance, height=recipe.height, width=recipe.width, output_type="np",
                generator=generators, **_extras(pipeline, recipe),
            ).images  # (B, H, W, 3) in [0, 1]
        traces = _traces(f"{recipe.method}: its trace{at(type(applied).trace)}", applied.trace(), len(batch))
        if applied.hooked and applied.calls < count[0]:
            raise UnfitError(
                f"{recipe.method}: its hook ran {applied.calls} times in {count[0]} denoiser calls",
                "The method does not fit this pipeline.",
            )
    return _pixels(recipe, out, len(batch)), traces, time.perf_counter() - began


def _applied(method: str, pipeline: Any, active: Active, call: Call) -> AbstractContextManager[Any]:
    """The method's context for a call. Raises `CellError` where it is none."""
    function = active.method.applied
    context: Any = function(pipeline, active.artifact, active.options, call)
    if not isinstance(context, AbstractContextManager):
        problem = f"{method}: `applied` returned {type(context).__name__}, not a context manager{at(function)}"
        raise CellError(problem, "Put `@contextmanager` above it, below `@staticmethod`.")
    if not hasattr(getattr(context, "gen", iter(())), "__next__"):  # `gen` is what `@contextmanager` calls next() of
        raise CellError(f"{method}: `applied` returns what it has to yield{at(function)}", "Write `yield` in place of `return`.")
    return context


def _check_applied(method: str, active: Active, applied: Any) -> None:
    if not isinstance(applied, Applied):
        problem = f"{method}: `applied` yielded {type(applied).__name__}, not a base.Applied{at(active.method.applied)}"
        raise CellError(problem, "Yield an object of a class that derives from base.Applied.")


def _conditioned(
    method: str, applied: Applied, positive: Conditioning, negative: Conditioning
) -> tuple[Conditioning, Conditioning]:
    """Both sides as the method wants them. Raises `CellError` for another shape, or values not finite: pipelines may accept them.

    The number of tokens may be another one, if it is the same on both sides.
    """
    where = at(type(applied))
    returned: Any = applied.conditioning(positive, negative)
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        problem = f"{method}: `conditioning` returned {type(returned).__name__}, not a pair{where}"
        raise CellError(problem, "Return both sides: `return positive, negative`.")
    for before, after in zip((positive, negative), returned, strict=True):
        if not isinstance(after, Conditioning) or not isinstance(after.embeds, Tensor):
            kind = type(getattr(after, "embeds", after)).__name__
            raise CellError(f"{method}: it returned {kind} in place of prompt embeddings{where}", GUIDE)
        given, got = before.embeds.shape, after.embeds.shape
        if len(given) != len(got) or (given[0], *given[2:]) != (got[0], *got[2:]):
            problem = f"{method}: it returned prompt embeddings of shape {tuple(got)} for {tuple(given)}{where}"
            raise CellError(problem, "Keep (images, tokens, width).")
        if not torch.isfinite(after.embeds).all():
            raise CellError(f"{method}: it returned prompt embeddings that are not numbers{where}", GUIDE)
    ours, theirs = returned
    if positive.embeds.shape == negative.embeds.shape and ours.embeds.shape != theirs.embeds.shape:
        shapes = f"{tuple(ours.embeds.shape)} and {tuple(theirs.embeds.shape)}"
        raise CellError(f"{method}: it returned prompt embeddings of two shapes, {shapes}{where}", "Change both sides alike.")
    return ours, theirs


def _traces(what: str, returned: Any, count: int) -> list[dict[str, Any]]:
    """A trace for each image. Raises `CellError` for another number of traces, or values that JSON cannot hold.

    what: whose trace it is, for messages.
    """
    if not returned:
        return [{} for _ in range(count)]
    if not isinstance(returned, list | tuple) or len(returned) != count:
        number = len(returned) if isinstance(returned, list | tuple) else type(returned).__name__
        raise CellError(f"{what} is {number} for {count} images", GUIDE)
    try:
        traces = [records.storable(trace) for trace in returned]
    except (ValueError, RecursionError) as error:
        raise CellError(f"{what} cannot be stored: {error}", GUIDE) from error
    if not all(isinstance(trace, dict) for trace in traces):
        raise CellError(f"{what} is not a dict for each image", GUIDE)
    canonical(traces)
    return traces


def _pixels(recipe: ImageSpec, out: Any, count: int) -> np.ndarray:
    """A pipeline's output as uint8 (B, H, W, 3). Raises `CellError` for another shape or range, or values not finite."""
    shape = (count, recipe.height, recipe.width, 3)
    if not isinstance(out, np.ndarray) or out.shape != shape or not np.issubdtype(out.dtype, np.floating):
        got = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise CellError(f"{recipe.method}: the pipeline returned {got} in place of pictures of shape {shape}", "")
    if not np.isfinite(out).all():
        raise CellError(f"{recipe.method}: the pipeline returned values that are not numbers", "Try --dtype fp32.")
    if out.min() < 0 or out.max() > 1:
        raise CellError(f"{recipe.method}: the pipeline returned values from {out.min():.3g} to {out.max():.3g}, not 0 to 1", "")
    return (out * 255).round().astype(np.uint8)
