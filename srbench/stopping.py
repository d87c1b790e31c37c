"""Lets work that was asked to end finish the step that it is at: a batch is sampled, written and scored, and then it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_depth: list[None] = []
_asked: list[None] = []


@contextmanager
def patient() -> Iterator[None]:
    """While the block runs, a request to end waits for the next `check`; what came after the last one is heard at its end."""
    _depth.append(None)
    try:
        yield
    finally:
        _depth.pop()
    check()


def waits() -> bool:
    """Whether a request to end would be heard by a `check`."""
    return bool(_depth)


def ask() -> None:
    """Ask the work to end at its next `check`."""
    _asked.append(None)


def check() -> None:
    """Between two steps: raises `KeyboardInterrupt` where an end was asked for. Threads beside the main one go on."""
    if _asked and threading.current_thread() is threading.main_thread():
        _asked.clear()
        raise KeyboardInterrupt
