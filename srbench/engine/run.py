"""`srbench run`: plan, sample what is missing, score it meanwhile, and write the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from srbench.analysis.metrics import uncompared
from srbench.analysis.results import ResultCell
from srbench.backbones.loader import Backbone
from srbench.engine.devices import PLAIN, Runtime, compile_blocks, deterministic
from srbench.engine.generate import Made, generate
from srbench.engine.memory import batch_for, free_bytes
from srbench.engine.plan import Cell, Planned, PlannedRow, RunRequest
from srbench.engine.provenance import provenance
from srbench.engine.record import Outcome, entries, now, results, run_id, write_run
from srbench.engine.score import Scoring, Wanted, kind_named
from srbench.engine.store import Store
from srbench.errors import MISSING, OK, SOME_FAILED, MissingError, SrbenchError, UsageError
from srbench.faults import contained
from srbench.methods.base import denoiser
from srbench.scorers.base import PAIR

PENDING_BATCHES = 2
"""Batches that may wait for writing and scoring before sampling waits for them."""
LARGEST_BATCH = 256
"""Images a call where fewer are missing: a batch is padded to its size, and a huge one would be padding alone."""


class Reporter(Protocol):
    """Where progress goes."""

    def begin(self, cells: int, images: int) -> None:
        """Sampling starts."""

    def images(self, count: int) -> None:
        """`count` more images are in the store."""

    def cell(self, title: str) -> None:
        """A cell has all its images, or all their scores where they were made elsewhere."""

    def line(self, text: str) -> None:
        """One plain line."""

    def end(self) -> None:
        """Sampling is over."""


@dataclass
class Work:
    """What a plan still needs."""

    missing: list[Planned]
    cached: int
    wanted: dict[str, list[Wanted]] = field(default_factory=dict)
    """Image key -> scores to have."""

    @property
    def all_wanted(self) -> list[Wanted]:
        """Every score to have, each once."""
        return [w for each in self.wanted.values() for w in each]


def _wanted(scoring: Scoring, cell: Cell, row: PlannedRow, planned: Planned) -> Iterator[Wanted]:
    """Scores that one image of a row should have; pairs are the row's image with its reference image."""
    reference = row.reference.key if row.reference is not None and planned is row.image else ""
    for name in cell.scorers:
        if kind_named(name) != PAIR or reference:
            yield scoring.want(name, planned.key, row.row, reference)


def work(cells: Sequence[Cell], store: Store, scoring: Scoring, score: bool) -> Work:
    """Images not in the store, each once, and the scores every image should have."""
    needed: dict[str, Planned] = {}
    wanted: dict[str, dict[Wanted, None]] = {}
    for cell in cells:
        for row in cell.rows:
            for planned in (p for p in (row.image, row.reference, row.floor) if p is not None):
                needed.setdefault(planned.key, planned)
                if score:
                    wanted.setdefault(planned.key, {}).update(dict.fromkeys(_wanted(scoring, cell, row, planned)))
    missing = [planned for key, planned in needed.items() if key not in store.images]
    return Work(missing, len(needed) - len(missing), {key: list(each) for key, each in wanted.items()})


class Background:
    """One thread that writes and scores batches while the next one is sampled; its errors surface at `submit`."""

    def __init__(self, store: Store, scoring: Scoring, todo: Work, reporter: Reporter) -> None:
        self.store, self.scoring, self.todo, self.reporter = store, scoring, todo, reporter
        self._pool = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []

    def submit(self, made: list[Made]) -> None:
        """Queue a batch; waits while too many are pending."""
        self._pending.append(self._pool.submit(self._keep, made))
        while len(self._pending) > PENDING_BATCHES:
            self._pending.pop(0).result()

    def finish(self) -> None:
        """Wait for everything queued."""
        try:
            while self._pending:
                self._pending.pop(0).result()
        finally:
            self._pool.shutdown(wait=True)

    def _keep(self, made: list[Made]) -> None:
        with contained("writing and scoring images"):
            self._kept(made)

    def _kept(self, made: list[Made]) -> None:
        self.store.put_images([(m.planned.key, m.pixels, m.record) for m in made])
        self.reporter.images(len(made))
        wanted = [w for m in made for w in self.todo.wanted.get(m.planned.key, [])]
        self.scoring.run(wanted, {m.planned.key: m.pixels for m in made})


class CellsDone:
    """Tells the reporter when a cell has the last of its images."""

    def __init__(self, cells: Sequence[Cell], missing: Sequence[Planned], reporter: Reporter) -> None:
        todo = {planned.key for planned in missing}
        self.reporter = reporter
        self.left = [(cell.title, {p.key for p in cell.images()} & todo) for cell in cells if cell.blocked is None]
        self._tell()

    def done(self, keys: set[str]) -> None:
        """These images are no longer awaited."""
        for _, waiting in self.left:
            waiting -= keys
        self._tell()

    def _tell(self) -> None:
        for title, waiting in self.left:
            if not waiting:
                self.reporter.cell(title)
        self.left = [(title, waiting) for title, waiting in self.left if waiting]


def opened(request: RunRequest, cells: Sequence[Cell], store: Store, reporter: Reporter) -> Scoring:
    """The scorers that the cells need; cells whose judge is not at hand are blocked."""
    scoring = Scoring(store)
    if request.score:
        needed = dict.fromkeys(name for cell in cells if cell.blocked is None for name in cell.scorers)
        scoring.open(list(needed), request.settings)
        for error in scoring.broken.values():
            reporter.line(error.line)
        _block(cells, scoring)
    return scoring


@dataclass(frozen=True)
class Sampling:
    """What sampling needs beside the images: whose run it is, and how it is carried out."""

    request: RunRequest
    backbone: Backbone
    run: str
    how: Runtime = PLAIN
    first: int = 0
    """Number of its first batch; workers count apart from each other."""

    def batch_size(self, missing: Sequence[Planned]) -> int:
        """As asked for, or less where the device's free memory does not hold it."""
        asked = min(self.request.batch_size, max(LARGEST_BATCH, 1 << (len(missing) - 1).bit_length()))
        free = free_bytes(self.backbone.pipeline.device) if self.how.fit_batch else None
        if free is None:
            return asked
        sizes = {(planned.spec.width, planned.spec.height) for planned in missing}
        return min(batch_for(free, size, self.backbone.dtype, asked) for size in sizes)

    def marks(self, missing: Sequence[Planned], tell: Callable[[str], None]) -> dict[str, Any]:
        """Compiles the denoiser where that is asked for; what is recorded with each image."""
        compiles = self.how.compiles(self.request.device, len(missing))
        compiled = compiles and compile_blocks(denoiser(self.backbone.pipeline))
        if compiles and not compiled:
            tell("this denoiser names no repeated blocks: it is not compiled")
        return ({"compiled": True} if compiled else {}) | ({"deterministic": True} if self.how.reference else {})


def sample_all(sampling: Sampling, todo: Work, cells: Sequence[Cell], background: Background) -> dict[str, str]:
    """Sample and hand over every missing image; image key -> reason for those that failed."""
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
        if seen[images[0].method.preset, error.message] == len(images):  # each reason once; how many there were, at the end
            reporter.line(_failure(images, error))
        progress.done({planned.key for planned in images})

    try:
        with deterministic(sampling.how.reference):
            for made in _generated(sampling, todo.missing, fail, reporter.line):
                background.submit(made)
                progress.done({m.planned.key for m in made})
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


def _made(sampling: Sampling, todo: Work, cells: Sequence[Cell], scoring: Scoring, reporter: Reporter) -> dict[str, str]:
    """Have every missing image, in this process or in a worker a device; image key -> reason for those that failed."""
    if len(sampling.how.devices) > 1 and todo.missing:
        from srbench.engine.workers import sample_on

        return sample_on(sampling, [planned.key for planned in todo.missing], cells, scoring.store, reporter)
    # Scorers may have no deterministic kernels: after sampling they need none.
    meanwhile = Work(todo.missing, todo.cached) if sampling.how.reference else todo
    return sample_all(sampling, todo, cells, Background(scoring.store, scoring, meanwhile, reporter))


def _block(cells: Sequence[Cell], scoring: Scoring) -> None:
    """Cells whose judge is not at hand are not sampled: their images could not be judged."""
    for cell in cells:
        if cell.blocked is None:
            cell.blocked = scoring.blocked(cell.protocol)
            cell.rows = [] if cell.blocked else cell.rows


def _drop(cells: Sequence[Cell], store: Store, scoring: Scoring, todo: Work) -> int:
    """Delete the scored images of sensitive cells, unless another cell that is not sensitive shares them.

    A scorer whose weights are not here keeps none of them: else a run without CLIP would leave every image on the disk.
    """
    shared = {p.key for cell in cells if not cell.sensitive for p in cell.images()}
    keys = {p.key for cell in cells if cell.sensitive for p in cell.images()} - shared
    open_ = {k: [w for w in todo.wanted.get(k, []) if w.scorer not in scoring.broken] for k in keys}
    ready = [k for k in keys if k in store.images and all(scoring.known(w) is not None for w in open_[k])]
    store.drop(ready)
    return len(ready)


def _exit_code(cells: Sequence[Cell], outcome: Outcome, found: Sequence[ResultCell]) -> int:
    """3 where every cell is blocked by something missing, 1 where anything asked for is not there, else 0."""
    blocked = [cell.blocked for cell in cells if cell.blocked is not None]
    if len(blocked) == len(cells) and all(isinstance(error, MissingError) for error in blocked):
        return MISSING
    broken = bool(outcome.failed or outcome.scoring.errors or outcome.scoring.broken)
    broken = broken or any(uncompared(cell.metrics) for cell in found)
    return SOME_FAILED if blocked or broken else OK


@dataclass(frozen=True)
class RunResult:
    """What a run gave: its id, its cells, and the exit code of the command."""

    run: str
    cells: list[ResultCell]
    exit_code: int


def execute(
    request: RunRequest, backbone: Backbone, cells: list[Cell], store: Store, reporter: Reporter, how: Runtime = PLAIN
) -> RunResult:
    """Carry a plan out. Running it again resumes; nothing that is in the store is sampled again."""
    started = now()
    run = run_id()
    scoring = opened(request, cells, store, reporter)
    todo = work(cells, store, scoring, request.score)
    reporter.line(f"{len(todo.missing)} images to sample, {todo.cached} in the store")
    failed = _made(Sampling(request, backbone, run, how), todo, cells, scoring, reporter)
    if request.score:
        left = scoring.missing(todo.all_wanted)
        if left:
            reporter.line(f"{len(left)} scores to make on stored images")
        scoring.run(todo.all_wanted, {})
    outcome = Outcome(scoring, failed)
    found = results(cells, backbone, run, store, outcome)
    if request.score and not request.keep_images and any(cell.sensitive for cell in cells):
        reporter.line(f"{_drop(cells, store, scoring, todo)} images of sensitive cells were scored and dropped")
        if scoring.broken:
            reporter.line(f"without {', '.join(scoring.broken)}: only a run into a new folder can have what is missing")
    header = {
        "started": started, "finished": now(), "provenance": provenance(),
        "request": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(request).items()},
        "runtime": asdict(how), "backbone_sha": backbone.sha256, "scorers": scoring.identities, "safety_checker": "off",
    }
    try:
        write_run(request.out, run, header, entries(cells, found, failed))
    except OSError as error:
        raise UsageError(
            f"{request.out}/runs/{run}: the run's record cannot be written ({error.strerror}); its images and scores are kept",
            "Mend that, then run the same command again: nothing is sampled twice.",
        ) from error
    return RunResult(run, found, _exit_code(cells, outcome, found))
