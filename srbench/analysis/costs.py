"""What methods cost: seconds of making, milliseconds an image, parameters, memory; one line a method."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from srbench.analysis.origin import backbone_text
from srbench.analysis.results import ResultCell, name_of


@dataclass(frozen=True)
class Cost:
    """One method on one backbone, over its concepts and suites. None where no cell knows it."""

    backbone: str
    """With the start of its hash, where it is known."""
    method: str
    """With checkpoint and variant."""
    cells: int
    prepare_seconds: float | None
    """Mean over concepts, each once: of making the checkpoint and what the method needs."""
    added_ms: float | None
    """Mean over cells: milliseconds an image beside `none` on the same checkpoint."""
    added_low: float | None
    added_high: float | None
    """The cell with the least and the one with the most."""
    parameters: int | None
    """Beside the backbone's."""
    peak_mb: float | None
    """Most memory while sampling."""


def costs(cells: Sequence[ResultCell]) -> list[Cost]:
    """One line a backbone, method, checkpoint and variant, in the order of the cells."""
    groups: dict[tuple[str, str], list[ResultCell]] = defaultdict(list)
    for cell in cells:
        groups[backbone_text(cell), name_of(cell)].append(cell)
    return [_cost(backbone, method, own) for (backbone, method), own in groups.items()]


def _cost(backbone: str, method: str, cells: list[ResultCell]) -> Cost:
    prepared = {cell.concept: cell.cost["prepare_seconds"] for cell in cells if "prepare_seconds" in cell.cost}
    found = [cell.metrics["added_ms"].value for cell in cells if "added_ms" in cell.metrics]
    added = [value for value in found if value is not None and math.isfinite(value)]
    parameters = [cell.cost["parameters"] for cell in cells if "parameters" in cell.cost]
    peaks = [cell.cost["peak_mb"] for cell in cells if "peak_mb" in cell.cost]
    return Cost(
        backbone, method, len(cells), prepare_seconds=fmean(prepared.values()) if prepared else None,
        added_ms=fmean(added) if added else None, added_low=min(added, default=None), added_high=max(added, default=None),
        parameters=int(max(parameters)) if parameters else None, peak_mb=max(peaks, default=None),
    )
