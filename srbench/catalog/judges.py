"""Scorer options that a judge's protocol sets, such as the labels that a zero-shot scorer chooses among."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from srbench.catalog import load, plugins, resolve
from srbench.catalog.settings import shown, split
from srbench.catalog.specs import ProtocolSpec
from srbench.errors import UsageError, did_you_mean


def with_settings(settings: Sequence[str], judges: Iterable[ProtocolSpec]) -> tuple[str, ...]:
    """The `--set` options of a run, followed by those that its judges set for their scorers.

    Raises `UsageError` where the user or another judge gives an option another value: a scorer is loaded once a run.
    """
    values = {split(setting)[:2]: (split(setting)[2], "") for setting in settings}
    parts = {part.name: part for judge in judges for part in load.parts(judge)}
    for part in parts.values():
        for option, value in _texts(part).items():
            other, judge = values.setdefault((part.scorer, option), (value, part.name))
            if other != value:
                raise _two_values(f"{part.scorer}.{option}", part.name, judge)
    return (*settings, *(f"{scorer}.{option}={value}" for (scorer, option), (value, judge) in values.items() if judge))


def check_judges(judges: Iterable[ProtocolSpec]) -> None:
    """Raises `UsageError` where a judge reads a scorer that there is not, or a field that its scorer does not declare."""
    for part in {part.name: part for judge in judges for part in load.parts(judge)}.values():
        try:
            declared = plugins.known("scorers", part.scorer).meta.get("fields", ())
        except UsageError as error:
            raise type(error)(f"judge {part.name}: {error.message}", error.hint) from error
        if declared and part.field not in declared:
            message = f"judge {part.name}: scorer '{part.scorer}' has no field '{part.field}'"
            raise UsageError(message, did_you_mean(part.field, declared))


def _two_values(option: str, part: str, judge: str) -> UsageError:
    """judge: the one that set the value first; empty where the user did."""
    if judge:
        return UsageError(f"the judges {judge} and {part} give {option} two values", "Run their concepts one after the other.")
    return UsageError(f"--set {shown(option)}: the judge {part} has another value for it", "Leave it out, or write a protocol.")


def fits(judge: ProtocolSpec, scorer: str, identity: Mapping[str, Any]) -> bool:
    """Whether a scorer's stored numbers were made with the options that the judge sets. identity: the scorer's in that run."""
    options = {name: str(value) for name, value in identity.get("options", {}).items()}
    parts = [part for part in load.parts(judge) if part.scorer == scorer]
    return all(options.get(option, value) == value for part in parts for option, value in _texts(part).items())


def _texts(part: ProtocolSpec) -> dict[str, str]:
    """Option -> its value as `--set` takes it."""
    return {option: _text(value) for option, value in part.settings.items()}


def _text(value: str | int | float | bool) -> str:
    text = str(value)
    return str(resolve.package_path(text)) if text.startswith("package:") else text
