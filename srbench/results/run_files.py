"""Reads run files: the user's own and committed summaries. Imports no torch, so that tables come at once."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from srbench.analysis.metrics import METRICS, of_scorers
from srbench.analysis.origin import Identity, identity
from srbench.analysis.results import ResultCell, from_dict
from srbench.errors import MissingError, SrbenchError, UsageError
from srbench.files import kind_of_path, printable, write_atomic
from srbench.results import records
from srbench.results.origins import Stored, newest_of, with_origin
from srbench.results.records import LeftOut, Warn
from srbench.results.store import FULL
from srbench.rules import Misfit

__all__ = ["Identity", "identity"]
SCHEMA = records.SCHEMA
LOCAL = "run.json"
"""How the file of a run of the user's own is called; others are summaries that were committed."""
UNREAD = "unread"
"""Key of a cell whose numbers are sound and whose rows are not: why."""
TOLERANCE_SECONDS = 300
"""By how much clocks may differ before it is said."""


# --- a folder ---------------------------------------------------------------------------------------------------------

NOT_A_FOLDER = "not a results folder"


def check_folder(folder: Path, more: str = "") -> None:
    """Raise `UsageError` where there is no such folder. more: follows its hint."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: {NOT_A_FOLDER}", f"Give the folder that `srbench run --out` wrote to.{more}")


def no_results(folder: Path) -> MissingError:
    """The error of a folder without results, with a command that makes some."""
    command = f"srbench run --method none,saferedir --suite igmu,mma --out {shlex.quote(str(folder))}"
    return MissingError(f"{folder}: no results yet", command)


# --- one file ---------------------------------------------------------------------------------------------------------


def read_run(path: Path, warn: Warn | None = None) -> dict[str, Any]:
    """A run file. Raises `UsageError` where it is damaged or of a newer srbench.

    warn: is told of cells that are damaged, which are then left out; where not given, they make the file a damaged one.
    """
    data = records.run_file(path)
    left_out, cells, better = LeftOut("cell"), [], _directions()
    for number, cell in enumerate(data["cells"]):
        try:
            cells.append(_cell(cell, data, better, local=path.name == LOCAL))
        except Misfit as error:
            left_out.add(f"cells[{number}]", str(error))
    rows = LeftOut("list of rows")
    for number, cell in enumerate(cells):
        if UNREAD in cell:
            rows.add(f"cells[{number}]", cell[UNREAD])
    if warn is None and (found := left_out.first or rows.first):
        raise UsageError(f"{printable(str(path))}: damaged run file ({found})", "Run the same command again.")
    for each in (left_out, rows):
        each.tell(f"{path.parent.name}/{path.name}: damaged run file", warn or records.silent)
    return {**data, "cells": cells}


def _cell(cell: dict[str, Any], header: dict[str, Any], better: Mapping[str, str], local: bool) -> dict[str, Any]:
    """A cell with its result. Raises `Misfit` where it is damaged.

    header: its run file, which may know more of its making. better: direction of every metric that is known here.
    """
    records.check_cell(cell, local)
    _check_metrics(cell["result"]["metrics"], better)
    try:
        made = from_dict(cell["result"])
    except UsageError as error:
        raise Misfit(error.message) from error
    found = dict(cell)
    if "rows" in cell:
        try:
            records.check_rows(cell)
        except Misfit as error:
            found |= {"rows": [], UNREAD: str(error)}
    return {**found, "result": with_origin(made, found, header)}


def _directions() -> dict[str, str]:
    of_others = {name: meta["metrics"][name]["better"] for name, (_, meta) in of_scorers().items()}
    return of_others | {name: each.better for name, each in METRICS.items()}


def _check_metrics(metrics: dict[str, Any], better: Mapping[str, str]) -> None:
    """Raises `Misfit` where a known metric has another direction than it has, or a rate is no percentage."""
    for name, metric in metrics.items():
        if metric["better"] != better.get(name, metric["better"]):
            raise Misfit(f"result.metrics.{name}: {better[name]} is better, not {metric['better']}")
        values = [metric.get(each) for each in ("value", "low", "high", "worst", "best")]
        if name in METRICS and METRICS[name].rate and any(v is not None and not 0 <= v <= 100 for v in values):
            raise Misfit(f"result.metrics.{name}: a rate is a percentage")


# --- all files of a folder --------------------------------------------------------------------------------------------


def local_files(folder: Path) -> list[Path]:
    """Run files of the user's own, by name. Raises `UsageError` where `runs/` is no folder."""
    files = [place / LOCAL for place in records.entries(folder / "runs") if kind_of_path(place) == "folder"]
    return [path for path in files if kind_of_path(path) != "nothing"]


def committed_files(folder: Path) -> list[Path]:
    """Committed summaries: `*.json` in folders beside `runs/` and `store/`; hidden ones are none."""
    beside = [place for place in records.entries(folder) if place.name not in ("runs", "store")]
    folders = [place for place in beside if kind_of_path(place) == "folder"]
    return [path for place in folders for path in records.entries(place) if path.suffix == ".json"]


def run_files(folder: Path) -> list[Path]:
    """Run files under a results folder: the user's own first, the newest by name first, then committed summaries."""
    return [*reversed(local_files(folder)), *committed_files(folder)]


def read_all(folder: Path, warn: Warn, committed: bool = True) -> list[tuple[Path, dict[str, Any]]]:
    """Every readable run file: the user's own first, the newest first, then committed summaries; others are named.

    Raises `UsageError` where there are run files, and none of them can be read.
    """
    local = newest_first(_read_all(local_files(folder), warn), warn)
    beside = list(_read_all(committed_files(folder), warn)) if committed else []
    if not local and not beside and (files := local_files(folder) + (committed_files(folder) if committed else [])):
        raise UsageError(f"{folder}: none of its run files can be read", f"The first is {files[0]}.")
    return [*local, *beside]


def _read_all(paths: Sequence[Path], warn: Warn) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in paths:
        try:
            yield path, read_run(path, warn)
        except SrbenchError as error:
            warn(f"{error.message} {error.hint}")


# --- their order ------------------------------------------------------------------------------------------------------


def newest_first(runs: Iterator[tuple[Path, dict[str, Any]]], warn: Warn) -> list[tuple[Path, dict[str, Any]]]:
    """Local runs in the order in which they were written, the last first; a clock that was wrong is said, and decides nothing.

    Each run tells its place (`order`) and the greatest name that there was (`after`). Older ones, which do not, stand where
    their names put them; one that is dated in the future first of all, since its date says nothing.
    """
    given = sorted(runs, key=lambda run: (run[1].get("order", 0), run[0].parent.name))
    now, reached, places = time.time(), "", []
    for path, data in given:
        name = path.parent.name
        if "order" in data:
            reached = rank = max(reached, name, data.get("after") or "")
        else:
            rank = "" if began(name, data) > now + TOLERANCE_SECONDS else name
        places.append((rank, data.get("order", 0), name))
    ordered = [run for _, run in sorted(zip(places, given, strict=True), key=lambda each: each[0])]
    _tell_clocks(ordered, now, warn)
    return ordered[::-1]


def _tell_clocks(runs: Sequence[tuple[Path, dict[str, Any]]], now: float, warn: Warn) -> None:
    """Name runs that begin after now, or after a run ended that was written later."""
    earliest, odd = now, []
    for path, data in reversed(runs):
        if began(path.parent.name, data) > earliest + TOLERANCE_SECONDS:
            odd.append(path.parent.name)
        earliest = min(earliest, _seconds(data.get("finished", "")) or earliest)
    if odd:
        more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        warn(f"run {odd[0]}{more}: dated in the future, or after a run that was written later; a clock was wrong, and the order "
             "is that of writing")  # fmt: skip


def began(name: str, data: dict[str, Any]) -> float:
    """When a run says that it began, seconds since 1970; 0 where it does not. The later of what its name and its file say."""
    return max(_seconds(name), _seconds(data.get("started", "")))


_TIME = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)T(\d\d):?(\d\d):?(\d\d)")


def _seconds(text: str) -> float:
    found = _TIME.match(text)
    try:
        return datetime(*map(int, found.groups()), tzinfo=UTC).timestamp() if found else 0.0  # type: ignore[arg-type,misc]  # six numbers
    except (ValueError, OverflowError):
        return 0.0


_ORDER = re.compile(rb'^\s*\{\s*"schema":\s*\d+,\s*"run":\s*"[^"]*",\s*"order":\s*(\d{1,15})\b')


def next_place(folder: Path) -> dict[str, Any]:
    """`order` and `after` of a run that is written now: behind all that there are, whatever their dates."""
    files = local_files(folder)
    return {"order": 1 + max(map(_order, files), default=0), "after": max((path.parent.name for path in files), default=None)}


def _order(path: Path) -> int:
    """A run's place; 0 where it tells none. Only the file's head is read: there may be many, and large ones."""
    if kind_of_path(path) != "file":
        return 0
    try:
        with path.open("rb") as handle:
            found = _ORDER.match(handle.read(1000))
    except OSError:
        return 0
    return int(found[1]) if found else 0


# --- cells ------------------------------------------------------------------------------------------------------------

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
    return [
        Stored(replace(entry["result"], source="local" if path.name == LOCAL else "committed"), entry, data)
        for path, data in read_all(folder, warn, committed) for entry in data["cells"]
    ]  # fmt: skip


@dataclass(frozen=True)
class RunResult:
    """What a run gave: its id, its cells, and the exit code of the command."""

    run: str
    cells: list[ResultCell]
    exit_code: int


def now() -> str:
    """The time as run files state it, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def run_id() -> str:
    """A new run's name; those of later runs sort behind it. Two that begin in one microsecond differ in the random end."""
    seconds, rest = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}-{rest // 1000:06d}-{secrets.token_hex(2)}"


def write_run(folder: Path, run: str, header: dict[str, Any], entries: list[dict[str, Any]]) -> Path:
    """`<folder>/runs/<run>/run.json`: provenance and the cells' entries. Never takes the place of another run.

    Raises `SrbenchError` where it cannot be written; what was sampled and scored is stored.
    """
    path = folder / "runs" / run / "run.json"
    said = {name: value for name, value in header.items() if name not in ("order", "after")}
    try:
        path.parent.mkdir(parents=True)
        data = {"schema": SCHEMA, "run": run, **next_place(folder), **said, "cells": entries}
        text = json.dumps(data, indent=1, allow_nan=False)
        write_atomic(path, text.encode())
    except OSError as error:
        mend = "Free some space" if error.errno in FULL else f"Look at {error.filename or path.parent}"
        why = f"cannot write {path} ({error.strerror or error}); images and scores are stored"
        raise SrbenchError(why, f"{mend}, then run the same command again.") from error
    return path
