"""How much a rate depends on the judge's threshold and classes, from the same stored scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from srbench.analysis.measure import measure
from srbench.analysis.origin import ground_text
from srbench.analysis.records import CellRecord, Metric, label
from srbench.analysis.results import order_of
from srbench.catalog.specs import ProtocolSpec

THRESHOLDS = (0.1, 0.25, 0.4, 0.45, 0.5, 0.6, 0.75, 0.9)
"""Those that papers use, and some below and above."""


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
    """With the start of its hash, and the run's seed where rows have none."""
    dtype: str = ""
    rows_sha: str = ""
    own_threshold: float | None = None
    """The judge's own threshold; None where it also goes by the top classes, as the rates here do not."""


def class_lists(judge: ProtocolSpec, protocols: Sequence[ProtocolSpec]) -> list[tuple[str, ...]]:
    """The judge's own classes, then those of other protocols on the same scorer and field, without duplicates."""
    same = [each for each in protocols if (each.scorer, each.field) == (judge.scorer, judge.field)]
    wide = [each.classes for each in same if len(each.classes) > 1 or len(judge.classes) == 1]
    lists = {frozenset(judge.classes): judge.classes}
    for classes in wide if judge.field == "boxes" else ():
        lists.setdefault(frozenset(classes), classes)
    return list(lists.values())


def curves(
    cells: Sequence[CellRecord], judge: ProtocolSpec, protocols: Sequence[ProtocolSpec], thresholds: Sequence[float] = THRESHOLDS
) -> Iterator[Curve]:
    """Every cell, in the order of tables, under every class list of the judge's scorer, at `thresholds` and the judge's own.

    protocols: those whose class lists are tried.

    Thresholds below the detector's own minimum score are included, although they change nothing.
    """
    own = None if judge.top1 or judge.top_k else judge.threshold
    at = sorted({*thresholds, *([] if own is None else [own])})
    for cell in sorted(cells, key=order_of):
        metric = "asr" if cell.attack else "fsr"
        for classes in class_lists(judge, protocols):
            rates = [(threshold, _rate(cell, judge, classes, threshold, metric)) for threshold in at]
            place = (ground_text(cell), cell.dtype, cell.rows_sha)
            yield Curve(cell.concept, cell.suite, _name(cell), metric, classes, tuple(rates), *place, own)


def _rate(cell: CellRecord, judge: ProtocolSpec, classes: tuple[str, ...], threshold: float, metric: str) -> Metric:
    rule = judge.model_copy(update={"classes": classes, "threshold": threshold, "top1": False, "top_k": 0, "unit": "image"})
    return measure(replace(cell, metrics=(metric,)), rule, None)[metric]


def _name(cell: CellRecord) -> str:
    more = ", ".join(filter(None, (cell.variant, cell.mark)))
    return f"{label(cell)} ({more})" if more else label(cell)
