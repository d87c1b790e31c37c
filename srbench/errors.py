"""Errors that a user can act on; each carries one line, a hint, and the exit code of the command."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from srbench.downloads import Download

OK, SOME_FAILED, USAGE, MISSING, INTERRUPTED = 0, 1, 2, 3, 130


class SrbenchError(Exception):
    """Base of all expected errors: `message` is one line, `hint` says what to do."""

    exit_code = SOME_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def line(self) -> str:
        """Message and hint together, as two sentences."""
        return f"{self.message}{_stop(self.message)} {self.hint}" if self.hint else self.message


class UsageError(SrbenchError):
    """The command, an option or a spec file is wrong (exit code 2)."""

    exit_code = USAGE


class ForeignError(UsageError):
    """A plug-in or a library raised an unexpected error (exit code 2). In a run only its own cell is lost."""


class MissingError(SrbenchError):
    """A prerequisite is missing (exit code 3); `hint` holds the command that mends it, `downloads` what that fetches."""

    exit_code = MISSING

    def __init__(self, message: str, hint: str = "", downloads: Sequence[Download] = ()) -> None:
        super().__init__(message, hint)
        self.downloads = tuple(downloads)


class Unmade(SrbenchError):
    """Something that a run would make first; raised only where nothing may be made, as in a forecast and in a shard.

    command: what makes it; empty where only a run does.
    """

    def __init__(self, message: str, hint: str = "", command: str = "") -> None:
        super().__init__(message, hint)
        self.command = command


class CellError(SrbenchError):
    """One cell cannot be computed; the rest of the grid continues (exit code 1)."""


def _stop(text: str) -> str:
    """The full stop that a sentence lacks before the next one."""
    return "" if not text or text[-1] in ".!?:;" else "."


def did_you_mean(word: str, known: Iterable[str], listed: str = "") -> str:
    """A hint: the closest known word where there is one, then all of them; or `listed`, where they are too many."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    guess = f"Did you mean '{close[0]}'? " if close else ""
    if not names:
        return "There are none."
    return guess + (listed or f"Known: {', '.join(names)}")
