"""Which row each picture belongs to: by one rule for all pictures of a command, never by one rule for each.

The rule is the first that holds for every picture which belongs to a row at all: its name is the row's id, the id but for
leading zeros, or the same number. The place in the file counts only where no id is a number, and it is then said.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from srbench.analysis.metrics import SAMPLE
from srbench.catalog.prompts import categories
from srbench.catalog.specs import LayoutSpec, Row
from srbench.errors import UsageError, did_you_mean
from srbench.files import printable

ID, PADDED, NUMBER, PLACE, PROMPT = "id", "id but for leading zeros", "number", "place in the file", "prompt"
_NUMBER = re.compile(r"[+-]?\d+(?:\.0*)?")


class Place(NamedTuple):
    """Which picture it is: the same in every folder that is compared."""

    category: str
    case: str
    """Which prompt, as the name says it: a number, a row's id, or the prompt itself; once it is matched, the row's id."""
    sample: str
    """Which picture of the prompt; empty where names do not say."""


@dataclass(frozen=True)
class RowAndPlace:
    """A row and the place of its picture."""

    row: Row
    place: Place | None
    """None where no folder has a picture of the row."""


@dataclass(frozen=True)
class Matching:
    """What pictures' names mean."""

    how: str
    """The rule, for people."""
    row_of: Mapping[Place, Row]
    strangers: tuple[Place, ...]
    """Places that belong to no row."""

    def renamed(self, place: Place) -> Place | None:
        """The place under its row's id, the same for every folder; None where it belongs to no row."""
        row = self.row_of.get(place)
        return None if row is None else Place("", row.id, place.sample)


def matched(rows: Sequence[Row], places: Collection[Place], layout: LayoutSpec) -> Matching:
    """The row of each place.

    places: of all folders that are compared, as their names say them. Raises `UsageError` for a category that no row has, for
    names that count from 1 where rows count from 0, for ids or prompts that do not tell rows apart.
    """
    if layout.named == "prompt":
        row_of = _by_prompt(rows)
        return _matching(PROMPT, {place: row_of(place) for place in places})
    if layout.numbered == "category":
        return _within_categories(rows, places)
    return _by_name(rows, places)


def _matching(how: str, found: Mapping[Place, Row | None]) -> Matching:
    strangers = sorted((place for place, row in found.items() if row is None), key=in_order)
    return Matching(how, {place: row for place, row in found.items() if row is not None}, tuple(strangers))


# --- names that are ids or numbers ------------------------------------------------------------------------------------


def _by_name(rows: Sequence[Row], places: Collection[Place]) -> Matching:
    """Names of rows among all of them: by id, else as numbers, else, where no id is a number, by place."""
    _refuse_from_1(rows, places)
    exact = {row.id: row for row in rows}
    found = {place: exact.get(_id(place), exact.get(place.case)) for place in places}
    if any(found.values()) and not any(map(_number, exact)):
        return _matching(ID, found)
    if any(map(_number, exact)):
        return _as_numbers(rows, places, found)
    _refuse_beyond(rows, places)
    return _matching(PLACE, {place: _at(rows, place) for place in places})


def _as_numbers(rows: Sequence[Row], places: Collection[Place], exact: Mapping[Place, Row | None]) -> Matching:
    """Names and ids compared as numbers; where two ids are one number only the exact id counts."""
    if len({_number(row.id) or row.id for row in rows}) < len(rows):
        return _matching(ID, exact)
    of_number = {_number(row.id): row for row in rows if _number(row.id) is not None}
    found = {
        place: exact[place] if exact[place] is not None or (number := _number(place.case)) is None else of_number.get(number)
        for place in places
    }
    inexact = [(place, row) for place, row in found.items() if row is not None and exact[place] is None]
    padded = all(place.case.lstrip("0") == row.id.lstrip("0") for place, row in inexact)
    return _matching((PADDED if padded else NUMBER) if inexact else ID, found)


def _number(text: str) -> str | None:
    """The number that a text is, without sign, zeros and a fraction of zeros (`case_number` as pandas writes it), else None."""
    if _NUMBER.fullmatch(text) is None:
        return None
    whole = text.partition(".")[0]
    value = int(whole) if len(whole) < 100 else None
    return None if value is None else str(value)


def _at(rows: Sequence[Row], place: Place) -> Row | None:
    """The row at the place that a name counts from 0."""
    if not place.case.isdecimal() or len(place.case) > 9:
        return None
    return rows[int(place.case)] if int(place.case) < len(rows) else None


def _refuse_from_1(rows: Sequence[Row], places: Collection[Place]) -> None:
    """Names 1 to n beside rows that are numbered 0 to n - 1: each picture but the last would be judged as the next row."""
    if any(_number(row.id) for row in rows) and not only_numbered(rows):
        return
    numbers = {int(place.case) for place in places if place.case.isdecimal() and len(place.case) <= 9}
    if numbers and min(numbers) == 1 and max(numbers) == len(rows):
        raise UsageError(
            f"the pictures' names count from 1 to {len(rows)}, the rows from 0 to {len(rows) - 1}",
            "Give the prompts a column with the numbers that the names have (case_number), or name the pictures from 0.",
        )


def _refuse_beyond(rows: Sequence[Row], places: Collection[Place]) -> None:
    """Numbers beyond the last row, where numbers are all that there is: these pictures were made of other rows."""
    highest = max((int(place.case) for place in places if place.case.isdecimal() and len(place.case) <= 9), default=0)
    if highest >= len(rows):
        raise UsageError(
            f"the pictures' names count to {highest}, and there are {len(rows)} rows, whose ids are in no name",
            "Give the prompts that the pictures were made of, or a column with the numbers that the names have (case_number).",
        )


def only_numbered(rows: Sequence[Row]) -> bool:
    """Whether ids do nothing but count the rows from 0, as they do where a file has no column of ids."""
    return all(row.id == str(place) for place, row in enumerate(rows))


# --- names that count within a category -------------------------------------------------------------------------------


def _within_categories(rows: Sequence[Row], places: Collection[Place]) -> Matching:
    """As `_by_name`, among the rows of the category that a name has. Ids that only count all rows are none here."""
    known: dict[str, list[Row]] = {}
    for row in rows:
        known.setdefault(row.category, []).append(row)
    row_of: dict[Place, Row] = {}
    strangers: list[Place] = []
    rules: Counter[str] = Counter()
    for category in sorted({place.category for place in places}):
        own = [place for place in places if place.category == category]
        among = _of_category(category, rows, known)
        part = _by_name(among, own) if not category or not only_numbered(rows) else _by_place(among, own)
        row_of |= part.row_of
        strangers += part.strangers
        rules.update([part.how] if part.row_of else [])
    if len(rules) > 1:
        raise UsageError(
            f"the pictures fit the rows by {' in one category and by '.join(rules)} in another",
            "Give every category's rows ids of one kind, or leave the ids out.",
        )
    return Matching(next(iter(rules), PLACE), row_of, tuple(strangers))


def _by_place(rows: Sequence[Row], places: Collection[Place]) -> Matching:
    _refuse_from_1([row.model_copy(update={"id": str(place)}) for place, row in enumerate(rows)], places)
    _refuse_beyond(rows, places)
    return _matching(f"{PLACE}, within each category", {place: _at(rows, place) for place in places})


def _of_category(category: str, rows: Sequence[Row], known: Mapping[str, list[Row]]) -> Sequence[Row]:
    """The rows of a category, in order; all rows for a name without one. Raises `UsageError` for one that no row has."""
    if not category:
        return rows
    if shared := [row for row in rows if len(categories(row)) > 1 and category in categories(row)]:
        raise UsageError(
            f"row '{printable(shared[0].id)}' belongs to several categories: which number it has in '{printable(category)}' "
            "is not known",
            "Give the prompts one category a row.",
        )
    if category not in known:
        raise UsageError(f"no row has the category '{printable(category)}'", did_you_mean(category, map(printable, known)))
    return known[category]


# --- names that are prompts -------------------------------------------------------------------------------------------


def _by_prompt(rows: Sequence[Row]) -> Callable[[Place], Row | None]:
    """Finds the row with a name's prompt and seed, or with its prompt where rows have no seeds.

    Raises `UsageError` where two rows have both in common.
    """
    known: dict[tuple[str, int | None], Row] = {}
    for row in rows:
        key = _composed(row.prompt), row.seed
        if key in known:
            pair = f"'{printable(known[key].id)}' and '{printable(row.id)}'"
            raise UsageError(f"rows {pair} have one prompt and seed: pictures named after them are one file", "Drop one of them.")
        known[key] = row
    if (without := {prompt for prompt, seed in known if seed is None}) & {prompt for prompt, seed in known if seed is not None}:
        raise UsageError(f"the prompt '{printable(min(without))}' stands with a seed and without one", "Give both rows a seed.")

    def row_of(place: Place) -> Row | None:
        prompt = _composed(place.case)
        seed = int(place.sample) if place.sample.isdecimal() else None
        return known.get((prompt, seed)) or known.get((prompt, None))

    return row_of


def _composed(text: str) -> str:
    """One form of accents: file systems keep either."""
    return unicodedata.normalize("NFC", text)


# --- rows with their pictures -----------------------------------------------------------------------------------------


def unnamed(places: Collection[Place], layout: LayoutSpec) -> list[RowAndPlace]:
    """Rows for pictures of which nothing is known but their names: each counts as one of a prompt to be forgotten."""
    by_prompt = layout.named == "prompt"

    def row(place: Place) -> Row:
        prompt = place.case if by_prompt else ""
        return Row(id=_id(place), kind="forget", category=place.category, prompt=prompt)

    return [RowAndPlace(_sampled(row(place), place.sample), place) for place in sorted(places, key=in_order)]


def plain_numbers(places: Collection[Place]) -> Callable[[Place], Place]:
    """How to write places of which no rows are known: without leading zeros where all names are numbers, else as named."""
    if not all(place.case.isdecimal() for place in places):
        return lambda place: place
    return lambda place: place._replace(case=place.case.lstrip("0") or "0")


def asked_for(rows: Sequence[Row], places: Iterable[Place]) -> list[RowAndPlace]:
    """Every row with its pictures' places, which are under the rows' ids; a row with several pictures once for each."""
    mine: dict[str, list[Place]] = {row.id: [] for row in rows}
    for place in sorted(set(places), key=in_order):
        mine[place.case].append(place)
    several = any(len(own) > 1 for own in mine.values())
    asked = []
    for row in rows:
        pictures = [RowAndPlace(_sampled(row, place.sample if several else ""), place) for place in mine[row.id]]
        asked += pictures or [RowAndPlace(row, None)]
    return asked


def _id(place: Place) -> str:
    return "/".join(part for part in (place.category, place.case) if part)


def _sampled(row: Row, sample: str) -> Row:
    return row.model_copy(update={"id": f"{row.id}{SAMPLE}{sample}"}) if sample else row


def in_order(place: Place) -> tuple[str, int, str, int, str]:
    """Numbers as numbers."""
    numbers = [int(text) if text.isdecimal() and len(text) < 100 else -1 for text in (place.case, place.sample)]
    return place.category, numbers[0], place.case, numbers[1], place.sample
