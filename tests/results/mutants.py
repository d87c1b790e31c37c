"""Good records with one thing wrong, in every place: what a disk, an editor, another tool or somebody hostile leaves."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

ESCAPE = "\x1b[2J\u202e\nsecond"
DEEP: Any = "end"
for _ in range(300):
    DEEP = [DEEP]
DELETED = object()
WRONG = (
    DELETED, None, True, 0, -1, 2.5, 10**30, 1e308, float("inf"), float("nan"), "", "x", ESCAPE, "../../x", [], {}, [None],
    {"a": None}, [[1]], DEEP,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON value but its root."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inside:
        yield (*path, name)
        yield from places(each, (*path, name))


def changed(value: Any, place: tuple[Any, ...], to: Any) -> Any:
    """A copy of a JSON value with something else in a place."""
    made = copy.deepcopy(value)
    at = made
    for name in place[:-1]:
        at = at[name]
    if to is DELETED:
        del at[place[-1]]
    else:
        at[place[-1]] = to
    return made


def mutants(value: Any) -> Iterator[tuple[str, Any]]:
    """Every place with everything wrong in it, by name."""
    for place in places(value):
        for number, wrong in enumerate(WRONG):
            yield f"{'.'.join(map(str, place))} #{number}", changed(value, place, wrong)
