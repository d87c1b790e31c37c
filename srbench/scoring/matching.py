"""Matches images to rows, by one rule for all images of a command.

The rule is the first that holds for every image that belongs to a row at all: its name is the row's id, the id apart from
leading zeros, or the same number. The place in the file is used only where no id is a number, and this is reported.
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
    """Which image it is: the same in every folder that is compared."""

    category: str
    case: str
    """Which prompt, as in the file's name: a number, a row's id, or the prompt itself; after matching, the row's id."""
    sample: str
    """Which image of the prompt; empty where names do not number them."""


@dataclass(frozen=True)
class RowAndPlace:
    """A row and the place of its image."""

    row: Row
    place: Place | None
    """None where no folder has an image of the row."""


@dataclass(frozen=True)
class Matching:
    """Places and their rows."""

    how: str
    """The rule, in words."""
    row_of: Mapping[Place, Row]
    strangers: tuple[Place, ...]
    """Places that belong to no row."""

    def renamed(self, place: Place) -> Place | None:
        """The place with its row's id, the same for every folder; None where it belongs to no row."""
        row = self.row_of.get(place)
        return None if row is None else Place("", row.id, place.sample)


def matched(rows: Sequence[Row], places: Collection[Place], layout: LayoutSpec) -> Matching:
    """The row of each place.

    places: of all folders that are compared, as parsed from file names. Raises `UsageError` for a category that no row has, for
    names that count from 1 where rows count from 0, for ids or prompts that several rows share.
    """
    if layout.named == "prompt":
        row_of = _by_prompt(rows)
        return _matching(PROMPT, {place: row_of(place) for place in places})
    if layout.numbered == "category":
        return _within_categories(rows, places)
    return _by_name(rows, places)


def _matching(how: str, row_of: Mapping[Place, Row | None]) -> Matching:
    strangers = sorted((place for place, row in row_of.items() if row is None), key=in_order)
    return Matching(how, {place: row for place, row in row_of.items() if row is not None}, tuple(strangers))


# --- names that are ids or numbers ------------------------------------------------------------------------------------


def _by_name(rows: Sequence[Row], places: Collection[Place]) -> Matching:
    """Match names to all rows: by id, else as numbers, else, where no id is a number, by place."""
    _refuse_from_1(rows, places)
    exact = {row.id: row for row in rows}
    row_of = {place: exact.get(_id(place), exact.get(place.case)) for place in places}
    if any(row_of.values()) and not any(map(_number, exact)):
        return _matching(ID, row_of)
    if any(map(_number, exact)):
        return _as_numbers(rows, places, row_of)
    _refuse_beyond(rows, places)
    return _matching(PLACE, {place: _at(rows, place) for place in places})


def _as_numbers(rows: Sequence[Row], places: Collection[Place], exact: Mapping[Place, Row | None]) -> Matching:
    """Compare names and ids as numbers; where two ids are the same number, only exact ids match."""
    if len({_number(row.id) or row.id for row in rows}) < len(rows):
        return _matching(ID, exact)
    of_number = {_number(row.id): row for row in rows if _number(row.id) is not None}
    row_of = {
        place: exact[place] if exact[place] is not None or (number := _number(place.case)) is None else of_number.get(number)
        for place in places
    }
    inexact = [(place, row) for place, row in row_of.items() if row is not None and exact[place] is None]
    padded = all(place.case.lstrip("0") == row.id.lstrip("0") for place, row in inexact)
    return _matching((PADDED if padded else NUMBER) if inexact else ID, row_of)


def _number(text: str) -> str | None:
    """A text's number without plus sign, leading zeros and a fraction of zeros (as pandas writes `case_number`); else None."""
    if _NUMBER.fullmatch(text) is None:
        return None
    whole = text.partition(".")[0]
    value = int(whole) if len(whole) < 100 else None
    return None if value is None else str(value)


def _at(rows: Sequence[Row], place: Place) -> Row | None:
    """The row at the place that a name gives, counted from 0."""
    if not place.case.isdecimal() or len(place.case) > 9:
        return None
    return rows[int(place.case)] if int(place.case) < len(rows) else None


def _refuse_from_1(rows: Sequence[Row], places: Collection[Place]) -> None:
    """Refuse names 1 to n for rows numbered 0 to n - 1: each image but the last would be judged as the next row."""
    if any(_number(row.id) for row in rows) and not only_numbered(rows):
        return
    numbers = {int(place.case) for place in places if place.case.isdecimal() and len(place.case) <= 9}
    if numbers and min(numbers) == 1 and max(numbers) == len(rows):
        raise UsageError(
            f"the pictures' names count from 1 to {len(rows)}, the rows from 0 to {len(rows) - 1}",
            "Give the prompts a column with the numbers that the names have (case_number), or name the pictures from 0.",
        )


def _refuse_beyond(rows: Sequence[Row], places: Collection[Place]) -> None:
    """Refuse numbers beyond the last row where rows have no numbers of their own: these images are of other rows."""
    highest = max((int(place.case) for place in places if place.case.isdecimal() and len(place.case) <= 9), default=0)
    if highest >= len(rows):
        raise UsageError(
            f"the pictures' names count to {highest}, and there are {len(rows)} rows, whose ids are in no name",
            "Give the prompts that the pictures were made of, or a column with the numbers that the names have (case_number).",
        )


def only_numbered(rows: Sequence[Row]) -> bool:
    """Whether ids only count the rows from 0, as in a file without a column of ids."""
    return all(row.id == str(place) for place, row in enumerate(rows))


# --- names that count within a category -------------------------------------------------------------------------------


def _within_categories(rows: Sequence[Row], places: Collection[Place]) -> Matching:
    """As `_by_name`, among the rows of the name's category. Ids that only count all rows are ignored here."""
    by_category: dict[str, list[Row]] = {}
    for row in rows:
        by_category.setdefault(row.category, []).append(row)
    row_of: dict[Place, Row] = {}
    strangers: list[Place] = []
    rules: Counter[str] = Counter()
    for category in sorted({place.category for place in places}):
        category_places = [place for place in places if place.category == category]
        among = _of_category(category, rows, by_category)
        part = _by_name(among, category_places) if not category or not only_numbered(rows) else _by_place(among, category_places)
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


def _of_category(category: str, rows: Sequence[Row], by_category: Mapping[str, list[Row]]) -> Sequence[Row]:
    """The rows of a category, in order; all rows where it is empty. Raises `UsageError` for one that no row has."""
    if not category:
        return rows
    if shared := [row for row in rows if len(categories(row)) > 1 and category in categories(row)]:
        raise UsageError(
            f"row '{printable(shared[0].id)}' belongs to several categories: which number it has in '{printable(category)}' "
            "is not known",
            "Give the prompts one category a row.",
        )
    if category not in by_category:
        raise UsageError(f"no row has the category '{printable(category)}'", did_you_mean(category, map(printable, by_category)))
    return by_category[category]


# --- names that are prompts -------------------------------------------------------------------------------------------


def _by_prompt(rows: Sequence[Row]) -> Callable[[Place], Row | None]:
    """Finds the row with a name's prompt and seed, or with its prompt where rows have no seeds.

    Raises `UsageError` where two rows share prompt and seed.
    """
    by_prompt: dict[tuple[str, int | None], Row] = {}
    for row in rows:
        key = _composed(row.prompt), row.seed
        if key in by_prompt:
            pair = f"'{printable(by_prompt[key].id)}' and '{printable(row.id)}'"
            raise UsageError(f"rows {pair} have one prompt and seed: pictures named after them are one file", "Drop one of them.")
        by_prompt[key] = row
    without = {prompt for prompt, seed in by_prompt if seed is None}
    if without & {prompt for prompt, seed in by_prompt if seed is not None}:
        raise UsageError(f"the prompt '{printable(min(without))}' stands with a seed and without one", "Give both rows a seed.")

    def row_of(place: Place) -> Row | None:
        prompt = _composed(place.case)
        seed = int(place.sample) if place.sample.isdecimal() else None
        return by_prompt.get((prompt, seed)) or by_prompt.get((prompt, None))

    return row_of


def _composed(text: str) -> str:
    """The composed form (NFC) of accents: file systems use either form."""
    return unicodedata.normalize("NFC", text)


# --- rows with their pictures -----------------------------------------------------------------------------------------


def unnamed(places: Collection[Place], layout: LayoutSpec) -> list[RowAndPlace]:
    """Rows for images of which only the names are known: each counts as an image of a prompt to be forgotten."""
    by_prompt = layout.named == "prompt"

    def row(place: Place) -> Row:
        prompt = place.case if by_prompt else ""
        return Row(id=_id(place), kind="forget", category=place.category, prompt=prompt)

    return [RowAndPlace(_sampled(row(place), place.sample), place) for place in sorted(places, key=in_order)]


def plain_numbers(places: Collection[Place]) -> Callable[[Place], Place]:
    """Normalises places without rows: no leading zeros where all names are numbers, else unchanged."""
    if not all(place.case.isdecimal() for place in places):
        return lambda place: place
    return lambda place: place._replace(case=place.case.lstrip("0") or "0")


def asked_for(rows: Sequence[Row], places: Iterable[Place]) -> list[RowAndPlace]:
    """Every row with the place of its image, matched by row id; a row with several images once for each."""
    mine: dict[str, list[Place]] = {row.id: [] for row in rows}
    for place in sorted(set(places), key=in_order):
        mine[place.case].append(place)
    several = any(len(row_places) > 1 for row_places in mine.values())
    placed = []
    for row in rows:
        pictures = [RowAndPlace(_sampled(row, place.sample if several else ""), place) for place in mine[row.id]]
        placed += pictures or [RowAndPlace(row, None)]
    return placed


def _id(place: Place) -> str:
    return "/".join(part for part in (place.category, place.case) if part)


def _sampled(row: Row, sample: str) -> Row:
    return row.model_copy(update={"id": f"{row.id}{SAMPLE}{sample}"}) if sample else row


def in_order(place: Place) -> tuple[str, int, str, int, str]:
    """Sort key of a place that compares numbers as numbers."""
    numbers = [int(text) if text.isdecimal() and len(text) < 100 else -1 for text in (place.case, place.sample)]
    return place.category, numbers[0], place.case, numbers[1], place.sample
