"""Damage to files: to the values of JSON, and to the bytes of anything."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, 2**64, 10**400, -(10**30), 0.5, -1.5, 1e308, math.inf, math.nan,
    "", " ", "0", "x", "none",
    "../../x", "/etc/hostname", "\x1b[31mred\x1b[0m", "[red]x[/foo]", "=1+1", "<b>&amp;", "a\u2028b", "\ud800", "\x00", "é" * 300,
    [], {}, [[]], [None], {"": None}, {"x": {}}, [1, "a", None, {}], DEEP,
]  # fmt: skip
"""Values in place of what belongs there."""


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found.append((value, key))
        _places(value[key], found)
    return found


@st.composite
def values(draw: st.DrawFn, sound: Any) -> Any:
    """`sound` with one to three of its values replaced, dropped, doubled, wrapped or called otherwise."""
    damaged = [copy.deepcopy(sound)]
    for _ in range(draw(st.integers(1, 3))):
        places = _places(damaged, [])
        container, key = places[draw(st.integers(0, len(places) - 1))]
        draw(st.sampled_from(_DAMAGES))(container, key, draw)
        if not damaged:
            return draw(st.sampled_from(STRANGE))
    return damaged[0]


def _replace(container: Any, key: Any, draw: st.DrawFn) -> None:
    container[key] = copy.deepcopy(draw(st.sampled_from(STRANGE)))  # a later damage may change it in place


def _drop(container: Any, key: Any, draw: st.DrawFn) -> None:
    del container[key]


def _wrap(container: Any, key: Any, draw: st.DrawFn) -> None:
    container[key] = draw(st.sampled_from([[container[key]], {"x": container[key]}, str(container[key])]))


def _rename(container: Any, key: Any, draw: st.DrawFn) -> None:
    name = draw(st.sampled_from(["", "x", "\x1b[0m", "__class__", f"{key} ", str(key).upper()]))
    if isinstance(container, dict):
        container[name] = container.pop(key)
    else:
        container.append(container[key])


_DAMAGES: list[Callable[[Any, Any, st.DrawFn], None]] = [_replace, _replace, _drop, _wrap, _rename]


def written(value: Any) -> bytes:
    """JSON as Python writes it, with NaN, lone surrogates and numbers of any length."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


BITS = [
    b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\n", b'"', b",", b";", b"\t", b"{", b"}", b"[", b"]", b"[" * 3000,
    b"9" * 6000,
    b"NaN", b"\xe2\x80\xa8", b"\x1b[2J", b"version https://git-lfs", b"<!DOCTYPE html>", b"PK\x03\x04", b"PAR1", b"\x80\x04",
]  # fmt: skip
"""Bytes that are put in."""


@st.composite
def content(draw: st.DrawFn, sound: bytes) -> bytes:
    """`sound` with bytes cut out, put in, turned over, doubled or zeroed, or nothing of it left."""
    damaged = bytearray(sound)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(damaged)))
        end = draw(st.integers(start, min(len(damaged), start + 200)) | st.just(len(damaged)))
        part = bytes(damaged[start:end])
        instead = draw(st.sampled_from([*BITS, part[::-1], bytes(len(part)), part * 2]) | st.binary(max_size=40))
        damaged[start:end] = instead
    return bytes(damaged)
