"""SafeRedir's probability by step over all rows of a cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from srbench.analysis.records import CellRecord
from srbench.report.gallery import Hung
from srbench.report.plots import Line, Series
from srbench.results.records import redirects

BAND = (10, 90)
"""Percentiles between which the band lies."""
KINDS = {"forget": "-", "retain": "--"}


def probabilities(cells: Sequence[Hung], series: dict[str, Series]) -> list[Line]:
    """Mean unsafe probability by step, a line for each method and kind of row."""
    found = []
    for cell in cells:
        for kind, dash in KINDS.items():
            steps = _steps(cell.record, kind)
            if steps is not None:
                low, high = np.percentile(steps, BAND, axis=0)
                own, label = series[cell.name], f"{cell.name}: {kind}"
                mean = steps.mean(0)
                found.append(Line(own, label, tuple(range(1, len(mean) + 1)), tuple(mean), tuple(low), tuple(high), dash))
    return found


def _steps(record: CellRecord, kind: str) -> np.ndarray | None:
    """(rows, steps); None where no image has such a trace. Rows with another number of steps than the first are left out."""
    traces = [row.image.trace for row in record.rows if row.image is not None and row.row.kind == kind]
    known = [trace["unsafe"] for trace in traces if redirects(trace) and trace["unsafe"]]
    if not known:
        return None
    return np.asarray([trace for trace in known if len(trace) == len(known[0])], float)
