"""Output to the console: it fits any encoding, a closed stream does no harm, and nothing in it acts on a terminal.

Text from files and names is printed as it is read and never as markup. Documents stay valid: JSON and HTML are escaped where
the output's encoding does not take them.
"""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, TextIO

from srbench.files import calm, escaped_json, printable

if TYPE_CHECKING:
    from rich.console import Console

SIGNS = {
    "★": "*", "↑": "^", "↓": "v", "→": ">", "×": "x", "·": ",", "–": "-", "—": "-", "≈": "~", "±": "~", "─": "-", "╌": "-",
    "━": "-", "▀": "#", "’": "'", "…": ".", "α": "a", "β": "b", "τ": "t",
}  # fmt: skip
"""Sign that srbench prints -> its replacement, as wide, for encodings without it."""
ERRORS = "srbench"
"""Name of the handler for characters that an encoding does not have."""


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """A handler of `codecs`: our signs by others, everything else by its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(SIGNS.get(each) or each.encode("ascii", "backslashreplace").decode() for each in bad), error.end


codecs.register_error(ERRORS, _replaced)


# --- streams ----------------------------------------------------------------------------------------------------------


def prepare() -> None:
    """Make stdout and stderr take everything, also where they are closed. Once, at the start of the process."""
    _fill_descriptors()
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ERRORS)


def _fill_descriptors() -> None:
    """Where 0, 1 or 2 is closed, the next file that is opened would take its place, and what is printed would end up in it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # for the life of the process


def silence() -> None:
    """Send all further output to /dev/null: its reader went away (`| head`), and Python would complain at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(nowhere, stream.fileno())


def say(text: str) -> None:
    """One line for people, on stderr; a closed stderr ends no command."""
    with suppress(OSError, ValueError):
        print(_fits(printable(text), sys.stderr), file=sys.stderr, flush=True)


def _encoding(stream: TextIO) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _fits(text: str, stream: TextIO) -> str:
    encoding = _encoding(stream)
    return text.encode(encoding, ERRORS).decode(encoding)


def _takes(text: str, stream: TextIO) -> bool:
    try:
        text.encode(_encoding(stream))
    except UnicodeEncodeError:
        return False
    return True


_ours: list[TextIO] = []
"""The process's stdout while a command runs: nothing but its documents goes there."""


def out() -> TextIO:
    """The stream for documents."""
    return _ours[-1] if _ours else sys.stdout


@contextmanager
def alone() -> Iterator[None]:
    """What libraries and plug-ins print goes to stderr meanwhile, and never into a table or into JSON."""
    _ours.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
            _ours[-1].flush()
    finally:
        _ours.pop()


# --- documents on stdout ----------------------------------------------------------------------------------------------


def line(text: str) -> None:
    """One line on stdout."""
    write(f"{printable(text)}\n")


def write(text: str) -> None:
    """Text on stdout, as it is where its encoding takes it."""
    out().write(_fits(text, out()))


def write_json(value: Any) -> None:
    """JSON on stdout."""
    write_document(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "json")


def write_document(text: str, format: str) -> None:
    """A document on stdout, valid whatever the encoding. format: `json`, `html`, or any other, which is plain text."""
    if format == "json":
        text = escaped_json(text, not _takes(text, out()))
    elif format == "html" and codecs.lookup(_encoding(out())).name != "utf-8":  # which is what the page says of itself
        text = text.encode("ascii", "xmlcharrefreplace").decode()
    write(calm(text))


# --- rich -------------------------------------------------------------------------------------------------------------


def console(width: int | None = None, stderr: bool = False, plain: bool = False) -> Console:
    """A console on stdout or stderr that prints text as it is. plain: without escapes."""
    from srbench.tables import terminal

    return terminal.console(sys.stderr if stderr else out(), width, plain)
