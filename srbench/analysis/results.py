"""A cell's result without its rows, as used by tables, files and committed summaries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from srbench.analysis.gains import Stacked, is_stacked, stacking_gains
from srbench.analysis.judging import NOT_FINITE, Unscored, seen_in
from srbench.analysis.measure import baseline_times, measure
from srbench.analysis.metrics import Times, is_baseline, lens_of
from srbench.analysis.origin import (
    ORIGIN,
    UNKNOWN,
    Identity,
    Made,
    Origin,
    backbone_text,
    ground_of,
    marks,
)
from srbench.analysis.records import CellRecord, Metric, RowRecord, label
from srbench.catalog import load
from srbench.catalog.specs import ProtocolSpec
from srbench.errors import UsageError

DIFFERENCE = "_diff"
"""Suffix of columns of differences from another method."""
DEPLOYED = "backbone."
"""Begins the parts of a variant that say how the backbone is drawn with, not what a method does."""
IDENTITY = ("backbone", "concept", "suite", "method", "on", "variant", "protocol", "dtype", "rows_sha", "run")
COUNTS = ("n_loaded", "n_excluded", "n_run", "n_scored", "n_failed")


@dataclass(frozen=True)
class ResultCell:
    """A cell without its rows: identity, counts, metrics. Rates are in percent."""

    backbone: str
    concept: str
    suite: str
    method: str
    on: str
    variant: str
    protocol: str
    dtype: str
    rows_sha: str
    run: str
    source: str
    """`local` or `committed`; not part of the JSON."""
    n_loaded: int
    n_excluded: int
    n_run: int
    """Rows, not reference images."""
    n_scored: int
    """Rows whose image the judge could decide on."""
    n_failed: int
    """Rows without an image, or whose image the judge failed on."""
    metrics: Mapping[str, Metric]
    cost: Mapping[str, float] = field(default_factory=dict)
    """As `CellRecord.cost`."""
    notes: tuple[str, ...] = ()
    """As `CellRecord.notes`."""
    made_against: str = ""
    """As `CellRecord.made_against`."""
    origin: Origin = UNKNOWN
    """Hashes, seed and noise that it was made with."""
    mark: str = ""
    """What distinguishes it from cells of the same name that it is shown with (`told_apart`); not part of the JSON."""

    @property
    def label(self) -> str:
        """`method`, `method on checkpoint`, or the checkpoint alone."""
        return label(self)


def result(
    cell: CellRecord,
    judge: ProtocolSpec,
    none: CellRecord | None = None,
    times: Times | None = None,
) -> ResultCell:
    """Measure a cell; the arguments are those of `measure`."""
    metrics = measure(cell, judge, none, times)
    return ResultCell(
        **{name: getattr(cell, name) for name in (*IDENTITY, "source", "n_loaded", "n_excluded")},
        n_run=len(cell.rows),
        n_scored=sum(_judged(record, judge) for record in cell.rows),
        n_failed=sum(_failed(record, judge) for record in cell.rows),
        metrics=metrics,
        cost=cell.cost,
        notes=cell.notes,
        made_against=cell.made_against,
        origin=cell.origin,
        mark=cell.mark,
    )


def unjudged(cell: ResultCell) -> bool:
    """Whether a cell has rows and its judge could say nothing of any of them."""
    return cell.n_run > 0 and cell.n_scored == 0


def told_apart(cells: Sequence[ResultCell]) -> list[ResultCell]:
    """The cells, each with a mark that distinguishes it from others of its name."""
    texts = marks(cells, [cell.run for cell in cells])
    return [cell if cell.mark == text else replace(cell, mark=text) for cell, text in zip(cells, texts, strict=True)]


def name_of(cell: ResultCell) -> str:
    """The label, with variant and mark where there are any."""
    more = ", ".join(filter(None, (cell.variant, cell.mark)))
    return f"{cell.label} ({more})" if more else cell.label


def untouched(name: str) -> bool:
    """Whether a name, as of `name_of`, is that of the untouched backbone, with whatever options."""
    return name == "none" or name.startswith("none (")


def method_name(cell: ResultCell | CellRecord) -> str:
    """The name of a cell's method, as tables show it: a checkpoint that stands alone goes by its own."""
    return cell.on if cell.method == "none" else cell.method


def order_of(cell: ResultCell | CellRecord) -> tuple[bool, str, str, str]:
    """A key to sort the lines of every table by: the untouched backbone, then by name, a checkpoint alone among the methods."""
    return label(cell) != "none", label(cell), cell.variant, cell.mark


def title_of(cell: ResultCell) -> str:
    """The title of a cell's table."""
    return f"{cell.concept} × {cell.suite} on {backbone_text(cell)}"


def _judged(record: RowRecord, judge: ProtocolSpec) -> bool:
    try:
        seen_in(record.image, judge)
    except Unscored:
        return False
    return True


def _failed(record: RowRecord, judge: ProtocolSpec) -> bool:
    return record.image is None or any(part.scorer in record.image.errors for part in load.parts(judge))


# --- JSON -------------------------------------------------------------------------------------------------------------


def to_dict(cell: ResultCell) -> dict[str, Any]:
    """JSON-ready; every number in it is finite or None."""
    metrics = {name: metric_to_dict(metric) for name, metric in cell.metrics.items()}
    more: dict[str, Any] = {"cost": dict(cell.cost), "notes": list(cell.notes), "made_against": cell.made_against}
    present = {name: value for name, value in more.items() if value}
    named = {name: getattr(cell, name) for name in IDENTITY}
    return {**named, **cell.origin.to_dict(), **{name: getattr(cell, name) for name in COUNTS}, "metrics": metrics, **present}


def metric_to_dict(metric: Metric) -> dict[str, Any]:
    value, low, high = (_finite(each) for each in (metric.value, metric.low, metric.high))
    data: dict[str, Any] = {"value": value, "low": low, "high": high, "n": metric.n, "better": metric.better}
    reason = metric.reason or (NOT_FINITE if None in (value, low, high) else "")
    if reason:
        data["reason"] = reason
    if metric.scored < metric.n:
        bounds = {"worst": _finite(metric.worst), "best": _finite(metric.best)}
        data |= {"scored": metric.scored, **{name: bound for name, bound in bounds.items() if bound is not None}}
    if metric.test:
        data["test"] = metric.test
    if metric.p is not None:
        data |= {"p": metric.p, "p_holm": metric.p_holm}
    if metric.trials:
        data["trials"] = metric.trials
    if metric.phrases:
        ends = {"phrase_low": _finite(metric.phrase_low), "phrase_high": _finite(metric.phrase_high)}
        data |= {"phrases": metric.phrases, **ends}
    if metric.base is not None:
        data["base"] = _finite(metric.base)
    return data


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def from_dict(data: Mapping[str, Any], source: str = "committed") -> ResultCell:
    """The inverse of `to_dict`. Raises UsageError that names the missing or unknown key."""
    keys = {*IDENTITY, *COUNTS, "metrics"}
    for key in sorted(keys ^ (set(data) - {"cost", "notes", "made_against", *ORIGIN})):
        what = "an unknown" if key in data else "no"
        raise UsageError(f"a summary's cell has {what} key '{key}'", f"Its keys: {', '.join(sorted(keys))}")
    metrics = {name: _metric_from_dict(name, metric) for name, metric in data["metrics"].items()}
    named = {name: value for name, value in data.items() if name not in ORIGIN}
    more = {"source": source, "metrics": metrics, "notes": tuple(data.get("notes", ())), "origin": Origin.of(data)}
    return ResultCell(**{**named, **more})


def _metric_from_dict(name: str, data: Mapping[str, Any]) -> Metric:
    try:
        return Metric(**{"scored": data["n"], **data})
    except (KeyError, TypeError) as error:
        raise UsageError(f"a summary's metric '{name}' is not readable: {error}", "Write the summary again.") from error


def with_untouched(records: Sequence[CellRecord]) -> list[CellRecord]:
    """The records; where the untouched backbone is among them, each row beside it gets its image of the same row."""
    plain = {beside_of(record): {row.row.id: row.image for row in record.rows} for record in records if is_baseline(record)}
    return [
        record if (images := plain.get(beside_of(record))) is None else replace(
            record, beside_none=True, rows=tuple(replace(row, untouched=images.get(row.row.id)) for row in record.rows)
        )
        for record in records
    ]  # fmt: skip


def measured(judged: Sequence[tuple[CellRecord, ProtocolSpec]]) -> list[ResultCell]:
    """Metrics of cells of one run, each under its judge, with gains for methods stacked on a checkpoint."""
    records = with_untouched([record for record, _ in judged])
    judged = list(zip(records, (judge for _, judge in judged), strict=True))
    plain = {beside_of(r): r for r in records if is_baseline(r)}
    times = baseline_times(r for r in records if r.method == "none")
    cells = [
        result(record, judge, plain.get(beside_of(record)), times)
        for record, judge in judged
    ]
    alone = {(*beside_of(r), *_under_it(r)): r for r in records if r.method == "none"}
    stacked = [i for i, record in enumerate(records) if is_stacked(record)]
    gains = stacking_gains([
        Stacked(cell, alone.get((*beside_of(cell), *_under_it(cell))), lens_of(cell, judge))
        for cell, judge in (judged[i] for i in stacked)
    ])
    for i, more in zip(stacked, gains, strict=True):
        cells[i] = replace(cells[i], metrics={**cells[i].metrics, **more})
    return cells


def _under_it(cell: CellRecord) -> tuple[str, ...]:
    """The checkpoint by name, content, and options that are not at their default, since a sweep has several of one name."""
    return cell.on, cell.origin.checkpoint_sha, *(part for part in cell.variant.split(",") if part.startswith(f"{cell.on}."))


def beside_of(cell: Made) -> Identity:
    """What comparable cells share, whichever judge they have: also how the backbone is deployed (`--set backbone.bits=4`)."""
    deployed = (part for part in cell.variant.split(",") if part.startswith(DEPLOYED))
    return (*ground_of(cell), cell.suite, cell.concept, cell.dtype, cell.rows_sha, *deployed)
