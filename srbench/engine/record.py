"""Turns planned cells and the store into records for analysis, and into `run.json`. Imports no torch."""

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
from srbench.catalog import code
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
    """What a run has after sampling and scoring."""

    scoring: Scoring
    failed: dict[str, str]
    """Image key -> why it could not be sampled."""


def _image(planned: Planned | None, row: PlannedRow, cell: Cell, outcome: Outcome) -> ImageRecord | None:
    """A stored image with its scores, or an error for each scorer where sampling failed; None where there is neither."""
    if planned is None:
        return None
    if planned.key in outcome.scoring.store.images:
        reference = row.reference.key if row.reference is not None else ""
        return image_record(planned.key, reference, row.row, cell.scorers, outcome.scoring)
    why = outcome.failed.get(planned.key)
    return None if why is None else unread(why, cell.scorers)


def cell_record(cell: Cell, backbone: Backbone, run: str, store: Store, outcome: Outcome) -> CellRecord:
    """A planned cell with its images, scores and failures."""
    blocked = "" if cell.blocked is None else cell.blocked.line
    reasons = [outcome.failed[p.image.key] for p in cell.rows if p.image.key in outcome.failed]
    if not blocked and reasons and len(reasons) == len(cell.rows):
        blocked = most_common(reasons)
    rows = tuple(
        RowRecord(row.row, *(_image(planned, row, cell, outcome) for planned in (row.image, row.reference, row.floor)))
        for row in cell.rows
    )
    return CellRecord(
        backbone=backbone.spec.name, concept=cell.concept.name, concept_kind=cell.concept.kind, suite=cell.suite.name,
        attack=cell.suite.attack, method=cell.method, on=cell.on, variant=cell.variant, protocol=cell.protocol.name,
        dtype=backbone.dtype, rows_sha=cell.rows_sha, run=run, source="local", n_loaded=cell.n_loaded,
        n_excluded=cell.n_excluded, metrics=_metrics(cell), decides=cell.decides, blocked=blocked,
        rows=rows, cost=_cost(cell, store), notes=(*cell.found.notes, *_note_of(cell), *_note_of_code(cell, store)),
        made_against=_made_against(cell, backbone), origin=_origin(cell, backbone), described_by=backbone.spec.scorers,
    )


def _note_of(cell: Cell) -> tuple[str, ...]:
    """The note of the method's artifact, which stands below every table of its results."""
    artifact = cell.applied.active.artifact if cell.applied else None
    note = artifact.card.get("note") if artifact else None
    return (f"{cell.method}: {note}",) if isinstance(note, str) and note else ()


def _note_of_code(cell: Cell, store: Store) -> tuple[str, ...]:
    """Stands below every table of a cell some of whose images were drawn by other code of the method than it has now."""
    if cell.applied is None:
        return ()
    keys = [row.image.key for row in cell.rows if row.image.key in store.images]
    other = sum(code.differs("methods", cell.applied.name, store.images[key].get("source")) for key in keys)
    told = f"{cell.method}: {other} of {len(keys)} images are of earlier code of its version {cell.applied.version}"
    return (told,) if other else ()


def _made_against(cell: Cell, backbone: Backbone) -> str:
    """What the prompts were made against; with a hash where its label is the cell's and its weights are others."""
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
    """Hashes, seed and noise of a planned cell."""
    applied, under = cell.applied, cell.checkpoint
    seeds = {planned.image.spec.seed for planned in cell.rows if planned.row.seed is None}
    return Origin(
        backbone_sha=short(backbone.sha256), noise=NOISE, seed=next(iter(seeds), None),
        method_version=applied.version if applied else 0, checkpoint_sha=short(under.sha256) if under else "",
        artifact_sha=short(applied.artifact_sha) if applied else "",
        images_sha=images_sha(_row_entry(row, True, {}) for row in cell.rows),
    )


def _metrics(cell: Cell) -> tuple[str, ...]:
    """The suite's metrics, then those of the cell's scorers; scorers that compare need a reference."""
    compared = any(row.row.reference is not None for row in cell.rows)
    more = [name for scorer in cell.scorers if compared or kind_named(scorer) == IMAGE for name in metrics_of(scorer)]
    return tuple(dict.fromkeys((*cell.suite.metrics, *more)))


def _cost(cell: Cell, store: Store) -> dict[str, float]:
    """Seconds to prepare the method and to train the checkpoint, the method's parameters, and peak memory in MB."""
    if cell.applied is None:
        return {}
    erasing = float(cell.checkpoint.card.get("seconds", 0.0)) if cell.checkpoint else 0.0
    images = [store.images[p.image.key] for p in cell.rows if p.image.key in store.images]
    peaks = [image["peak_mb"] for image in images if image.get("peak_mb") is not None]
    cost = {"prepare_seconds": round(cell.applied.prepare_seconds + erasing, 2), "parameters": cell.applied.parameters}
    return cost | ({"peak_mb": max(peaks)} if peaks else {})


def results(cells: list[Cell], backbone: Backbone, run: str, store: Store, outcome: Outcome) -> list[ResultCell]:
    """Metrics of every cell; the baseline is `none` on the same suite and concept."""
    return measured([(cell_record(cell, backbone, run, store, outcome), cell.protocol) for cell in cells])


def _row_entry(row: PlannedRow, gated: bool, failed: Mapping[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": row.row.id, "image": row.image.key}
    entry |= {"failed": failed[row.image.key]} if row.image.key in failed else {}
    entry |= {name: p.key for name, p in (("reference", row.reference), ("floor", row.floor)) if p is not None}
    return entry if gated else {**entry, "row": row.row.model_dump(mode="json", exclude_defaults=True)}


def entry_of(cell: Cell, result: ResultCell, failed: Mapping[str, str]) -> dict[str, Any]:
    """A cell for `write_run`: its metrics, checkpoint, artifact and rows, and of its suite what another protocol will need.

    failed: image key -> why it is missing.
    """
    suite = {"attack": cell.suite.attack, "metrics": list(cell.suite.metrics), "sensitive": cell.sensitive, "family": cell.family}
    read = {
        "sha256": list(cell.found.sha256), "flags": list(cell.found.flags),
        "prompts": str(cell.prompts.resolve()) if cell.prompts else "", "columns": dict(cell.columns),
        "read": list(cell.found.told),
    }  # fmt: skip
    suite |= {name: value for name, value in read.items() if value}
    under, artifact = cell.checkpoint, cell.applied.active.artifact if cell.applied else None
    return {
        "result": to_dict(result), "suite": suite,
        **({"checkpoint": {"passport": asdict(under.passport), "card": under.card}} if under else {}),
        **({"artifact": {"sha256": artifact.sha256, "card": artifact.card}} if artifact else {}),
        "rows": [_row_entry(row, cell.suite.gated, failed) for row in cell.rows],
    }
