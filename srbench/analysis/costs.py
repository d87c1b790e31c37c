"""What methods cost: preparation time, sampling time per image, parameters, memory; one line per method and source."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from srbench.analysis.origin import backbone_text
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell, name_of, order_of


@dataclass(frozen=True)
class Cost:
    """One method on one backbone, over its concepts and suites. A number is None where no cell has it."""

    backbone: str
    """With the start of its hash, where it is known."""
    method: str
    """With checkpoint and variant."""
    cells: int
    prepare_seconds: float | None
    """Mean over concepts: seconds to make the checkpoint and what the method needs."""
    added_ms: float | None
    """Mean over cells: additional milliseconds per image, compared with `none` on the same checkpoint."""
    added_low: float | None
    added_high: float | None
    """Smallest and largest value of a cell; of a single cell its interval, None where it has none."""
    parameters: int | None
    """In addition to the backbone's."""
    peak_mb: float | None
    """Peak memory while sampling, in MB."""
    source: str = ""
    """`local` or `committed`: of other machines, whose times are not averaged with those of this one."""
    added_base: float | None = None
    """Mean over cells: milliseconds per image of `none`, where that is recorded."""


def costs(cells: Sequence[ResultCell]) -> list[Cost]:
    """One line per backbone, method, checkpoint, variant and source, in the order of tables."""
    groups: dict[tuple[str, str, str], list[ResultCell]] = defaultdict(list)
    for cell in sorted(cells, key=order_of):
        groups[backbone_text(cell), name_of(cell), cell.source].append(cell)
    return [_cost(*group, members) for group, members in groups.items()]


def by_method(all_costs: Sequence[Cost]) -> dict[str, Cost]:
    """One cost per method: the user's own before the committed one."""
    return {cost.method: cost for cost in sorted(all_costs, key=lambda cost: cost.source == "local")}


def _cost(backbone: str, method: str, source: str, cells: list[ResultCell]) -> Cost:
    prepared = {cell.concept: cell.cost["prepare_seconds"] for cell in cells if "prepare_seconds" in cell.cost}
    times = [cell.metrics["added_ms"] for cell in cells if "added_ms" in cell.metrics]
    added = [time.value for time in times if time.value is not None and math.isfinite(time.value)]
    bases = [time.base for time in times if time.base is not None]
    low, high = _ends(times, added)
    parameters = [cell.cost["parameters"] for cell in cells if "parameters" in cell.cost]
    peaks = [cell.cost["peak_mb"] for cell in cells if "peak_mb" in cell.cost]
    return Cost(
        backbone, method, len(cells), prepare_seconds=fmean(prepared.values()) if prepared else None,
        added_ms=fmean(added) if added else None, added_low=low, added_high=high,
        parameters=int(max(parameters)) if parameters else None, peak_mb=max(peaks, default=None),
        source=source, added_base=fmean(bases) if len(bases) == len(added) > 0 else None,
    )


def _ends(times: Sequence[Metric], added: Sequence[float]) -> tuple[float | None, float | None]:
    """The least and the most of several cells; of a single one its interval."""
    if len(added) > 1:
        return min(added), max(added)
    return next(((time.low, time.high) for time in times if time.value is not None), (None, None))
