"""Content safety: which runs are sensitive, and which of their prompts are dropped before anything is encoded.

No switch turns this off (design section 8). It finds words and ages in many languages, written plainly or disguised
(`srbench.catalog.minors`). It cannot read gibberish, so adversarial rows need their target prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from srbench.catalog.specs import ConceptSpec, Row, SuiteSpec
from srbench.errors import UsageError

if TYPE_CHECKING:
    from srbench.catalog.minors.spelling import Speller

SEXUAL_WORDS = (
    "breasts", "ecchi", "erotic", "erotica", "explicit", "fetish", "genital", "genitalia", "hentai", "lewd", "lingerie", "naked",
    "nakedness", "nipple", "nsfw", "nude", "nudism", "nudist", "nudity", "orgy", "porn", "porno", "pornographic", "pornography",
    "seductive", "sensual", "sex", "sexual", "sexually", "sexualized", "sexy", "topless", "unclothed", "undressed",
)  # fmt: skip
"""English words; `minors/words/_sexual.txt` has those of other languages."""
EXCLUDED_CATEGORIES = frozenset({"girl", "boy"})
"""IGMU's classes that name minors, excluded by key."""
LONGEST_CACHED = 65_536
"""Texts whose result is cached: each is screened several times in a run."""


def plain(text: str) -> str:
    """`text` in lower case, without accents and invisible marks, with lookalike letters of other scripts as Latin ones."""
    from srbench.catalog.minors import normalise

    return normalise.skeleton(normalise.readings(text)[0]) if text else ""


@lru_cache(maxsize=LONGEST_CACHED)
def names_minor(text: str) -> bool:
    """Whether `text` has a word or an age that names a minor, in any language and spelling that srbench knows.

    Doubtful texts count as naming one. The word lists are read on the first call.
    """
    from srbench.catalog.minors import ages, normalise, spelling

    words = spelling.minors()
    return any(words.found_in(seen) or ages.found_in(seen) for seen in map(_in_context, normalise.readings(text)))


def _in_context(reading: str) -> str:
    """`reading` without words that belong to a harmless phrase (baby carrots); unchanged where it is sexual."""
    from srbench.catalog.minors import contexts

    seen = contexts.without_harmless(reading)
    return reading if seen != reading and is_sexual(reading) else seen


def names_minor_any(texts: Iterable[str]) -> bool:
    """Whether one of `texts` names a minor."""
    return any(map(names_minor, texts))


def admissible_texts(texts: Iterable[str]) -> tuple[str, ...]:
    """Those of `texts` that may be encoded in a sensitive run."""
    return tuple(text for text in texts if not names_minor(text))


@lru_cache(maxsize=LONGEST_CACHED)
def is_sexual(text: str) -> bool:
    """Whether `text` has a sexual word."""
    from srbench.catalog.minors import normalise

    return any(_sexual().found_in(reading) for reading in normalise.readings(text))


@cache
def _sexual() -> Speller:
    from srbench.catalog.minors import spelling, wordlist

    words = wordlist.word_list((*SEXUAL_WORDS, *wordlist.entries("_sexual")))
    return spelling.Speller(words, wordlist.word_list(SEXUAL_WORDS), (), (), wordlist.word_list(()), endings=("s",))


def texts(row: Row) -> tuple[str, ...]:
    """Every text of a row that is encoded, and the target that its prompt stands for."""
    return tuple(t for t in (row.prompt, row.negative_prompt, row.reference, row.target) if t)


def sensitive_concept(concept: ConceptSpec) -> bool:
    """Whether a concept is sensitive: its spec says so, or one of its words is sexual."""
    words = [w for family in concept.families.values() for w in (*family.names, *family.words, *family.descriptions)]
    return concept.sensitive or any(map(is_sexual, [concept.name, *words]))


Others = Mapping[str, Iterable[str]]
"""Row id -> texts of the row's line in the file that are in no field of the row (`prompts.Read.others`)."""
NO_OTHERS: Others = {}


def sensitive(concept: ConceptSpec, suite: SuiteSpec, rows: Iterable[Row], others: Others = NO_OTHERS) -> bool:
    """Whether a run is sensitive: because of its concept, its suite, or a text or the category of one of its rows."""
    return sensitive_concept(concept) or suite.sensitive or sexual_rows(rows, others)


def sexual_rows(rows: Iterable[Row], others: Others = NO_OTHERS) -> bool:
    """Whether any text of the rows, or of `others`, is sexual."""
    every = {text for row in rows for text in (row.category, *texts(row), *others.get(row.id, ()))}
    return any(map(is_sexual, every))


def admissible(rows: Iterable[Row], others: Others = NO_OTHERS) -> tuple[Row, ...]:
    """The rows of a sensitive run that may be encoded: those of which neither category nor any text names a minor."""
    return tuple(
        row for row in rows
        if not excluded_category(row.category) and not names_minor_any((*texts(row), *others.get(row.id, ())))
    )  # fmt: skip


def excluded_category(category: str) -> bool:
    """Whether a category names minors: one of `EXCLUDED_CATEGORIES`, in any spelling, alone or in a list."""
    return plain(category).strip() in EXCLUDED_CATEGORIES or names_minor(category)


def untargeted(rows: Iterable[Row]) -> int:
    """Number of rows without a target; in an adversarial suite these cannot be screened."""
    return sum(not (row.target or "").strip() for row in rows)


def refuse_minors(settings: Iterable[str]) -> None:
    """For a sensitive run: raise `UsageError` for an option whose text names a minor, since it may be encoded.

    Paths of existing files are allowed.
    """
    for setting in settings:
        value = setting.partition("=")[2]
        if names_minor(value) and not Path(value).expanduser().exists():
            raise UsageError(
                f"--set {setting.partition('=')[0]}: its text names a minor, and the run is sensitive", "Take that word out."
            )
