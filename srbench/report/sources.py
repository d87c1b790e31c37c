"""The source of each cell: its entry in a run file, and the run's header."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from srbench.analysis.results import ResultCell, method_name
from srbench.analysis.robustness import from_attack
from srbench.catalog import load, screen
from srbench.catalog.specs import Row
from srbench.errors import UsageError, did_you_mean
from srbench.results.run_files import UNREAD, stored


@dataclass(frozen=True)
class Source:
    """A cell with its entry in a run file."""

    cell: ResultCell
    entry: dict[str, Any]
    run: dict[str, Any]
    """The file's header."""

    @cached_property
    def sensitive(self) -> bool:
        """Whether concept, suite or a row is sensitive; True where this cannot be determined."""
        concept, suite = load.concepts().get(self.cell.concept), load.suites().get(self.cell.suite)
        rows = self.entry.get("rows", [])
        if UNREAD in self.entry or any(self.entry.get(part, {}).get("sensitive") for part in ("suite", "elsewhere")):
            return True  # as stored: a text that made the run sensitive may not be in the run's file
        # External images and files of prompts have no suite in the catalog.
        from_file = "elsewhere" in self.entry or bool(self.entry.get("suite", {}).get("prompts"))
        if concept is None or (suite is None and not from_file) or not all("row" in each for each in rows):
            return True
        try:
            parsed = [Row.model_validate(each["row"]) for each in rows]
        except ValidationError:
            return True
        if suite is not None:
            return screen.sensitive(concept, suite, parsed)
        texts = [text for row in parsed for text in (row.category, *screen.texts(row))]
        return screen.sensitive_concept(concept) or any(map(screen.is_sexual, texts))

    @property
    def kept(self) -> bool:
        """Whether its user asked to keep the images of sensitive runs."""
        return bool(self.run.get("request", {}).get("keep_images"))


def sources(folder: Path, warn: Callable[[str], None]) -> list[Source]:
    """For each cell its newest run, local before committed; damaged files are reported by `warn` and left out."""
    cells = stored(folder, warn)
    headers = {id(each.header): {name: value for name, value in each.header.items() if name != "cells"} for each in cells}
    return [Source(each.cell, each.entry, headers[id(each.header)]) for each in cells]


def usual(sources: list[Source], warn: Callable[[str], None]) -> list[Source]:
    """Leave out the committed cells of attack files, of which there are many; `warn` reports their number."""
    remaining = [source for source in sources if source.cell.source != "committed" or not from_attack(source.cell)]
    if len(remaining) < len(sources):
        warn(f"{len(sources) - len(remaining)} committed cells of attacks are left out; `srbench compare --attacks` shows them")
    return remaining


def only(sources: list[Source], methods: Sequence[str], suites: Sequence[str], concepts: Sequence[str]) -> list[Source]:
    """The cells of these methods, suites and concepts, and the untouched backbone. Raises `UsageError` for an unknown name."""
    sides = (("method", methods), ("suite", suites), ("concept", concepts))
    for what, names in sides:
        known = {name for source in sources for name in _names(source.cell, what)}
        for name in names:
            if name not in known:
                raise UsageError(f"no result has {what} '{name}'", did_you_mean(name, known))
    return [source for source in sources if all(_fits(source.cell, what, names) for what, names in sides)]


def _fits(cell: ResultCell, what: str, names: Sequence[str]) -> bool:
    return not names or not _names(cell, what).isdisjoint(names) or (what == "method" and cell.label == "none")


def _names(cell: ResultCell, what: str) -> set[str]:
    return {method_name(cell) if what == "method" else getattr(cell, what)}
