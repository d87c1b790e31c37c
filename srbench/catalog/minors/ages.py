"""Ages below eighteen in a text: figures of any script, words of many languages, birthdays, school years, years of birth."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache

from srbench.catalog.minors import ages_disguised, ages_english, ages_other, ages_told
from srbench.catalog.minors.normalise import bare, skeleton
from srbench.catalog.minors.numbers import ROMAN, either, english_numbers, languages, unit
from srbench.catalog.minors.wordlist import has_no_blanks


@lru_cache(maxsize=65_536)
def found_in(reading: str) -> bool:
    """Whether an age below eighteen stands in a reading of a text (`normalise.readings`)."""
    return any(map(_found_in, _forms(reading)))


def _found_in(text: str) -> bool:
    patterns = _patterns()
    if _has_glued(text) or any(each.search(text) and each.search(_without_grown_up(text)) for each in patterns["anything"]):
        return True
    texts = [*(patterns["number"] if _has_number().search(text) else ()), *(patterns["unit"] if _has_unit().search(text) else ())]
    grown = _without_grown_up(text) if texts else text
    return any(not is_measure(match, grown) for pattern in texts for match in pattern.finditer(grown))


# --- patterns ---------------------------------------------------------------------------------------------------------------


def _compiled(patterns: Iterable[str]) -> list[re.Pattern[str]]:
    return [re.compile(bare(each)) for each in patterns]


@cache
def _patterns() -> dict[str, list[re.Pattern[str]]]:
    """Patterns by what a text must contain for them to be tried: anything, a number, a unit."""
    return {
        "anything": _compiled([*ages_english.without_number(), *ages_other.without_number(), *ages_told.without_number()]),
        "number": _compiled([*ages_english.with_number(), *ages_other.in_figures(), *ages_told.with_number()]),
        "unit": _compiled(ages_other.in_words()),
    }


@cache
def _has_number() -> re.Pattern[str]:
    eighteen = "eighteen|dieciocho|dix|acht|dezoito|diciotto|osiem|восем|вісім|belas|هجده"
    spoken = f"{english_numbers()}|{'|'.join(ages_english.ORDINALS)}|{eighteen}"
    return re.compile(bare(rf"\d|{spoken}|{ROMAN}|grade|born|birth|[\u4e00-\u9fff\u3041-\u309f\uac00-\ud7a3\u0e00-\u0e7f]"))


@cache
def _has_unit() -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_]){unit()}")


@cache
def _glued() -> tuple[frozenset[str], int]:
    """The beginnings of words that are ages by themselves, and how short the shortest is."""
    words = frozenset(map(bare, ages_other.glued()))
    return words, min(map(len, words))


_INNER_MARK = re.compile(r"(?<=[а-яіїєґ])'(?=[а-яіїєґ])")
"""The apostrophe within a Ukrainian word, which the number words are also listed without."""


def _has_glued(text: str) -> bool:
    words, shortest = _glued()
    text = _INNER_MARK.sub("", text)
    return any(word[:end] in words for word in re.findall(r"[^\W\d_]{6,40}", text) for end in range(shortest, len(word) + 1))


@cache
def _grown_up() -> re.Pattern[str]:
    """A number word from twenty on, whose last part alone would count as an age: twenty-five, veinte y cinco."""
    tens = either(ten for _, _, tens in languages() for ten in tens)
    joint = r"(?:[\s-]+(?:y|e|et|and|og|och|und|si|و)[\s-]+|[\s-]*)"
    ones = either(form for _, forms, _ in languages() for each in forms for form in each if not has_no_blanks(form))
    return re.compile(rf"(?<![^\W_])(?:{tens})(?:{joint}(?:{ones}))?(?![^\W_])")


def _without_grown_up(text: str) -> str:
    """`text` with the numbers of `_grown_up` replaced by a figure that is not an age."""
    return _grown_up().sub(" 99 ", text)


# --- what is no age ---------------------------------------------------------------------------------------------------------

_STRICTLY_CAMERA = r"\b(?:lens|apertures?|iso|bokeh|exposure|shutter|dslr|nikon|canon|leica|depth of field)\b|\d\s?mm\b"
_PLANES = r"\b(?:jets?|fighters?|aircraft|air\s?planes?|planes?|air\s?shows?|airbase|runway|tomcat|falcon|eagle)\b"
_LENGTHS = (
    r"\b(?:tall|long|high|wide|deep|length|height|width|depth|pole|tower|crane|mast|ladder|bridge|statue|boat|yacht"
    r"|wall|sprint|diameter|distance|cable|rope)\b"
)
_MEASURES = tuple((re.compile(figure), re.compile(context)) for figure, context in (
    (r"f/?\d+", _STRICTLY_CAMERA),
    (r"f/(?:8|11|16)", rf"{_STRICTLY_CAMERA}|\b(?:photo\w*|shot|camera|sharp|macro|focus)\b"),
    (r"f[ -]?(?:5|14|15|16)", _PLANES),
    (r"m[ -]?(?:5|6|8)", r"\b(?:bmw|motorway|highway)\b"),
    (r"m[ -]?\d+", r"\b(?:bolts?|screws?|nuts?|thread\w*|wrench|galaxy|nebula|messier|star cluster|rifles?|tanks?)\b"),
    (r"\d+\s?-?m", _LENGTHS),
))  # fmt: skip
"""A letter with a number, and words beside which it is an aperture, a craft, a part or a length: no sex with an age."""


def is_measure(match: re.Match[str], text: str) -> bool:
    """Whether a match of a letter and a number is a measure in `text`, not an age."""
    figure = match.groupdict().get("figure")
    return figure is not None and any(shape.fullmatch(figure) and context.search(text) for shape, context in _MEASURES)


# --- letters for digits and digits for letters ------------------------------------------------------------------------------

_LEET = str.maketrans("013457@$!|", "oieastasil")
_LEET_L = _LEET | {ord("1"): ord("l")}
_LEET_TOKEN = re.compile(r"(?<![^\s\-])(?=[^\s\d]*\d|\S*[@$!|])(?:[a-z]|@)[\w@$!|]*|\b0ld\b")
_LEET_AGE = re.compile(r"(?<![^\W_])(?=[a-z|!]?\d|\d[a-z])[1il|!]?[\doilzsebg|!](?=[\s\-_.]*(?:years?|years?old|yrs?|y\.?/?o)\b)")
_AS_DIGITS = str.maketrans("oilzsebg|!", "0112538911")
_SPELLED = re.compile(r"(?<!\S)(?:\S[ ]){2,}\S(?!\S)")


def _forms(reading: str) -> dict[str, None]:
    """The text in plain letters, and variants with signs in words as letters, letters in numbers as digits, or letters joined."""
    plain = bare(reading).replace("’", "'")
    forms = {plain: None}
    if not reading.isascii() or _LEET_TOKEN.search(plain) or _LEET_AGE.search(plain):
        forms |= dict.fromkeys(_with_signs_read(plain, signs) for signs in (_LEET, _LEET_L))
        forms[_LEET_AGE.sub(lambda age: age[0].translate(_AS_DIGITS), next(reversed(forms)))] = None
    if _SPELLED.search(plain):
        forms[_SPELLED.sub(lambda run: run[0].replace(" ", ""), plain)] = None
        forms[_SPELLED.sub(lambda run: re.sub(r"(?<=[a-z]) (?=[a-z])|(?<=\d) (?=\d)", "", run[0]), plain)] = None
    forms[seen := skeleton(reading)] = None
    forms |= dict.fromkeys(ages_disguised.forms(seen))
    return forms


def _with_signs_read(text: str, signs: dict[int, int]) -> str:
    """`text` with signs in words replaced by the letters that they stand for: y3ars."""
    return _LEET_TOKEN.sub(lambda token: token[0].translate(signs), text)
