"""Reads run files: the user's own and committed summaries. Imports no torch, so that tables come at once."""

from __future__ import annotations

import json
from collections.abc import Callable
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


def newest(folder: Path, warn: Callable[[str], None]) -> list[ResultCell]:
    """Per cell the newest run that asked for it, local before committed; damaged files are named and left out."""
    chosen: dict[tuple[str, ...], ResultCell] = {}
    for path in run_files(folder):
        try:
            data = read_run(path)
        except UsageError as error:
            warn(f"{error.message} {error.hint}")
            continue
        source = "local" if path.name == "run.json" else "committed"
        for entry in data["cells"]:
            cell: ResultCell = entry["result"]
            identity = (cell.backbone, cell.concept, cell.suite, cell.method, cell.on, cell.variant, cell.protocol, cell.dtype)
            chosen.setdefault(identity, replace(cell, source=source))
    return list(chosen.values())
