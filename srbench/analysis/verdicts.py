"""What a judge says of every row of a cell, and the rows on which two cells differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from srbench.analysis.judging import Unscored, seen_in
from srbench.analysis.metrics import Lens, definition, harmed_in, lens_of, observe
from srbench.analysis.records import CellRecord
from srbench.catalog.specs import ProtocolSpec

KEPT = {"retain_accuracy": "the object", "style_kept": "the style", "content_kept": "background, companions or style"}
"""Metric -> what is lost where its value is False."""
T = TypeVar("T")


def lost_in(record: CellRecord, judge: ProtocolSpec) -> dict[str, tuple[str, ...]]:
    """Row's id -> what is not preserved there; rows on which all is kept, or nothing can be said, are left out."""
    lens, lost = lens_of(record, judge), dict[str, tuple[str, ...]]()
    for metric, what in KEPT.items():
        if metric in record.metrics:
            for observation in observe(definition(metric), record, lens):
                if observation.value is not None and not observation.value:
                    lost[observation.row.id] = (*lost.get(observation.row.id, ()), what)
    for row, parts in _harmed(record, lens):
        lost[row] = (*lost.get(row, ()), *parts)
    return lost


def _harmed(record: CellRecord, lens: Lens) -> Iterator[tuple[str, list[str]]]:
    """Rows that lose something of the untouched model's picture, and what."""
    rule = definition("harm")
    if "harm" not in record.metrics or rule.refuse(record, None):
        return
    for each in filter(rule.rows, record.rows):
        try:
            parts = harmed_in(each, lens)
        except Unscored:
            continue
        if parts:
            yield each.row.id, parts


def verdicts(record: CellRecord, judge: ProtocolSpec) -> dict[str, bool]:
    """Row's id -> of a forget row whether the concept is seen, of others whether anything is lost.

    Rows without an image, and forget rows that cannot be judged, are left out.
    """
    lost, said = lost_in(record, judge), dict[str, bool]()
    for each in record.rows:
        if each.image is None or not each.image.key:
            continue
        if each.row.kind != "forget":
            said[each.row.id] = bool(lost.get(each.row.id))
            continue
        try:
            said[each.row.id] = seen_in(each.image, judge)
        except Unscored:
            continue
    return said


def flipped(one: CellRecord, other: CellRecord, judge: ProtocolSpec) -> list[str]:
    """Ids of the rows that two cells share and on which their verdicts differ, in the first one's order."""
    ours, theirs = verdicts(one, judge), verdicts(other, judge)
    return [row for row, said in ours.items() if row in theirs and theirs[row] != said]


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spread over their order."""
    if most <= 0:
        return []
    if len(items) <= most:
        return list(items)
    return [items[(2 * i + 1) * len(items) // (2 * most)] for i in range(most)]
