"""Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP: the first one ends the command in good order, the second one at once.

SIGTERM and SIGUSR1 come from schedulers, before a job's time is over: while a run samples or scores, its batch is finished first.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from srbench import stopping
from srbench.errors import INTERRUPTED

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
PATIENT = ("SIGTERM", "SIGUSR1")
"""Those that let a batch be finished, however often they come."""
AGAIN_SECONDS = 0.05
"""After which an interrupt is sent again that was lost where no exception can be passed on."""
_heard: list[int] = []


def listen() -> None:
    """From now on each of them raises `KeyboardInterrupt`. What is ignored, as SIGHUP is under nohup, stays ignored."""
    for number in _numbers():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _hear)
    sys.unraisablehook = _unraisable


def heard() -> bool:
    """Whether one of them came."""
    return bool(_heard)


def leave() -> None:
    """The command is over: from now on a signal ends the process without a word."""
    exec("")  # CPython ends a process by SIGINT where an interrupt has passed through an `exec`; another one clears that
    for number in _numbers():
        if signal.getsignal(number) is _hear:
            signal.signal(number, _end)


def _numbers() -> list[signal.Signals]:
    return [getattr(signal, name) for name in NAMES if hasattr(signal, name)]  # Windows has no SIGHUP and no SIGUSR1


def _hear(number: int, frame: FrameType | None) -> None:
    if stopping.waits() and signal.Signals(number).name in PATIENT:
        _heard[:] = [number]
        stopping.ask()
        return
    if _heard:
        _end(number, frame)
    _heard.append(number)
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> None:
    """At once: nothing is lost by that, since every file is written whole."""
    multiprocessing = sys.modules.get("multiprocessing")
    for child in multiprocessing.active_children() if multiprocessing else ():
        child.kill()
    os._exit(INTERRUPTED)


def _unraisable(lost: Any) -> None:
    """Send an interrupt again that was raised in a destructor or a callback, where Python only prints it."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)
        return
    _heard.clear()
    again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
