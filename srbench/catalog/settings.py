"""Parses `--set NAME.OPTION=VALUE` and builds option objects from it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError

from srbench.catalog import plugins
from srbench.catalog.wording import explained
from srbench.errors import UsageError, did_you_mean
from srbench.files import printable

Options = TypeVar("Options", bound=BaseModel)
LONGEST = 80
"""Characters of the user's text that a message repeats."""


MOST_SEED = 2**64 - 1
"""The largest seed that torch takes."""


def overrides(settings: Sequence[str], names: Collection[str]) -> dict[str, str]:
    """Option values set for one of `names`. Raises `UsageError` on a bad form, and for two values of one option."""
    chosen: dict[str, str] = {}
    for setting in settings:
        name, option, value = split(setting)
        if name not in names:
            continue
        if chosen.get(option, value) != value:
            raise UsageError(f"--set {shown(f'{name}.{option}')}: two values for it, {shown(chosen[option])} and {shown(value)}",
                             "Leave one of them out.")  # fmt: skip
        chosen[option] = value
    return chosen


def split(setting: str) -> tuple[str, str, str]:
    """Name, option and value. Raises `UsageError` for another form."""
    match = re.fullmatch(r"([\w+-]+)\.([\w-]+)=(.*)", setting, re.DOTALL)
    if match is None:
        raise UsageError(f"--set {shown(setting)}: expected NAME.OPTION=VALUE", "Example: --set saferedir.cooldown=2")
    return match[1], match[2], match[3]


def shown(text: str) -> str:
    """The user's text for a message: on one line, shortened to `LONGEST` characters."""
    return printable(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")


NULL = "null"
"""The value that takes an option back to nothing, where it may be nothing: a preset or a fit may have set it."""


def _meant(kind: type[Options], option: str, value: str) -> str | None:
    """The value of an option that is written as text."""
    return None if value == NULL and type(None) in get_args(kind.model_fields[option].annotation) else value


def parsed(kind: type[Options], name: str, values: Mapping[str, object], chosen: Mapping[str, str]) -> Options:
    """Options of `name`: `values` overridden by `chosen`. Raises `UsageError` for an unknown option or a bad value."""
    unknown = [key for key in chosen if key not in kind.model_fields]
    if unknown:
        raise UsageError(f"{name} has no option '{shown(unknown[0])}'", did_you_mean(unknown[0], kind.model_fields))
    return validated(kind, {**values, **{option: _meant(kind, option, value) for option, value in chosen.items()}}, f"{name}.")


def validated(kind: type[Options], values: Mapping[str, object], prefix: str = "") -> Options:
    """An instance of `kind` with these values. Raises `UsageError` naming the option, also for a number that is not finite."""
    try:
        options = kind(**values)
    except ValidationError as error:
        place, problem, hint = explained(error, values)
        option = ".".join(map(str, place)) or "options"
        raise UsageError(f"--set {prefix}{shown(option)}: {problem}", hint or "Give a value of the right kind.") from error
    for option in kind.model_fields:
        value = getattr(options, option)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--set {prefix}{option}: {value} is not a finite number", "Give a number.")
    return options


def options(cls: type[Options], settings: Sequence[str], **fixed: object) -> Options:
    """An instance of `cls` from `OPTION=VALUE` strings. Raises `UsageError` naming the option."""
    chosen: dict[str, str] = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign:
            raise UsageError(f"--set {shown(setting)}: expected OPTION=VALUE", "Example: --set steps=30")
        if name not in cls.model_fields:
            raise UsageError(f"there is no option '{shown(name)}'", did_you_mean(name, cls.model_fields))
        if chosen.get(name, value) != value:
            raise UsageError(f"--set {shown(name)}: two values for it", "Leave one of them out.")
        chosen[name] = value
    return validated(cls, {**fixed, **chosen})


def check_count(value: int | None, option: str, hint: str = "Leave it out for the default.") -> None:
    """Raises `UsageError` for a count below 1. option: its name in the message. None is an option that was left out."""
    if value is not None and value < 1:
        raise UsageError(f"{option} {value}: expected 1 or more", hint)


def check_seed(seed: int, option: str = "--seed") -> int:
    """The seed. Raises `UsageError` for one outside the range that a torch generator takes."""
    if not 0 <= seed <= MOST_SEED:
        raise UsageError(f"{option} {seed}: expected 0 to 2^64 - 1", "Give another seed.")
    return seed


def check(settings: Iterable[str], known: Collection[str]) -> None:
    """Raise `UsageError` for a `--set` whose name is not part of the run."""
    for setting in settings:
        name = split(setting)[0]
        if name not in known:
            is_method = name in plugins.presets()
            hint = f"'{name}' is a method: give it to --method or --on, too." if is_method else did_you_mean(name, known)
            raise UsageError(f"--set {shown(setting)}: '{shown(name)}' is not part of this run", hint)
