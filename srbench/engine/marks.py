"""A plan's marks of its images: which are of sensitive or gated rows, and which scores they wait for before deletion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from srbench.engine.request import Cell, Planned, PlannedRow
from srbench.hashing import digest
from srbench.results.gated import Hush, texts_of
from srbench.results.sensitive import Await, Mark
from srbench.scorers.base import PAIR, kind_named
from srbench.scoring.awaited import await_of
from srbench.scoring.scoring import Scoring, Wanted


def wanted_of(scoring: Scoring, cell: Cell, row: PlannedRow, planned: Planned) -> Iterator[Wanted]:
    """Scores that one image of a row should have; scorers of pairs compare the row's image with its reference image."""
    reference = row.reference.key if row.reference is not None and planned is row.image else ""
    for name in cell.scorers:
        if kind_named(name) != PAIR or reference:
            yield scoring.want(name, planned.key, row.row, reference)


def marks_of(cells: Sequence[Cell], scoring: Scoring, keep: bool) -> dict[str, Mark]:
    """Image key -> its mark, for images of sensitive and of gated cells.

    An image that a cell which is not sensitive needs, too, is not marked as sensitive. keep: whether sensitive images are kept.
    """
    gated = {image.key for cell in cells if cell.suite.gated for image in cell.images()}
    plain = {image.key for cell in cells if not cell.sensitive for image in cell.images()}
    secret = [cell for cell in cells if cell.sensitive]
    keys = {image.key for cell in secret for image in cell.images()} - plain
    awaits = _awaits(secret, scoring, keys)
    names = frozenset(name for cell in secret for name in cell.scorers if scoring.opened)
    return {
        key: Mark(key in keys, key in gated, keep and key in keys, tuple(awaits.get(key, ())), names)
        for key in sorted(keys | gated)
    }


def _awaits(cells: Sequence[Cell], scoring: Scoring, keys: set[str]) -> dict[str, dict[Await, None]]:
    """Image key -> the scores that it waits for; both images of a pair wait.

    No image waits for a scorer that cannot be used: else a run without CLIP would leave every image on the disk.
    """
    awaits: dict[str, dict[Await, None]] = {}
    identities = {name: digest(identity) for name, identity in scoring.identities.items()}
    for cell in cells:
        for row in cell.rows:
            for image in (planned for planned in (row.image, row.reference, row.floor) if planned is not None):
                for wanted in wanted_of(scoring, cell, row, image):
                    if wanted.scorer in scoring.broken:
                        continue
                    for key in keys & {wanted.image_key, wanted.reference_key}:
                        awaits.setdefault(key, {})[await_of(wanted, identities)] = None
    return awaits


def hush_of(cells: Sequence[Cell]) -> Hush:
    """Removes texts of the plan's gated rows from messages."""
    return Hush(texts_of(row for cell in cells if cell.suite.gated for row in (*cell.found.rows, *(p.row for p in cell.rows))))
