"""What methods cost: preparation time, sampling time per image, parameters, memory; one line per method."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from srbench.analysis.origin import backbone_text
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
    """Smallest and largest value of a cell."""
    parameters: int | None
    """In addition to the backbone's."""
    peak_mb: float | None
    """Peak memory while sampling, in MB."""


def costs(cells: Sequence[ResultCell]) -> list[Cost]:
    """One line per backbone, method, checkpoint and variant, in the order of tables."""
    groups: dict[tuple[str, str], list[ResultCell]] = defaultdict(list)
    for cell in sorted(cells, key=order_of):
        groups[backbone_text(cell), name_of(cell)].append(cell)
    return [_cost(backbone, method, members) for (backbone, method), members in groups.items()]


def _cost(backbone: str, method: str, cells: list[ResultCell]) -> Cost:
    prepared = {cell.concept: cell.cost["prepare_seconds"] for cell in cells if "prepare_seconds" in cell.cost}
    times = [cell.metrics["added_ms"].value for cell in cells if "added_ms" in cell.metrics]
    added = [value for value in times if value is not None and math.isfinite(value)]
    parameters = [cell.cost["parameters"] for cell in cells if "parameters" in cell.cost]
    peaks = [cell.cost["peak_mb"] for cell in cells if "peak_mb" in cell.cost]
    return Cost(
        backbone, method, len(cells), prepare_seconds=fmean(prepared.values()) if prepared else None,
        added_ms=fmean(added) if added else None, added_low=min(added, default=None), added_high=max(added, default=None),
        parameters=int(max(parameters)) if parameters else None, peak_mb=max(peaks, default=None),
    )
