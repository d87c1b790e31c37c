"""Ages whose words are disguised: letters apart, doubled, wrong or masked, signs and figures for letters, read from behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache

from srbench.catalog.minors.numbers import languages

_UNITS = (
    "year", "years", "old", "olds", "yearold", "yearsold", "month", "months",
    "week", "weeks", "birthday", "aged", "grade", "grader",
)
_READ = str.maketrans("0123456789@$!|+€£", "oizeasgtbgasiitel")
_APART = re.compile(r"(?<![^\W_])[^\W_](?:[\W_]{1,5}[^\W_]){4,}(?![^\W_])")
"""Letters one by one, with blanks or marks between them."""
_FEW_APART = re.compile(r"(?<![^\W_])[a-z](?:[\W_][a-z]){2,}(?![^\W_])")
"""Fewer letters one by one, in a text: n-i-n-e years old."""
_SIGNS_APART = re.compile(r"(?<!\S)\S(?:\s{1,5}\S){4,}(?!\S)")
"""Letters or signs for letters one by one, with blanks between them."""
_TOKEN = re.compile(r"[^\s\-–—_,;:()\"“”]+")
_MASKED = re.compile(r"[a-z]*(?:[*#?_•·.@%~^-][a-z]*)+")
_MASK = r"[*#?_•·.@%~^-]"
_FROM_BEHIND = re.compile(r"dlo|raey|sry|dega|yadhtrib|edarg|shtnom|htnom")
_TENS = re.compile(r"(?:twen|thir|for|four|fif|six|seven|eigh|nine)ty")


def forms(plain: str) -> Iterator[str]:
    """`plain` as it may have been meant, where it looks like a disguise; nothing where it does not.

    plain: small letters without accents.
    """
    every = dict.fromkeys([plain, *_put_together(plain)])
    every |= dict.fromkeys(each[::-1] for each in tuple(every) if _FROM_BEHIND.search(each))
    every |= dict.fromkeys(_with_words_mended(each) for each in tuple(every))
    yield from (each for each in every if each != plain)


def _put_together(plain: str) -> Iterator[str]:
    """Runs of single letters as one word: whole, and without the article before them or what stands behind them."""
    yield _FEW_APART.sub(lambda run: re.sub(r"[\W_]", "", run[0]), plain)
    for pattern in (_APART, _SIGNS_APART):
        for run in pattern.findall(plain):
            letters = re.sub(r"[\W_]+" if pattern is _APART else r"\s+", "", run)
            yield from (mended for each in (letters, letters[1:], letters[:-1]) for mended in (each, _with_words_mended(each)))


def _with_words_mended(text: str) -> str:
    """`text` with every piece that is a disguised word of an age as that word."""
    return _TOKEN.sub(lambda piece: _mended(piece[0]) or piece[0], _with_masks_mended(text))


def _with_masks_mended(text: str) -> str:
    return " ".join(_joined([_unmasked(piece) or piece for piece in text.split(" ")]))


def _joined(pieces: list[str]) -> list[str]:
    """`pieces` with two that are one word of an age together as that: ye ars."""
    joined: list[str] = []
    for piece in pieces:
        if joined and piece.isalpha() and joined[-1] + piece in _vocabulary() and not {joined[-1], piece} <= set(_vocabulary()):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


@lru_cache(maxsize=65_536)
def _unmasked(piece: str) -> str:
    """The word of an age that `piece` is with one or a few letters masked; "" where it is none."""
    core = piece.strip(",;:!()\"'“”").rstrip(".-?")
    if not 3 <= len(core) <= 20 or not _MASKED.fullmatch(core):
        return ""
    if sum(map(str.isalpha, core)) < max(2, (len(core) + 1) // 2):
        return ""
    wanted = re.compile(re.sub(_MASK, "[a-z]", core))
    return next((word for word in _vocabulary() if wanted.fullmatch(word)), "")


@cache
def _numbers() -> tuple[str, ...]:
    english = next(every for language, every, _ in languages() if language == "en")
    return tuple(form for each in english for form in each if len(form) > 2)


@cache
def _vocabulary() -> tuple[str, ...]:
    glued = (number + unit for number in _numbers() for unit in ("yearold", "yearsold", "year", "years"))
    return (*_numbers(), *_UNITS, *glued)


@cache
def _by_key() -> dict[str, str]:
    return {_key(word): word for word in reversed(_vocabulary())}


def _key(word: str) -> str:
    """A word without doubled letters, with i and l, which one sign is put for, as one."""
    return re.sub(r"(.)\1+", r"\1", word.replace("l", "i"))


@lru_cache(maxsize=65_536)
def _mended(piece: str) -> str:
    """The word that `piece` is a disguise of; "" where it is none, or is a plain word."""
    if piece in _vocabulary() or len(piece) < 3 or len(piece) > 60 or piece.isdigit() or not re.search("[a-z|!$@+]", piece):
        return ""
    plain = piece.isalpha()
    if not plain or re.search(r"(.)\1", piece):
        key = _key(piece.translate(_READ))
        if word := _by_key().get(key, ""):
            return "" if plain and word == "ten" else word
    return _nearest(piece) if plain else ""


def _nearest(piece: str) -> str:
    """The number or unit that `piece` is one letter away from, or two that changed places."""
    from rapidfuzz.distance import OSA
    from rapidfuzz.process import extractOne

    if len(piece) < 4 or _TENS.search(piece) or piece in _PLAIN:
        return ""
    match = extractOne(piece, _long(), scorer=OSA.distance, score_cutoff=1)
    return match[0] if match else ""


@cache
def _long() -> tuple[str, ...]:
    return tuple(word for word in _vocabulary() if len(word) > 3)


_PLAIN = frozenset({
    "added", "agent", "ager", "ages", "aide", "axed", "bear", "bears", "caged", "crade", "dear", "dears", "dine", "dive",
    "eaged", "egged", "eight", "eights", "eleventh", "even", "event", "fear", "fears", "fifth", "fight", "file", "fine", "fire",
    "five", "fives", "fixteen", "flour", "form", "foul", "four", "fours", "fouryear", "freight", "gaged", "gear", "gears",
    "geek", "geeks", "give", "gold", "grace", "grades", "grander", "grape", "grave", "graze", "hear", "hears", "height", "hive",
    "hour", "jive", "leek", "leeks", "light", "line", "lines", "live", "meek", "might", "mile", "mine", "mouth", "mouths",
    "near", "nears", "nice", "night", "nina", "nines", "nineth", "none", "our", "paged", "pear", "pears", "peek", "peeks",
    "pine", "pour", "raged", "rear", "rears", "reek", "right", "sear", "seek", "seeks", "sevens", "sever", "sight", "tear",
    "tears", "thee", "there", "threw", "tight", "tour", "trade", "trader", "tree", "twelfth", "urged", "used", "vine", "waged",
    "wear", "wears", "weed", "weeds", "week", "weep", "weight", "wine", "wines", "yeah", "yearn", "yearns", "your",
})  # fmt: skip
"""Words of their own that are one letter away from such a word."""
