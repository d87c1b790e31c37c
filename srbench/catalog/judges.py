"""Scorer options that a judge's protocol sets, such as the labels that a zero-shot scorer chooses among."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from srbench.catalog import load, plugins, resolve
from srbench.catalog.settings import overrides, parsed, shown, split
from srbench.catalog.specs import ProtocolSpec
from srbench.errors import SrbenchError, UsageError, did_you_mean
from srbench.faults import contained, module_of

MOST_LISTED = 60
"""Classes that a message lists; of more than these only the nearest."""


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


def check_judges(judges: Iterable[ProtocolSpec], settings: Sequence[str] = ()) -> None:
    """Check that all that judges name is there: protocols, scorers, fields, and classes where a scorer knows them beforehand;
    and that a picture can be on either side of the threshold, where a scorer says that the field holds probabilities.

    settings: the user's `--set` options. Raises `UsageError` naming file, line and key.
    """
    judges = list(judges)
    for judge in judges:
        for number, name in enumerate(judge.any_of):
            with _in_file(judge, "any_of", number):
                load.parts(load.protocol(name), (judge.name,))
    for part in {part.name: part for judge in judges for part in load.parts(judge)}.values():
        with _in_file(part, "scorer"):
            declared = plugins.known("scorers", part.scorer).meta.get("fields", ())
        with _in_file(part, "field"):
            if declared and part.field not in declared:
                raise UsageError(f"scorer '{part.scorer}' has no field '{part.field}'", did_you_mean(part.field, declared))
        with _in_file(part, "classes"):
            places = max(int(part.top1), part.top_k)
            check_classes(part.scorer, part.field, part.classes, with_settings(settings, [part]), places)
        with _in_file(part, "threshold"):
            check_threshold(part.scorer, part.field, part.threshold, part.rule, ranked=places > 0)


def known_classes(scorer: str, settings: Sequence[str] = ()) -> Mapping[str, Collection[str]]:
    """Field -> the classes that it holds a number for, or none where it is one number; without the scorer's weights.

    Empty where the scorer does not say (`known_classes` in `scorers.base`), or cannot be asked: then it fails in its own column.
    settings: `--set` options, its own and others.
    """
    with suppress(SrbenchError):
        cls = plugins.load("scorers", scorer)
        ask = getattr(cls, "known_classes", None)
        if ask is not None:
            with contained(f"scorer {scorer}, its known_classes", module_of(cls)):
                return dict(ask(parsed(cls.Options, scorer, {}, overrides(settings, (scorer,)))))
    return {}


def check_classes(scorer: str, field: str, names: Sequence[str], settings: Sequence[str] = (), places: int = 0) -> None:
    """Check the classes that a judge names, where the scorer knows its own beforehand.

    settings: as for `known_classes`. places: how many of the highest classes count; 0 where only a threshold does. Raises
    `UsageError` for the first class that the scorer does not have, and where too few others are left for a picture without these.
    """
    known = known_classes(scorer, settings).get(field)
    if known is None:
        return
    if known and not names:
        raise UsageError(f"'{field}' of scorer '{scorer}' holds a number for each class", f"Name those that count. {_few(known)}")
    if names and not known:
        raise UsageError(f"'{field}' of scorer '{scorer}' is one number and has no classes", "Leave classes out.")
    for name in names:
        if name not in known:
            raise UsageError(f"scorer '{scorer}' has no class '{name}' in '{field}'", _nearest(name, known))
    if places > len(known) - len(set(names)):
        problem = f"one of them is always among the {places} highest: '{field}' of scorer '{scorer}' has {len(known)} classes"
        raise UsageError(problem, "Name fewer classes, or lower top_k.")


def check_threshold(scorer: str, field: str, threshold: float, rule: str = "above", ranked: bool = False) -> None:
    """Check a threshold on a field that the scorer declares to hold probabilities.

    ranked: whether the highest classes count too; a threshold of 1 then leaves it to them. Raises `UsageError` for a threshold
    that no picture reaches, or every one.
    """
    if field not in plugins.known("scorers", scorer).meta.get("probabilities", ()):
        return
    never = threshold > 1 or (threshold == 1 and rule == "above" and not ranked)
    always = threshold < 0 or (threshold == 0 and field != "boxes")  # above 0 is any box, and a picture may have none
    if never or always:
        reached = "no picture exceeds" if never else "every picture reaches"
        problem = f"{reached} a threshold of {threshold:g}: '{field}' of scorer '{scorer}' holds probabilities"
        raise UsageError(problem, "Give a number between 0 and 1, such as 0.5.")


def _nearest(name: str, known: Collection[str]) -> str:
    """As `did_you_mean`, with the nearest names alone where there are too many to list."""
    if len(known) <= MOST_LISTED:
        return did_you_mean(name, known)
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    return f"Did you mean '{near[0]}'? Near it: {', '.join(near)}" if near else f"It has {len(known)} classes, and none like it."


def _few(known: Collection[str]) -> str:
    """The classes, where they are few enough to list."""
    return f"It has: {', '.join(known)}" if len(known) <= MOST_LISTED else f"It has {len(known)} classes."


@contextmanager
def _in_file(judge: ProtocolSpec, *place: str | int) -> Iterator[None]:
    """Errors inside name the judge's file, line and key."""
    try:
        yield
    except UsageError as error:
        raise load.error_in("protocols", judge.name, place, error) from error


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
