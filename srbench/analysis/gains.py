"""What a method adds to a checkpoint: paired differences from the checkpoint alone, with intervals and tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from srbench.analysis.metrics import METRICS, Lens
from srbench.analysis.origin import SHOWN, Identity, ground_of, place_of
from srbench.analysis.records import CellRecord, Metric
from srbench.analysis.significance import PairedTest, corrected_together, paired

GAINS = ("fsr", "asr", "retain_accuracy", "content_kept")
"""Metrics whose difference from the checkpoint alone gets its own column."""
SUFFIX = "_gain"


class Stacked(NamedTuple):
    """A method on a checkpoint, and the same checkpoint alone (`none` on it)."""

    cell: CellRecord
    alone: CellRecord | None
    lens: Lens


def is_stacked(cell: CellRecord) -> bool:
    """Whether an inference method acts on a checkpoint."""
    return cell.method != "none" and cell.on != "none"


def stacking_gains(stacked: Sequence[Stacked]) -> list[dict[str, Metric]]:
    """For each stacked cell its gains by name (`fsr_gain`, ...), in points; `better` is that of the metric.

    p-values are Holm-corrected within each table of `stacked`.
    """
    gains: list[dict[str, Metric]] = [{} for _ in stacked]
    families: dict[Identity, list[tuple[int, PairedTest]]] = defaultdict(list)
    for index, (cell, alone, lens) in enumerate(stacked):
        for name in (name for name in GAINS if name in cell.metrics):
            reason = _refused(cell, alone)
            if reason or alone is None:
                gains[index][name + SUFFIX] = Metric(METRICS[name].better, reason=reason)
            else:
                gains[index][name + SUFFIX] = Metric(METRICS[name].better)  # keeps its place among the gains
                families[place_of(cell)].append((index, paired(cell, alone, name, lens)))
    for members in families.values():
        tests = corrected_together([test for _, test in members])
        for (index, _), test in zip(members, tests, strict=True):
            gains[index][test.metric + SUFFIX] = _metric(test.metric, test)
    return gains


def _refused(cell: CellRecord, alone: CellRecord | None) -> str:
    if alone is None:
        return f"no run of 'none' on {cell.on}"
    if ground_of(alone) != ground_of(cell) or (alone.rows_sha, alone.dtype) != (cell.rows_sha, cell.dtype):
        return f"'none' on {cell.on} was run on another backbone, seed or rows"
    if alone.origin.checkpoint_sha != cell.origin.checkpoint_sha:
        return f"'none' was run on another {cell.on}: checkpoint {alone.origin.checkpoint_sha[:SHOWN] or 'not known'}"
    return cell.blocked or alone.blocked


def _metric(name: str, test: PairedTest) -> Metric:
    better = METRICS[name].better
    if test.difference is None:
        return Metric(better, reason="no row is scored in both")
    return Metric(
        better, test.difference, test.low, test.high, n=test.n, scored=test.n, test=test.test, p=test.p, p_holm=test.p_holm
    )
