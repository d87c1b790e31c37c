"""What is wrong with a value, in plain English, from pydantic's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from srbench.errors import did_you_mean
from srbench.files import printable

LONGEST = 60
"""Characters of a value that a message repeats."""
KINDS = {
    "string": "a text", "tuple": "a list", "list": "a list", "dict": "a table", "model": "a table", "int": "a whole number",
    "float": "a number", "bool": "true or false", "path": "a path",
}  # fmt: skip
"""Beginning of pydantic's name of an error -> the value that was expected."""
LIMITS = {
    "greater_than": ("gt", "a number above {}"), "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "a number below {}"), "less_than_equal": ("le", "{} or less"),
}  # fmt: skip
"""pydantic's name of an error -> the limit's name in its context, and the value that was expected."""

WRITTEN = {
    "bool_type": "Write true or false, without quotes.", "int_type": "Write it without quotes.",
    "float_type": "Write it without quotes; a power of ten with a point and a sign, as in 1.0e-3.",
}  # fmt: skip
"""pydantic's name of an error where a text stands for another value -> how the value is written."""


class Wrong(ValueError):
    """Raised by a check of a value, with a hint that mends it and the place inside the value that it is about."""

    def __init__(self, problem: str, hint: str = "", *place: str | int) -> None:
        super().__init__(problem)
        self.hint, self.place = hint, place


def explained(
    error: ValidationError, data: Any, model: type[BaseModel] | None = None
) -> tuple[tuple[str | int, ...], str, str]:
    """Place, problem and hint (often empty) of the first wrong value.

    data: what was read, in which places are looked up. model: what it was read as, for the hint at an unknown key.
    """
    # A misspelt key first: the right one, which is then missing, comes before it.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    place = _place(first, data)
    together = [each for each in error.errors() if _place(each, data) == place]  # one for each kind that a value may have
    if first["type"] == "missing" and isinstance(first["loc"][-1], int):
        return place, f"expected {first['loc'][-1] + 1} entries or more, found fewer", "Add them."
    if first["type"] == "missing":
        return place, "is missing", "Add it."
    if first["type"] == "extra_forbidden":
        return place, "is not known", did_you_mean(str(place[-1]), _fields(model, place)) if model else ""
    if first["type"] == "value_error":
        cause = first["ctx"]["error"]
        return (*place, *getattr(cause, "place", ())), str(cause), getattr(cause, "hint", "")
    value = first["input"]
    if first["type"] == "literal_error" and len(together) == 1 and isinstance(value, str):
        return place, f"unknown value {found(value)}", did_you_mean(value, re.findall(r"'(.+?)'", first["ctx"]["expected"]))
    if first["type"] in ("too_short", "string_too_short") and len(together) == 1 and not value:
        return place, "is empty", ""
    *others, last = dict.fromkeys(map(_expected, together))
    hint = WRITTEN.get(first["type"], "") if isinstance(value, str) else ""
    return place, f"expected {' or '.join(filter(None, (', '.join(others), last)))}, found {found(value)}", hint


def _fields(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Field names of the model within `model` that holds the last part of `place`."""
    for part in place[:-1]:
        annotation = model.model_fields[str(part)].annotation if part in model.model_fields else None
        inner = [each for each in (annotation, *get_args(annotation)) if hasattr(each, "model_fields")]
        model = inner[0] if inner else model
    return list(model.model_fields)


def found(value: Any) -> str:
    """A value that was read, for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a table" if value else "an empty table"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    text = str(value)
    short = printable(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")
    return f"'{short}'" if isinstance(value, str) else short


def _place(error: Any, data: Any) -> tuple[str | int, ...]:
    """The error's place without what pydantic adds to it: the kind that a value was tried as, and `[key]`."""
    place = tuple(part for part in error["loc"] if part != "[key]")
    for end, part in enumerate(place):
        inside = isinstance(data, Mapping) or (isinstance(data, Sequence) and not isinstance(data, str))
        if not inside:
            return place[:end]
        if isinstance(data, Mapping) and part not in data:
            return place[: end + 1]
        if not isinstance(data, Mapping) and not (isinstance(part, int) and part < len(data)):
            return place[:end]
        data = data[part]
    return place


def _expected(error: Any) -> str:
    """The value that was expected."""
    name, context = error["type"], error.get("ctx", {})
    if name in LIMITS:
        limit, text = LIMITS[name]
        return text.format(context[limit])
    if name == "literal_error":
        return str(context["expected"])
    if name == "string_too_short":
        return "a text that is not empty"
    if name == "too_short":
        return "one entry or more" if context["min_length"] == 1 else f"{context['min_length']} entries or more"
    if name == "too_long":
        return f"no more than {context['max_length']} entries"
    if name == "finite_number":
        return "a finite number"
    return KINDS.get(name.split("_")[0], str(error["msg"][:1].lower() + error["msg"][1:]))
