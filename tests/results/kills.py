"""Runs something in a forked process that dies at the n-th call that changes the disk, before or after the call is made."""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

CALLS = ("fsync", "replace", "rename", "unlink")
KILLED, FAILED = 137, 99


def forked(do: Callable[[], None], say: Path) -> int:
    """Exit code of a child that does it; where it raises, `say` gets the traceback."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            do()
        except BaseException:  # noqa: BLE001 - the child must never go on as a second test process
            say.write_text(traceback.format_exc())
            os._exit(FAILED)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Deaths:
    """Counts calls that change the disk, and ends the process at one of them."""

    def __init__(self, at: int | None = None, after: bool = False) -> None:
        self.at, self.after, self.count = at, after, 0

    def install(self) -> None:
        """Stand in for the calls; only in a child."""
        for name in CALLS:
            setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            self.count += 1
            here = self.count == self.at
            if here and not self.after:
                os._exit(KILLED)
            try:
                return real(*given, **named)
            finally:
                if here:
                    os._exit(KILLED)

        return call
