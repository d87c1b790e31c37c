"""What made the cells of a results folder, and which of them are repeats of a newer one. Imports no torch.

A cell hides another only where both are the same: called the same, with the same rows, backbone, seed, noise, checkpoint,
artifact and pictures. What files of older versions do not say is taken from what else stands in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from srbench.analysis.origin import ORIGIN, UNKNOWN, Origin, identity, names_of, short
from srbench.analysis.results import ResultCell, told_apart
from srbench.catalog import load, resolve
from srbench.errors import UsageError
from srbench.files import read_json
from srbench.hashing import digest

ROLES = ("image", "reference", "floor")
PACKAGE = "package:"
ELSEWHERE = "elsewhere"
"""The backbone of pictures that others made."""
FIRST_NOISE = "per-sample torch.Generator('cpu'), float32, seed from the row"
"""How noise was drawn before cells said so."""
Entry = Mapping[str, Any]


class Stored(NamedTuple):
    """A cell with its entry in a run file, and the file's header."""

    cell: ResultCell
    entry: dict[str, Any]
    header: dict[str, Any]


def images_sha(rows: Iterable[Entry]) -> str:
    """Short sha256 over the keys of a cell's images by row: of all that decides their pixels. Empty where there is none."""
    keys = [[row.get("id"), *(row.get(role, "") for role in ROLES)] for row in rows if isinstance(row, Mapping)]
    return short(digest(keys)) if any(any(each[1:]) for each in keys) else ""


# --- what older files do not say --------------------------------------------------------------------------------------


def with_origin(cell: ResultCell, entry: Entry, header: Entry) -> ResultCell:
    """The cell with what its file says elsewhere of its making."""
    known, local = replace(cell.origin, scorers_sha=cell.origin.scorers_sha or _scorers_sha(header)), "rows" in entry
    if known.images_sha:
        return replace(cell, origin=known)
    made_here = cell.backbone != ELSEWHERE and "elsewhere" not in entry
    sha = known.backbone_sha or short(_text(header, "backbone_sha")) or ("" if local else shipped_sha(cell.backbone))
    found = replace(known, backbone_sha=sha, noise=known.noise or (FIRST_NOISE if made_here else ""))
    return replace(cell, origin=_of_rows(found, entry, header) if local else found)


def _of_rows(known: Origin, entry: Entry, header: Entry) -> Origin:
    """What the rows of an older local run, its checkpoint and its artifact say."""
    return replace(
        known, seed=_seed(entry, header) if known.seed is None else known.seed, images_sha=images_sha(entry["rows"]),
        checkpoint_sha=known.checkpoint_sha or short(_text(entry, "checkpoint", "passport", "sha256")),
        artifact_sha=known.artifact_sha or short(_text(entry, "artifact", "sha256")),
        folder=known.folder or _text(entry, "elsewhere", "folder"),
    )


def _scorers_sha(header: Entry) -> str:
    """Of what the run's user has set of scorers (`--set NAME.OPTION=VALUE`): their options and the hashes of their weights."""
    settings = _part(header, "request").get("settings") or ()
    named = {str(setting).partition(".")[0] for setting in settings}
    scorers = {name: made for name, made in _part(header, "scorers").items() if name in named and isinstance(made, Mapping)}
    kept = {
        name: {key: value for key, value in made.items() if key in ("version", "options") or key.endswith("sha256")}
        for name, made in scorers.items()
    }  # fmt: skip
    return short(digest(kept)) if kept else ""


def _seed(entry: Entry, header: Entry) -> int | None:
    """The run's seed, unless every row is known to have its own: rows of gated suites do not say."""
    own = all(_part(row, "row").get("seed") is not None for row in entry["rows"] if isinstance(row, Mapping))
    seed = _part(header, "request").get("seed")
    return None if own or "elsewhere" in entry or not isinstance(seed, int) else seed


def _part(data: Entry, name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, Mapping) else {}


def _text(data: Any, *path: str) -> str:
    for name in path:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data if isinstance(data, str) else ""


def shipped_sha(backbone: str) -> str:
    """Short sha256 of a backbone that travels with srbench, as the cards of its redirectors have it; empty for others.

    Summaries that were committed beside it, before cells said what made them, are of this one.
    """
    spec = load.backbones().get(backbone)
    if spec is None or not spec.source.startswith(PACKAGE) or not spec.redirectors:
        return ""
    return _of_cards(resolve.package_path(spec.redirectors))


@cache
def _of_cards(folder: Path) -> str:
    """What the cards of redirectors say of their backbone; empty where they do not agree."""
    cards = sorted(folder.glob("*/card.json"))
    found = {_text(_card(path), "backbone_sha256") for path in cards}
    return short(found.pop()) if len(found) == 1 else ""


def _card(path: Path) -> Any:
    try:
        return read_json(path)
    except UsageError:
        return {}


# --- repeats ----------------------------------------------------------------------------------------------------------


def newest_of(found: Iterable[Stored], warn: Callable[[str], None]) -> list[Stored]:
    """Without the repeats of a newer cell, each told apart from others of its name. found: the newest first.

    Where an older cell gives way that does not say what made it, which only committed summaries do not, it is said how many.
    """
    kept: dict[tuple[str, ...], list[Stored]] = {}
    unknown = 0
    for each in found:
        others = kept.setdefault(names_of(each.cell), [])
        at = next((i for i, other in enumerate(others) if _repeats(other, each)), None)
        if at is None:
            others.append(each)
        elif _only_scored(others[at], each):
            others[at] = each
        else:
            unknown += _unsaid(each.cell) and others[at].cell.run != each.cell.run
    if unknown:
        warn(f"committed results that give way to newer ones of the same names, backbone and rows: {unknown}")
    stored = [each for others in kept.values() for each in others]
    return [each._replace(cell=cell) for each, cell in zip(stored, told_apart([each.cell for each in stored]), strict=True)]


def _unsaid(cell: ResultCell) -> bool:
    return cell.n_run > 0 and not cell.origin.images_sha


def _only_scored(newer: Stored, older: Stored) -> bool:
    """Whether the same pictures were scored before, and not again in the newer run."""
    return newer.cell.n_scored == 0 and older.cell.n_scored > 0


def _repeats(newer: Stored, older: Stored) -> bool:
    """Whether nothing that is known of the older cell differs from the newer one: then it is the same, or a part of it."""
    if identity(newer.cell) == identity(older.cell):
        return True
    if _only_scored(newer, older) or newer.cell.n_run == 0 < older.cell.n_run:
        return False
    rows = older.cell.rows_sha in ("", newer.cell.rows_sha)
    return rows and _made_alike(newer.cell.origin, older.cell.origin) and _within(older, newer)


def _made_alike(newer: Origin, older: Origin) -> bool:
    if newer.scorers_sha != older.scorers_sha:
        return False
    known = [name for name in ORIGIN if name != "images_sha" and getattr(older, name) != getattr(UNKNOWN, name)]
    return all(getattr(older, name) == getattr(newer, name) for name in known)


def _within(older: Stored, newer: Stored) -> bool:
    """Whether the older pictures are among the newer ones: a folder that grew since then is the same folder."""
    sha = older.cell.origin.images_sha
    return sha in ("", newer.cell.origin.images_sha) or ("rows" in older.entry and _pictures(older) <= _pictures(newer))


def _pictures(stored: Stored) -> frozenset[tuple[Any, ...]]:
    rows = [row for row in stored.entry.get("rows", ()) if isinstance(row, Mapping)]
    return frozenset((row.get("id"), role, row[role]) for row in rows for role in ROLES if role in row)
