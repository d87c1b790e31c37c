"""What an actor's process becomes: it opens the backbone from its spec, and answers what it is asked for.

`Sampler` does so for runs, `attacks.searcher.Searcher` for searches.
"""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from srbench.backbones.loader import open_backbone
from srbench.catalog.specs import BackboneSpec
from srbench.engine.devices import Runtime, has_bf16, is_cuda
from srbench.engine.spread import Answer, Facts
from srbench.errors import MissingError, SrbenchError
from srbench.faults import contained
from srbench.progress import Quiet
from srbench.results.provenance import machine
from srbench.version import __version__

AGAIN_SECONDS = (2.0, 10.0, 30.0)
"""Pauses before an actor looks anew for what it lacks: another machine's file may be seen a minute late."""
DIFFERS = "Install the same on every node."
SHARE = "Work in a folder that every node shares."
Asked = TypeVar("Asked")
"""The request that actors work for."""


def versions() -> dict[str, str]:
    """What has to be the same on every node."""
    return {"srbench": __version__, "torch": str(torch.__version__), "python": ".".join(platform.python_version_tuple()[:2])}


def here(problem: str = "", hint: str = "", device: str = "cpu") -> Facts:
    """This process, for the driver. problem: why it cannot work."""
    facts = machine()
    card = facts.get("gpu", "") if is_cuda(device) else facts["processor"]
    return Facts(socket.gethostname(), str(card), versions(), problem, hint)


@dataclass(frozen=True)
class Given(Generic[Asked]):
    """What an actor is made of: names and settings, no weights."""

    worker: type[Worker[Asked]]
    """What it becomes."""
    spec: BackboneSpec
    request: Asked
    how: Runtime
    sha256: str
    """Of the backbone, as the driver has it."""
    device: str
    dtype: str
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


class Worker(Generic[Asked]):
    """One actor. Nothing that it is asked for raises: why something could not be done is in the answer."""

    doing = "working"
    """For messages of what foreign code raises."""

    def __init__(self, given: Given[Asked]) -> None:
        self.given, self.request, self.heard = given, given.request, Heard()
        self.broken = ""
        try:
            with contained("opening the backbone"):
                self._open()
            self.facts = here("", "", given.device)
        except SrbenchError as error:
            self.facts = here(error.message, error.hint)

    def _open(self) -> None:
        given = self.given
        if is_cuda(given.device):
            if not torch.cuda.is_available():
                raise MissingError("torch sees no CUDA device here", "Install a CUDA build of torch on every node with a card.")
            if given.dtype == "bf16" and not has_bf16():
                raise MissingError("this card has no bf16", "Use --dtype fp16, or fp32.")
            if given.share < 1:
                torch.cuda.set_per_process_memory_fraction(given.share)
        elif given.threads:
            torch.set_num_threads(given.threads)
        self.backbone = open_backbone(given.spec, given.dtype, given.device)
        if self.backbone.sha256 != given.sha256:
            what = f"other weights of '{given.spec.name}' ({self.backbone.sha256[:12]}, not {given.sha256[:12]})"
            raise MissingError(what, "Fetch the same revision on every node.")
        self.backbone.pipeline  # noqa: B018 - read now, so that an actor which cannot is known before it has work

    def _each(self, keys: tuple[str, ...], make: Callable[[str], object]) -> Answer:
        """Make one thing after the other; why one could not be made is in the answer."""
        if self.broken:
            return Answer(broken=self.broken)
        began, failed, done = time.monotonic(), dict[str, str](), list[str]()
        for key in keys:
            with self._answering() as why:
                make(key)
            if why:
                failed[key] = why["unfit"]
            elif not self.broken:
                done.append(key)
        return self._answer({}, began, done=tuple(done), failed=failed)

    @contextmanager
    def _answering(self) -> Iterator[dict[str, str]]:
        """Whatever the block raises, as fields of the answer."""
        why: dict[str, str] = {}
        try:
            with contained(self.doing):
                yield why
        except SrbenchError as error:
            why |= {"unfit": error.message, "hint": error.hint}
        self.broken = broken_context(self.given.device)
        if self.broken:
            why.clear()

    def _answer(self, why: dict[str, str], began: float, **more: Any) -> Answer:
        more |= {"failed": {}} if self.broken else {}  # what failed in a broken process may work in another one
        return Answer(
            seconds=round(time.monotonic() - began, 3), said=self.heard.taken(), broken=self.broken,
            unfit=why.get("unfit", ""), hint=why.get("hint", ""), **more,
        )


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
