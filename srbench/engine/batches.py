"""Samples missing images in padded batches of one recipe, methods in turn, halving the batch where memory runs out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch

from srbench.backbones.checkpoint import Checkpoint, laid_over
from srbench.backbones.deployed import bits_of, drawing, with_bits
from srbench.backbones.loader import Backbone
from srbench.engine.film import Film
from srbench.engine.memory import peak
from srbench.engine.request import Planned
from srbench.engine.sample import PromptCache, UnfitError, refused_size, sample
from srbench.engine.starts import Starts, form_of
from srbench.engine.untouched import SpoiltError, Untouched
from srbench.errors import CellError, ForeignError, SrbenchError
from srbench.faults import contained, module_of
from srbench.hashing import digest
from srbench.results.keys import ImageSpec
from srbench.results.strips import Strip

PER_IMAGE = ("prompt", "negative_prompt", "seed")
"""Fields in which images of one batch may differ."""
OF_METHOD = ("method", "method_version", "options", "artifact_sha", "concept_sha")
"""Fields that say what a method does, not what the sampler does."""
GIVE_UP = 20
"""Consecutive images of one recipe that may fail for the same reason before the rest is skipped."""


@dataclass(frozen=True)
class Made:
    """One sampled image: uint8 RGB pixels (H, W, 3) and its ledger fields."""

    planned: Planned
    pixels: np.ndarray
    record: dict[str, Any]
    film: tuple[Strip, np.ndarray] | None = None
    """Its steps, where they were asked for: what the strip shows, and its pixels, uint8 RGB (h, frames * w, 3)."""


def groups(images: Sequence[Planned]) -> list[list[Planned]]:
    """Images by method and recipe, in first-seen order; each key once."""
    grouped: dict[tuple[Any, ...], dict[str, Planned]] = {}
    for image in images:
        own = asdict(image.spec) | {"start": form_of(image.spec.start)}  # pictures differ, where they are begun from does not
        recipe = tuple(v for k, v in own.items() if k not in PER_IMAGE)
        grouped.setdefault(recipe, {}).setdefault(image.key, image)
    return [list(group.values()) for group in grouped.values()]


def recipe_of(spec: ImageSpec) -> str:
    """Digest of the sampler's part of a spec: images with equal digests differ in time only by their methods' cost."""
    own = asdict(spec)
    begun = {"start": form_of(spec.start)} if spec.start else {}
    left_out = (*PER_IMAGE, *OF_METHOD, "start")
    return digest({k: v for k, v in own.items() if k not in left_out} | begun)[:16]


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory; on the CPU it raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _call(
    backbone: Backbone, prompts: PromptCache, batch: list[Planned], size: int, when: dict[str, Any], starts: Starts | None,
    filming: bool,
) -> list[Made]:
    """One padded pipeline call; the padding repeats the last image and is discarded. filming: whether to keep the steps."""
    specs = [p.spec for p in batch]
    padded = specs + [specs[-1]] * (size - len(specs))
    begun = starts.of(padded) if starts is not None and specs[0].start else ()
    film = Film() if filming else None
    with peak(backbone.pipeline.device) as memory:
        pixels, traces, seconds = sample(backbone.pipeline, prompts, batch[0].method.active, padded, begun, film)
    shared = {"seconds": round(seconds / size, 6), "batch_size": size, "recipe": recipe_of(specs[0]), **when}
    shared |= {} if memory.megabytes is None else {"peak_mb": round(memory.megabytes)}

    def record(spec: ImageSpec, trace: dict[str, Any]) -> dict[str, Any]:
        fields = {"method": spec.method, "prompt": spec.prompt, "seed": spec.seed, "dtype": spec.dtype, "trace": trace}
        fields |= {"source": batch[0].method.source} if batch[0].method.source else {}
        return fields | shared

    count = len(batch)
    films: Sequence[tuple[Strip, np.ndarray] | None] = film.strips(backbone.pipeline, count) if film is not None else ()
    made = zip(batch, pixels[:count], traces[:count], films or [None] * count, strict=True)
    return [Made(planned, image, record(planned.spec, trace), strip) for planned, image, trace, strip in made]


@dataclass
class Pace:
    """Batch size and number, carried from one checkpoint to the next."""

    size: int
    """Batch size; it only ever shrinks."""
    number: int = 0
    """Batches made."""
    marks: Mapping[str, Any] = field(default_factory=dict)
    """Fields that are recorded with every image of the run."""
    filming: bool = False
    """Whether the steps of images are kept."""


@dataclass(eq=False)
class Waiting:
    """Images of one recipe that are not sampled yet."""

    images: deque[Planned]
    total: int
    trying: int = 0
    """Images to try at once after a failure; 0 for a whole batch."""
    in_a_row: int = 0
    """Consecutive images that failed for the reason `last`."""
    last: str = ""

    @property
    def done(self) -> float:
        """The share of them that is sampled."""
        return 1 - len(self.images) / self.total

    def made(self, count: int) -> None:
        """Remove the next `count` images, which are sampled. After a failure, the parts that are tried double in size."""
        for _ in range(count):
            self.images.popleft()
        self.trying, self.in_a_row, self.last = 2 * self.trying, 0, ""


def by_checkpoint(images: Sequence[Planned]) -> list[tuple[Checkpoint | None, list[Planned]]]:
    """Images by the weights that they need, rounded ones apart, and by sampler; the untouched backbone's first."""
    grouped: dict[tuple[Any, ...], tuple[Checkpoint | None, list[Planned]]] = {}
    for image in sorted(images, key=lambda image: image.checkpoint is not None):
        spec = image.spec
        place = (spec.checkpoint_sha, spec.approximations, spec.scheduler)
        grouped.setdefault(place, (image.checkpoint, []))[1].append(image)
    return list(grouped.values())


Failed = Callable[[Sequence[Planned], SrbenchError], None]
"""Called with images that cannot be sampled, and why."""


def generate(
    backbone: Backbone, images: Sequence[Planned], batch_size: int, run: str, failed: Failed, warn: Callable[[str], None],
    first: int = 0, marks: Mapping[str, Any] | None = None, filming: bool = False,
) -> Iterator[list[Made]]:
    """Sample `images` batch by batch: one checkpoint after the other, and on each the recipes in turn.

    Recipes advance at the same rate, so that their batches are timed under equal load. `run`, the batch number (from `first`)
    and `marks` are recorded with each image. An image that cannot be sampled goes to `failed` with the reason, whatever was
    raised, and the others continue: a failing batch is halved until its bad rows are alone. filming: whether to keep what the
    images look like at their steps.
    """
    pace = Pace(batch_size, first, marks or {}, filming)
    starts = _Lazy(backbone)
    for checkpoint, group in by_checkpoint(images):
        left = group
        while left:  # once, unless a method changes the weights
            left = starts.made(left, failed)
            turns = Turns(backbone, left, pace, run, failed, warn, starts.starts)
            yield from _on(checkpoint, turns)
            left = turns.left


@dataclass
class _Lazy:
    """The beginnings of images, made on the untouched pipeline as they are needed; nothing is opened where there are none."""

    backbone: Backbone
    starts: Starts | None = None

    def made(self, images: Sequence[Planned], failed: Failed) -> list[Planned]:
        """The images whose beginnings are there, or begin in noise; the others go to `failed`."""
        left = []
        for image in images:
            try:
                with contained("making what an image begins from"):
                    self._make(image)
            except SrbenchError as error:
                failed([image], error)
            else:
                left.append(image)
        return left

    def _make(self, image: Planned) -> None:
        if not image.spec.start:
            return
        if self.starts is None or self.starts.pipeline is not self.backbone.pipeline:
            self.starts = Starts(self.backbone.pipeline)
        if image.picture is not None:
            self.starts.know([image.picture])
        self.starts.make([image.spec])


def _on(checkpoint: Checkpoint | None, turns: Turns) -> Iterator[list[Made]]:
    """The batches of one checkpoint's images; where its weights cannot be loaded, all of them fail."""
    with ExitStack() as stack:
        try:
            with contained("laying the checkpoint over the backbone"):
                backbone, spec = turns.backbone, turns.left[0].spec
                stack.enter_context(laid_over(backbone.pipeline, checkpoint))
                stack.enter_context(with_bits(backbone.pipeline, bits_of(spec.approximations)))
                stack.enter_context(drawing(backbone.pipeline, backbone.scheduler, spec.scheduler))
                turns.begin()
        except ForeignError as error:
            turns.fail_all(error)
            return
        try:
            yield from turns.all()
        except SpoiltError:
            turns.backbone.release()  # it is loaded again for the images that are left


class Turns:
    """The recipes on one checkpoint, in turn."""

    def __init__(
        self, backbone: Backbone, images: Sequence[Planned], pace: Pace, run: str, failed: Failed, warn: Callable[[str], None],
        starts: Starts | None = None,
    ) -> None:
        self.starts = starts
        self.backbone, self.pace, self.run, self.failed, self.warn = backbone, pace, run, failed, warn
        self.waiting = [Waiting(deque(group), len(group)) for group in groups(images)]

    @property
    def left(self) -> list[Planned]:
        """Images that are neither sampled nor failed."""
        return [image for turn in self.waiting for image in turn.images]

    def begin(self) -> None:
        """Take a snapshot of the pipeline, and fail images of a size that it cannot draw before anything is sampled."""
        self.prompts, self.before = PromptCache(self.backbone.pipeline), Untouched(self.backbone.pipeline)
        for turn in self.waiting:
            spec = turn.images[0].spec
            refused = refused_size(self.backbone.pipeline, spec.width, spec.height, spec.dtype)
            if refused is not None:
                self._fail(turn, len(turn.images), refused)
        self.waiting = [turn for turn in self.waiting if turn.images]

    def fail_all(self, error: SrbenchError) -> None:
        """Fail all images that are left."""
        for turn in self.waiting:
            self._fail(turn, len(turn.images), error)

    def all(self) -> Iterator[list[Made]]:
        """Every batch. Raises `SpoiltError` where the pipeline must be loaded again for the images that are left."""
        while self.waiting:
            turn = min(self.waiting, key=lambda waiting: waiting.done)
            yield from self._batch(turn)
            if not turn.images:
                self.waiting.remove(turn)
            else:
                # Of two with equal shares the later one is next: A B, then B A. What drifts over a run, such as a machine that
                # warms up, then adds to the difference of two methods as often as it takes away.
                self.waiting.insert(0, self.waiting.pop(self.waiting.index(turn)))

    def _fail(self, turn: Waiting, count: int, error: SrbenchError) -> None:
        self.failed([turn.images.popleft() for _ in range(count)], error)

    def _batch(self, turn: Waiting) -> Iterator[list[Made]]:
        """One batch of a recipe; where it fails, smaller parts are tried next, down to single images."""
        size = min(self.pace.size, turn.trying or self.pace.size)
        batch = list(islice(turn.images, size))
        try:
            sampled = self._sampled(batch)
        except MemoryShortError:
            self._shrink(turn)
        except (UnfitError, LeftBehindError) as error:
            self._fail(turn, len(turn.images), error)
        except SpoiltError as error:
            self._fail(turn, len(turn.images), error)
            raise
        except SrbenchError as error:
            self._halve(turn, len(batch), error)
        else:
            yield sampled
            self.pace.number += 1
            turn.made(len(batch))

    def _halve(self, turn: Waiting, size: int, error: SrbenchError) -> None:
        """Try half of a failed batch next; a single image fails, and its whole recipe where too many failed for one reason."""
        if size > 1:
            turn.trying = size // 2
            return
        turn.in_a_row = turn.in_a_row + 1 if turn.last == error.message else 1
        turn.last = error.message
        self._fail(turn, 1, error)
        if turn.in_a_row >= GIVE_UP and turn.images:
            more = type(error)(f"{error.message} (not tried: {GIVE_UP} images before it failed so)", error.hint)
            self._fail(turn, len(turn.images), more)

    def _shrink(self, turn: Waiting) -> None:
        if self.pace.size == 1:
            hint = "Use a smaller backbone, or --dtype bf16."
            self._fail(turn, len(turn.images), CellError("out of memory at batch size 1", hint))
            return
        self.pace.size //= 2
        self.warn(f"out of memory: going on with batch size {self.pace.size}")

    def _sampled(self, batch: list[Planned]) -> list[Made]:
        """A pipeline call, and a check of what it left on the pipeline.

        Raises only `SrbenchError`s, `MemoryShortError` among them, and what compilation raises.
        """
        method = batch[0].method
        try:
            with contained(method.preset, module_of(method.active.method), self._passes):
                when = {"run": self.run, "batch": self.pace.number, **self.pace.marks}
                sampled = _call(self.backbone, self.prompts, batch, self.pace.size, when, self.starts, self.pace.filming)
        except SrbenchError as error:
            left = self._left_by(method.preset)
            error.message += f"; {left.message.partition(': ')[2]}" if left else ""
            raise
        except RuntimeError as error:
            self._left_by(method.preset)
            if out_of_memory(error):
                raise MemoryShortError("out of memory", "") from error
            raise
        left = self._left_by(method.preset)
        if left is not None:
            raise LeftBehindError(left.message, left.hint)
        return sampled

    def _left_by(self, whose: str) -> ForeignError | None:
        """What a call left on the pipeline, after it was removed. Raises `SpoiltError` where it cannot be removed."""
        try:
            self.before.check(whose)
        except SpoiltError:
            raise
        except ForeignError as error:
            return error
        return None

    def _passes(self, error: BaseException) -> bool:
        """Errors that concern the run as a whole: too little memory for the batch, a denoiser that cannot be compiled."""
        if not isinstance(error, RuntimeError):
            return False
        compiled = bool(self.pace.marks.get("compiled")) and type(error).__module__.startswith("torch._dynamo")
        return compiled or out_of_memory(error)


class MemoryShortError(SrbenchError):
    """The batch does not fit into memory."""


class LeftBehindError(ForeignError):
    """A method left something on the pipeline; it was removed."""
