"""Samples, writes and scores every missing image, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from srbench import stopping
from srbench.backbones.loader import Backbone
from srbench.catalog.judges import with_settings
from srbench.engine.batches import Made, generate
from srbench.engine.devices import PLAIN, Runtime, compile_blocks, deterministic
from srbench.engine.marks import wanted_of
from srbench.engine.memory import batch_for, free_bytes
from srbench.engine.request import Cell, Planned, RunRequest
from srbench.errors import SrbenchError, UsageError
from srbench.faults import contained
from srbench.methods.base import denoiser
from srbench.progress import Reporter
from srbench.results.sensitive import PLAIN as PLAIN_MARK
from srbench.results.sensitive import Mark, marked
from srbench.results.store import Store
from srbench.scoring.scoring import Scoring, Wanted
from srbench.shards import Shard, is_mine

PENDING_BATCHES = 2
"""Batches that may wait for writing and scoring before sampling waits for them."""


LARGEST_BATCH = 256
"""Images in a pipeline call where fewer are missing: batches are padded to their size, and a huge one would be mostly padding."""


@dataclass
class Work:
    """Images and scores that a plan still needs."""

    missing: list[Planned]
    cached: int
    wanted: dict[str, list[Wanted]] = field(default_factory=dict)
    """Image key -> scores to have."""

    @property
    def all_wanted(self) -> list[Wanted]:
        """Every score to have, each once."""
        return [w for scores in self.wanted.values() for w in scores]


def needs(
    cells: Sequence[Cell], scoring: Scoring, score: bool, shard: Shard | None = None
) -> tuple[dict[str, Planned], dict[str, list[Wanted]]]:
    """The images of a plan by key, each once, and the scores that each should have; of a shard only its own images and theirs."""
    needed: dict[str, Planned] = {}
    wanted: dict[str, dict[Wanted, None]] = {}
    for cell in cells:
        for row in cell.rows:
            for planned in (p for p in (row.image, row.reference, row.floor) if p is not None):
                if not is_mine(shard, planned.key):
                    continue
                needed.setdefault(planned.key, planned)
                if score:
                    wanted.setdefault(planned.key, {}).update(dict.fromkeys(wanted_of(scoring, cell, row, planned)))
    return needed, {key: list(scores) for key, scores in wanted.items()}


def work(cells: Sequence[Cell], store: Store, scoring: Scoring, score: bool, shard: Shard | None = None) -> Work:
    """As `needs`, with only those images that are not in the store.

    This is the list that whoever samples works through: a process, a shard, or actors that take pieces of it. `by_checkpoint`
    orders a piece so that each checkpoint is laid over the backbone once.
    """
    needed, wanted = needs(cells, scoring, score, shard)
    store.recover(needed)
    missing = [planned for key, planned in needed.items() if key not in store.images]
    return Work(missing, len(needed) - len(missing), wanted)


class Background:
    """One thread that writes and scores batches while the next one is sampled; its errors surface at `submit`."""

    def __init__(
        self, store: Store, scoring: Scoring, todo: Work, reporter: Reporter, marks: Mapping[str, Mark] | None = None
    ) -> None:
        self.store, self.scoring, self.todo, self.reporter, self.marks = store, scoring, todo, reporter, marks or {}
        self._pool = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []

    def submit(self, batch: list[Made]) -> None:
        """Queue a batch; waits while too many are pending."""
        self._pending.append(self._pool.submit(self._keep, batch))
        while len(self._pending) > PENDING_BATCHES:
            self._pending.pop(0).result()

    def finish(self) -> None:
        """Wait for everything queued."""
        try:
            while self._pending:
                self._pending.pop(0).result()
        finally:
            self._pool.shutdown(wait=True)

    def _keep(self, batch: list[Made]) -> None:
        with contained("writing and scoring images"):
            self.store.put_images([
                (m.planned.key, m.pixels, marked(m.record, self.marks.get(m.planned.key, PLAIN_MARK))) for m in batch
            ])  # fmt: skip
            self.reporter.images(len(batch))
            wanted = [w for m in batch for w in self.todo.wanted.get(m.planned.key, [])]
            self.scoring.run(wanted, {m.planned.key: m.pixels for m in batch})


class CellsDone:
    """Tells the reporter when a cell has the last of its images."""

    def __init__(self, cells: Sequence[Cell], missing: Sequence[Planned], reporter: Reporter) -> None:
        todo = {planned.key for planned in missing}
        self.reporter = reporter
        self.left = [(cell.title, {p.key for p in cell.images()} & todo) for cell in cells if cell.blocked is None]
        self._tell()

    def done(self, keys: set[str]) -> None:
        """These images are stored or have failed."""
        for _, waiting in self.left:
            waiting -= keys
        self._tell()

    def _tell(self) -> None:
        for title, waiting in self.left:
            if not waiting:
                self.reporter.cell(title)
        self.left = [(title, waiting) for title, waiting in self.left if waiting]


def opened(request: RunRequest, cells: Sequence[Cell], store: Store, reporter: Reporter) -> Scoring:
    """Open the scorers that the cells need. Cells whose judge is missing are blocked and not sampled."""
    scoring = Scoring(store)
    if request.score:
        needed = dict.fromkeys(name for cell in cells if cell.blocked is None for name in cell.scorers)
        judges = [cell.protocol for cell in cells if cell.blocked is None]
        scoring.open(list(needed), with_settings(request.settings, judges))
        for error in scoring.broken.values():
            reporter.line(error.line)
        for cell in cells:
            if cell.blocked is None:
                cell.blocked = scoring.blocked(cell.protocol)
                cell.rows = [] if cell.blocked else cell.rows
    return scoring


@dataclass(frozen=True)
class Sampling:
    """What sampling needs beside the images: the run, and how it is carried out."""

    request: RunRequest
    backbone: Backbone
    run: str
    how: Runtime = PLAIN
    first: int = 0
    """Number of its first batch; each actor has a range of its own."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields that are recorded with each image."""

    def batch_size(self, missing: Sequence[Planned]) -> int:
        """The requested size, or less where the device's free memory does not hold it."""
        most = min(self.request.batch_size, max(LARGEST_BATCH, 1 << (len(missing) - 1).bit_length()))
        free = free_bytes(self.backbone.pipeline.device) if self.how.fit_batch else None
        if free is None:
            return most
        sizes = {(planned.spec.width, planned.spec.height) for planned in missing}
        return min(batch_for(free, size, self.backbone.dtype, most) for size in sizes)

    def marks(self, missing: Sequence[Planned], tell: Callable[[str], None]) -> dict[str, Any]:
        """Compile the denoiser where requested; returns the fields that are recorded with each image."""
        compiles = self.how.compiles(self.request.device, len(missing))
        compiled = compiles and compile_blocks(denoiser(self.backbone.pipeline))
        if compiles and not compiled:
            tell("this denoiser names no repeated blocks: it is not compiled")
        more = {**self.more, "compiled": True} if compiled else dict(self.more)
        return more | ({"deterministic": True} if self.how.reference else {})


def sample_all(sampling: Sampling, todo: Work, cells: Sequence[Cell], background: Background) -> dict[str, str]:
    """Sample every missing image and pass it to `background`; image key -> reason for those that failed."""
    failed: dict[str, str] = {}
    seen: Counter[tuple[str, str]] = Counter()
    reporter = background.reporter
    if not todo.missing:
        return failed
    reporter.begin(len(cells), len(todo.missing))
    progress = CellsDone(cells, todo.missing, reporter)

    def fail(images: Sequence[Planned], error: SrbenchError) -> None:
        failed.update({planned.key: error.message for planned in images})
        seen[images[0].method.preset, error.message] += len(images)
        if seen[images[0].method.preset, error.message] == len(images):  # each reason once; the count is reported at the end
            reporter.line(_failure(images, error))
        progress.done({planned.key for planned in images})

    with stopping.patient():
        try:
            with deterministic(sampling.how.reference):
                for batch in _generated(sampling, todo.missing, fail, reporter.line):
                    background.submit(batch)
                    progress.done({m.planned.key for m in batch})
                    stopping.check()
        finally:
            try:
                background.finish()
            finally:
                reporter.end()
    for (preset, _), count in seen.items():
        if count > 1:
            reporter.line(f"{preset}: {count} images in all failed for one reason")
    return failed


def _failure(images: Sequence[Planned], error: SrbenchError) -> str:
    """Which images failed, and why; by key, since a prompt's text may not be shown."""
    preset = images[0].method.preset
    which = f"{len(images)} images" if len(images) > 1 else f"image {images[0].key[:12]}"
    return f"{preset}: {which}: {error.line.removeprefix(f'{preset}: ')}"


def _generated(
    sampling: Sampling, missing: Sequence[Planned], fail: Callable[[Sequence[Planned], SrbenchError], None],
    tell: Callable[[str], None],
) -> Iterator[list[Made]]:
    """Batches of images. Raises `UsageError` where the denoiser cannot be compiled: that shows in its first call."""
    size = sampling.batch_size(missing)
    if size < sampling.request.batch_size:
        tell(f"batch size {size}: {'what the free memory holds' if size < LARGEST_BATCH else 'more are not missing'}")
    marks = sampling.marks(missing, tell)
    try:
        yield from generate(sampling.backbone, missing, size, sampling.run, fail, tell, sampling.first, marks)
    except RuntimeError as error:
        if not (marks.get("compiled") and type(error).__module__.startswith("torch._dynamo")):
            raise
        why = str(error).strip().splitlines()[:1]
        raise UsageError(f"the denoiser cannot be compiled here: {''.join(why)}", "Add --compile off.") from error
