"""Samples missing images in padded batches of one recipe, methods in turn, halving the batch where memory runs out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch

from srbench.backbones.checkpoint import Checkpoint, laid_over
from srbench.backbones.loader import Backbone
from srbench.engine.keys import ImageSpec, digest
from srbench.engine.memory import peak
from srbench.engine.plan import Planned
from srbench.engine.sample import PromptCache, sample
from srbench.errors import CellError, SrbenchError

PER_IMAGE = ("prompt", "negative_prompt", "seed")
"""Fields in which images of one batch may differ."""
OF_METHOD = ("method", "method_version", "options", "artifact_sha", "concept_sha")
"""Fields that say what a method does, not what the sampler does."""


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


def recipe_of(spec: ImageSpec) -> str:
    """Digest of the sampler's part of a spec: images with equal ones differ in time by what their methods cost."""
    return digest({k: v for k, v in asdict(spec).items() if k not in (*PER_IMAGE, *OF_METHOD)})[:16]


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory; on the CPU it raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _call(backbone: Backbone, prompts: PromptCache, batch: list[Planned], size: int, when: dict[str, Any]) -> list[Made]:
    """One padded pipeline call; the padding repeats the last image and is thrown away."""
    specs = [p.spec for p in batch]
    padded = specs + [specs[-1]] * (size - len(specs))
    with peak(backbone.pipeline.device) as memory:
        pixels, traces, seconds = sample(backbone.pipeline, prompts, batch[0].method.active, padded)
    shared = {"seconds": round(seconds / size, 6), "batch_size": size, "recipe": recipe_of(specs[0]), **when}
    shared |= {} if memory.megabytes is None else {"peak_mb": round(memory.megabytes)}

    def record(spec: ImageSpec, trace: dict[str, Any]) -> dict[str, Any]:
        own = {"method": spec.method, "prompt": spec.prompt, "seed": spec.seed, "dtype": spec.dtype, "trace": trace}
        return own | shared

    count = len(batch)
    return [Made(p, image, record(p.spec, t)) for p, image, t in zip(batch, pixels[:count], traces[:count], strict=True)]


@dataclass
class Pace:
    """How sampling goes on from one checkpoint to the next."""

    size: int
    """Batch size; it only ever shrinks."""
    number: int = 0
    """Batches made."""
    marks: Mapping[str, Any] = field(default_factory=dict)
    """What is recorded with every image of the run."""


@dataclass(eq=False)
class Waiting:
    """Images of one recipe that are not sampled yet."""

    images: deque[Planned]
    total: int

    @property
    def done(self) -> float:
        """Which part of them is sampled."""
        return 1 - len(self.images) / self.total


def by_checkpoint(images: Sequence[Planned]) -> list[tuple[Checkpoint | None, list[Planned]]]:
    """Images by the weights that they need, the untouched backbone's first."""
    grouped: dict[str, tuple[Checkpoint | None, list[Planned]]] = {}
    for image in sorted(images, key=lambda image: image.checkpoint is not None):
        grouped.setdefault(image.spec.checkpoint_sha, (image.checkpoint, []))[1].append(image)
    return list(grouped.values())


def generate(
    backbone: Backbone, images: Sequence[Planned], batch_size: int, run: str,
    failed: Callable[[Sequence[Planned], SrbenchError], None], warn: Callable[[str], None], first: int = 0,
    marks: Mapping[str, Any] | None = None,
) -> Iterator[list[Made]]:
    """Sample `images` batch by batch: one checkpoint after the other, and on each the recipes in turn, all of them done at
    the same time, so that batches of any two lie near each other and their times are taken under equal load.

    `run`, the number of the batch (they begin at `first`) and `marks` are recorded with each image. Where a recipe cannot be
    sampled, `failed` gets its images and the reason, and the others go on.
    """
    pace = Pace(batch_size, first, marks or {})
    for checkpoint, own in by_checkpoint(images):
        with laid_over(backbone.pipeline, checkpoint):
            yield from _in_turn(backbone, own, pace, run, failed, warn)


def _in_turn(
    backbone: Backbone, images: Sequence[Planned], pace: Pace, run: str,
    failed: Callable[[Sequence[Planned], SrbenchError], None], warn: Callable[[str], None],
) -> Iterator[list[Made]]:
    prompts = PromptCache(backbone.pipeline)
    waiting = [Waiting(deque(group), len(group)) for group in groups(images)]
    while waiting:
        turn = min(waiting, key=lambda each: each.done)
        waiting.remove(turn)
        group = turn.images
        batch = list(islice(group, pace.size))
        try:
            made = _call(backbone, prompts, batch, pace.size, {"run": run, "batch": pace.number, **pace.marks})
        except SrbenchError as error:
            failed(list(group), error)
            continue
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if pace.size == 1:
                failed(list(group), CellError("out of memory at batch size 1", "Use a smaller backbone, or --dtype bf16."))
                continue
            pace.size //= 2
            warn(f"out of memory: going on with batch size {pace.size}")
            waiting.insert(0, turn)
            continue
        yield made
        pace.number += 1
        for _ in batch:
            group.popleft()
        if group:
            waiting.append(turn)
