"""The origin of each cell of a results folder, and which cells repeat a newer one. Imports no torch.

A cell replaces another only where both have the same name, rows, backbone, seed, noise, checkpoint, artifact and images. What
files of older versions do not record is derived from the rest of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from srbench.analysis.origin import ORIGIN, UNKNOWN, Origin, identity, names_of, short
from srbench.analysis.results import ResultCell, told_apart
from srbench.hashing import digest

ROLES = ("image", "reference", "floor")
ELSEWHERE = "elsewhere"
"""Backbone name of external images."""
FIRST_NOISE = "per-sample torch.Generator('cpu'), float32, seed from the row"
"""How noise was drawn before cells recorded it."""
FIRST_SHIPPED = {"pocket": "1f5af3772e03630b4d433636ca71e61eeb82cef914462c4f586c0cec1fce9564"}
"""Backbone -> the content hash of its first edition: summaries from before cells recorded their backbone were made with it."""
Entry = Mapping[str, Any]


class Stored(NamedTuple):
    """A cell with its entry in a run file, and the file's header."""

    cell: ResultCell
    entry: dict[str, Any]
    header: dict[str, Any]


def images_sha(rows: Iterable[Entry]) -> str:
    """Short sha256 over a cell's row ids and image keys, and so over all that determines its pixels; empty without images."""
    keys = [[row.get("id"), *(row.get(role, "") for role in ROLES)] for row in rows if isinstance(row, Mapping)]
    return short(digest(keys)) if any(any(entry[1:]) for entry in keys) else ""


# --- what older files do not say --------------------------------------------------------------------------------------


def with_origin(cell: ResultCell, entry: Entry, header: Entry) -> ResultCell:
    """The cell with its origin completed from its entry and the header of its run file."""
    origin, local = replace(cell.origin, scorers_sha=cell.origin.scorers_sha or _scorers_sha(header)), "rows" in entry
    if origin.images_sha:
        return replace(cell, origin=origin)
    made_here = cell.backbone != ELSEWHERE and "elsewhere" not in entry
    sha = origin.backbone_sha or short(_text(header, "backbone_sha")) or ("" if local else first_shipped(cell.backbone))
    origin = replace(origin, backbone_sha=sha, noise=origin.noise or (FIRST_NOISE if made_here else ""))
    return replace(cell, origin=_of_rows(origin, entry, header) if local else origin)


def _of_rows(origin: Origin, entry: Entry, header: Entry) -> Origin:
    """The origin completed from the rows, the checkpoint and the artifact of an older local run."""
    return replace(
        origin, seed=_seed(entry, header) if origin.seed is None else origin.seed, images_sha=images_sha(entry["rows"]),
        checkpoint_sha=origin.checkpoint_sha or short(_text(entry, "checkpoint", "passport", "sha256")),
        artifact_sha=origin.artifact_sha or short(_text(entry, "artifact", "sha256")),
        folder=origin.folder or _text(entry, "elsewhere", "folder"),
    )


def _scorers_sha(header: Entry) -> str:
    """Short sha256 of the scorers that `--set NAME.OPTION=VALUE` changed: versions, options, hashes of weights; else empty."""
    settings = _part(header, "request").get("settings") or ()
    named = {str(setting).partition(".")[0] for setting in settings}
    scorers = {name: scorer for name, scorer in _part(header, "scorers").items() if name in named and isinstance(scorer, Mapping)}
    identities = {
        name: {key: value for key, value in scorer.items() if key in ("version", "options") or key.endswith("sha256")}
        for name, scorer in scorers.items()
    }  # fmt: skip
    return short(digest(identities)) if identities else ""


def _seed(entry: Entry, header: Entry) -> int | None:
    """The run's seed; None where every row has its own. Rows of gated suites do not record theirs."""
    all_seeded = all(_part(row, "row").get("seed") is not None for row in entry["rows"] if isinstance(row, Mapping))
    seed = _part(header, "request").get("seed")
    return None if all_seeded or "elsewhere" in entry or not isinstance(seed, int) else seed


def _part(data: Entry, name: str) -> Mapping[str, Any]:
    part = data.get(name)
    return part if isinstance(part, Mapping) else {}


def _text(data: Any, *path: str) -> str:
    for name in path:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data if isinstance(data, str) else ""


def first_shipped(backbone: str) -> str:
    """Short content hash of the edition that the committed summaries were made with; empty for what is not bundled."""
    return short(FIRST_SHIPPED.get(backbone, ""))


# --- repeats ----------------------------------------------------------------------------------------------------------


def newest_of(cells: Iterable[Stored], warn: Callable[[str], None]) -> list[Stored]:
    """Drop cells that repeat a newer one; the rest of one name are told apart by their `mark`. cells: newest first.

    Warns how many dropped cells do not record their origin, as only committed summaries do not.
    """
    by_names: dict[tuple[str, ...], list[Stored]] = {}
    unknown = 0
    for older in cells:
        others = by_names.setdefault(names_of(older.cell), [])
        at = next((i for i, other in enumerate(others) if _repeats(other, older)), None)
        if at is None:
            others.append(older)
        elif _only_scored(others[at], older):
            others[at] = older
        else:
            unknown += _unsaid(older.cell) and others[at].cell.run != older.cell.run
    if unknown:
        warn(f"committed results that give way to newer ones of the same names, backbone and rows: {unknown}")
    stored = [item for others in by_names.values() for item in others]
    return [item._replace(cell=cell) for item, cell in zip(stored, told_apart([item.cell for item in stored]), strict=True)]


def _unsaid(cell: ResultCell) -> bool:
    return cell.n_run > 0 and not cell.origin.images_sha


def _only_scored(newer: Stored, older: Stored) -> bool:
    """Whether the older run scored its images and the newer one did not."""
    return newer.cell.n_scored == 0 and older.cell.n_scored > 0


def _repeats(newer: Stored, older: Stored) -> bool:
    """Whether the older cell is the newer one or a part of it: nothing that is recorded of it differs."""
    if identity(newer.cell) == identity(older.cell):
        return True
    if _only_scored(newer, older) or newer.cell.n_run == 0 < older.cell.n_run:
        return False
    rows = older.cell.rows_sha in ("", newer.cell.rows_sha)
    return rows and _made_alike(newer.cell.origin, older.cell.origin) and _within(older, newer)


def _made_alike(newer: Origin, older: Origin) -> bool:
    if newer.scorers_sha != older.scorers_sha:
        return False
    names = [name for name in ORIGIN if name != "images_sha" and getattr(older, name) != getattr(UNKNOWN, name)]
    return all(getattr(older, name) == getattr(newer, name) for name in names)


def _within(older: Stored, newer: Stored) -> bool:
    """Whether the newer cell has all images of the older one, as it has for a folder that grew."""
    sha = older.cell.origin.images_sha
    return sha in ("", newer.cell.origin.images_sha) or ("rows" in older.entry and _pictures(older) <= _pictures(newer))


def _pictures(stored: Stored) -> frozenset[tuple[Any, ...]]:
    rows = [row for row in stored.entry.get("rows", ()) if isinstance(row, Mapping)]
    return frozenset((row.get("id"), role, row[role]) for row in rows for role in ROLES if role in row)
