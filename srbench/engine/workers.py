"""`--gpus`: one worker process per device, each with its own part of the missing images; all write to one store."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Lock
from typing import Any

from srbench.backbones.loader import open_backbone
from srbench.catalog.specs import BackboneSpec
from srbench.engine.devices import Runtime, is_cuda
from srbench.engine.marks import marks_of
from srbench.engine.plan import plan
from srbench.engine.request import Cell, RunRequest
from srbench.engine.sampling import Background, Sampling, Work, opened, sample_all, work
from srbench.errors import SrbenchError
from srbench.faults import contained
from srbench.progress import Reporter
from srbench.results.store import Store

ENDS_WITHIN_SECONDS = 30.0
"""Time after which a worker that does not end is killed."""
APART = 1_000_000
"""Offset between the batch numbers of two workers: times are only compared within one worker."""


@dataclass(frozen=True)
class Job:
    """A worker's task. The worker plans again, since methods and weights cannot be sent to it."""

    request: RunRequest
    spec: BackboneSpec
    run: str
    how: Runtime
    keys: frozenset[str]
    """Keys of its images."""
    number: int
    of: int


class Messages:
    """A worker's reporter: sends lines and counts to the parent, which reports the rest itself."""

    def __init__(self, pipe: Connection, device: str) -> None:
        self.pipe, self.device = pipe, device
        self._lock = Lock()  # sampling and writing report from two threads

    def send(self, kind: str, value: Any) -> None:
        """Send a message to the parent. Raises `SrbenchError` where the parent has ended."""
        with self._lock:
            try:
                self.pipe.send((kind, value))
            except OSError as error:
                raise SrbenchError("the run that this worker belongs to has ended", "Run the same command again.") from error

    def begin(self, cells: int, images: int) -> None:
        """Nothing: the parent reports it."""

    def images(self, count: int) -> None:
        self.send("images", count)

    def cell(self, title: str) -> None:
        """Nothing: a worker has only a part of each cell."""

    def line(self, text: str) -> None:
        self.send("line", f"{self.device}: {text}")

    def end(self) -> None:
        """Nothing: the parent reports it."""


class Silent(Messages):
    """Sends no lines: the parent has opened the same scorers and reported what is missing."""

    def line(self, text: str) -> None:
        """Nothing."""


def shares(keys: Sequence[str], count: int) -> list[frozenset[str]]:
    """Split keys into disjoint parts of nearly equal size; neighbours go to different workers."""
    return [frozenset(keys[i::count]) for i in range(count)]


def sample_on(
    sampling: Sampling, keys: Sequence[str], cells: Sequence[Cell], store: Store, reporter: Reporter
) -> dict[str, str]:
    """Sample `keys` in one process per device, then read the store again; image key -> reason for those that failed."""
    sampling.backbone.release()  # the first worker needs its card
    crew = Crew(reporter)
    how, devices = replace(sampling.how, devices=()), sampling.how.devices
    reporter.begin(len(cells), len(keys))
    try:
        crew.run([
            Job(replace(sampling.request, device=device), sampling.backbone.spec, sampling.run, how, share, number, len(devices))
            for number, (device, share) in enumerate(zip(devices, shares(keys, len(devices)), strict=True))
        ])
        for cell in cells:
            reporter.cell(cell.title)
    finally:
        reporter.end()
    store.refresh()
    return {key: why for key, why in crew.failed.items() if key not in store.images}


@contextmanager
def _deaf() -> Iterator[None]:
    """Delay Ctrl-C until the block ends. A process that is started inside ignores it; its parent ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass
class Crew:
    """The parent's side of its workers."""

    reporter: Reporter
    failed: dict[str, str] = field(default_factory=dict)
    """Image key -> why a worker could not sample it. When all workers have ended, it has every key, stored or not."""
    _ends: dict[Any, int] = field(default_factory=dict)
    """Pipe of a running worker -> its number."""
    _why: dict[int, str] = field(default_factory=dict)
    """Number of a worker -> the error that it ended with."""

    def run(self, jobs: Sequence[Job]) -> None:
        """Start one process per job, and handle messages until the last has ended."""
        context = get_context("spawn")  # a fork would share CUDA's state and torch's threads
        workers: list[BaseProcess] = []
        try:
            for job in jobs:
                ours, theirs = context.Pipe(duplex=False)
                worker = context.Process(target=_work, args=(job, theirs), daemon=True)
                with _deaf():  # the worker inherits the mask, and shows no traceback while it starts
                    worker.start()
                theirs.close()  # else the pipe would stay open when the worker ends
                self._ends[ours] = job.number
                workers.append(worker)
            while self._ends:
                for end in wait(list(self._ends)):
                    self._hear(end)
        finally:
            for started in workers:
                if self._ends:
                    started.terminate()
                started.join(ENDS_WITHIN_SECONDS)
                if started.is_alive():
                    started.kill()
                    started.join()
        for job, ended in zip(jobs, workers, strict=True):
            why = self._why.get(job.number, f"the worker on {job.request.device} ended early (exit code {ended.exitcode})")
            self.failed = {key: self.failed.get(key, why) for key in job.keys} | self.failed

    def _hear(self, end: Any) -> None:
        try:
            kind, value = end.recv()
        except (EOFError, OSError):
            del self._ends[end]
            return
        if kind == "images":
            self.reporter.images(value)
        elif kind == "failed":
            self.failed |= value
        else:
            self.reporter.line(value)
        if kind == "error":
            self._why[self._ends[end]] = value


def _work(job: Job, pipe: Connection) -> None:
    """The main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its workers
    messages = Messages(pipe, job.request.device)
    try:
        with contained("sampling"):
            _set_device(job)
            messages.send("failed", _sampled(job, messages))
    except SrbenchError as error:
        with suppress(SrbenchError):  # the parent has ended
            messages.send("error", f"{job.request.device}: {error.line}")
    finally:
        pipe.close()


def _set_device(job: Job) -> None:
    import torch

    if is_cuda(job.request.device):
        torch.cuda.set_device(job.request.device)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // job.of))


def _sampled(job: Job, messages: Messages) -> dict[str, str]:
    """Plan again, and sample this worker's images. Images are dropped by the parent only, when all scores are stored."""
    backbone = open_backbone(job.spec, job.request.dtype, job.request.device)
    cells = plan(job.request, backbone)
    store = Store(job.request.out / "store", messages.line)
    scoring = opened(job.request, cells, store, Silent(messages.pipe, messages.device))
    marks = marks_of(cells, scoring, job.request.keep_images)
    todo = work(cells, store, scoring, job.request.score, job.request.shard)
    share = Work([planned for planned in todo.missing if planned.key in job.keys], todo.cached, todo.wanted)
    meanwhile = Work(share.missing, share.cached) if job.how.reference else share
    sampling = Sampling(job.request, backbone, job.run, job.how, first=job.number * APART)
    return sample_all(sampling, share, cells, Background(store, scoring, meanwhile, messages, marks))
