"""Rules for values of records, cards and run files, and the messages where a value breaks one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from srbench.errors import UsageError
from srbench.files import printable

LARGEST = 2.0**64
"""Largest number in a record: seeds, times and scores are smaller."""
MAX_NAME = 120
"""Largest length of a name in characters."""


class Rule(NamedTuple):
    """A test of a value, and its description."""

    fits: Callable[[Any], bool]
    what: str
    """For messages: `expected ...`."""


def _is_hash(value: Any) -> bool:
    return type(value) is str and len(value) == 64 and _HASH(value) is not None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST


def _is_name(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= MAX_NAME and _NAME(value) is not None


_HASH = re.compile(r"[0-9a-f]{64}").fullmatch
_NAME = re.compile(r"[\w+-][\w.+ -]*").fullmatch
HASH = Rule(_is_hash, "64 hex digits")
TEXT = Rule(lambda value: type(value) is str, "a text")
NAME = Rule(_is_name, "a name without slashes")
"""It may be part of a path."""
FLAG = Rule(lambda value: type(value) is bool, "true or false")
COUNT = Rule(lambda value: type(value) is int and 0 <= value < 2**63, "a count")
NUMBER = Rule(_is_number, "a finite number")
AMOUNT = Rule(lambda value: _is_number(value) and value >= 0, "a finite number from 0 up")
SHARE = Rule(lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1")
TABLE = Rule(lambda value: type(value) is dict, "an object")
LIST = Rule(lambda value: type(value) is list, "a list")


def or_null(rule: Rule) -> Rule:
    """A value that fits the rule, or null."""
    return Rule(lambda value: value is None or rule.fits(value), f"{rule.what}, or null")


def one_of(*known: str) -> Rule:
    """One of some texts."""
    return Rule(lambda value: type(value) is str and value in known, f"one of {', '.join(map(repr, known))}")


def list_of(rule: Rule) -> Rule:
    """A list in which every value fits."""
    return Rule(lambda value: type(value) is list and all(map(rule.fits, value)), f"a list of {rule.what}")


def pair_of(rule: Rule) -> Rule:
    """A list of two values that fit."""
    return Rule(lambda value: type(value) is list and len(value) == 2 and all(map(rule.fits, value)), f"two: {rule.what}")


def table_of(rule: Rule) -> Rule:
    """An object in which every value fits."""
    return Rule(lambda value: type(value) is dict and all(map(rule.fits, value.values())), f"an object with {rule.what} each")


def finite(value: Any) -> bool:
    """Whether a value is a finite number, and no bool."""
    return _is_number(value)


class Misfit(ValueError):
    """A record breaks a rule; the message says where and why."""


def check(value: Any, needed: Mapping[str, Rule], more: Mapping[str, Rule], where: str = "") -> None:
    """Raises `Misfit` where `value` is no object, lacks a key that is needed, or has one with a value that does not fit."""
    if type(value) is not dict:
        raise Misfit(f"{where or 'it'}: expected an object, found {shown(value)}")
    for name, rule in needed.items():
        if name not in value:
            raise Misfit(f"{where or 'it'} has no '{name}'")
        if not rule.fits(value[name]):
            raise Misfit(f"{_at(where, name)}: expected {rule.what}, found {shown(value[name])}")
    for name, rule in more.items():
        if name in value and not rule.fits(value[name]):
            raise Misfit(f"{_at(where, name)}: expected {rule.what}, found {shown(value[name])}")


def _at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else f"'{name}'"


def shown(value: Any) -> str:
    """A value for a message, cut short."""
    if value is None or type(value) is bool:
        return json.dumps(value)
    if type(value) is int and abs(value) > LARGEST:
        return "a number of many digits"
    if type(value) in (dict, list):
        return f"{'an object' if type(value) is dict else 'a list'} of {len(value)}"
    text = printable(repr(value))
    return text if len(text) <= 40 else f"{text[:37]}..."


# --- names, from the command line and from Python ---------------------------------------------------------------------


def texts(given: Iterable[str]) -> tuple[str, ...]:
    """One text, or several. Raises `UsageError` for anything else."""
    several = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    for each in several:
        if not isinstance(each, str):
            raise UsageError(f"expected a name, got {shown(each)} ({type(each).__name__})", "Give a text, or a list of texts.")
    return several


def words(given: Iterable[str] | None) -> tuple[str, ...]:
    """Names in one text with commas, or in a list, each once; none of None. Raises `UsageError` for anything else, and for an
    empty name.
    """
    if given is None:
        return ()
    names = [name.strip() for name in (given.split(",") if isinstance(given, str) else texts(given))]
    if not all(names):
        raise UsageError(f"{shown(given)}: an empty name in the list", "Write names with commas between them, or leave it out.")
    return tuple(dict.fromkeys(names))
