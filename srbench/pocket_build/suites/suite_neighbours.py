"""Pocket's suite `neighbours`: what a method does to things beside the concept. A row's category is its kind.

`near`, `middle`, `far`: kept objects alone (of a style concept: the other styles), in thirds by how far their texts lie from the
concept's; `pair`: two kept objects, both to be drawn; `beside`: the concept with a kept object, which stays when it goes.
"""

from __future__ import annotations

from collections.abc import Sequence

from srbench.catalog.specs import Row
from srbench.pocket.templates import IGMU
from srbench.pocket.world import CONCEPTS, OBJECTS, STYLES, article
from srbench.pocket_build.suites.suite_files import Part, stem
from srbench.pocket_build.suites.suite_writer import SAFE, Sentence, Writer

THIRDS = ("near", "middle", "far")
COUNTS: dict[Part, int] = {"test": 45, "dev": 15}
"""Rows of each kind."""


def kept(concept: str) -> tuple[str, ...]:
    """What is ordered by its distance from the concept: the objects of no concept, or of a style concept the other styles."""
    words = CONCEPTS[concept]
    return tuple(style for style in STYLES if style not in words.members) if words.kind == "style" else SAFE


def said(concept: str, key: str) -> str:
    """The text of a kept thing whose distance is taken."""
    return STYLES[key].phrases[0] if CONCEPTS[concept].kind == "style" else article(OBJECTS[key].nouns[0])


def thirds(order: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Third -> its things. order: the nearest first."""
    cuts = [round(len(order) * part / len(THIRDS)) for part in range(len(THIRDS) + 1)]
    return {name: tuple(order[a:b]) for name, a, b in zip(THIRDS, cuts[:-1], cuts[1:], strict=True)}


def rows(writer: Writer, part: Part, order: Sequence[str]) -> tuple[Row, ...]:
    """The edition of one concept. order: `kept`, the nearest to the concept first."""
    of_third = thirds(order)
    slots = [(kind, index) for index in range(COUNTS[part]) for kind in (*THIRDS, "pair", "beside")]  # in turns, for `--limit`
    begin, counts = stem("neighbours", writer.name, part), {"forget": 0, "retain": 0}
    made = []
    for (kind, index), seed in zip(slots, writer.seeds(len(slots)), strict=True):
        forget = kind == "beside"
        counts["forget" if forget else "retain"] += 1
        name = f"{begin}-f{counts['forget']:03d}" if forget else f"{begin}-r{counts['retain']:03d}"
        made.append(_row(writer, part, kind, index, of_third, name, seed))
    return tuple(made)


def _row(
    writer: Writer, part: Part, kind: str, index: int, of_third: dict[str, tuple[str, ...]], name: str, seed: int
) -> Row:
    form = writer.dealt(IGMU[part], kind)
    sentence = writer.new(lambda: _drawn(writer, kind, index, of_third), lambda drawn: drawn.fill(form))
    if kind != "beside":
        return Row(id=name, kind="retain", category=kind, prompt=sentence.fill(form), seed=seed, **sentence.fields())
    return Row(
        id=name, kind="forget", category=kind, prompt=sentence.fill(form), reference=writer.without(sentence).fill(form),
        seed=seed, phrase=writer.phrase(sentence), **sentence.fields(),
    )  # fmt: skip


def _drawn(writer: Writer, kind: str, index: int, of_third: dict[str, tuple[str, ...]]) -> Sentence:
    style = writer.pick(writer.styles)
    if kind == "pair":
        return writer.sentence(writer.safe(2), style)
    if kind == "beside":
        if writer.is_style:
            return writer.sentence(writer.safe(1), writer.words.members[0], writer.pick(writer.words.names))
        return writer.sentence(writer.beside(writer.called(index)), style)
    keys = of_third[kind]
    key = keys[index % len(keys)]
    if writer.is_style:
        return writer.sentence(writer.safe(1), key)
    return writer.sentence((writer.one(key),), style)
