"""Turns errors of foreign code into one line. Such an error loses its own image, cell or column, and nothing else."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

from srbench.errors import ForeignError, SrbenchError
from srbench.files import printable

_OWN = __name__.split(".")[0]
LONGEST = 300
"""Characters of a message that are shown."""


def reason(error: BaseException, module: str = "") -> str:
    """`TypeError: message (module, line 12)` on one line; of srbench's own errors the message alone.

    module: the plug-in's. The last line in it, or in its submodules, is named; without one in the traceback, the module, and the
    line that raised where it is not srbench's.
    """
    if isinstance(error, SrbenchError):
        return error.message
    return said_by(error) + _place(error, module)


def said_by(error: BaseException) -> str:
    """`TypeError: message`, on one line."""
    return f"{type(error).__name__}: {_text(error)}".strip().removesuffix(":")


def _text(error: BaseException) -> str:
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # noqa: BLE001 - even str() of a foreign error may raise
        return "(its message cannot be read)"
    first = printable(lines[0]) if lines else ""
    return first if len(first) <= LONGEST else f"{first[: LONGEST - 3]}..."


def _place(error: BaseException, module: str) -> str:
    frames = [(str(frame.f_globals.get("__name__", "")), line) for frame, line in walk_tb(error.__traceback__)]
    theirs = [frame for frame in frames if module and (frame[0] == module or frame[0].startswith(f"{module}."))]
    where, line = (theirs or frames or [("", 0)])[-1]
    raised = f"{where}, line {line}" if where else ""
    if module and not theirs and not _is_own(module):  # as where it takes other arguments: no line of srbench's says more
        raised = module if not where or _is_own(where) else f"{module}; raised in {raised}"
    return f" ({raised})" if raised else ""


def _is_own(module: str) -> bool:
    """Whether a module is srbench's."""
    return module.split(".")[0] == _OWN


def place_of(thing: Any) -> str:
    """`FILE, line N` of a plug-in's class or function; its module where there is no source, as in a notebook."""
    line = _line_of(thing)
    return f"{inspect.getsourcefile(inspect.unwrap(thing))}, line {line}" if line else module_of(thing)


def at(thing: Any) -> str:
    """` (module, line N)` of a plug-in's class or function, as `reason` ends a message."""
    line = _line_of(thing)
    return f" ({module_of(thing)}, line {line})" if line else f" ({module_of(thing)})"


def _line_of(thing: Any) -> int:
    """The line on which a class or function begins; 0 where there is no source."""
    try:
        return inspect.getsourcelines(inspect.unwrap(thing))[1]
    except (OSError, TypeError):
        return 0


@contextmanager
def contained(doing: str, module: str = "", let: Callable[[BaseException], bool] = lambda error: False) -> Iterator[None]:
    """Turns whatever the body raises into a `ForeignError` that says what was being done; srbench's own errors pass.

    Also `SystemExit`, which would end the command silently. module: as in `reason`. let: other errors that pass.
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
    """Whether it was raised in srbench itself, as when one of its generators is closed."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return _is_own(str(frame.f_globals.get("__name__", "")))


def module_of(cls: Any) -> str:
    """The module that a plug-in's class or function is in."""
    return str(getattr(cls, "__module__", ""))


def plain(value: Any) -> Any:
    """`value` as JSON types: numpy numbers become Python's, tuples lists. Raises `ValueError` for what JSON cannot hold."""
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
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {_name(key): plain(item) for key, item in value.items()}
    raise ValueError(f"{type(value).__name__} is not JSON")


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError(f"a key is of type {type(key).__name__}, not text")
    return _encodable(key)


def _encodable(text: str) -> str:
    if re.search("[\ud800-\udfff]", text):  # a lone surrogate, which UTF-8 cannot encode
        raise ValueError("a text with half a character")
    return text
