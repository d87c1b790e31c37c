"""Pocket's suite `benign-near`: harmless prompts near a concept. A row's category is its kind.

`homonym`: other meanings of the concept's words. `description`: safe uses of the words by which its members are described.
`negation`: the concept is named as what shall not be drawn. `register`: invoices, manuals, notes. `name`: neutral names.
`everyday`: no word of pocket's world. `plain`: pocket's own safe objects in long or odd sentences.
Each row's reference is its own prompt: the untouched model draws it, so that only the method differs. `dev` has words and
forms of its own, and neither homonyms nor everyday sentences: what is tuned on it is measured on kinds that it never saw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from srbench.catalog.specs import Row
from srbench.pocket.templates import BENIGN_NEAR, NEGATION, REGISTERS
from srbench.pocket.world import OBJECTS
from srbench.pocket_build.suites import near_words
from srbench.pocket_build.suites.suite_files import Part, stem
from srbench.pocket_build.suites.suite_writer import SAFE, Sentence, Thing, Writer

COUNTS: dict[Part, int] = {"test": 30, "dev": 14}
"""Rows of each kind."""
COMPANION_SHARE = 0.5
"""Of rows whose phrase names no pocket object: how often one stands beside it, so that there is something to lose."""
NEGATED = ("the style of van gogh", "a van gogh painting", "van gogh style")
"""How the style is named where it shall not be drawn."""
Drawn = tuple[str, dict[str, Any]]
"""A prompt and the row's descriptive fields."""
Kind = Callable[[Writer, Part, int], Drawn]


def rows(writer: Writer, part: Part) -> tuple[Row, ...]:
    """The edition of one concept: retain rows, each its own reference."""
    slots = [(kind, index) for index in range(COUNTS[part]) for kind in KINDS[part]]  # in turns: `--limit` has all kinds
    begin = stem("benign-near", writer.name, part)
    return tuple(
        _row(writer, part, kind, index, f"{begin}-r{number:03d}", seed)
        for number, ((kind, index), seed) in enumerate(zip(slots, writer.seeds(len(slots)), strict=True), 1)
    )


def _row(writer: Writer, part: Part, kind: str, index: int, name: str, seed: int) -> Row:
    prompt, fields = writer.fresh(lambda: KINDS[part][kind](writer, part, index), lambda drawn: drawn[0])
    return Row(id=name, kind="retain", category=kind, prompt=prompt, seed=seed, reference=prompt, **fields)


def _filled(sentence: Sentence, form: str) -> Drawn:
    return sentence.fill(form), sentence.fields()


def _about(writer: Writer, *things: Thing) -> Sentence:
    return writer.sentence(things, writer.pick(writer.styles))


def _phrase(writer: Writer, part: Part, kind: str, phrase: str, key: str) -> Drawn:
    """A sentence about a phrase that is not pocket's."""
    things: tuple[Thing, ...] = (Thing(phrase, key),)
    if not key and writer.rng.random() < COMPANION_SHARE:
        things += writer.safe(1)
    return _filled(_about(writer, *things), writer.dealt(BENIGN_NEAR[part], kind))


def _homonym(writer: Writer, part: Part, index: int) -> Drawn:
    phrases = near_words.HOMONYMS[writer.name]
    return _phrase(writer, part, "homonym", *phrases[index % len(phrases)])


def _description(writer: Writer, part: Part, index: int) -> Drawn:
    phrases = near_words.DESCRIPTIONS[part][writer.name]
    return _phrase(writer, part, "description", *phrases[index % len(phrases)])


def _name(writer: Writer, part: Part, index: int) -> Drawn:
    patterns = near_words.NAMES[part]
    (thing,) = writer.safe(1)
    noun = thing.phrase.removeprefix("an ").removeprefix("a ")
    phrase = patterns[index % len(patterns)].format(noun=noun, thing=thing.phrase)
    return _phrase(writer, part, "name", phrase, thing.key)


def _negation(writer: Writer, part: Part, index: int) -> Drawn:
    negated = NEGATED[index % len(NEGATED)] if writer.is_style else writer.called(index).phrase
    things = writer.safe(1) if index % 5 else ()
    form = writer.dealt(NEGATION[part], "negation").replace("{negated}", negated)
    return _filled(_about(writer, *things), form)


def _register(writer: Writer, part: Part, index: int) -> Drawn:
    return _filled(_about(writer, *writer.safe(1)), writer.dealt(REGISTERS[part], "register"))


def _everyday(writer: Writer, part: Part, index: int) -> Drawn:
    words = near_words
    slots = {name: writer.pick(options) for name, options in (
        ("day", words.DAYS), ("hour", words.HOURS), ("town", words.TOWNS), ("person", words.PEOPLE),
    )}  # fmt: skip
    return words.EVERYDAY[index % len(words.EVERYDAY)].format(**slots), {}


def _plain(writer: Writer, part: Part, index: int) -> Drawn:
    """One safe object or two, by name or by what they look like."""
    things = writer.safe(1 + index % 2, tuple(key for key in SAFE if key != "penguin"))
    if index % 3 == 0:
        things = tuple(Thing(OBJECTS[thing.key].description, thing.key) for thing in things)
    return _filled(_about(writer, *things), writer.dealt(BENIGN_NEAR[part], "plain"))


_BOTH: dict[str, Kind] = {
    "description": _description, "negation": _negation, "register": _register, "name": _name, "plain": _plain,
}  # fmt: skip
KINDS: dict[Part, dict[str, Kind]] = {"test": {"homonym": _homonym, **_BOTH, "everyday": _everyday}, "dev": _BOTH}
"""Part -> category -> what draws its rows."""
