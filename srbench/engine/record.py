"""Run records: from planned cells and the store to what analysis reads, and to `run.json`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from srbench.analysis.attacks import made_against
from srbench.analysis.measure import most_common
from srbench.analysis.metrics import metrics_of
from srbench.analysis.origin import SHOWN, Origin, short
from srbench.analysis.records import CellRecord, ImageRecord, RowRecord, label
from srbench.analysis.results import ResultCell, to_dict
from srbench.results.keys import NOISE
from srbench.results.origins import images_sha
from srbench.results.store import Store
from srbench.scorers.base import IMAGE, kind_named
from srbench.scoring.scoring import Scoring

if TYPE_CHECKING:  # both bring torch
    from srbench.backbones.loader import Backbone
    from srbench.engine.request import Cell, Planned, PlannedRow
from srbench.analysis.results import measured
from srbench.results.stored import unread
from srbench.scoring.scoring import image_record


@dataclass
class Outcome:
    """What happened while a plan was carried out."""

    scoring: Scoring
    failed: dict[str, str]
    """Image key -> why it could not be sampled."""


def _image(planned: Planned | None, row: PlannedRow, cell: Cell, outcome: Outcome) -> ImageRecord | None:
    if planned is None or planned.key not in outcome.scoring.store.images:
        return None
    reference = row.reference.key if row.reference is not None else ""
    return image_record(planned.key, reference, row.row, cell.scorers, outcome.scoring)


def _row(row: PlannedRow, cell: Cell, outcome: Outcome) -> RowRecord:
    image, reference, floor = (
        _image(p, row, cell, outcome) or _unmade(p, cell, outcome) for p in (row.image, row.reference, row.floor)
    )
    return RowRecord(row.row, image, reference, floor)


def _unmade(planned: Planned | None, cell: Cell, outcome: Outcome) -> ImageRecord | None:
    """Stands for an image that could not be sampled, with the reason; None where there is none to have."""
    why = outcome.failed.get(planned.key) if planned is not None else None
    return None if why is None else unread(why, cell.scorers)


def cell_record(cell: Cell, backbone: Backbone, run: str, store: Store, outcome: Outcome) -> CellRecord:
    """A planned cell with everything the store knows of its images."""
    blocked = "" if cell.blocked is None else cell.blocked.line
    reasons = [outcome.failed[p.image.key] for p in cell.rows if p.image.key in outcome.failed]
    if not blocked and reasons and len(reasons) == len(cell.rows):
        blocked = most_common(reasons)
    rows = tuple(_row(row, cell, outcome) for row in cell.rows)
    return CellRecord(
        backbone=backbone.spec.name, concept=cell.concept.name, concept_kind=cell.concept.kind, suite=cell.suite.name,
        attack=cell.suite.attack, method=cell.method, on=cell.on, variant=cell.variant, protocol=cell.protocol.name,
        dtype=backbone.dtype, rows_sha=cell.rows_sha, run=run, source="local", n_loaded=cell.n_loaded,
        n_excluded=cell.n_excluded, metrics=_metrics(cell), decides=cell.decides, blocked=blocked,
        rows=rows, cost=_cost(cell, store), notes=(*cell.found.notes, *_said_by(cell)),
        made_against=_made_against(cell, backbone), origin=_origin(cell, backbone), described_by=backbone.spec.scorers,
    )


def _said_by(cell: Cell) -> tuple[str, ...]:
    """What the method's artifact has to say below every table of its results."""
    artifact = cell.applied.active.artifact if cell.applied else None
    note = artifact.card.get("note") if artifact else None
    return (f"{cell.method}: {note}",) if isinstance(note, str) and note else ()


def _made_against(cell: Cell, backbone: Backbone) -> str:
    """What the prompts were made against; with a hash where that is called like the cell, and is another making of it."""
    meta = cell.found.meta
    text = made_against(meta)
    if cell.applied is None or not text.endswith(f" against {label(cell)}"):
        return text
    ours = {
        "backbone_sha256": backbone.sha256, "artifact_sha256": cell.applied.artifact_sha,
        "checkpoint_sha256": cell.checkpoint.sha256 if cell.checkpoint else "",
    }  # fmt: skip
    others = [str(meta[name]) for name, sha in ours.items() if meta.get(name) and meta[name] != sha]
    return f"{text}@{others[0][:SHOWN]}" if others else text


def _origin(cell: Cell, backbone: Backbone) -> Origin:
    """What made a planned cell, beside its names."""
    applied, under = cell.applied, cell.checkpoint
    seeds = {planned.image.spec.seed for planned in cell.rows if planned.row.seed is None}
    return Origin(
        backbone_sha=short(backbone.sha256), noise=NOISE, seed=next(iter(seeds), None),
        method_version=applied.version if applied else 0, checkpoint_sha=short(under.sha256) if under else "",
        artifact_sha=short(applied.artifact_sha) if applied else "",
        images_sha=images_sha(_row_entry(row, True, {}) for row in cell.rows),
    )


def _metrics(cell: Cell) -> tuple[str, ...]:
    """What the suite asks for, then what the cell's scorers have columns for; those that compare need a reference."""
    compared = any(row.row.reference is not None for row in cell.rows)
    more = [name for scorer in cell.scorers if compared or kind_named(scorer) == IMAGE for name in metrics_of(scorer)]
    return tuple(dict.fromkeys((*cell.suite.metrics, *more)))


def _cost(cell: Cell, store: Store) -> dict[str, float]:
    """What the cell's method and checkpoint took to make and need while sampling."""
    if cell.applied is None:
        return {}
    erasing = float(cell.checkpoint.card.get("seconds", 0.0)) if cell.checkpoint else 0.0
    peaks = [store.images[p.image.key].get("peak_mb") for p in cell.rows if p.image.key in store.images]
    known = [peak for peak in peaks if peak is not None]
    found = {"prepare_seconds": round(cell.applied.prepare_seconds + erasing, 2), "parameters": cell.applied.parameters}
    return found | ({"peak_mb": max(known)} if known else {})


def results(cells: list[Cell], backbone: Backbone, run: str, store: Store, outcome: Outcome) -> list[ResultCell]:
    """Metrics of every cell; `none` on the same suite and concept is the one to compare with."""
    records = [cell_record(cell, backbone, run, store, outcome) for cell in cells]
    judges = [cell.protocol for cell in cells]
    return measured(list(zip(records, judges, strict=True)))


def _row_entry(row: PlannedRow, gated: bool, failed: Mapping[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": row.row.id, "image": row.image.key}
    entry |= {"failed": failed[row.image.key]} if row.image.key in failed else {}
    entry |= {name: p.key for name, p in (("reference", row.reference), ("floor", row.floor)) if p is not None}
    return entry if gated else {**entry, "row": row.row.model_dump(mode="json", exclude_defaults=True)}


def _under(cell: Cell) -> dict[str, Any]:
    """The checkpoint's passport and card, where there is one."""
    under = cell.checkpoint
    return {"checkpoint": {"passport": asdict(under.passport), "card": under.card}} if under else {}


def _artifact(cell: Cell) -> dict[str, Any]:
    """What the method loaded or made: its card, and the sha256 that stands for it in keys."""
    artifact = cell.applied.active.artifact if cell.applied else None
    return {"artifact": {"sha256": artifact.sha256, "card": artifact.card}} if artifact else {}


def _suite(cell: Cell) -> dict[str, Any]:
    """What a later judgement has to know of the suite, and where its rows were read."""
    facts = {"attack": cell.suite.attack, "metrics": list(cell.suite.metrics), "sensitive": cell.sensitive, "family": cell.family}
    copy = str(cell.prompts.resolve()) if cell.prompts else ""
    read = {
        "sha256": list(cell.found.sha256), "flags": list(cell.found.flags), "prompts": copy, "columns": dict(cell.columns),
        "read": list(cell.found.told),
    }  # fmt: skip
    return facts | {name: value for name, value in read.items() if value}


def entries(cells: list[Cell], found: list[ResultCell], failed: Mapping[str, str]) -> list[dict[str, Any]]:
    """Planned cells with their image keys, and their metrics, for `write_run`. failed: image key -> why it is not there."""
    return [
        {
            "result": to_dict(value), "suite": _suite(cell), **_under(cell), **_artifact(cell),
            "rows": [_row_entry(row, cell.suite.gated, failed) for row in cell.rows],
        }
        for cell, value in zip(cells, found, strict=True)
    ]


