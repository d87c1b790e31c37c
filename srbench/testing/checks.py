"""What the batteries share: finding a plug-in, running checks, and the message of a failing one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

from srbench.catalog import contracts, plugins
from srbench.errors import SrbenchError

C = TypeVar("C")
Check = Callable[[C], None]


def require(fits: object, problem: str, mend: str) -> None:
    """Raises `AssertionError` with what is wrong and how to mend it, a sentence each, unless it fits."""
    __tracebackhide__ = True
    if not fits:
        raise AssertionError(f"{problem}. {mend}")


@contextmanager
def as_assertion() -> Iterator[None]:
    """Errors of srbench's own, which name the cause, become an `AssertionError`; what else a plug-in raises passes."""
    __tracebackhide__ = True
    try:
        yield
    except SrbenchError as error:
        raise AssertionError(error.line) from error


def run(checks: Sequence[Check[C]], case: C) -> None:
    """Every check on a case. Raises `AssertionError` at the first that fails, with the case's and the check's name before it."""
    __tracebackhide__ = True
    for check in checks:
        try:
            with as_assertion():
                check(case)
        except AssertionError as error:
            raise AssertionError(f"{case}, {check.__name__}: {error}") from error


def plugin_of(kind: str, plugin: str | type) -> tuple[Any, dict[str, Any]]:
    """A plug-in's class and checked metadata.

    kind: `methods`, `scorers` or `attacks`. plugin: a name (of a method also a preset), as the command line knows it, or as
    `@srbench.method` and its like have made it known in this process; or the class itself.
    Raises `UsageError` for an unknown name, for metadata that is wrong, and for a class that lacks a part of its contract.
    """
    if isinstance(plugin, str):
        preset = kind == "methods" and plugin not in plugins.plugins(kind)
        cls = plugins.load(kind, plugins.preset(plugin)[0] if preset else plugin)
        return cls, cls.meta
    meta = contracts.check(kind, getattr(plugin, "meta", None), f"metadata of {plugin.__qualname__}")
    plugins.check_parts(kind, plugins.Plugin(plugin.__module__, meta), plugin)
    return plugin, meta


@contextmanager
def other_noise(seed: int) -> Iterator[None]:
    """The global generators of torch, numpy and Python begin at a seed inside; afterwards they are as before."""
    python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - as below
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - a plug-in might draw from it, and must not
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(of_numpy)  # noqa: NPY002 - as above


def worst(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference of two arrays of uint8 pixels, in levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def names_of(values: Iterable[str]) -> str:
    """A few names for a message."""
    names = sorted(values)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
