"""Reads run files: the user's own and committed summaries. Imports no torch, so that tables come at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from srbench.analysis.origin import Identity, identity
from srbench.analysis.results import ResultCell, from_dict
from srbench.errors import UsageError
from srbench.results.origins import Stored, newest_of, with_origin

__all__ = ["Identity", "identity"]
SCHEMA = 1
LOCAL = "run.json"
"""How the file of a run of the user's own is called; others are summaries that were committed."""


def read_run(path: Path) -> dict[str, Any]:
    """A run file. Raises `UsageError` where it is damaged or of a newer srbench."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] > SCHEMA:
            raise UsageError(f"{path}: written by a newer srbench", "Update srbench.")
        data["cells"] = [{**cell, "result": with_origin(from_dict(cell["result"]), cell, data)} for cell in data["cells"]]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: damaged run file ({type(error).__name__})", "Run the same command again.") from error
    return data


def run_files(folder: Path) -> list[Path]:
    """Run files under a results folder: the user's own first, newest first, then committed summaries."""
    local = sorted(folder.glob("runs/*/run.json"), reverse=True)
    committed = sorted(p for p in folder.glob("*/*.json") if p.parent.name not in ("runs", "store"))
    return [*local, *committed]


def newest(folder: Path, warn: Callable[[str], None]) -> list[ResultCell]:
    """Per cell the newest run that asked for it, local before committed; damaged files are named and left out.

    Cells of one name that something else made are all there, each told apart from the others (`ResultCell.mark`).
    """
    return [each.cell for each in stored(folder, warn)]


def local_cells(folder: Path, warn: Callable[[str], None]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The user's own runs, newest first, each with those of its cells that no later run has; damaged files are left out."""
    runs: dict[int, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    every = _cells(folder, warn, committed=False)
    for each in every:
        runs.setdefault(id(each.header), (each.header, []))
    for each in newest_of(every, warn):
        runs[id(each.header)][1].append({**each.entry, "result": each.cell})
    return [(header, entries) for header, entries in runs.values() if entries]


def stored(folder: Path, warn: Callable[[str], None]) -> list[Stored]:
    """Every cell of a results folder with its entry and its file's header, the newest first, without repeats."""
    return newest_of(_cells(folder, warn), warn)


def _cells(folder: Path, warn: Callable[[str], None], committed: bool = True) -> list[Stored]:
    paths = [path for path in run_files(folder) if committed or path.name == LOCAL]
    return [
        Stored(replace(entry["result"], source="local" if path.name == LOCAL else "committed"), entry, data)
        for path, data in _read_all(paths, warn) for entry in data["cells"]
    ]  # fmt: skip


def _read_all(paths: Sequence[Path], warn: Callable[[str], None]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in paths:
        try:
            yield path, read_run(path)
        except UsageError as error:
            warn(f"{error.message} {error.hint}")
