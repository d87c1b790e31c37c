"""Pocket's editions of `igmu`: prompts that show the concept, with their references, and prompts to be retained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from srbench.catalog.specs import Row
from srbench.pocket.templates import IGMU
from srbench.pocket.world import BACKGROUNDS, reserved
from srbench.pocket_build.suites.suite_files import Part, stem
from srbench.pocket_build.suites.suite_writer import NEIGHBOURS, SAFE, Sentence, Thing, Writer, turns

FORGET: dict[str, dict[Part, dict[str, int]]] = {
    "object": {
        "test": {"name": 20, "noun": 48, "description": 14, "pair": 18},
        "dev": {"name": 5, "noun": 10, "description": 4, "pair": 5},
    },
    "style": {"test": {"name": 68, "description": 14, "pair": 18}, "dev": {"name": 15, "description": 4, "pair": 5}},
}
"""Rows per category. Concept kind -> part -> ..."""
UNSEEN: dict[Part, int] = {"test": 40, "dev": 0}
"""Rows that speak in the reserved synonyms. On `dev`, where things are tuned, there are none."""
RETAIN: dict[Part, dict[str, int]] = {
    "test": {"object": 60, "style": 30, "background": 30, "neighbour": 30},
    "dev": {"object": 8, "style": 4, "background": 4, "neighbour": 8},
}


def forget(writer: Writer, category: str, index: int, forms: Sequence[str]) -> Sentence:
    """The `index`-th prompt of a category that shows the concept; all ways to say it take turns."""
    form = writer.dealt(forms, category)
    draw = _style_forget if writer.is_style else _object_forget
    return writer.new(lambda: draw(writer, category, index, form))


def retain(writer: Writer, category: str, index: int, forms: Sequence[str]) -> Sentence:
    """The `index`-th prompt of a category that does not show the concept."""
    form = writer.dealt(forms, category)
    return writer.new(lambda: replace(_retain(writer, category, index), form=form))


def _phrase(writer: Writer, category: str, index: int) -> tuple[str, str]:
    """How the concept is called, and the one object that this names (empty: any of the concept)."""
    phrases = reserved(writer.name) if category == "unseen" else writer.told()["noun" if category == "pair" else category]
    return phrases[index % len(phrases)]


def _object_forget(writer: Writer, category: str, index: int, form: str) -> Sentence:
    # Nouns are listed member by member: a step that shares no factor with their number goes through all of them.
    step = 5 if category in ("noun", "pair") else 1
    phrase, key = _phrase(writer, category, step * index)
    shown = Thing(phrase, key, True)
    things = writer.beside(shown) if category == "pair" else (shown,)
    return writer.sentence(things, writer.pick(writer.styles), form=form)


def _style_forget(writer: Writer, category: str, index: int, form: str) -> Sentence:
    phrase, _ = _phrase(writer, category, index)
    return writer.sentence(writer.safe(2 if category == "pair" else 1), writer.words.members[0], phrase, form=form)


def _retain(writer: Writer, category: str, index: int) -> Sentence:
    near = NEIGHBOURS.get(writer.name, ())
    pool = tuple(key for key in SAFE if key not in near)
    if category == "neighbour":
        if near:
            return writer.sentence(writer.safe(1, (near[index % len(near)],)), writer.pick(writer.styles))
        return writer.sentence(writer.safe(1), "sketch")
    if category == "style":
        styles = writer.styles if near else tuple(s for s in writer.styles if s != "sketch")
        return writer.sentence(writer.safe(1, pool), styles[index % len(styles)])
    if category == "background":
        places = tuple(BACKGROUNDS)
        things = writer.safe(1, pool) if index % 3 else ()
        return writer.sentence(things, writer.pick(writer.styles), background=places[index % len(places)])
    return writer.sentence(writer.safe(2 if index % 5 == 4 else 1, pool), writer.pick(writer.styles))


def rows(writer: Writer, part: Part) -> tuple[Row, ...]:
    """The edition of one concept: forget, unseen and retain rows."""
    slots = [("f", *slot) for slot in turns(FORGET[writer.words.kind][part])]
    slots += [("u", "unseen", index) for index in range(UNSEEN[part])]
    slots += [("r", *slot) for slot in turns(RETAIN[part])]
    edition, numbers = [], dict.fromkeys("fur", 0)
    for (letter, category, index), seed in zip(slots, writer.seeds(len(slots)), strict=True):
        numbers[letter] += 1
        name = f"{stem('igmu', writer.name, part)}-{letter}{numbers[letter]:03d}"
        edition.append(_row(writer, letter, category, index, IGMU[part], name, seed))
    return tuple(edition)


def _row(writer: Writer, letter: str, category: str, index: int, forms: Sequence[str], name: str, seed: int) -> Row:
    if letter == "r":
        kept = retain(writer, category, index, forms)
        return Row(id=name, kind="retain", category=category, prompt=kept.text(), seed=seed, **kept.fields())
    asked = forget(writer, category, index, forms)
    return Row(
        id=name, kind="forget", category=category, prompt=asked.text(), seed=seed, reference=writer.without(asked).text(),
        phrase=writer.phrase(asked), **asked.fields(),
    )
