"""What Ray starts on a node: a process that becomes a `Worker` once its environment is set. Imports nothing that is slow."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from threading import Timer
from typing import Any

LEAVES_AFTER_SECONDS = 1.0
"""Between a last answer and the end of the process: the answer has to be under way."""


class Actor:
    """An actor: it does what its `engine.worker.Worker` can do.

    It is made of names and settings alone, which are given as bytes: they are read after the environment is set, since libraries
    look at that when they are imported.
    """

    def __init__(self, environment: Mapping[str, str], folder: str, given: bytes) -> None:
        self.worker: Any = None
        self.problem = ""
        os.environ.update(environment)
        try:
            os.chdir(folder)  # paths of the command line are those of its folder
        except OSError as error:
            self.problem = f"{folder} is not there ({error.strerror}): the folder of the command has to be a shared one"
            return
        made_of = pickle.loads(given)
        self.worker = made_of.worker(made_of)

    def ready(self) -> Any:
        """`Facts`: what this actor is, and why it cannot work if it cannot."""
        from srbench.engine.worker import here

        return here(self.problem) if self.worker is None else self.worker.facts

    def do(self, call: str, *given: Any) -> Any:
        """`Answer` of one of the worker's functions."""
        return self._left(getattr(self.worker, call)(*given))

    def _left(self, answer: Any) -> Any:
        """The answer; where its process cannot be used any more, the process leaves: Ray would send it the next chunk."""
        if answer.broken:
            timer = Timer(LEAVES_AFTER_SECONDS, os._exit, (1,))
            timer.daemon = True
            timer.start()
        return answer


def look(environment: Mapping[str, str], folder: str, given: bytes) -> dict[str, Any]:
    """What a node has, as the fields of `cluster.Look`: versions, its weights' sha256, a file that it wrote into the store."""
    import socket

    host = socket.gethostname()
    os.environ.update(environment)
    try:
        os.chdir(folder)
    except OSError as error:
        return {"host": host, "problem": f"{folder} is not there ({error.strerror})", "hint": "Start in a shared folder."}
    from srbench.backbones.loader import open_backbone
    from srbench.engine.worker import SHARE, versions
    from srbench.errors import SrbenchError
    from srbench.files import temporary_for

    spec, out = pickle.loads(given)
    told = {"host": host, "versions": versions()}
    probe = temporary_for(out / "store" / "probe")
    try:
        probe.touch(exist_ok=False)
        return {**told, "probe": probe.name, "sha256": open_backbone(spec, "fp32", "cpu").sha256}
    except OSError as error:
        why = f"cannot write to {out / 'store'} ({error.strerror})"
        return {**told, "problem": why, "hint": SHARE}
    except SrbenchError as error:
        return {**told, "problem": error.message, "hint": error.hint}
