"""SafeRedir's unsafe probability by step over all rows of a cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from srbench.analysis.records import CellRecord
from srbench.report.gallery import Hung
from srbench.report.plots import Line, Series
from srbench.results.records import redirects

BAND = (10, 90)
"""Percentiles at the edges of the band."""
KINDS = {"forget": "-", "retain": "--"}


def probabilities(cells: Sequence[Hung], series: dict[str, Series]) -> list[Line]:
    """Mean unsafe probability by step, one line per method and kind of row."""
    lines = []
    for cell in cells:
        for kind, dash in KINDS.items():
            steps = _steps(cell.record, kind)
            if steps is not None:
                low, high = np.percentile(steps, BAND, axis=0)
                method, label = series[cell.name], f"{cell.name}: {kind}"
                mean = steps.mean(0)
                lines.append(Line(method, label, tuple(range(1, len(mean) + 1)), tuple(mean), tuple(low), tuple(high), dash))
    return lines


def _steps(record: CellRecord, kind: str) -> np.ndarray | None:
    """(rows, steps); None where no image has such a trace. Rows with a number of steps other than the first's are left out."""
    traces = [dict(row.image.trace) for row in record.rows if row.image is not None and row.row.kind == kind]
    unsafe = [trace["unsafe"] for trace in traces if redirects(trace) and trace["unsafe"]]
    if not unsafe:
        return None
    return np.asarray([trace for trace in unsafe if len(trace) == len(unsafe[0])], float)
