"""The word lists in `words/`: words that name a minor in each language, and harmless words that look similar."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from srbench.catalog.minors.normalise import bare, folded

SUFFIXES = (
    "s", "es", "z", "er", "ers", "hood", "ie", "ies", "ish", "like", "y", "let", "lets", "ling", "lings",
    "ette", "ettes", "ness", "dom",
)  # fmt: skip
"""Endings that an English word may have."""


@dataclass(frozen=True)
class WordList:
    """Words in plain letters (`bare`), grouped by how they are matched."""

    whole: frozenset[str]
    """Whole words."""
    stems: frozenset[str]
    """Beginnings of words."""
    endings: frozenset[str]
    """Ends of words."""
    anywhere: frozenset[str]
    """Parts of words, in scripts that put no blanks between them."""
    marked: frozenset[str]
    """Words that count only with their accents, in lower case, composed (NFC)."""
    phrases: frozenset[tuple[str, ...]]
    """Several words in a row; the last may end in "*"."""


def entries(name: str) -> Iterator[str]:
    """The entries of one file of `words/`, as they are written there, in small letters."""
    for line in (files(__package__) / "words" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield from filter(None, (folded(entry.strip()) for entry in line.split(",")))


def languages() -> list[str]:
    """The lists that name minors, by language."""
    every = (file.name for file in (files(__package__) / "words").iterdir())
    return sorted(name.removesuffix(".txt") for name in every if name.endswith(".txt") and not name.startswith("_"))


def word_list(written: Iterable[str]) -> WordList:
    """Group entries by how they are matched."""
    kinds: dict[str, set[str]] = {name: set() for name in ("whole", "stems", "endings", "anywhere", "marked")}
    phrases: set[tuple[str, ...]] = set()
    for entry in written:
        if entry.startswith("="):
            kinds["marked"].add(entry[1:])
        elif " " in entry or "-" in entry:
            phrases.add(tuple(re.split(r"[ -]+", bare(entry))))
        else:
            kinds[_kind(entry)].add(bare(entry.strip("*")))
    return WordList(phrases=frozenset(phrases), **{name: frozenset(words) for name, words in kinds.items()})


def _kind(entry: str) -> str:
    return {(True, True): "anywhere", (True, False): "endings", (False, True): "stems", (False, False): "whole"}[
        entry.startswith("*"), entry.endswith("*")
    ]


def has_no_blanks(word: str) -> bool:
    """Whether `word` is of a script that puts no blanks between words."""
    return any("\u0e00" <= each <= "\u0e7f" or "\u3040" <= each <= "\u9fff" or "\uac00" <= each <= "\ud7a3" for each in word)


@cache
def minors() -> WordList:
    """The words of all languages."""
    return word_list(entry for language in languages() for entry in entries(language))


@cache
def english() -> WordList:
    """The English words, for which most disguises are tried."""
    return word_list(entries("en"))


@cache
def harmless() -> WordList:
    """Harmless words and parts of words that look like one that names a minor."""
    return word_list(entries("_harmless"))
