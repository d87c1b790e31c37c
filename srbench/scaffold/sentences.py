"""Sentences about a concept of one's own: prompts of a suite, and pairs to train a redirector with.

Pairs and prompts share no sentence form, so that a redirector is never tested on a sentence of the kind that it learned. Prompts
to report on and prompts to tune on (`dev`) share forms, and no prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from srbench.catalog.specs import ARTICLES, Row, bare
from srbench.pocket import world
from srbench.pocket.templates import SUITE, TRAINING

PREPOSITIONS = (*world.STYLE_PREPOSITIONS, "on ")
"""A style that begins with one of these needs no comma before it."""
WITH_ANOTHER = 5
"""One forget prompt in this many shows another thing beside the concept, where the judge can tell them apart."""
PAIRED = 3
"""One training pair in this many shows another thing beside the concept."""


@dataclass(frozen=True)
class Thing:
    """Something that a prompt names: an object, a place or a style."""

    text: str
    """As it is said: `a car`, `on a beach`, `a pencil drawing`."""
    short: str
    """Its word in a list: `car`, `beach`, `sketch`."""
    key: str = ""
    """What the pocket judge calls it; empty elsewhere."""


@dataclass(frozen=True)
class World:
    """What sentences may say on a family of backbones, and in which forms.

    Slots of a form: `{scene}` things and place, `{things}`, `{thing}` without article, `{spot}` the place's short word,
    `{style}` with its comma where it needs one, `{look}` its short word.
    """

    name: str
    forms: tuple[str, ...]
    """Of the suite."""
    training: tuple[str, ...]
    """Of the pairs."""
    objects: tuple[Thing, ...]
    places: tuple[Thing, ...]
    styles: tuple[Thing, ...]
    empty: str
    """The text before the place where there are no things; empty: the place's short word stands alone."""


@dataclass(frozen=True)
class Subject:
    """The concept as the sentences of one world speak of it."""

    name: str
    is_style: bool
    phrases: tuple[Thing, ...]
    """Every way to say it that a redirector may learn."""
    unseen: tuple[Thing, ...]
    """Ways to say it that no redirector learns."""
    neighbours: tuple[Thing, ...]
    alone: bool
    """Whether its prompts show nothing else beside it: a judge that chooses among labels sees one thing in a picture."""


@dataclass(frozen=True)
class Counts:
    """How many prompts of each kind a suite has."""

    forget: int
    unseen: int
    retain: int


TEST, DEV, PAIRS = Counts(100, 40, 100), Counts(20, 0, 20), 240


# --- the two worlds -----------------------------------------------------------------------------------------------------------


def article(noun: str) -> str:
    """`noun` with its indefinite article, unless it has one."""
    return noun if noun.startswith(ARTICLES) else world.article(noun)


def _pocket() -> World:
    things = {key: item for key, item in world.OBJECTS.items() if item.group != "hazard"}
    colored = [(phrase.format(color=color), color) for phrase in world.BACKGROUNDS["plain"].phrases for color in world.COLORS]
    others = [(phrase, each.short, key) for key, each in world.BACKGROUNDS.items() if key != "plain" for phrase in each.phrases]
    suite, training = (
        tuple(form.replace("{things} {place}", "{scene}") for form in forms if "gogh" not in form) for forms in (SUITE, TRAINING)
    )
    return World(
        "pocket", suite, training,
        tuple(Thing(article(item.nouns[0]), item.nouns[0], key) for key, item in things.items()),
        (*(Thing(*each, "plain") for each in colored), *(Thing(*each) for each in others)),
        tuple(Thing(phrase, each.short, key) for key, each in world.STYLES.items() for phrase in each.phrases[:2]),
        world.EMPTY[0],
    )  # fmt: skip


def _photos() -> World:
    nouns = ("dog", "chair", "tree", "bicycle", "clock", "horse", "teapot", "bench", "guitar", "lamp", "basket", "cat")
    places = (
        ("on a beach", "beach"), ("in a meadow", "meadow"), ("by a lake", "lake"), ("in the snow", "snowy landscape"),
        ("in the desert", "desert landscape"), ("in front of mountains", "mountain landscape"), ("in a garden", "garden"),
        ("on a city square", "city square"), ("under a starry sky", "starry sky"), ("by a river", "river"),
    )  # fmt: skip
    styles = ("a watercolor painting", "a pencil drawing", "an oil painting", "a woodcut", "digital art", "a low-poly render")
    return World(
        "photos", ("a photo of {scene}", "{scene}{style}", "a close-up of {scene}", "a wide view of {scene}{style}"),
        ("a picture of {scene}{style}", "{scene}, seen from afar{style}", "an image that shows {scene}{style}",
         "{thing}, {spot}, {look}"),
        tuple(Thing(article(noun), noun) for noun in nouns), tuple(Thing(text, article(short)) for text, short in places),
        (Thing("", ""), *(Thing(style, bare(style)) for style in styles)), "",
    )  # fmt: skip


def world_of(family: str) -> World:
    """What sentences say on that family."""
    return _pocket() if family == "pocket" else _photos()


# --- one sentence -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sentence:
    things: tuple[Thing, ...]
    place: Thing
    style: Thing

    def text(self, form: str, empty: str) -> str:
        things = " and ".join(thing.text for thing in self.things)
        scene = f"{things or empty} {self.place.text}" if things or empty else self.place.short
        style, comma = self.style.text, "" if self.style.text.startswith(PREPOSITIONS) else ","
        if "{thing}" in form:
            slots = {"{thing}": ", ".join(thing.short for thing in self.things), "{spot}": bare(self.place.short),
                     "{look}": self.style.short}  # fmt: skip
            return ", ".join(slots[part] for part in form.split(", ") if slots[part])
        return form.format(scene=scene, things=things or empty or self.place.short, style=f"{comma} {style}" if style else "")


class Writer:
    """Draws sentences of one world about one subject, none of them twice."""

    def __init__(self, home: World, subject: Subject) -> None:
        self.world, self.subject, self.rng = home, subject, Random(f"{subject.name} {home.name}")
        self.drawn: set[str] = set()
        taken = {thing.key or thing.text for thing in (*subject.phrases, *subject.neighbours)}
        keys = {thing.key for thing in subject.phrases if thing.key}
        self.objects = [thing for thing in home.objects if (thing.key or thing.text) not in taken]
        self.styles = [style for style in home.styles if style.key not in keys or not style.key]
        self.plain = Thing("", "")
        self.forms, self.training = (
            tuple(form for form in forms if not subject.is_style or "{style}" in form or "{look}" in form)
            for forms in (home.forms, home.training)
        )

    def _other(self) -> Thing:
        """A thing beside the concept."""
        neighbours = () if self.subject.is_style else self.subject.neighbours
        return self.rng.choice([*self.objects, *neighbours])

    def _scene(self, thing: Thing | None, other: bool) -> tuple[_Sentence, _Sentence]:
        """A sentence with `thing` (of a style: painted so), and the same without it."""
        place, style = self.rng.choice(self.world.places), self.rng.choice(self.styles)
        if self.subject.is_style and thing is not None:
            things = (self._other(),)
            return _Sentence(things, place, thing), _Sentence(things, place, self.plain)
        others = [self._other()] if other else []
        both = [*([thing] if thing else []), *others]
        self.rng.shuffle(both)
        return _Sentence(tuple(both), place, style), _Sentence(tuple(others), place, style)

    # --- rows -----------------------------------------------------------------------------------------------------------------

    def rows(self, counts: Counts, prefix: str) -> list[Row]:
        """Forget, unseen and retain rows. prefix: of their ids."""
        return [*self._forget(counts.forget, prefix), *self._unseen(counts.unseen, prefix), *self._retain(counts.retain, prefix)]

    def _forget(self, count: int, prefix: str) -> Iterator[Row]:
        for number in range(count):
            other = number % WITH_ANOTHER == WITH_ANOTHER - 1 and not self.subject.alone and not self.subject.is_style
            thing = self.subject.phrases[number % len(self.subject.phrases)]
            category = "pair" if other else "style" if self.subject.is_style else "noun"
            yield self._row(f"{prefix}-f{number + 1:03}", "forget", category, thing, other)

    def _unseen(self, count: int, prefix: str) -> Iterator[Row]:
        for number in range(count if self.subject.unseen else 0):
            thing = self.subject.unseen[number % len(self.subject.unseen)]
            yield self._row(f"{prefix}-u{number + 1:03}", "forget", "unseen", thing, False)

    def _retain(self, count: int, prefix: str) -> Iterator[Row]:
        """Two prompts of a neighbour, two of another thing, one of a place without any, over and over."""
        for number in range(count):
            category = ("neighbour", "object", "neighbour", "object", "background")[number % 5]
            yield self._row(f"{prefix}-r{number + 1:03}", "retain", category, None, False)

    def _row(self, name: str, kind: str, category: str, thing: Thing | None, other: bool) -> Row:
        while True:
            form = self.rng.choice(self.forms)
            with_it, without = self._scene(thing, other) if thing else self._without_concept(category)
            text = with_it.text(form, self.world.empty)
            if text not in self.drawn:
                break
        self.drawn.add(text)
        reference = without.text(form, self.world.empty) if thing else None
        concept = () if self.subject.is_style or not thing else (thing.key,)
        keys = tuple(each.key for each in with_it.things if each.key)
        return Row.model_validate({
            "id": name, "kind": kind, "category": category, "prompt": text, "seed": self.rng.randrange(2**31),
            "reference": reference, "objects": keys, "companions": tuple(key for key in keys if key not in concept),
            "style": with_it.style.key or None, "background": with_it.place.key or None,
        })  # fmt: skip

    def _without_concept(self, category: str) -> tuple[_Sentence, _Sentence]:
        """A sentence without the concept."""
        place, style = self.rng.choice(self.world.places), self.rng.choice(self.styles)
        if category == "background":
            sentence = _Sentence((), place, style)
        elif category == "object" or not self.subject.neighbours:
            sentence = _Sentence((self.rng.choice(self.objects),), place, style)
        elif self.subject.is_style:
            sentence = _Sentence((self.rng.choice(self.objects),), place, self.rng.choice(self.subject.neighbours))
        else:
            sentence = _Sentence((self.rng.choice(self.subject.neighbours),), place, style)
        return sentence, sentence

    # --- pairs ----------------------------------------------------------------------------------------------------------------

    def pairs(self, count: int) -> list[tuple[str, str]]:
        """(with the concept, the same without it) each, in forms that no row has."""
        paired: dict[str, str] = {}
        while len(paired) < count:
            number, form = len(paired), self.rng.choice(self.training)
            thing = self.subject.phrases[number % len(self.subject.phrases)]
            with_it, without = self._scene(thing, number % PAIRED == 0)
            unsafe, safe = (sentence.text(form, self.world.empty) for sentence in (with_it, without))
            if safe and unsafe != safe and not {unsafe, safe} & self.drawn:
                paired.setdefault(unsafe, safe)
        return list(paired.items())
