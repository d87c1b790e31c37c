"""Reads run files: the user's own and committed summaries. Imports no torch, so that tables come at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from srbench.analysis.results import ResultCell, from_dict
from srbench.errors import UsageError

SCHEMA = 1


def read_run(path: Path) -> dict[str, Any]:
    """A run file. Raises `UsageError` where it is damaged or of a newer srbench."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] > SCHEMA:
            raise UsageError(f"{path}: written by a newer srbench", "Update srbench.")
        data["cells"] = [{**cell, "result": from_dict(cell["result"])} for cell in data["cells"]]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: damaged run file ({type(error).__name__})", "Run the same command again.") from error
    return data


def run_files(folder: Path) -> list[Path]:
    """Run files under a results folder: the user's own first, newest first, then committed summaries."""
    local = sorted(folder.glob("runs/*/run.json"), reverse=True)
    committed = sorted(p for p in folder.glob("*/*.json") if p.parent.name not in ("runs", "store"))
    return [*local, *committed]


Identity = tuple[str, ...]


def identity(cell: ResultCell) -> Identity:
    """What makes a cell the same one in another run."""
    return (cell.backbone, cell.concept, cell.suite, cell.method, cell.on, cell.variant, cell.protocol, cell.dtype)


def newest(folder: Path, warn: Callable[[str], None]) -> list[ResultCell]:
    """Per cell the newest run that asked for it, local before committed; damaged files are named and left out."""
    chosen: dict[Identity, ResultCell] = {}
    for path, data in _read_all(run_files(folder), warn):
        source = "local" if path.name == "run.json" else "committed"
        for entry in data["cells"]:
            chosen.setdefault(identity(entry["result"]), replace(entry["result"], source=source))
    return list(chosen.values())


def local_cells(folder: Path, warn: Callable[[str], None]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The user's own runs, newest first, each with those of its cells that no later run has; damaged files are left out."""
    seen: set[Identity] = set()
    found = []
    for _, data in _read_all(sorted(folder.glob("runs/*/run.json"), reverse=True), warn):
        new = [
            {**entry, "result": replace(entry["result"], source="local")}
            for entry in data["cells"] if identity(entry["result"]) not in seen
        ]  # fmt: skip
        seen.update(identity(entry["result"]) for entry in new)
        if new:
            found.append((data, new))
    return found


def _read_all(paths: Sequence[Path], warn: Callable[[str], None]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in paths:
        try:
            yield path, read_run(path)
        except UsageError as error:
            warn(f"{error.message} {error.hint}")
