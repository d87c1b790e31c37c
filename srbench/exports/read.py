"""The run that is exported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srbench.analysis.records import Metric, resolved
from srbench.analysis.results import ResultCell, name_of
from srbench.errors import UsageError, did_you_mean
from srbench.results.records import Warn
from srbench.results.run_files import check_folder, local_files, no_local_runs, read_all, read_run


@dataclass(frozen=True)
class Run:
    """A run's file, read and checked."""

    folder: Path
    """The results folder."""
    name: str
    header: dict[str, Any]
    entries: list[dict[str, Any]]
    """Of cells; `result` is the `ResultCell`."""

    @property
    def cells(self) -> list[ResultCell]:
        return [entry["result"] for entry in self.entries]


def run_of(folder: Path, name: str | None, warn: Warn) -> Run:
    """A run of a results folder, the newest where none is named.

    Raises `UsageError` where there is none of that name, `MissingError` where there is none at all.
    """
    check_folder(folder)
    files = {path.parent.name: path for path in local_files(folder)}
    if not files:
        raise no_local_runs(folder, "runs")
    if name is not None and name not in files:
        raise UsageError(f"{folder}: there is no run '{name}'", did_you_mean(name, files))
    if name is not None:
        path, header = files[name], read_run(files[name], warn)
    else:
        path, header = read_all(folder, warn, committed=False)[0]
    if not header["cells"]:
        raise UsageError(f"{path}: no cell of it can be read", "Run the same command again.")
    entries = [{**entry, "result": replace(entry["result"], source="local")} for entry in header["cells"]]
    return Run(folder, path.parent.name, header, entries)


def by_method(run: Run) -> dict[str, list[ResultCell]]:
    """A method with its variant and checkpoint -> its cells."""
    found: dict[str, list[ResultCell]] = {}
    for cell in run.cells:
        found.setdefault(name_of(cell), []).append(cell)
    return found


def numbers(cell: ResultCell) -> Iterator[tuple[str, Metric, float]]:
    """The metrics of a cell that have a value. A time counts where its interval is narrower than itself."""
    for name, metric in cell.metrics.items():
        if metric.value is not None and (metric.base is None or _is_resolved(metric)):
            yield name, metric, metric.value


def _is_resolved(metric: Metric) -> bool:
    """Of a difference in time: whether it is known better than that the machine may have been busy."""
    if metric.value is None or metric.low is None or metric.high is None:
        return False
    return resolved(metric.value, metric.low, metric.high)


def title(cell: ResultCell) -> str:
    """What a figure of a cell is of: suite, concept, backbone with the start of its hash, judge, rows."""
    backbone = f"{cell.backbone}@{cell.origin.backbone_sha[:8]}" if cell.origin.backbone_sha else cell.backbone
    return f"{cell.suite}/{cell.concept} on {backbone}, judged by {cell.protocol}, rows {cell.rows_sha[:8]}"
