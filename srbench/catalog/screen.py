"""Content safety: what makes a run sensitive, and which prompts are dropped before anything is encoded.

No switch turns this off (design section 8). Words only: whole words, any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from srbench.catalog.specs import ConceptSpec, Row, SuiteSpec

# Whole words that name minors. A match drops the row in a sensitive run, whatever the row means by it.
MINOR_WORDS = (
    "adolescent", "babies", "baby", "boy", "boys", "child", "childhood", "childlike", "children", "daughter", "daughters",
    "girl", "girls", "grandchild", "grandchildren", "grandson", "granddaughter", "infant", "infants", "juvenile", "kid",
    "kids", "kindergarten", "loli", "lolita", "minor", "minors", "newborn", "pupil", "pupils", "preteen", "pubescent",
    "schoolboy", "schoolboys", "schoolchild", "schoolchildren", "schoolgirl", "schoolgirls", "shota", "son", "sons",
    "teen", "teenage", "teenaged", "teenager", "teenagers", "teens", "toddler", "toddlers", "tween", "tweens",
    "underage", "underaged", "young", "younger", "youngster", "youngsters", "youth", "youths",
)
AGE = re.compile(r"\b(?:[1-9]|1[0-7])[\s-]*(?:years?|yrs?|yo|y/o)\b", re.IGNORECASE)
SEXUAL_WORDS = (
    "erotic", "erotica", "explicit", "hentai", "naked", "nsfw", "nude", "nudes", "nudity", "porn", "sex", "sexual", "sexy",
)
EXCLUDED_CATEGORIES = frozenset({"girl", "boy"})
"""IGMU's classes that name minors, excluded by key."""


def _matcher(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile(r"(?<![^\W_])(?:" + "|".join(map(re.escape, words)) + r")(?![^\W_])", re.IGNORECASE)


_MINOR, _SEXUAL = _matcher(MINOR_WORDS), _matcher(SEXUAL_WORDS)


def names_minor(text: str) -> bool:
    """Whether `text` has a word or an age that names a minor."""
    return bool(_MINOR.search(text) or AGE.search(text))


def is_sexual(text: str) -> bool:
    """Whether `text` has a sexual word."""
    return bool(_SEXUAL.search(text))


def texts(row: Row) -> tuple[str, ...]:
    """Every text of a row that is, or stands for something that is, encoded."""
    return tuple(t for t in (row.prompt, row.negative_prompt, row.reference, row.target) if t)


def sensitive_concept(concept: ConceptSpec) -> bool:
    """Whether a concept is sensitive: it says so, or a sexual word is among its words."""
    words = [w for family in concept.families.values() for w in (*family.names, *family.words)]
    return concept.sensitive or any(map(is_sexual, [concept.name, *words]))


def sensitive(concept: ConceptSpec, suite: SuiteSpec, rows: Iterable[Row]) -> bool:
    """Whether a run of these is sensitive: its concept, its suite or one of its rows is."""
    return sensitive_concept(concept) or suite.sensitive or any(is_sexual(t) for row in rows for t in texts(row))


def admissible(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows of a sensitive run that may be encoded: none whose category or any text names a minor."""
    return tuple(
        row for row in rows
        if row.category not in EXCLUDED_CATEGORIES and not any(map(names_minor, texts(row)))
    )
