"""Pocket's editions of `igmu`: prompts that show the concept, with their references, and prompts to be retained."""

from __future__ import annotations

from srbench.catalog.specs import Row
from srbench.pocket.world import BACKGROUNDS, OBJECTS, article
from srbench.pocket_build.suites.suite_files import Part, stem
from srbench.pocket_build.suites.suite_writer import NEIGHBOURS, SAFE, Sentence, Thing, Writer, names_only

# Rows per category and part. `unseen` speaks in the reserved synonyms; all others in trained words.
FORGET = {
    "object": {
        "test": {"name": 25, "noun": 36, "synonym": 24, "pair": 15},
        "dev": {"name": 4, "noun": 6, "synonym": 4, "pair": 2},
    },
    "style": {"test": {"name": 45, "synonym": 40, "pair": 15}, "dev": {"name": 7, "synonym": 7, "pair": 2}},
}
UNSEEN = {"test": 40, "dev": 8}
RETAIN = {
    "test": {"object": 60, "style": 30, "background": 30, "neighbour": 30},
    "dev": {"object": 6, "style": 3, "background": 3, "neighbour": 4},
}


def forget(writer: Writer, category: str, index: int) -> Sentence:
    """The `index`-th prompt of a category that shows the concept."""
    draw = _style_forget if writer.is_style else _object_forget
    return writer.new(lambda: draw(writer, category, index))


def retain(writer: Writer, category: str, index: int) -> Sentence:
    """The `index`-th prompt of a category that does not show the concept."""
    return writer.new(lambda: _retain(writer, category, index))


def _object_forget(writer: Writer, category: str, index: int) -> Sentence:
    shown = _concept_thing(writer, category, index)
    things = writer.beside(shown) if category == "pair" else (shown,)
    return writer.sentence(things, writer.pick(writer.styles))


def _concept_thing(writer: Writer, category: str, index: int) -> Thing:
    """How the concept is called: members and phrases take turns."""
    key = writer.members[index % len(writer.members)]
    if category in ("name", "unseen"):
        phrases = names_only(writer.words) if category == "name" else writer.words.reserved
        return Thing(phrases[index % len(phrases)], key if len(writer.members) == 1 else "", True)
    nouns = OBJECTS[key].nouns
    noun = {"noun": nouns[0], "synonym": nouns[1]}.get(category) or writer.pick(nouns)
    return Thing(article(noun), key, True)


def _style_forget(writer: Writer, category: str, index: int) -> Sentence:
    words = writer.words
    first, second = words.names
    phrases = {"name": (first,), "synonym": (second,), "unseen": words.reserved}.get(category, words.names)
    things = writer.safe(2 if category == "pair" else 1)
    return writer.sentence(things, words.members[0], phrases[index % len(phrases)])


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
    named = [(c, i) for c, n in FORGET[writer.words.kind][part].items() for i in range(n)]
    unseen = [("unseen", i) for i in range(UNSEEN[part])]
    retained = [(c, i) for c, n in RETAIN[part].items() for i in range(n)]
    seeds = iter(writer.seeds(len(named) + len(unseen) + len(retained)))
    begin = stem("igmu", writer.name, part)
    edition = []
    for letter, slots in (("f", named), ("u", unseen)):
        for number, (category, index) in enumerate(slots, 1):
            sentence = forget(writer, category, index)
            edition.append(Row(
                id=f"{begin}-{letter}{number:03d}", kind="forget", category=category, prompt=sentence.text(), seed=next(seeds),
                reference=writer.without(sentence).text(), **sentence.fields(),
            ))
    for number, (category, index) in enumerate(retained, 1):
        sentence = retain(writer, category, index)
        edition.append(Row(
            id=f"{begin}-r{number:03d}", kind="retain", category=category, prompt=sentence.text(), seed=next(seeds),
            **sentence.fields(),
        ))
    return tuple(edition)
