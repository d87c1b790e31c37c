"""Draws the prompts of pocket's suites: what a sentence says, in which form, and that no text occurs twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from srbench.catalog import screen
from srbench.pocket.templates import SUITE
from srbench.pocket.world import BACKGROUNDS, COLORS, CONCEPTS, EMPTY, OBJECTS, STYLE_PREPOSITIONS, STYLES, ConceptWords, article

SEED = 20
MAX_SEED = 2**31
SAFE = tuple(key for key in OBJECTS if not any(key in concept.members for concept in CONCEPTS.values()))
"""Objects that belong to no concept."""
NEIGHBOURS = {"hazard": ("knife", "hammer", "key", "teapot"), "church": ("hospital", "house", "castle", "tent")}
"""Objects nearest to an object concept; of `vangogh` it is the style `sketch`."""
T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """A noun phrase; `key` is empty where it names no single object."""

    phrase: str
    key: str
    concept: bool = False


@dataclass(frozen=True)
class Sentence:
    """What one prompt says; `look` is the style's phrase, `form` one of `templates.py`."""

    things: tuple[Thing, ...]
    background: str
    place: str
    style: str
    look: str
    form: str = SUITE[0]

    def text(self) -> str:
        """In its own form."""
        return self.fill(self.form)

    def fill(self, form: str, between: str = "and") -> str:
        """In another form: its slots are those of `templates.py`, and `{said}` is `text()`."""
        style = self.look and (" " if self.look.startswith(STYLE_PREPOSITIONS) else ", ") + self.look
        things = f" {between} ".join(t.phrase for t in self.things) or EMPTY[0]
        said = self.text() if "{said}" in form else ""
        text = form.format(things=things, place=self.place, style=style, lead=self.look, said=said)
        return text.removeprefix(", ")

    def fields(self) -> dict[str, Any]:
        """The row's descriptive fields, but for the phrase that names a concept."""
        return {
            "objects": tuple(t.key for t in self.things if t.key),
            "companions": tuple(t.key for t in self.things if t.key and not t.concept),
            "style": self.style, "background": self.background,
        }


class Writer:
    """Draws the prompts of one concept; no text twice over all its editions.

    stream: numbers that tell this writer's draws from another's on the same concept. taken: texts that are used already;
    what is drawn is added. screened: leave out nouns that the content filter of sensitive suites drops (`baby penguin`).
    """

    def __init__(self, concept: str, *stream: int, taken: set[str] | None = None, screened: bool = False) -> None:
        self.name, self.words = concept, CONCEPTS[concept]
        self.rng = np.random.default_rng([SEED, list(CONCEPTS).index(concept), *stream])
        self.taken: set[str] = set() if taken is None else taken
        self.screened = screened
        self.decks: dict[tuple[str, ...], list[str]] = {}
        self.is_style = self.words.kind == "style"
        self.members = () if self.is_style else self.words.members
        self.styles = tuple(s for s in STYLES if not self.is_style or s not in self.words.members)

    def seeds(self, count: int) -> list[int]:
        """`count` different seeds for images."""
        return [int(s) for s in self.rng.choice(MAX_SEED, count, replace=False)]

    def new(self, draw: Callable[[], Sentence], text_of: Callable[[Sentence], str] = Sentence.text) -> Sentence:
        """The first sentence drawn whose text, as `text_of` gives it, is not used yet."""
        return self.fresh(draw, text_of)

    def fresh(self, draw: Callable[[], T], text_of: Callable[[T], str]) -> T:
        """The first of what is drawn whose text is not used yet."""
        drawn = draw()
        while text_of(drawn) in self.taken:
            drawn = draw()
        self.taken.add(text_of(drawn))
        return drawn

    def pick(self, options: Sequence[str]) -> str:
        """One of `options`, evenly."""
        return options[int(self.rng.integers(len(options)))]

    def dealt(self, options: Sequence[str], to: str) -> str:
        """One of `options`: each comes once, in a drawn order, before any comes again. to: whose turns are counted."""
        deck = self.decks.setdefault((to, *options), [])
        if not deck:
            deck += [options[int(place)] for place in self.rng.permutation(len(options))]
        return deck.pop()

    def safe(self, count: int, pool: tuple[str, ...] = SAFE) -> tuple[Thing, ...]:
        """`count` different safe objects."""
        keys = [pool[int(i)] for i in self.rng.choice(len(pool), count, replace=False)]
        return tuple(Thing(article(self.pick(self._nouns(key))), key) for key in keys)

    def one(self, key: str) -> Thing:
        """A safe object by one of its nouns."""
        return Thing(article(self.pick(self._nouns(key))), key)

    def _nouns(self, key: str) -> tuple[str, ...]:
        return tuple(noun for noun in OBJECTS[key].nouns if not (self.screened and screen.names_minor(noun)))

    def sentence(
        self, things: tuple[Thing, ...], style: str, look: str = "", background: str = "", form: str = SUITE[0]
    ) -> Sentence:
        """`things` at some place, in a style; `look` and `background` are drawn where not given."""
        background = background or self.pick(tuple(BACKGROUNDS))
        place = self.pick(BACKGROUNDS[background].phrases).format(color=self.pick(tuple(COLORS)))
        phrases = CONCEPTS["vangogh"].names if style == "vangogh" else STYLES[style].phrases
        return Sentence(things, background, place, style, look or self.pick(phrases), form)

    def beside(self, shown: Thing) -> tuple[Thing, ...]:
        """`shown` and a safe object, in either order."""
        other = self.safe(1)[0]
        return (shown, other) if self.rng.random() < 0.5 else (other, shown)

    def called(self, index: int, concept: str = "") -> Thing:
        """A member of an object concept by a trained noun, in turns; of the writer's own concept where none is given."""
        members = CONCEPTS[concept].members if concept else self.members
        key = members[index % len(members)]
        return Thing(article(self.pick(OBJECTS[key].nouns)), key, True)

    def without(self, sentence: Sentence) -> Sentence:
        """The declared form of a reference: the concept's noun phrase is removed, or its style's."""
        if self.is_style:
            return replace(sentence, look="")
        return replace(sentence, things=tuple(t for t in sentence.things if not t.concept))

    def phrase(self, sentence: Sentence) -> str:
        """The words by which a sentence names the concept; of several members the first."""
        return sentence.look if self.is_style else next((t.phrase for t in sentence.things if t.concept), "")

    def told(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """What methods are told, by category: phrases with the one object each names (empty: any of the concept)."""
        only = self.members[0] if len(self.members) == 1 else ""
        nouns = tuple((article(noun), key) for key in self.members for noun in OBJECTS[key].nouns)
        looks = (*((OBJECTS[key].description, key) for key in self.members), *((each, only) for each in self.words.descriptions))
        names = tuple((name, only) for name in names_only(self.words))
        return {"name": names, "noun": nouns or names, "description": looks}


def turns(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """(category, index) of each row: categories take turns by their shares, so that the first rows have all of them."""
    slots = [((index + 0.5) / count, category, index) for category, count in counts.items() for index in range(count)]
    return [(category, index) for _, category, index in sorted(slots, key=lambda slot: slot[0])]


def names_only(words: ConceptWords) -> tuple[str, ...]:
    """The concept's names that are not also the noun of a member."""
    nouns = {article(OBJECTS[key].nouns[0]) for key in words.members if key in OBJECTS}
    return tuple(name for name in words.names if name not in nouns)


def removed(concept: str) -> str:
    """How an edition's references are made, in words."""
    if CONCEPTS[concept].kind == "style":
        return "the style phrase is left out"
    return f"the concept's noun phrase is removed; alone, it becomes '{EMPTY[0]}'"
