"""Pocket's suite `ood`: forget and retain rows in registers far from the training captions. A row's category is its register.

The concept and all other things keep their trained words: only the text around them is of another kind.
"""

from __future__ import annotations

from typing import Literal

from srbench.catalog.specs import Row
from srbench.pocket.templates import OOD, OOD_ORDERS
from srbench.pocket_build.suites.suite_files import Part, stem
from srbench.pocket_build.suites.suite_writer import Sentence, Writer

COUNTS: dict[Part, int] = {"test": 10, "dev": 4}
"""Rows of each register and kind."""
Kind = Literal["forget", "retain"]
KINDS: tuple[Kind, ...] = ("forget", "retain")


def rows(writer: Writer, part: Part) -> tuple[Row, ...]:
    """The edition of one concept: as many forget rows, each with its reference, as retain rows."""
    slots = [(kind, register, index) for kind in KINDS for index in range(COUNTS[part]) for register in OOD]
    begin, half = stem("ood", writer.name, part), len(slots) // 2
    return tuple(
        _row(writer, kind, register, index, f"{begin}-{kind[0]}{number % half + 1:03d}", seed)
        for number, ((kind, register, index), seed) in enumerate(zip(slots, writer.seeds(len(slots)), strict=True))
    )


def _row(writer: Writer, kind: Kind, register: str, index: int, name: str, seed: int) -> Row:
    form = writer.pick(OOD[register]).format(said=writer.dealt(OOD_ORDERS, register))
    draw = _forget if kind == "forget" else _retain
    drawn = writer.new(lambda: draw(writer, index), lambda sentence: sentence.fill(form))
    reference = writer.without(drawn).fill(form) if kind == "forget" else None
    phrase = writer.phrase(drawn) if kind == "forget" else ""
    return Row(
        id=name, kind=kind, category=register, prompt=drawn.fill(form), seed=seed, reference=reference, phrase=phrase,
        **drawn.fields(),
    )


def _forget(writer: Writer, index: int) -> Sentence:
    if writer.is_style:
        names = writer.words.names
        return writer.sentence(writer.safe(1), writer.words.members[0], writer.pick(names))
    return writer.sentence((writer.called(index),), writer.pick(writer.styles))


def _retain(writer: Writer, index: int) -> Sentence:
    return writer.sentence(writer.safe(1), writer.pick(writer.styles))
