"""`--set NAME.OPTION=VALUE`: which values a name gets, and options made of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from srbench.errors import UsageError, did_you_mean

Options = TypeVar("Options", bound=BaseModel)


def overrides(settings: Sequence[str], names: Collection[str]) -> dict[str, str]:
    """Option values for what goes by one of `names`. Raises `UsageError` on a bad form."""
    chosen = {}
    for setting in settings:
        match = re.fullmatch(r"([\w+-]+)\.([\w-]+)=(.*)", setting, re.DOTALL)
        if match is None:
            raise UsageError(f"--set {setting}: expected NAME.OPTION=VALUE", "Example: --set saferedir.cooldown=2")
        if match[1] in names:
            chosen[match[2]] = match[3]
    return chosen


def parsed(kind: type[Options], name: str, values: Mapping[str, object], chosen: Mapping[str, str]) -> Options:
    """Options of `name` from its own values and those that were set. Raises `UsageError` for an unknown one or a bad value."""
    unknown = [key for key in chosen if key not in kind.model_fields]
    if unknown:
        raise UsageError(f"{name} has no option '{unknown[0]}'", did_you_mean(unknown[0], kind.model_fields))
    try:
        return kind(**{**values, **chosen})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--set {name}.{first['loc'][0]}: {first['msg']}", "Give a value of the right kind.") from error


def check(settings: Iterable[str], known: Collection[str]) -> None:
    """Refuse a `--set` for a name that is no part of the run."""
    for setting in settings:
        name = setting.partition(".")[0]
        if name not in known:
            raise UsageError(f"--set {setting}: '{name}' is not part of this run", did_you_mean(name, known))
