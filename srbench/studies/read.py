"""Reads a study's file; an error names file, line and key, and what was probably meant."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srbench.catalog.load import Lined, Place, parse_lined
from srbench.errors import UsageError, did_you_mean
from srbench.studies.expand import FileValue, Source, jobs_of
from srbench.studies.spec import KINDS, PLURALS, Kind, Step, Study

SUFFIXES = (".yaml", ".yml")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
"""What a step may be called: it becomes the name of a folder."""
NOT_SHARED = frozenset({"set", "as", "options", "by", "per", "redirector"})
"""Words that mean something else in each kind of step."""
MOST_JOBS = 5000
"""Of a whole study."""


def is_study(name: str) -> bool:
    """Whether a text can only be the name of a study's file."""
    return name.endswith(SUFFIXES)


def read(path: Path) -> Study:
    """A study. Raises `UsageError` naming file, line and key, and `MissingError` where a backbone is not on this machine."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: a study's file ends in .yaml", "See docs/studies.md.")
    file = parse_lined(path)
    if not isinstance(file.data, dict):
        raise file.error((), "expected a table with `steps`", "See docs/studies.md.")
    shared = _shared(file)
    raw = file.data.get("steps")
    if not isinstance(raw, dict) or not raw:
        where: Place = ("steps",) if "steps" in file.data else ()
        raise file.error(where, "expected steps by name", "Example: steps: {mine: {train: saferedir}}")
    name = file.data.get("study", path.stem)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise file.error(("study",), "expected a name of letters, digits, '_', '.', '+' and '-'", "Or leave it out.")
    source, count = Source(file, tuple(raw)), 0
    for step in raw:
        source.earlier[step] = parsed = _step(source, step, raw[step], shared)
        count += len(parsed.jobs)
        if count > MOST_JOBS:
            raise file.error(("steps", step), f"the study comes to more than {MOST_JOBS} jobs here", "Write several studies.")
    sha = hashlib.sha256(file.text.encode()).hexdigest()
    lines = {step: file.line(("steps", step)) for step in raw}
    return Study(path, name, file.text, sha, tuple(source.earlier.values()), lines)


def _shared(file: Lined) -> dict[str, FileValue]:
    """The options beside `steps`: they hold for every step whose kind has them."""
    words = {word for kind in KINDS.values() for word in kind.words}
    values = {key: value for key, value in file.data.items() if key not in ("study", "steps")}
    for key in values:
        if PLURALS.get(key, key) in NOT_SHARED & words:
            raise file.error((key,), f"'{key}' holds for one step alone", "Move it into the steps that are meant.")
    return _entries(file, (), values, words - NOT_SHARED, ("study", "steps"))


def _entries(file: Lined, at: Place, raw: Mapping[str, Any], known: set[str], also: tuple[str, ...]) -> dict[str, FileValue]:
    """Word -> value and place. Raises `UsageError` for an unknown word, an empty value, and one that is given twice."""
    entries: dict[str, FileValue] = {}
    for key, value in raw.items():
        word, place = PLURALS.get(key, key), (*at, key)
        if word not in known:
            raise file.error(place, f"unknown key '{key}'", did_you_mean(key, {*known, *also}))
        if word in entries:
            raise file.error(place, f"'{word}' is given twice", "Leave one of them out.")
        if value is None or value in ("", [], {}):
            raise file.error(place, "is empty", "Give a value, or leave it out.")
        entries[word] = FileValue(value, place)
    return entries


def _step(source: Source, name: str, raw: Any, shared: Mapping[str, FileValue]) -> Step:
    file, place = source.file, ("steps", name)
    if not NAME.fullmatch(name):
        raise file.error(place, "a step's name has letters, digits, '_', '.', '+' and '-'", "Give it another name.")
    if not isinstance(raw, dict):
        raise file.error(place, "expected a table", f"Example: {name}: {{run: [none, saferedir]}}")
    kind = _kind(file, place, raw)
    rest = {key: value for key, value in raw.items() if key != kind.verb}
    words = set(kind.words)
    entries = _entries(file, place, rest, words, (kind.verb,))
    subject = FileValue(raw[kind.verb], (*place, kind.verb))
    if subject.value is None or subject.value in ("", [], {}):
        raise file.error(subject.place, "is empty", "Say what.")
    shared_entries = {word: each for word, each in shared.items() if word in words and word not in entries}
    return Step(name, kind.verb, jobs_of(source, name, kind, subject, entries, shared_entries))


def _kind(file: Lined, place: Place, raw: Mapping[str, Any]) -> Kind:
    """The kind of a step, by the one verb that it has; in a run, `score` is an option."""
    verbs = [verb for verb in KINDS if verb in raw]
    verbs = ["run"] if verbs == ["run", "score"] else verbs
    if len(verbs) > 1:
        raise file.error((*place, verbs[1]), f"the step says '{verbs[0]}' and '{verbs[1]}'", "Write a step for each.")
    if not verbs:
        meant = next((key for key in raw if did_you_mean(key, KINDS).startswith("Did")), "")
        where = (*place, meant) if meant else place
        raise file.error(where, "the step does not say what to do", did_you_mean(meant, KINDS))
    return KINDS[verbs[0]]
