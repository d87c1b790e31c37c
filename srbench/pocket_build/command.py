"""What the build's commands share: an expected error ends them with two lines and its exit code."""

from __future__ import annotations

import functools
import sys
from typing import Protocol

from srbench.errors import SrbenchError

Words = list[str] | None


class Main(Protocol):
    """A command: takes its words, or None for those of the process, and returns its exit code."""

    def __call__(self, words: Words = None) -> int: ...


def guarded(main: Main) -> Main:
    """The same command, but an expected error is printed and decides the exit code."""

    @functools.wraps(main)
    def wrapper(words: Words = None) -> int:
        try:
            return main(words)
        except SrbenchError as error:
            print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
            return error.exit_code

    return wrapper
