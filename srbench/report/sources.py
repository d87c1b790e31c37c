"""Where every cell comes from: its entry in a run file, and the run's header."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from srbench.analysis.results import ResultCell
from srbench.analysis.robustness import from_attack
from srbench.catalog import load, screen
from srbench.catalog.specs import Row
from srbench.errors import UsageError, did_you_mean
from srbench.results.run_files import UNREAD, stored


@dataclass(frozen=True)
class Source:
    """A cell with what its run file says of it."""

    cell: ResultCell
    entry: dict[str, Any]
    run: dict[str, Any]
    """The file's header."""

    @cached_property
    def sensitive(self) -> bool:
        """Whether concept, suite or a row is sensitive; what cannot be told is."""
        concept, suite = load.concepts().get(self.cell.concept), load.suites().get(self.cell.suite)
        rows = self.entry.get("rows", [])
        if UNREAD in self.entry or any(self.entry.get(part, {}).get("sensitive") for part in ("suite", "elsewhere")):
            return True  # what a run was, it stays; also by a text beside its rows, which the run's file does not hold
        own = "elsewhere" in self.entry or bool(self.entry.get("suite", {}).get("prompts"))  # a file of prompts is in no catalog
        if concept is None or (suite is None and not own) or not all("row" in each for each in rows):
            return True
        try:
            known = [Row.model_validate(each["row"]) for each in rows]
        except ValidationError:
            return True
        if suite is not None:
            return screen.sensitive(concept, suite, known)
        texts = [text for row in known for text in (row.category, *screen.texts(row))]
        return screen.sensitive_concept(concept) or any(map(screen.is_sexual, texts))

    @property
    def kept(self) -> bool:
        """Whether its user asked to keep the images of sensitive runs."""
        return bool(self.run.get("request", {}).get("keep_images"))


def sources(folder: Path, warn: Callable[[str], None]) -> list[Source]:
    """Per cell the newest run that asked for it, local before committed; damaged files are named and left out."""
    found = stored(folder, warn)
    headers = {id(each.header): {name: value for name, value in each.header.items() if name != "cells"} for each in found}
    return [Source(each.cell, each.entry, headers[id(each.header)]) for each in found]


def usual(found: list[Source], warn: Callable[[str], None]) -> list[Source]:
    """Without the committed cells of files that attacks made, of which there are many; says how many they were."""
    kept = [source for source in found if source.cell.source != "committed" or not from_attack(source.cell)]
    if len(kept) < len(found):
        warn(f"{len(found) - len(kept)} committed cells of attacks are left out; `srbench compare --attacks` shows them")
    return kept


def only(found: list[Source], methods: Sequence[str], suites: Sequence[str], concepts: Sequence[str]) -> list[Source]:
    """Those asked for; the untouched backbone stays. Raises `UsageError` for a name that no cell has."""
    sides = (("method", methods), ("suite", suites), ("concept", concepts))
    for what, names in sides:
        known = {getattr(source.cell, what) for source in found}
        for name in names:
            if name not in known:
                raise UsageError(f"no result has {what} '{name}'", did_you_mean(name, known))
    return [source for source in found if all(_fits(source.cell, what, names) for what, names in sides)]


def _fits(cell: ResultCell, what: str, names: Sequence[str]) -> bool:
    return not names or getattr(cell, what) in names or (what == "method" and cell.label == "none")
