"""An actor's work: opens the backbone from its spec, plans the same run, samples and scores the images that it is asked for."""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from srbench.backbones.loader import open_backbone
from srbench.catalog.specs import BackboneSpec
from srbench.engine.devices import Runtime, has_bf16, is_cuda
from srbench.engine.marks import marks_of
from srbench.engine.plan import plan
from srbench.engine.ready import make_ready
from srbench.engine.request import Planned, RunRequest
from srbench.engine.sampling import Background, Sampling, Work, needs, opened, sample_all
from srbench.engine.spread import Answer, Facts
from srbench.errors import MissingError, SrbenchError
from srbench.faults import contained
from srbench.progress import Quiet
from srbench.results.provenance import machine
from srbench.results.store import Store
from srbench.scoring.scoring import Scoring, Wanted
from srbench.version import __version__

APART = 1_000_000
"""Between the batch numbers of two actors: what methods cost is told by batches of one actor alone."""
AGAIN_SECONDS = (2.0, 10.0, 30.0)
"""Pauses before the run is planned anew where it lacks something: another machine's file may be seen a minute late."""
DIFFERS = "Install the same on every node."


def versions() -> dict[str, str]:
    """What has to be the same on every node."""
    return {"srbench": __version__, "torch": str(torch.__version__), "python": ".".join(platform.python_version_tuple()[:2])}


def here(problem: str = "", hint: str = "", device: str = "cpu") -> Facts:
    """This process, for the driver. problem: why it cannot work."""
    facts = machine()
    card = facts.get("gpu", "") if is_cuda(device) else facts["processor"]
    return Facts(socket.gethostname(), str(card), versions(), problem, hint)


@dataclass(frozen=True)
class Given:
    """What an actor is made of: names and settings, no weights."""

    spec: BackboneSpec
    request: RunRequest
    how: Runtime
    sha256: str
    """Of the backbone, as the driver has it."""
    threads: int
    """Of a CPU actor; 0 leaves them."""
    number: int
    """Of the actor: none before it had the same."""
    share: float = 1.0
    """Of its card."""


class Heard(Quiet):
    """Keeps lines, for the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def taken(self) -> tuple[str, ...]:
        """The lines since the last call, each once."""
        lines, self.lines = tuple(dict.fromkeys(self.lines)), []
        return lines


class Sampler:
    """One actor. Nothing that it is asked for raises: why something could not be done is in the answer."""

    def __init__(self, given: Given) -> None:
        self.given, self.request, self.heard = given, given.request, Heard()
        self.broken = ""
        self.batches = given.number * APART
        self.size: int | None = None
        """Images of a batch, as the first chunk found that they fit."""
        try:
            with contained("opening the backbone"):
                self._open()
            self.facts = here("", "", self.request.device)
        except SrbenchError as error:
            self.facts = here(error.message, error.hint)

    def _open(self) -> None:
        given, device = self.given, self.request.device
        if is_cuda(device):
            if not torch.cuda.is_available():
                raise MissingError("torch sees no CUDA device here", "Install a CUDA build of torch on every node with a card.")
            if self.request.dtype == "bf16" and not has_bf16():
                raise MissingError("this card has no bf16", "Use --dtype fp16, or fp32.")
            if given.share < 1:
                torch.cuda.set_per_process_memory_fraction(given.share)
        elif given.threads:
            torch.set_num_threads(given.threads)
        self.backbone = open_backbone(given.spec, self.request.dtype, device)
        if self.backbone.sha256 != given.sha256:
            what = f"other weights of '{given.spec.name}' ({self.backbone.sha256[:12]}, not {given.sha256[:12]})"
            raise MissingError(what, "Fetch the same revision on every node.")
        self.backbone.pipeline  # noqa: B018 - read now, so that an actor which cannot is known before it has work

    # --- the plan ---

    def _plan(self) -> None:
        """Plan the whole run, as the driver did; nothing is made."""
        cells = plan(self.request, self.backbone, make=False)
        self.store = Store(self.request.out / "store", self.heard.line, tidy=False, durable=self.given.how.durable)
        self.scoring = opened(self.request, cells, self.store, self.heard)
        self.marks = marks_of(cells, self.scoring, self.request.keep_images)
        self.needed, self.wanted = needs(cells, self.scoring, self.request.score, self.request.shard)
        self.blocked = [cell.blocked.line for cell in cells if cell.blocked is not None]

    def _planned(self, keys: tuple[str, ...]) -> list[Planned]:
        """The images of some keys. Raises `SrbenchError` where the plan of this node lacks one."""
        for pause in (0.0, *AGAIN_SECONDS):
            if "needed" not in self.__dict__ or any(key not in self.needed for key in keys):
                time.sleep(pause)
                self._plan()
            if all(key in self.needed for key in keys):
                return [self.needed[key] for key in keys]
        why = self.blocked[0] if self.blocked else "its suites, plug-ins or checkpoints are others"
        raise MissingError(f"images of this run are not planned here: {why}", DIFFERS)

    # --- what is asked for ---

    def make(self, run: str, compiled: bool, keys: tuple[str, ...]) -> Answer:
        """Sample images, write them, and score what can be scored. compiled: whether the denoiser is compiled for it."""
        if self.broken:
            return Answer(broken=self.broken)
        began = time.monotonic()
        failed: dict[str, str] = {}
        with self._answering() as why:
            images = self._planned(keys)
            todo = Work(images, 0, {key: self.wanted[key] for key in keys if key in self.wanted})
            meanwhile = Work(images, 0) if self.given.how.reference else todo
            sampling = self._sampling(run, compiled)
            background = Background(self.store, self.scoring, meanwhile, self.heard, self.marks)
            failed = sample_all(sampling, todo, [], background)
        store = self.__dict__.get("store")
        done = tuple(key for key in keys if store is not None and key in store.images)
        records = [store.images[key] for key in done] if store is not None else []
        self.batches = max([self.batches, *(record["batch"] + 1 for record in records)])
        self.size = min([record["batch_size"] for record in records], default=self.size)
        return self._answer(
            why, began, done=done, failed=failed, sampling_seconds=sum(record["seconds"] for record in records)
        )

    def _sampling(self, run: str, compiled: bool) -> Sampling:
        fit = self.given.how.fit_batch and self.size is None
        how = replace(self.given.how, compile="on" if compiled else "off", fit_batch=fit)
        request = self.request if self.size is None else replace(self.request, batch_size=self.size)
        return Sampling(request, self.backbone, run, how, self.batches, self._marks)

    def score(self, keys: tuple[str, ...]) -> Answer:
        """Make the missing scores of stored images, also where another actor has made one of a pair."""
        if self.broken:
            return Answer(broken=self.broken)
        began = time.monotonic()
        with self._answering() as why:
            self._planned(keys)
            wanted = [each for key in keys for each in self.wanted.get(key, ())]
            if any(key not in self.store.images for each in wanted for key in (each.image_key, each.reference_key) if key):
                self.store.refresh()  # other actors have made them
            self.scoring.run(wanted, {})
        return self._answer(why, began, done=() if why else keys)

    def prepare(self, keys: tuple[str, ...]) -> Answer:
        """Make checkpoints, and what methods make once for a concept."""
        if self.broken:
            return Answer(broken=self.broken)
        began, failed, done = time.monotonic(), dict[str, str](), list[str]()
        for key in keys:
            with self._answering() as why:
                make_ready(key, self.request, self.backbone)
            if why:
                failed[key] = why["unfit"]
            elif not self.broken:
                done.append(key)
        return self._answer({}, began, done=tuple(done), failed=failed)

    @cached_property
    def _marks(self) -> dict[str, Any]:
        return {"host": self.facts.host, "card": self.facts.card}

    @contextmanager
    def _answering(self) -> Iterator[dict[str, str]]:
        """Whatever the block raises, as fields of the answer."""
        why: dict[str, str] = {}
        try:
            with contained("working for a run"):
                yield why
        except SrbenchError as error:
            why |= {"unfit": error.message, "hint": error.hint}
        self.broken = broken_context(self.request.device)
        if self.broken:
            why.clear()

    def _answer(self, why: dict[str, str], began: float, **more: Any) -> Answer:
        scoring: Scoring | None = self.__dict__.get("scoring")
        unscored = {_name(wanted): reason for wanted, reason in scoring.errors.items()} if scoring is not None else {}
        if scoring is not None:
            scoring.errors = {}
        said = self.heard.taken()
        more |= {"failed": {}} if self.broken else {}  # what failed in a broken process may work in another one
        return Answer(
            seconds=round(time.monotonic() - began, 3), said=said, unscored=unscored, broken=self.broken,
            unfit=why.get("unfit", ""), hint=why.get("hint", ""), **more,
        )


def _name(wanted: Wanted) -> tuple[str, str, str]:
    return wanted.scorer, wanted.image_key, wanted.reference_key


def broken_context(device: str) -> str:
    """Why a process can do nothing more on its card: after some errors every later call of CUDA fails. Empty where it can."""
    if not is_cuda(device):
        return ""
    try:
        torch.cuda.synchronize()
        torch.zeros(1, device=device).item()
    except torch.OutOfMemoryError:
        return ""  # of other processes on the card
    except RuntimeError as error:
        return f"its CUDA context is broken: {str(error).strip().splitlines()[0]}"
    return ""


def same_versions(facts: Facts, own: dict[str, str] | None = None) -> tuple[str, str]:
    """Why an actor may not work beside this process, with a hint; empty where it may."""
    for name, version in (own or versions()).items():
        theirs = facts.versions.get(name, "none")
        if theirs != version:
            return f"{name} {theirs} on {facts.host}, {version} here", DIFFERS
    return "", ""

