"""Where a method does worst: for each concept the suite in which it forgets least, and the one in which most is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from srbench.analysis.metrics import HEADLINES, KEPT
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell

STAYS = (*KEPT, "near_kept", "far_kept", "pair_kept", "harm")
"""Rates of what a method should leave alone."""


@dataclass(frozen=True)
class Weakest:
    """A rate of a method in one suite, in percent."""

    concept: str
    suite: str
    name: str
    metric: Metric
    none: float | None
    """The untouched backbone's, of a rate that is compared with it."""
    short: float
    """How far it is from perfect, or of what stays from `none`."""


def weakest(method: str, cells: Sequence[ResultCell]) -> list[Weakest]:
    """For each concept the worst rate of forgetting and the worst of what stays, where they are short of anything.

    method: its name in tables, alone on one backbone. cells: of that backbone, those of `none` among them.
    """
    plain = [cell for cell in cells if not cell.variant]
    untouched = {(cell.concept, cell.suite): cell for cell in plain if cell.label == "none"}
    rates = [each for cell in plain if cell.label == method for each in _rates(cell, untouched.get((cell.concept, cell.suite)))]
    found = []
    for concept in dict.fromkeys(each.concept for each in rates):
        for names in (HEADLINES, STAYS):
            of_kind = [each for each in rates if each.concept == concept and each.name in names and each.short > 0]
            found += sorted(of_kind, key=lambda each: (-each.short, each.suite, each.name))[:1]
    return found


def _rates(cell: ResultCell, none: ResultCell | None) -> Iterator[Weakest]:
    for name in (*HEADLINES, *STAYS):
        metric = cell.metrics.get(name)
        if metric is None or metric.value is None:
            continue
        if metric.better == "lower":
            yield Weakest(cell.concept, cell.suite, name, metric, None, metric.value)
            continue
        of_none = none.metrics.get(name) if none is not None and name in STAYS else None
        base = None if of_none is None else of_none.value
        yield Weakest(cell.concept, cell.suite, name, metric, base, (100.0 if base is None else base) - metric.value)
