"""Content safety: what makes a run sensitive, and which prompts are dropped before anything is encoded.

No switch turns this off (design section 8). It knows words, as people write them and as they disguise them; gibberish it does
not know, which is why rows with a hidden target need that target.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from srbench.catalog.specs import ConceptSpec, Row, SuiteSpec

# Words that name minors, in the singular; a blank may be a hyphen or nothing. A match drops the row in a sensitive run,
# whatever the row means by it: "a minor key" goes too. Outside of sensitive runs none of this is applied.
MINOR_WORDS = (
    "adolescent", "adolescence", "baby", "babe in arms", "boy", "child", "childhood", "children", "daughter", "girl", "god child",
    "god daughter", "god son", "grand child", "grand children", "grand daughter", "grand son", "infant", "infancy", "infantile",
    "juvenile", "kid", "kiddo", "kindergarten", "kindergartner", "kindergartener", "lass", "lassie", "laddie", "little one",
    "loli", "lolicon", "lolita", "minor", "new born", "nymphet", "orphan", "pre pubescent", "pre school", "pre schooler",
    "pre teen", "pre teenager", "puberty", "pubescent", "pupil", "school age", "school aged", "school boy", "school child",
    "school children", "school girl", "school kid", "high schooler", "high school", "middle school", "middle schooler",
    "elementary school", "primary school", "grade school", "grade schooler", "junior high", "jail bait", "shota", "shotacon",
    "son", "step child", "step daughter", "step son", "teen", "teen age", "teen aged", "teen ager", "toddler", "tom boy", "tween",
    "under age", "under aged", "young", "young ling", "young ster", "youth", "youthful",
)  # fmt: skip
MISSPELT = (
    "adolecent", "adolesent", "adolescant", "babie", "boi", "childern", "chidren", "childen", "chilren", "chlid", "chld", "gril",
    "gurl", "grl", "girrl", "infent", "juvinile", "juvenille", "kindergarden", "teeneger", "teneger", "tenager", "teenanger",
    "todler", "todder", "toddlar", "yung", "yought", "yuoth",
)  # fmt: skip
AS_WRITTEN = frozenset({"son", "god son", "grand son", "step son", "gril", "yung"})
"""Words of which no letter may be doubled, and which end in nothing but a plural: "soon", "Sony" and "grill" are none of them."""
ENDINGS = ("s", "es", "z", "ed", "er", "ers", "hood", "ie", "ies", "ish", "like", "y")
"""What a word may end in besides itself."""
SEXUAL_WORDS = (
    "breasts", "ecchi", "erotic", "erotica", "explicit", "fetish", "genital", "genitalia", "hentai", "lewd", "lingerie", "naked",
    "nakedness", "nipple", "nsfw", "nude", "nudism", "nudist", "nudity", "orgy", "porn", "porno", "pornographic", "pornography",
    "seductive", "sensual", "sex", "sexual", "sexually", "sexualized", "sexy", "topless", "unclothed", "undressed",
)  # fmt: skip
EXCLUDED_CATEGORIES = frozenset({"girl", "boy"})
"""IGMU's classes that name minors, excluded by key."""

LOOKALIKES = {"a": "a4@", "b": "b8", "e": "e3", "g": "g9", "i": "i1!|", "l": "l1|", "o": "o0", "s": "s5$", "t": "t7"}
"""Letter -> what is written in its place."""
HOMOGLYPHS = str.maketrans("аеіорсухьѕјԁοαεικνυ", "aeiopcyxbsjdoaeiknu")
"""Cyrillic and Greek letters that look like Latin ones."""

_NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen",
)  # fmt: skip
_YEARS = rf"(?:(?<![\d.,])(?:[1-9]|1[0-7])|\b(?:{'|'.join(_NUMBERS)}))"
_GAP = r"[\s\-_.]*"
AGE = re.compile(
    rf"{_YEARS}{_GAP}(?:years?|yrs?|y\.?{_GAP}/?o)(?![^\W_])"  # 12-year-old, 9 yrs, 12yo, 12 y/o
    rf"|(?<![\d.,])\d{{1,2}}{_GAP}(?:months?|weeks?|days?){_GAP}old\b"
    rf"|\b(?:aged?|ages|age of|turning){_GAP}:?{_GAP}{_YEARS}(?![\d%])(?![^\W\d_])"  # aged 9, age: twelve
    r"|\b(?:under|below|not yet|less than|younger than)\s+(?:the age of\s+)?(?:18|eighteen)\b"
)


_MARK = r"[-._*~]?"
"""What may stand between the letters of a word."""


def _letter(letter: str, often: bool) -> str:
    """One letter as it may be written. Where it may not be doubled it may still be drawn out: three times and more."""
    kind = re.escape(letter) if letter not in LOOKALIKES else f"[{re.escape(LOOKALIKES[letter])}]"
    return f"{kind}+" if often else f"{kind}(?:{kind}{{2,}})?"


def _spelt(word: str) -> str:
    """A word with lookalikes, doubled letters, and marks between its letters (g-i-r-l, g.i.r.l)."""
    often = word not in AS_WRITTEN
    return r"[\W_]*".join(_MARK.join(_letters(part, often)) for part in word.split(" "))


def _letters(part: str, often: bool) -> list[str]:
    """The part's letters; a double one, as in "teen", stays at least double."""
    runs = re.findall(r"((.)\2*)", part)
    return [
        _letter(letter, often) if len(run) == 1 else f"(?:{_letter(letter, False)}{_MARK}){{{len(run)},}}" for run, letter in runs
    ]


def _with_endings(words: Iterable[str], endings: Iterable[str]) -> str:
    written = "|".join(map(_spelt, words))
    ending = "|".join(_MARK.join(_letter(each, True) for each in end) for end in endings)
    return f"(?:{written})(?:[-'’]?(?:{ending}))?"


def _matcher(words: Iterable[str], endings: Iterable[str]) -> re.Pattern[str]:
    words = tuple(words)
    free, fixed = ([word for word in words if (word in AS_WRITTEN) is which] for which in (False, True))
    forms = [_with_endings(free, endings), *([_with_endings(fixed, ("s",))] if fixed else [])]
    forms.append("|".join(" ".join(word) for word in words if " " not in word))  # g i r l
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(forms)})(?![^\W_])")


_MINOR = _matcher((*MINOR_WORDS, *MISSPELT), ENDINGS)
_SEXUAL = _matcher(SEXUAL_WORDS, ("s",))


def plain(text: str) -> str:
    """`text` in small letters without accents, invisible marks and foreign letters that look like ours."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    seen = "".join(each for each in decomposed if unicodedata.category(each) not in ("Mn", "Cf"))
    return seen.translate(HOMOGLYPHS)


def _has(pattern: re.Pattern[str], text: str) -> bool:
    """Whether a word stands in `text`; a number such as 1011 is none, whatever its digits look like."""
    return any(any(map(str.isalpha, match[0])) for match in pattern.finditer(text))


def names_minor(text: str) -> bool:
    """Whether `text` has a word or an age that names a minor."""
    seen = plain(text)
    return AGE.search(seen) is not None or _has(_MINOR, seen)


def is_sexual(text: str) -> bool:
    """Whether `text` has a sexual word."""
    return _has(_SEXUAL, plain(text))


def texts(row: Row) -> tuple[str, ...]:
    """Every text of a row that is, or stands for something that is, encoded."""
    return tuple(t for t in (row.prompt, row.negative_prompt, row.reference, row.target) if t)


def sensitive_concept(concept: ConceptSpec) -> bool:
    """Whether a concept is sensitive: it says so, or a sexual word is among its words."""
    words = [w for family in concept.families.values() for w in (*family.names, *family.words)]
    return concept.sensitive or any(map(is_sexual, [concept.name, *words]))


Others = Mapping[str, Iterable[str]]
"""Row id -> texts of the file that stand beside the row and in no field of it (`prompts.Read.others`)."""
NO_OTHERS: Others = {}


def sensitive(concept: ConceptSpec, suite: SuiteSpec, rows: Iterable[Row], others: Others = NO_OTHERS) -> bool:
    """Whether a run of these is sensitive: its concept, its suite or one of its rows is, by a text or by its category."""
    return sensitive_concept(concept) or suite.sensitive or sexual_rows(rows, others)


def sexual_rows(rows: Iterable[Row], others: Others = NO_OTHERS) -> bool:
    """Whether any text of a row, or beside one, is sexual."""
    every = {text for row in rows for text in (row.category, *texts(row), *others.get(row.id, ()))}
    return any(map(is_sexual, every))


def admissible(rows: Iterable[Row], others: Others = NO_OTHERS) -> tuple[Row, ...]:
    """The rows of a sensitive run that may be encoded: none whose category or any text, or any text beside it, names a minor."""
    return tuple(
        row for row in rows
        if row.category.casefold() not in EXCLUDED_CATEGORIES
        and not any(map(names_minor, (*texts(row), *others.get(row.id, ()))))
    )  # fmt: skip


def untargeted(rows: Iterable[Row]) -> int:
    """How many rows have no target: where prompts stand for hidden ones, these cannot be screened."""
    return sum(not (row.target or "").strip() for row in rows)
