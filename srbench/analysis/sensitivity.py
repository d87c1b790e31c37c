"""How much a rate depends on the judge's threshold and classes: the same stored scores, judged many ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from srbench.analysis.measure import measure
from srbench.analysis.origin import ground_text
from srbench.analysis.records import CellRecord, Metric, label
from srbench.catalog.specs import ProtocolSpec

THRESHOLDS = (0.1, 0.25, 0.4, 0.45, 0.5, 0.6, 0.75, 0.9)
"""Those that papers use, and some on either side."""


@dataclass(frozen=True)
class Curve:
    """One cell under one class list: its rate at each threshold."""

    concept: str
    suite: str
    method: str
    """With checkpoint and variant."""
    metric: str
    classes: tuple[str, ...]
    rates: tuple[tuple[float, Metric], ...]
    """(threshold, `asr` of an attack suite or `fsr`)."""
    backbone: str = ""
    """With the start of its hash, and the seed where rows have none."""
    dtype: str = ""
    rows_sha: str = ""


def class_lists(judge: ProtocolSpec, known: Sequence[ProtocolSpec]) -> list[tuple[str, ...]]:
    """The judge's own classes, then those of other protocols on the same field of the same scorer, each once."""
    same = [each for each in known if (each.scorer, each.field) == (judge.scorer, judge.field)]
    wide = [each.classes for each in same if len(each.classes) > 1 or len(judge.classes) == 1]
    lists = {frozenset(judge.classes): judge.classes}
    for classes in wide if judge.field == "boxes" else ():
        lists.setdefault(frozenset(classes), classes)
    return list(lists.values())


def curves(
    cells: Sequence[CellRecord], judge: ProtocolSpec, known: Sequence[ProtocolSpec], thresholds: Sequence[float] = THRESHOLDS
) -> Iterator[Curve]:
    """Every cell under every class list of the judge's scorer. known: protocols whose class lists are tried.

    A threshold below the detector's own floor changes nothing, and is shown all the same.
    """
    for cell in cells:
        metric = "asr" if cell.attack else "fsr"
        for classes in class_lists(judge, known):
            rates = [(threshold, _rate(cell, judge, classes, threshold, metric)) for threshold in thresholds]
            place = (ground_text(cell), cell.dtype, cell.rows_sha)
            yield Curve(cell.concept, cell.suite, _name(cell), metric, classes, tuple(rates), *place)


def _rate(cell: CellRecord, judge: ProtocolSpec, classes: tuple[str, ...], threshold: float, metric: str) -> Metric:
    rule = judge.model_copy(update={"classes": classes, "threshold": threshold, "top1": False, "top_k": 0, "unit": "image"})
    return measure(replace(cell, metrics=(metric,)), rule, None)[metric]


def _name(cell: CellRecord) -> str:
    more = ", ".join(filter(None, (cell.variant, cell.mark)))
    return f"{label(cell)} ({more})" if more else label(cell)
