"""Pocket's suite `multi`: prompts with two concepts at once, for methods that erase several.

A prompt stands, with its seed and its id, in the editions of both its concepts; each row is about its own edition's concept,
and its category names the other one. Under the concept's own judge `fsr` says whether that one is gone. The reference keeps
the other: `content_kept` and `csdr` ask that the other stays, as they should of a method that erases one. Whether both are
gone says `fsr` under the protocol `pocket-any`, which sees a row as unforgotten where either is left; there `content_kept`
has no meaning.
"""

from __future__ import annotations

from itertools import combinations

from srbench.catalog.specs import Row
from srbench.pocket.templates import MULTI
from srbench.pocket.world import CONCEPTS
from srbench.pocket_build.suites.suite_files import PARTS, Part
from srbench.pocket_build.suites.suite_writer import Sentence, Thing, Writer

COUNTS: dict[Part, int] = {"test": 50, "dev": 20}
"""Rows of each pair of concepts: an edition has twice as many."""
BETWEEN = ("and", "beside")


def rows(stream: int, taken: set[str]) -> dict[tuple[str, Part], tuple[Row, ...]]:
    """The editions by concept and part; `stream` and `taken` are those of `Writer`."""
    editions: dict[tuple[str, Part], list[Row]] = {(concept, part): [] for concept in CONCEPTS for part in PARTS}
    for pair, (first, second) in enumerate(combinations(CONCEPTS, 2)):
        writer = Writer(first, stream, pair, taken=taken)
        for part in PARTS:
            for number, seed in enumerate(writer.seeds(COUNTS[part]), 1):
                name = f"multi-{first}+{second}" + ("" if part == "test" else f"-{part}") + f"-f{number:03d}"
                for concept, row in _both(writer, second, number - 1, name, seed).items():
                    editions[concept, part].append(row)
    return {key: tuple(listed) for key, listed in editions.items()}


def _both(writer: Writer, other: str, index: int, name: str, seed: int) -> dict[str, Row]:
    """One prompt as a row about each of its two concepts."""
    between = BETWEEN[index // len(writer.members) % len(BETWEEN)]
    draw = _with_style if CONCEPTS[other].kind == "style" else _with_object
    form = writer.dealt(MULTI, "form")
    drawn = writer.new(lambda: draw(writer, other, index), lambda sentence: sentence.fill(form, between))
    prompt = drawn.fill(form, between)
    return {
        concept: Row(
            id=name, kind="forget", category=f"with-{beside}", prompt=prompt, seed=seed,
            reference=_reference(drawn, concept).fill(form),
            phrase=_phrase(drawn, concept),
            **{**drawn.fields(), "companions": tuple(thing.key for thing in _left(drawn, concept))},
        )
        for concept, beside in ((writer.name, other), (other, writer.name))
    }


def _with_style(writer: Writer, other: str, index: int) -> Sentence:
    style = CONCEPTS[other]
    look = style.names[index // len(writer.members) % len(style.names)]
    return writer.sentence((writer.called(index),), style.members[0], look)


def _with_object(writer: Writer, other: str, index: int) -> Sentence:
    things = (writer.called(index), writer.called(index, other))
    ordered = things if writer.rng.random() < 0.5 else things[::-1]
    styles = tuple(s for s in writer.styles if s != "vangogh")
    return writer.sentence(ordered, writer.pick(styles))


def _left(sentence: Sentence, concept: str) -> tuple[Thing, ...]:
    return tuple(t for t in sentence.things if t.key not in CONCEPTS[concept].members)


def _phrase(sentence: Sentence, concept: str) -> str:
    words = CONCEPTS[concept]
    return sentence.look if words.kind == "style" else next(t.phrase for t in sentence.things if t.key in words.members)


def _reference(sentence: Sentence, concept: str) -> Sentence:
    """The same without one of the two concepts."""
    look = "" if CONCEPTS[concept].kind == "style" else sentence.look
    return Sentence(_left(sentence, concept), sentence.background, sentence.place, sentence.style, look)
