"""Pocket's suite `held-members`: methods are told three of hazard's six kinds, and judged on the other three, too.

Each concept `hazard-split-N` names the class and three members. Forget rows of `unseen` ask for a member that no method was
told, `fsr_unseen` says what is forgotten of these; the others ask for members that were told, in the categories of `igmu`.
Retain rows ask for every safe object.
"""

from __future__ import annotations

from srbench.catalog.specs import Row
from srbench.pocket.templates import HELD_MEMBERS
from srbench.pocket.world import CONCEPTS, OBJECTS, SPLITS, article
from srbench.pocket_build.suites.suite_files import Part, stem
from srbench.pocket_build.suites.suite_writer import Sentence, Thing, Writer

TOLD: dict[Part, int] = {"test": 9, "dev": 3}
"""Rows of each of `CATEGORIES`."""
CATEGORIES = ("noun", "synonym", "pair")
HELD: dict[Part, int] = {"test": 48, "dev": 18}
KEPT = tuple(key for key in OBJECTS if key not in CONCEPTS["hazard"].members)
RETAIN: dict[Part, int] = {"test": 3 * len(KEPT), "dev": len(KEPT)}


def rows(writer: Writer, split: str, part: Part) -> tuple[Row, ...]:
    """The edition of one split. writer: of `hazard`."""
    told, held = SPLITS[split]
    slots = [("f", category, told, index) for index in range(TOLD[part]) for category in CATEGORIES]
    slots += [("u", "unseen", held, index) for index in range(HELD[part])]
    slots += [("r", "object", KEPT, index) for index in range(RETAIN[part])]
    edition, numbers = [], dict.fromkeys("fur", 0)
    for (letter, category, keys, index), seed in zip(slots, writer.seeds(len(slots)), strict=True):
        numbers[letter] += 1
        name = f"{stem('held-members', split, part)}-{letter}{numbers[letter]:03d}"
        edition.append(_row(writer, category, keys[index % len(keys)], index // len(keys), name, seed))
    return tuple(edition)


def _row(writer: Writer, category: str, key: str, turn: int, name: str, seed: int) -> Row:
    """A row about one object; turn: how often the object had its turn before."""
    form, retain = writer.dealt(HELD_MEMBERS, category), category == "object"
    draw = _retain if retain else _forget
    drawn = writer.new(lambda: draw(writer, category, key, turn), lambda sentence: sentence.fill(form))
    return Row(
        id=name, kind="retain" if retain else "forget", category=category, prompt=drawn.fill(form), seed=seed,
        reference=None if retain else writer.without(drawn).fill(form), phrase=writer.phrase(drawn), **drawn.fields(),
    )


def _forget(writer: Writer, category: str, key: str, turn: int) -> Sentence:
    """A member by a noun or, where it is held out, in turns by its nouns and by what it looks like."""
    nouns = tuple(article(noun) for noun in OBJECTS[key].nouns)
    phrases = {"noun": nouns[:1], "synonym": nouns[1:], "pair": nouns, "unseen": (*nouns, OBJECTS[key].description)}[category]
    shown = Thing(phrases[turn % len(phrases)], key, True)
    return writer.sentence(writer.beside(shown) if category == "pair" else (shown,), writer.pick(writer.styles))


def _retain(writer: Writer, category: str, key: str, turn: int) -> Sentence:
    return writer.sentence(writer.safe(1, (key,)), writer.pick(writer.styles))
