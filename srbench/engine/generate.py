"""Samples missing images in padded batches of one recipe, halving the batch where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from srbench.backbones.loader import Backbone
from srbench.engine.keys import ImageSpec
from srbench.engine.plan import Planned
from srbench.engine.sample import PromptCache, sample
from srbench.errors import CellError, SrbenchError

PER_IMAGE = ("prompt", "negative_prompt", "seed")
"""Fields in which images of one batch may differ."""


@dataclass(frozen=True)
class Made:
    """One sampled image: uint8 RGB pixels (H, W, 3) and its ledger fields."""

    planned: Planned
    pixels: np.ndarray
    record: dict[str, Any]


def groups(images: Sequence[Planned]) -> list[list[Planned]]:
    """Images by method and recipe, in first-seen order; each key once."""
    grouped: dict[tuple[Any, ...], dict[str, Planned]] = {}
    for image in images:
        recipe = tuple(v for k, v in asdict(image.spec).items() if k not in PER_IMAGE)
        grouped.setdefault(recipe, {}).setdefault(image.key, image)
    return [list(group.values()) for group in grouped.values()]


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory; on the CPU it raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _record(spec: ImageSpec, trace: dict[str, Any], seconds: float, batch_size: int) -> dict[str, Any]:
    return {
        "method": spec.method, "prompt": spec.prompt, "seed": spec.seed, "seconds": round(seconds / batch_size, 6),
        "batch_size": batch_size, "trace": trace, "dtype": spec.dtype,
    }


def _call(backbone: Backbone, prompts: PromptCache, batch: list[Planned], size: int) -> list[Made]:
    """One padded pipeline call; the padding repeats the last image and is thrown away."""
    specs = [p.spec for p in batch]
    padded = specs + [specs[-1]] * (size - len(specs))
    pixels, traces, seconds = sample(backbone.pipeline, prompts, batch[0].method.active, padded)
    return [
        Made(planned, image, _record(planned.spec, trace, seconds, size))
        for planned, image, trace in zip(batch, pixels, traces, strict=False)
    ]


def generate(
    backbone: Backbone, images: Sequence[Planned], batch_size: int, failed: Callable[[Sequence[Planned], SrbenchError], None],
    warn: Callable[[str], None],
) -> Iterator[list[Made]]:
    """Sample `images` batch by batch, one recipe after another.

    Where a recipe cannot be sampled, `failed` gets its images and the reason, and the next recipe goes on.
    """
    prompts = PromptCache(backbone.pipeline)
    size = batch_size
    for group in groups(images):
        start = 0
        while start < len(group):
            batch = group[start : start + size]
            try:
                made = _call(backbone, prompts, batch, size)
            except SrbenchError as error:
                failed(group[start:], error)
                break
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if size == 1:
                    failed(group[start:], CellError("out of memory at batch size 1", "Use a smaller backbone, or --dtype bf16."))
                    break
                size //= 2
                warn(f"out of memory: going on with batch size {size}")
                continue
            yield made
            start += len(batch)
