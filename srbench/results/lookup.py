"""Looks up what a results folder has by name; stored images by row id, key or file, with their rows and scores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srbench.analysis.results import ResultCell
from srbench.errors import SrbenchError, UsageError, did_you_mean
from srbench.files import kind_of_path
from srbench.results.marks import DROPPED, KEPT, SENSITIVE
from srbench.results.run_files import check_folder, no_local_runs, read_all
from srbench.results.store import Store, picture
from srbench.results.stored import rows_of
from srbench.rules import Misfit

LEAST = 6
"""Characters that the start of an image key needs to be looked up."""
NAMED = "Give a row's id, six or more letters of an image key, or a PNG; with --sheet also a run."
"""What an image is looked up by."""
ROLES = ("image", "reference", "floor")


@dataclass(frozen=True)
class StoredImage:
    """An image as a run file lists it."""

    key: str
    role: str
    """`image`, `reference` (the untouched backbone on the reference prompt) or `floor` (the same with another seed)."""
    row_id: str
    run: str
    cell: ResultCell
    entry: dict[str, Any]
    """The cell of the run file, with this row alone."""

    def row(self) -> tuple[dict[str, Any], str]:
        """The row's fields, for a gated suite from the user's own file; or empty, with the reason why they cannot be read."""
        try:
            ((_, row),) = rows_of(self.cell, self.entry)
        except SrbenchError as error:
            return {}, error.message
        return row.model_dump(mode="json", exclude_defaults=True), ""

    def told(self) -> dict[str, list[str]]:
        """What the method, and the one of the checkpoint below it, were told of the concept, by their names; as recorded."""
        if self.role != "image":
            return {}
        cards = {
            self.cell.method: self.entry.get("artifact", {}).get("card"),
            self.cell.on: self.entry.get("checkpoint", {}).get("card"),
        }
        found = {name: _phrases_of(card) for name, card in cards.items()}
        return {name: phrases for name, phrases in found.items() if phrases}


def _phrases_of(card: Any) -> list[str]:
    """`phrases` of a method's card, or of what a weight method measured; empty where it lists none."""
    if not isinstance(card, dict):
        return []
    listed = card.get("phrases") or (card["measured"].get("phrases") if isinstance(card.get("measured"), dict) else None)
    return [phrase for phrase in listed if isinstance(phrase, str)] if isinstance(listed, list) else []


def check_names(field: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raise `UsageError` for a name that no result has in that field."""
    for name in names:
        if name not in known:
            raise UsageError(f"no result has {field} '{name}'", did_you_mean(name, known))


def looked_up(what: str, folder: Path, warn: Callable[[str], None]) -> list[StoredImage]:
    """The images of local runs that `what` matches, newest run first, each once per method.

    what: a row's id, the start of an image key (`LEAST` characters or more), or a PNG of a store. Raises `UsageError` where
    nothing is named so, and for a PNG that is not from a store; `MissingError` where the folder has no images.
    """
    check_folder(folder)
    path = Path(what)
    key = _key_of_file(path) if path.suffix == ".png" and kind_of_path(path) != "nothing" else what
    images: dict[tuple[str, str, str, str], StoredImage] = {}
    ids: set[str] = set()
    for image in _stored(folder, warn):
        ids.add(image.row_id)
        by_key = len(key) >= LEAST and image.key.startswith(key)
        if by_key or (image.row_id == key and image.role == "image"):
            images.setdefault((image.key, image.row_id, image.role, image.cell.label), image)
    if not ids:
        raise no_local_runs(folder, "images")
    if not images:
        raise UsageError(f"nothing in {folder} is named '{what}'", did_you_mean(what, ids, NAMED))
    return list(images.values())


def _stored(folder: Path, warn: Callable[[str], None]) -> Iterator[StoredImage]:
    """Every image of every local run, the newest run first."""
    for _, run in read_all(folder, warn, committed=False):
        for cell in run["cells"]:
            for row in cell["rows"]:
                for role in ROLES:
                    if role in row:
                        yield StoredImage(row[role], role, row["id"], run["run"], cell["result"], {**cell, "rows": [row]})


def _key_of_file(path: Path) -> str:
    try:
        return str(picture(path)[1]["key"])
    except Misfit as error:
        hint = "Give a PNG under results/store/images."
        raise UsageError(f"{path}: not an image of a srbench store: it {error}", hint) from error


def waits(store: Store, key: str) -> bool:
    """Whether an image is of a sensitive row and was not kept on request: it must not be shown."""
    record = store.images.get(key, {})
    return bool(record.get(SENSITIVE) and not record.get(KEPT) and not record.get(DROPPED))


def why_not_there(store: Store, key: str) -> str:
    """Why an image has no picture in the store."""
    if store.images.get(key, {}).get("elsewhere"):
        return f"made elsewhere: {store.images[key]['elsewhere']}"
    return "the image was scored and dropped" if store.dropped(key) else "the image is not in the store"


def scores_of(store: Store, key: str) -> list[tuple[str, dict[str, Any]]]:
    """(scorer, raw numbers) of an image. Images with equal pixels share scores, which are stored under the first of them."""
    same = store.images.about(store.images[key]["pixel_sha"]) if key in store.images else []
    return [(record["scorer"], record["raw"]) for image in same for record in store.scores.about(image["key"])]
