"""`srbench run`: plan, sample what is missing, score it meanwhile, and write the record."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from srbench.analysis.metrics import uncompared
from srbench.analysis.results import ResultCell
from srbench.backbones.loader import Backbone
from srbench.engine.batches import Made, generate
from srbench.engine.devices import PLAIN, Runtime, compile_blocks, deterministic
from srbench.engine.marks import hush_of, marks_of, wanted_of
from srbench.engine.memory import batch_for, free_bytes
from srbench.engine.plan import Cell, Planned, RunRequest
from srbench.engine.record import Outcome, entries, results
from srbench.errors import MISSING, OK, SOME_FAILED, MissingError, SrbenchError, UsageError
from srbench.faults import contained
from srbench.methods.base import denoiser
from srbench.progress import Reporter
from srbench.results.gated import Hushed, clean
from srbench.results.provenance import provenance
from srbench.results.run_files import RunResult, now, run_id, write_run
from srbench.results.sensitive import PLAIN as PLAIN_MARK
from srbench.results.sensitive import TRIED, Mark, Swept, begin, end, marked, restate, scoring_command, sweep
from srbench.results.store import Store
from srbench.scoring.awaited import given_up
from srbench.scoring.scoring import Scoring, Wanted

PENDING_BATCHES = 2
"""Batches that may wait for writing and scoring before sampling waits for them."""
LARGEST_BATCH = 256
"""Images a call where fewer are missing: a batch is padded to its size, and a huge one would be padding alone."""


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


def work(cells: Sequence[Cell], store: Store, scoring: Scoring, score: bool) -> Work:
    """Images not in the store, each once, and the scores every image should have."""
    needed: dict[str, Planned] = {}
    wanted: dict[str, dict[Wanted, None]] = {}
    for cell in cells:
        for row in cell.rows:
            for planned in (p for p in (row.image, row.reference, row.floor) if p is not None):
                needed.setdefault(planned.key, planned)
                if score:
                    wanted.setdefault(planned.key, {}).update(dict.fromkeys(wanted_of(scoring, cell, row, planned)))
    missing = [planned for key, planned in needed.items() if key not in store.images]
    return Work(missing, len(needed) - len(missing), {key: list(each) for key, each in wanted.items()})


class Background:
    """One thread that writes and scores batches while the next one is sampled; its errors surface at `submit`."""

    def __init__(
        self, store: Store, scoring: Scoring, todo: Work, reporter: Reporter, marks: Mapping[str, Mark] | None = None
    ) -> None:
        self.store, self.scoring, self.todo, self.reporter, self.marks = store, scoring, todo, reporter, marks or {}
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
        self.store.put_images([
            (m.planned.key, m.pixels, marked(m.record, self.marks.get(m.planned.key, PLAIN_MARK))) for m in made
        ])  # fmt: skip
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


def _made(
    sampling: Sampling, todo: Work, cells: Sequence[Cell], scoring: Scoring, reporter: Reporter, marks: Mapping[str, Mark]
) -> dict[str, str]:
    """Have every missing image, in this process or in a worker a device; image key -> reason for those that failed."""
    if len(sampling.how.devices) > 1 and todo.missing:
        from srbench.engine.workers import sample_on

        return sample_on(sampling, [planned.key for planned in todo.missing], cells, scoring.store, reporter)
    # Scorers may have no deterministic kernels: after sampling they need none.
    meanwhile = Work(todo.missing, todo.cached) if sampling.how.reference else todo
    return sample_all(sampling, todo, cells, Background(scoring.store, scoring, meanwhile, reporter, marks))


def _block(cells: Sequence[Cell], scoring: Scoring) -> None:
    """Cells whose judge is not at hand are not sampled: their images could not be judged."""
    for cell in cells:
        if cell.blocked is None:
            cell.blocked = scoring.blocked(cell.protocol)
            cell.rows = [] if cell.blocked else cell.rows


def _swept(store: Store, scoring: Scoring, todo: Work, failed: Mapping[str, str]) -> Swept:
    """Delete the sensitive pictures that are scored. Those that wait for an image which failed are given another run's time."""
    unmade = {key for key in failed if key not in store.images}
    waits = {key for each in todo.all_wanted if each.reference_key in unmade for key in (each.image_key,)}
    again = {key for key in waits if store.images.get(key, {}).get(TRIED)}
    given = given_up(scoring, todo.all_wanted)
    given |= given_up(scoring, (each for each in todo.all_wanted if each.image_key in again), unmade)
    swept = sweep(store, given)
    store.restate({**store.images[key], TRIED: True} for key in swept.waiting if key in waits - again)
    return swept


def _tell_swept(swept: Swept, cells: Sequence[Cell], request: RunRequest, scoring: Scoring, reporter: Reporter) -> None:
    """What became of the sensitive pictures, by what was deleted and what lies there."""
    if any(cell.sensitive for cell in cells) and request.score and not request.keep_images:
        reporter.line(f"{swept.dropped} images of sensitive cells were scored and dropped")
    elif swept.dropped:
        reporter.line(f"{swept.dropped} pictures of sensitive rows that were scored were dropped")
    if request.keep_images and (gone := _dropped_before(cells, scoring.store)):
        reporter.line(f"{gone} pictures of sensitive rows were dropped by an earlier run: only a new --out folder can have them")
    for line in swept.lines(scoring_command(sys.argv[1:])):
        reporter.line(line)
    if swept.dropped and scoring.broken:
        reporter.line(f"without {', '.join(scoring.broken)}: only a run into a new folder can have what is missing")


def _dropped_before(cells: Sequence[Cell], store: Store) -> int:
    """How many pictures of sensitive cells are not there any more."""
    return sum(map(store.dropped, {image.key for cell in cells if cell.sensitive for image in cell.images()}))


def _exit_code(cells: Sequence[Cell], outcome: Outcome, found: Sequence[ResultCell]) -> int:
    """3 where every cell is blocked by something missing, 1 where anything asked for is not there, else 0."""
    blocked = [cell.blocked for cell in cells if cell.blocked is not None]
    if len(blocked) == len(cells) and all(isinstance(error, MissingError) for error in blocked):
        return MISSING
    broken = bool(outcome.failed or outcome.scoring.errors or outcome.scoring.broken)
    broken = broken or any(uncompared(cell.metrics) for cell in found)
    return SOME_FAILED if blocked or broken else OK


def _to_score(todo: Work, scoring: Scoring) -> list[str]:
    """Stored images whose pixels will be read, since a score of theirs is missing."""
    return [key for wanted in scoring.missing(todo.all_wanted) for key in (wanted.image_key, wanted.reference_key) if key]


def execute(
    request: RunRequest, backbone: Backbone, cells: list[Cell], store: Store, reporter: Reporter, how: Runtime = PLAIN
) -> RunResult:
    """Carry a plan out. Running it again resumes; nothing that is in the store is sampled again."""
    started = now()
    run = run_id()
    hush = hush_of(cells)
    reporter = cast(Reporter, Hushed(reporter, hush))
    scoring = opened(request, cells, store, reporter)
    marks = marks_of(cells, scoring, request.keep_images)
    clean(store, {key for key, mark in marks.items() if mark.gated}, reporter.line)
    restate(store, marks)
    secret = any(mark.sensitive for mark in marks.values())
    if secret:
        begin(store.root, run)
    todo = work(cells, store, scoring, request.score)
    if store.check(_to_score(todo, scoring)):  # what is not the picture that was made is sampled again, now
        todo = work(cells, store, scoring, request.score)
    reporter.line(f"{len(todo.missing)} images to sample, {todo.cached} in the store")
    failed = _made(Sampling(request, backbone, run, how), todo, cells, scoring, reporter, marks)
    if request.score:
        left = scoring.missing(todo.all_wanted)
        if left:
            reporter.line(f"{len(left)} scores to make on stored images")
        scoring.run(todo.all_wanted, {})
    scoring.errors = {wanted: hush(why) for wanted, why in scoring.errors.items()}
    outcome = Outcome(scoring, {key: hush(why) for key, why in failed.items()})
    found = results(cells, backbone, run, store, outcome)
    swept = _swept(store, scoring, todo, failed)
    _tell_swept(swept, cells, request, scoring, reporter)
    header = {
        "started": started, "finished": now(), "provenance": provenance(),
        "request": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(request).items()},
        "runtime": asdict(how), "backbone_sha": backbone.sha256, "scorers": scoring.identities, "safety_checker": "off",
    }
    write_run(request.out, run, header, entries(cells, found, outcome.failed))
    if secret:
        end(store.root, run, [store.images[key] for key in swept.waiting])
    return RunResult(run, found, _exit_code(cells, outcome, found) or (SOME_FAILED if swept.stuck else OK))
