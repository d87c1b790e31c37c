"""What code that is not srbench's raised, as one line. It costs its own image, cell or column, and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

from srbench.errors import ForeignError, SrbenchError
from srbench.files import printable

LONGEST = 300
"""Characters of a message that are shown."""


def reason(error: BaseException, module: str = "") -> str:
    """`TypeError: what it says (module, line 12)` on one line; of srbench's own errors the message alone.

    module: whose line to name where it took part, with all below it; else that which raised.
    """
    if isinstance(error, SrbenchError):
        return error.message
    return said_by(error) + _place(error, module)


def said_by(error: BaseException) -> str:
    """`TypeError: what it says`, on one line."""
    return f"{type(error).__name__}: {_text(error)}".strip().removesuffix(":")


def _text(error: BaseException) -> str:
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # noqa: BLE001 - a foreign error may not even be able to say what it is
        return "(its message cannot be read)"
    first = printable(lines[0]) if lines else ""
    return first if len(first) <= LONGEST else f"{first[: LONGEST - 3]}..."


def _place(error: BaseException, module: str) -> str:
    frames = [(str(frame.f_globals.get("__name__", "")), line) for frame, line in walk_tb(error.__traceback__)]
    theirs = [each for each in frames if module and (each[0] == module or each[0].startswith(f"{module}."))]
    where, line = (theirs or frames or [("", 0)])[-1]
    return f" ({where}, line {line})" if where else ""


@contextmanager
def contained(doing: str, module: str = "", let: Callable[[BaseException], bool] = lambda error: False) -> Iterator[None]:
    """Whatever the body raises becomes a `ForeignError` that says what was being done; srbench's own errors stay as they are.

    Also `SystemExit`, which would end the command without a word. module: as in `reason`. let: errors that pass.
    """
    try:
        yield
    except (KeyboardInterrupt, SrbenchError):
        raise
    except BaseException as error:  # foreign code may raise anything
        if let(error) or (isinstance(error, GeneratorExit) and _is_ours(error)):
            raise
        raise ForeignError(f"{doing}: {reason(error, module)}") from error


def _is_ours(error: BaseException) -> bool:
    """Whether it was raised in srbench itself, as where one of its generators is closed."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).split(".")[0] == __name__.split(".")[0]


def module_of(cls: Any) -> str:
    """The module that a plug-in's class is in."""
    return str(getattr(cls, "__module__", ""))


def plain(value: Any) -> Any:
    """`value` as JSON has it: numbers of numpy become Python's, tuples lists. Raises `ValueError` for what JSON cannot hold."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        return float(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {_name(key): plain(each) for key, each in value.items()}
    raise ValueError(f"{type(value).__name__} is not JSON")


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError(f"a key is of type {type(key).__name__}, not text")
    return _encodable(key)


def _encodable(text: str) -> str:
    if re.search("[\ud800-\udfff]", text):  # half a surrogate pair, which no file can hold
        raise ValueError("a text with half a character")
    return text
