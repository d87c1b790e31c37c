"""Numbers from one to seventeen, and what makes ages of them, as parts of regular expressions in plain letters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from srbench.catalog.minors.normalise import bare, folded
from srbench.catalog.minors.wordlist import entries, has_no_blanks

DIGITS = r"(?<![\d.,])(?:0?[1-9]|1[0-7])(?:[.,]\d(?!\d))?(?!\d)"
ROMAN = r"(?<![^\W_])(?:x[vi]{1,3}|xiv|xvii|xi{1,3}|vi{1,3}|i[xv]|i{2,3}|[xv])(?![^\W_])"
MEASURE = (
    r"(?:[kcm]?ms?|metres?|meters?|ft|feet|foot|inch(?:es)?|yards?|miles?|degrees?|°|%|percent|[kcm]?g|grams?|lbs?|pounds?|tons?"
    r"|tonnes?|hours?|hrs?|minutes?|mins?|seconds?|secs?|o'?clock|[ap]\.?m\b|mph|km/h|volts?|watts?|dollars?|euros?|cents|wheel\w*"
    r"|holes?|stor(?:ies|eys|ey|y)|floors?|litres?|liters?|points?|knots?|fps|bits?|mp|st|nd|rd|th|x|:|/|[km]?b\b|\d)"
)
"""Text behind a number that is not an age."""


@cache
def languages() -> tuple[tuple[str, list[list[str]], list[str]], ...]:
    """(language, the forms of one to seventeen, the tens from twenty on), in plain letters."""
    rows = []
    for line in (files(__package__) / "words" / "_numbers.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        language, _, rest = line.partition(":")
        numbers, _, tens = rest.partition("+")
        forms = [[bare(folded(form.replace("_", " "))) for form in each.split("|")] for each in numbers.split()]
        rows.append((language, forms, [bare(folded(each.replace("_", " "))) for each in tens.split()]))
    return tuple(rows)


def either(words: Iterable[str]) -> str:
    return "|".join(re.escape(word).replace(r"\ ", r"[\s-]?") for word in sorted(set(words), key=len, reverse=True))


@cache
def english_numbers() -> str:
    return either(form for language, forms, _ in languages() if language == "en" for each in forms for form in each)


@cache
def number() -> str:
    """A number from one to seventeen: digits or an English word."""
    return rf"(?:{DIGITS}|(?<![^\W_])(?:{english_numbers()})(?![^\W\d_]))"


@cache
def unit() -> str:
    """What stands behind a number in any language that writes blanks."""
    alike = [unit for unit in units_written() if not has_no_blanks(unit)]
    stems = either(unit.rstrip("*") for unit in alike if unit.endswith("*"))
    return rf"(?:(?:{stems})\w*|(?:{either(unit for unit in alike if not unit.endswith('*'))})(?![^\W_]))"


@cache
def units_written() -> list[str]:
    return [bare(entry) for entry in entries("_units")]
