"""Reads and writes run files: local runs and committed summaries. Imports no torch, so that tables come at once."""

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
from srbench.outputs import MARKER
from srbench.results import records
from srbench.results.origins import Stored, newest_of, with_origin
from srbench.results.records import LeftOut, Warn
from srbench.results.store import FULL
from srbench.rules import Misfit

__all__ = ["Identity", "identity"]
SCHEMA = records.SCHEMA
LOCAL = "run.json"
"""File name of a local run; files of other names are committed summaries."""
UNREAD = "unread"
"""Key of a cell with sound numbers and damaged rows; its value is the reason."""
TOLERANCE_SECONDS = 300
"""Difference of clocks from which a warning is given."""


# --- a folder ---------------------------------------------------------------------------------------------------------

NOT_A_FOLDER = "not a results folder"


def check_folder(folder: Path, more: str = "") -> None:
    """Raise `UsageError` where there is no such folder. more: follows its hint."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: {NOT_A_FOLDER}", f"Give the folder that `srbench run --out` wrote to.{more}")


def no_results(folder: Path) -> MissingError:
    """The error of a folder without results, with a command that makes some."""
    return MissingError(f"{folder}: no results yet", _run_first(folder))


def no_local_runs(folder: Path, what: str) -> MissingError:
    """The error where only a run has what is asked for, and the folder has none. what: `raw scores`, or `images`."""
    return MissingError(f"{folder}: the results there hold no {what}", f"Run first: {_run_first(folder)}")


def _run_first(folder: Path) -> str:
    return f"srbench run --method none,saferedir --suite igmu,mma --out {shlex.quote(str(folder))}"


# --- one file ---------------------------------------------------------------------------------------------------------


def read_run(path: Path, warn: Warn | None = None) -> dict[str, Any]:
    """A run file. Raises `UsageError` where it is damaged or of a newer srbench.

    warn: called for damaged cells, which are then left out; without it, one damaged cell makes the file a damaged one.
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
    if warn is None and (first := left_out.first or rows.first):
        raise UsageError(f"{printable(str(path))}: damaged run file ({first})", "Run the same command again.")
    for damage in (left_out, rows):
        damage.tell(f"{path.parent.name}/{path.name}: damaged run file", warn or records.silent)
    return {**data, "cells": cells}


def _cell(cell: dict[str, Any], header: dict[str, Any], better: Mapping[str, str], local: bool) -> dict[str, Any]:
    """A cell with its result. Raises `Misfit` where it is damaged.

    header: its run file, which may complete its origin. better: direction of every metric that is installed.
    """
    records.check_cell(cell, local)
    _check_metrics(cell["result"]["metrics"], better)
    try:
        result = from_dict(cell["result"])
    except UsageError as error:
        raise Misfit(error.message) from error
    entry = dict(cell)
    if "rows" in cell:
        try:
            records.check_rows(cell)
        except Misfit as error:
            entry |= {"rows": [], UNREAD: str(error)}
    return {**entry, "result": with_origin(result, entry, header)}


def _directions() -> dict[str, str]:
    of_others = {name: meta["metrics"][name]["better"] for name, (_, meta) in of_scorers().items()}
    return of_others | {name: metric.better for name, metric in METRICS.items()}


def _check_metrics(metrics: dict[str, Any], better: Mapping[str, str]) -> None:
    """Raises `Misfit` where a known metric has another direction than it has, or a rate is no percentage."""
    for name, metric in metrics.items():
        if metric["better"] != better.get(name, metric["better"]):
            raise Misfit(f"result.metrics.{name}: {better[name]} is better, not {metric['better']}")
        values = [metric.get(key) for key in ("value", "low", "high", "worst", "best", "phrase_low", "phrase_high")]
        if name in METRICS and METRICS[name].rate and any(v is not None and not 0 <= v <= 100 for v in values):
            raise Misfit(f"result.metrics.{name}: a rate is a percentage")


# --- all files of a folder --------------------------------------------------------------------------------------------


def local_files(folder: Path) -> list[Path]:
    """Files of local runs, by name. Raises `UsageError` where `runs/` is no folder."""
    files = [place / LOCAL for place in records.entries(folder / "runs") if kind_of_path(place) == "folder"]
    return [path for path in files if kind_of_path(path) != "nothing"]


def committed_files(folder: Path) -> list[Path]:
    """Committed summaries: `*.json` in folders beside `runs/` and `store/`, without hidden ones.

    A folder with a marker holds what `srbench tables`, `train` or `erase` wrote, and no summary.
    """
    beside = [place for place in records.entries(folder) if place.name not in ("runs", "store")]
    folders = [place for place in beside if kind_of_path(place) == "folder" and kind_of_path(place / MARKER) == "nothing"]
    return [path for place in folders for path in records.entries(place) if path.suffix == ".json"]


def summarised(folder: Path) -> list[ResultCell]:
    """The cells of the summaries that lie in one folder, such as `results/pocket`; empty where there are none."""
    return [entry["result"] for path in sorted(folder.glob("*.json")) for entry in read_run(path)["cells"]]


def committed(folder: Path, warn: Warn) -> dict[str, list[ResultCell]]:
    """Folder of summaries -> their cells; damaged files are reported and left out."""
    found: dict[str, list[ResultCell]] = {}
    for path, data in _read_all(committed_files(folder), warn):
        found.setdefault(path.parent.name, []).extend(entry["result"] for entry in data["cells"])
    return found


def run_files(folder: Path) -> list[Path]:
    """Run files under a results folder: local ones first, the newest by name first, then committed summaries."""
    return [*reversed(local_files(folder)), *committed_files(folder)]


def read_all(folder: Path, warn: Warn, committed: bool = True) -> list[tuple[Path, dict[str, Any]]]:
    """Every readable run file: local ones first, the newest first, then committed summaries; unreadable ones are reported.

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
    """Local runs, the one written last first. A wrong clock is reported and does not change the order.

    Each run records its position (`order`) and the greatest run name at that time (`after`). Runs of older versions lack both and
    are ordered by name; one that is dated in the future counts as the oldest, since its date means nothing.
    """
    in_order = sorted(runs, key=lambda run: (run[1].get("order", 0), run[0].parent.name))
    now, reached, places = time.time(), "", []
    for path, data in in_order:
        name = path.parent.name
        if "order" in data:
            reached = rank = max(reached, name, data.get("after") or "")
        else:
            rank = "" if began(name, data) > now + TOLERANCE_SECONDS else name
        places.append((rank, data.get("order", 0), name))
    ordered = [run for _, run in sorted(zip(places, in_order, strict=True), key=lambda place: place[0])]
    _tell_clocks(ordered, now, warn)
    return ordered[::-1]


def _tell_clocks(runs: Sequence[tuple[Path, dict[str, Any]]], now: float, warn: Warn) -> None:
    """Warn of runs that began in the future, or after a run that was written later had ended."""
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
    """When a run began, seconds since 1970: the later of what its name and its file record; 0 where neither does."""
    return max(_seconds(name), _seconds(data.get("started", "")))


_TIME = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)T(\d\d):?(\d\d):?(\d\d)")


def _seconds(text: str) -> float:
    match = _TIME.match(text)
    try:
        return datetime(*map(int, match.groups()), tzinfo=UTC).timestamp() if match else 0.0  # type: ignore[arg-type,misc]  # six numbers
    except (ValueError, OverflowError):
        return 0.0


_ORDER = re.compile(rb'^\s*\{\s*"schema":\s*\d+,\s*"run":\s*"[^"]*",\s*"order":\s*(\d{1,15})\b')


def next_place(folder: Path) -> dict[str, Any]:
    """`order` and `after` of a run that is written now: later than all others, whatever their dates."""
    files = local_files(folder)
    return {"order": 1 + max(map(_order, files), default=0), "after": max((path.parent.name for path in files), default=None)}


def _order(path: Path) -> int:
    """A run's `order`; 0 where it has none. Only the file's head is read: there may be many large files."""
    if kind_of_path(path) != "file":
        return 0
    try:
        with path.open("rb") as handle:
            match = _ORDER.match(handle.read(1000))
    except OSError:
        return 0
    return int(match[1]) if match else 0


# --- cells ------------------------------------------------------------------------------------------------------------

def newest(folder: Path, warn: Callable[[str], None]) -> list[ResultCell]:
    """The newest of each cell, local before committed; damaged files are reported and left out.

    Cells of one name and different origin are all returned, told apart by `ResultCell.mark`.
    """
    return [item.cell for item in stored(folder, warn)]


def local_cells(folder: Path, warn: Callable[[str], None]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Local runs, newest first, each with those of its cells that no later run repeats; damaged files are left out."""
    runs: dict[int, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    cells = _cells(folder, warn, committed=False)
    for item in cells:
        runs.setdefault(id(item.header), (item.header, []))
    for item in newest_of(cells, warn):
        runs[id(item.header)][1].append({**item.entry, "result": item.cell})
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
    """A run's id, its cells, and the exit code of the command. A shard writes no run: its id is empty, and it has no cells."""

    run: str
    cells: list[ResultCell]
    exit_code: int
    sampled: int = 0
    """Images that were made now."""
    sampled_bytes: int = 0
    failed: int = 0
    """Images that could not be made."""
    unscored: int = 0
    """Scores that could not be made."""
    blocked: int = 0
    """Cells that something is missing for."""


def now() -> str:
    """The time as run files write it, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def run_id() -> str:
    """A new run's name; those of later runs sort behind it. Two that begin in one microsecond differ in the random end."""
    seconds, rest = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}-{rest // 1000:06d}-{secrets.token_hex(2)}"


def write_run(folder: Path, run: str, header: dict[str, Any], entries: list[dict[str, Any]]) -> Path:
    """Write `<folder>/runs/<run>/run.json`: provenance and the cells' entries. Never overwrites another run.

    Raises `SrbenchError` where it cannot be written; images and scores are in the store by then.
    """
    path = folder / "runs" / run / "run.json"
    fields = {name: value for name, value in header.items() if name not in ("order", "after")}
    try:
        path.parent.mkdir(parents=True)
        data = {"schema": SCHEMA, "run": run, **next_place(folder), **fields, "cells": entries}
        text = json.dumps(data, indent=1, allow_nan=False)
        write_atomic(path, text.encode())
    except OSError as error:
        mend = "Free some space" if error.errno in FULL else f"Look at {error.filename or path.parent}"
        why = f"cannot write {path} ({error.strerror or error}); images and scores are stored"
        raise SrbenchError(why, f"{mend}, then run the same command again.") from error
    return path
