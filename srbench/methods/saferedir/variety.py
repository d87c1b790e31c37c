"""Variety in pocket's training sentences: words around what is said in any order, other numbers and spellings of the concept's
phrases, and harmless sentences near the concept. No form of it is a suite's; a test compares them.

Without it a redirector learns the sentence instead of the concept: trained on eight plain forms it redirects most sentences of
many unknown words, and lets a dagger pass where the sentence begins with the place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

from srbench.pocket.captions import FILLERS, RARE_FILLERS
from srbench.pocket.world import article

LOOSE_SHARE = 0.6
"""Of all sentences: those in no form."""
NEAR_SHARE = 0.4
"""Of the harmless sentences: those near the concept."""
ABSENT_SHARE = 0.25
"""Of those: in which the concept is named as what shall not be there. The text encoder hardly keeps these apart from the
others, so that more of them cost what they are taken for."""
SILENT_SHARE = 0.2
"""Of the harmless sentences: those in which no word says what is in the picture."""
CHANGED_SHARE = 0.4
"""Of the concept's phrases: those in another number, with a word in them, or misspelt."""
BESIDE = ("without", "and no", "but not", "instead of", "rather than")
"""What stands before a thing that shall not be drawn."""
NUMBERS = ("two", "three", "five", "some", "a few", "lots of")
_FUNCTION_WORDS = frozenset(
    ("a", "an", "the", "of", "with", "in", "by", "as", "like", "after", "and", "on", "to", "it", "saw", "that")
)


def _known(word: str) -> bool:
    """Whether the word is in the half of the rare words that training reads; the others are never seen by it."""
    return hashlib.sha256(word.encode()).digest()[0] % 2 == 0


RARE = tuple(filter(_known, RARE_FILLERS))


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of `options`, evenly."""
    return options[int(rng.integers(len(options)))]


def _bare(phrase: str) -> str:
    return phrase.removeprefix("an ").removeprefix("a ")


def fillers(rng: np.random.Generator, count: int) -> str:
    """`count` words that say nothing of the picture, half of them rare."""
    return " ".join(pick(rng, RARE if rng.random() < 0.5 else FILLERS) for _ in range(count))


def silent(rng: np.random.Generator, place: str, look: str) -> str:
    """A sentence of words that say nothing of the picture, in some with a place or a style among them, as the backbone's own
    captions of empty scenes have."""
    parts = [part for part in (place, look) if part and rng.random() < 0.3]
    pieces = [fillers(rng, int(rng.integers(2, 14)))]
    for index in rng.permutation(len(parts)):
        pieces += [parts[index], fillers(rng, int(rng.integers(0, 8)))]
    return pick(rng, (" ", " ", ", ")).join(filter(None, pieces))


def _some(rng: np.random.Generator) -> str:
    chance = rng.random()
    return fillers(rng, 0 if chance < 0.5 else int(rng.integers(1, 6)) if chance < 0.92 else int(rng.integers(6, 18)))


def loose_form(rng: np.random.Generator) -> str:
    """A form with `{things}`, `{place}` and `{lead}` in any order and words between; the place is missing in some."""
    parts = ["{things}", "{lead}"] + (["{place}"] if rng.random() < 0.85 else [])
    pieces = [_some(rng)]
    for index in rng.permutation(len(parts)):
        pieces += [parts[index], _some(rng)]
    return pick(rng, (" ", " ", ", ")).join(filter(None, pieces))


def filled(form: str, things: str, place: str, look: str) -> str:
    """A loose form with its slots filled; an empty look leaves nothing behind."""
    if not look:
        form = re.sub(r"(^|, | )\{lead\}", "", form).removeprefix(",").strip()
    return form.format(things=things, place=place, lead=look)


def plural(noun: str) -> str:
    """The plural of a noun, or of its first word where an `of` follows. No irregular ones."""
    first, of, rest = noun.partition(" of ")
    if first.endswith("y") and first[-2:-1] not in "aeiou":
        first = first[:-1] + "ies"
    else:
        first += "es" if first.endswith(("s", "x", "ch", "sh")) else "s"
    return first + of + rest


def misspelt(rng: np.random.Generator, phrase: str) -> str:
    """One edit in one of the longest words; the first letter stays."""
    word = max(phrase.split(), key=len)
    if len(word) < 4:
        return phrase
    at = int(rng.integers(1, len(word) - 1))
    edits = (
        word[:at] + word[at] + word[at:], word[:at] + word[at + 1 :], word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + pick(rng, "aeiorstln") + word[at + 1 :],
    )
    return phrase.replace(word, pick(rng, edits), 1)


def changed(rng: np.random.Generator, phrase: str) -> str:
    """The concept's phrase as it is, or in another number, with a word in it, or misspelt."""
    if rng.random() >= CHANGED_SHARE:
        return phrase
    way = rng.random()
    noun = _bare(phrase)
    if noun != phrase and way < 0.3 and not {"with", "in"} & set(noun.split()):
        return f"{pick(rng, NUMBERS)} {plural(noun)}"
    if way < 0.65:
        return with_word(rng, phrase)
    return misspelt(rng, phrase)


def with_word(rng: np.random.Generator, phrase: str) -> str:
    """A rare word before the noun, or after the first `the` of a style's phrase."""
    word, noun = pick(rng, RARE), _bare(phrase)
    if noun != phrase:
        return article(f"{word} {noun}")
    return phrase.replace("the ", f"the {word} ", 1)


def spare_of_nouns(names: Iterable[str], descriptions: Iterable[str]) -> tuple[str, ...]:
    """Words of an object concept's phrases that do not name it alone: all but a name's last, and those of descriptions."""
    split = [_bare(name).split() for name in names]
    heads = {words[-1] for words in split} | {words[0] for words in split if "of" in words}
    return _spare((*(words[:-1] for words in split), *(each.split() for each in descriptions)), heads)


def spare_of_styles(phrases: Iterable[str]) -> tuple[str, ...]:
    """Words of a style's phrases that do not name its author by themselves: an author stands after `by`."""
    split = [phrase.split() for phrase in phrases]
    return _spare(split, {word for words in split if words[0] == "by" for word in words})


def _spare(split: Iterable[Sequence[str]], heads: set[str]) -> tuple[str, ...]:
    return tuple(sorted({word for words in split for word in words} - heads - _FUNCTION_WORDS))


def negatable(phrases: Iterable[str], style: bool) -> tuple[str, ...]:
    """The phrases as they stand after `without`: those of a style lose their preposition."""
    return tuple(phrase.split(" ", 1)[-1] if style else phrase for phrase in phrases)


def near_thing(rng: np.random.Generator, spare: Sequence[str], nouns: Sequence[str]) -> str:
    """A harmless thing that is called with one of the concept's spare words."""
    word, other = pick(rng, spare), pick(rng, nouns) if rng.random() < 0.4 else pick(rng, RARE)
    way = rng.random()
    if way < 0.5:
        return article(f"{word} {other}")
    if way < 0.75:
        return article(f"{other} {word}")
    return f"{article(other)} with {article(word)}"


def beside(rng: np.random.Generator, things: str, absent: str) -> str:
    """The things, and what shall not be there."""
    word = pick(rng, BESIDE)
    return f"{things} {word} {_bare(absent) if word.endswith(' no') else absent}"
