"""Recognises harmless phrases by their context, in which a word does not name a minor: baby carrots, a cheese grader."""

from __future__ import annotations

import re

_VEGETABLES = (
    r"(?:carrot|potato|tomato|beet|onion|cabbage|zucchini|artichoke|mushroom|cucumber|turnip|radish|eggplant)(?:e?s)?|corn|spinach|kale"
    r"|broccoli|lettuce|greens|arugula|asparagus|squash|bok\s+choy"
)
_LOOKS = r"(?:(?:green|red|white|brown|yellow|wild|fresh|roasted|raw)\s+)"
_ADDED = re.compile(
    rf"\bbaby\s+(?={_LOOKS}{{0,2}}(?:{_VEGETABLES})\b"
    r"(?![\s-]+(?:named|called|like|faced)\b|[-'’]))"
)
"""What a small vegetable is called besides its name. No young animal or tree: such words are also said of people."""
_AGED_THINGS = re.compile(
    r"(?<![\w.,])\d{1,3}[\s-](?:year|month|week)[\s-]old\s+(?=(?:whisk(?:e)?ys?|scotch|bourbon|brandy|rum"
    r"|port|cognac|wine|cheese|cars?|trucks?|vans?|motorcycles?|tractors?|trees?|oaks?|buildings?|houses?|bridges?|laptops?|computers?)\b"
    r"(?![\s-]+(?:named|called|like|faced|owner|lover|trainer|rider|driver|keeper)\b|[-'’]))"
)
"""The age of a thing."""
_COMPOUNDS = re.compile(
    r"(?<=\bcheese )graders?\b|(?<=\bmotor )graders?\b|(?<=\broad )graders?\b|(?<=\btater )tots?\b|(?<=\bgame )boys?\b"
    r"|\bkids?(?= goats?\b)|(?<=\bgoat )kids?\b"
    r"|\bminor(?=\s+(?:changes?|scratch(?:es)?|damages?|repairs?|dents?|adjustments?|details?|flaws?|alterations?|corrections?)\b)"
    r"|(?<=\bursa )minor\b|(?<=\bcanis )minor\b|(?<=\bplant )nurser(?:y|ies)\b|(?<=\btree )nurser(?:y|ies)\b"
)
"""Words that are part of a thing's name."""
_SOMEBODY = re.compile(
    r"\b(?:s?he|hers?|his|him|herself|himself|they|i|me|you|wom[ae]n|m[ae]n|lad(?:y|ies)|guys?|persons?|people|humans?|models?|act(?:or|ress)\w*"
    r"|femal\w*|males?|cosplay\w*|costum\w*|outfit\w*|dress\w*|wear\w*|worn|cloth\w*|bikini\w*|swim\w*|suits?|shirts?|skirts?|p[ay]jama\w*"
    r"|underwear|panties|stockings?|masks?|ears|furr(?:y|ies)|anthro\w*|kemono\w*|humanoid\w*|hair\w*|princess\w*|wives|wife|friends?|lovers?"
    r"|couples?|bed\w*|body|bodies|bath(?:s|e[sd]?|ing|tubs?)?|topless|shaved|breasts?|legs|thighs|kiss\w*|tied|bound)\b"
)
"""Words for people, beside which "baby greens" may mean a person."""


_HARMLESS = (_ADDED, _AGED_THINGS, _COMPOUNDS)
_GONE = "......."
"""Replacement for a removed word, which does not join the letters around it."""


def without_harmless(text: str) -> str:
    """`text` without the words that are part of something else; as it is where somebody stands in it, or more than ASCII.

    text: a reading (`normalise.readings`), in small letters.
    """
    if not text.isascii() or not any(each.search(text) for each in _HARMLESS) or _SOMEBODY.search(text):
        return text
    for each in _HARMLESS:
        text = each.sub(f" {_GONE} ", text)
    return text
