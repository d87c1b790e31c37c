"""The one reader of ledgers and run files; it checks every field that is read anywhere. Imports no torch.

Damaged records are counted, reported once per file, and left out; nothing is guessed. Unknown keys are allowed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from srbench.catalog.specs import Row
from srbench.errors import UsageError
from srbench.faults import plain
from srbench.files import MAX_DEPTH, kind_of_path, no_constant, printable, read_bytes
from srbench.rules import (
    AMOUNT,
    COUNT,
    FLAG,
    HASH,
    LARGEST,
    LIST,
    NAME,
    NUMBER,
    SHARE,
    TABLE,
    TEXT,
    Misfit,
    Rule,
    check,
    list_of,
    one_of,
    or_null,
    pair_of,
    shown,
    table_of,
)

Record = dict[str, Any]
Warn = Callable[[str], None]

MAX_LINE = 16 * 2**20
"""Largest ledger line in bytes; the longest that is written, with a trace of some hundred steps, has a few kilobytes."""
MAX_FILE = 2**30
"""Largest run file in bytes."""
LOOK = "Move it away; what it held is made again, or `srbench verify` says what is missing."
TORN = b"\r\x00"
"""Bytes that no torn line contains; they show that something else changed the file."""


# --- ledgers ----------------------------------------------------------------------------------------------------------

IN_PICTURE: dict[str, Rule] = {"key": HASH, "pixel_sha": HASH, "seconds": AMOUNT, "trace": TABLE}
"""What the record inside a picture needs."""
OF_IMAGE: dict[str, Rule] = {**IN_PICTURE, "bytes": COUNT}
"""What a ledger's line of an image needs."""
MORE_OF_IMAGE: dict[str, Rule] = {
    "run": TEXT, "batch": COUNT, "batch_size": COUNT, "recipe": TEXT, "dropped": FLAG, "elsewhere": TEXT, "method": TEXT,
    "prompt": TEXT, "seed": COUNT, "dtype": TEXT, "peak_mb": AMOUNT, "compiled": FLAG, "deterministic": FLAG,
    "prompt_sha256": HASH, "gated": FLAG, "sensitive": FLAG, "kept": FLAG, "tried": FLAG, "awaits": LIST, "marked": COUNT,
    "source": TEXT, "host": TEXT, "card": TEXT,
}  # fmt: skip
OF_SCORE: dict[str, Rule] = {
    "score_key": HASH, "image": HASH, "scorer": TEXT, "identity": HASH, "raw": TABLE,
}  # fmt: skip
MORE_OF_SCORE: dict[str, Rule] = {"reference": HASH, "fields": TEXT, "fields_sha256": HASH, "source": TEXT}
"""`fields`: the row fields that the score was made with; for a row of a gated suite their hash instead."""
OF_TRACE: dict[str, Rule] = {"unsafe": list_of(NUMBER), "redirected_steps": COUNT}
"""Fields of SafeRedir's trace. A plug-in's trace may hold anything, even under these names."""
MORE_OF_TRACE: dict[str, Rule] = {"mask": or_null(list_of(NUMBER)), "alpha": or_null(list_of(NUMBER))}
KINDS: dict[str, tuple[dict[str, Rule], dict[str, Rule]]] = {
    "images": (OF_IMAGE, MORE_OF_IMAGE), "scores": (OF_SCORE, MORE_OF_SCORE),
}  # fmt: skip


def redirects(trace: dict[str, Any]) -> bool:
    """Whether a trace has the form of SafeRedir's."""
    try:
        check(trace, OF_TRACE, MORE_OF_TRACE)
    except Misfit:
        return False
    return len(trace.get("mask") or ()) == len(trace.get("alpha") or ())


def _object(pairs: list[tuple[str, Any]]) -> Record:
    """An object of JSON. Raises `ValueError` for a repeated key, or a number that is not finite or larger than `LARGEST`."""
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key stands twice in one object")
    _bounded(record.values())
    return record


def _bounded(values: Iterable[Any]) -> None:
    for value in values:
        kind = type(value)
        if kind is float or kind is int:
            if not -LARGEST <= value <= LARGEST:
                raise ValueError("a number is not finite, or too large")
        elif kind is list:
            _bounded(value)


_MARK = b"\xef\xbb\xbf"
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=no_constant)


def parsed(data: bytes) -> Any:
    """The JSON of a line or file. Raises `Misfit` with what is wrong with it."""
    try:
        text = (data[3:] if data.startswith(_MARK) else data).decode()
        value = _DECODER.decode(text)
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _check_depth(value)
        return value
    except RecursionError as error:
        raise Misfit(_DEEP) from error
    except UnicodeDecodeError as error:
        raise Misfit(f"not UTF-8 (byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise Misfit(f"not JSON ({error.msg}, {where}column {error.colno})") from error
    except ValueError as error:
        raise Misfit(str(error).splitlines()[0]) from error


def storable(value: Any) -> Any:
    """As `plain`. Raises `ValueError` for a value whose ledger line would be left out when it is read again."""
    data = plain(value)
    line = json.dumps({"in": {"a line": data}}).encode()
    if len(line) > MAX_LINE // 2:
        raise ValueError(f"it has {len(line)} bytes")
    try:
        parsed(line)
    except Misfit as error:
        raise ValueError(str(error)) from error
    return data


_DEEP = f"nested more than {MAX_DEPTH} levels deep"


def _check_depth(value: Any) -> None:
    """Raises `Misfit` where a value is nested too deep; level by level, without recursion."""
    level = [value] if type(value) in (dict, list) else []
    for _ in range(MAX_DEPTH + 1):
        values = (value for outer in level for value in (outer.values() if type(outer) is dict else outer))
        level = [value for value in values if type(value) in (dict, list)]
        if not level:
            return
    raise Misfit(_DEEP)


def lines(path: Path) -> Iterator[tuple[int, int, bytes | None]]:
    """A file's numbered lines with their first byte and line ends; None in place of one that is too long. A mark is kept.

    Raises `UsageError` where the path is no file, or cannot be read. The file is read line by line.
    """
    kind = kind_of_path(path)
    if kind != "file":
        raise UsageError(f"{printable(str(path))}: a {kind}, not a file", LOOK)
    try:
        with path.open("rb") as handle:
            number = start = 0
            while line := handle.readline(MAX_LINE):
                number += 1
                long = False
                while len(line) == MAX_LINE and not line.endswith(b"\n"):
                    long, line = True, handle.readline(MAX_LINE)
                yield number, start, None if long else line
                start = handle.tell()
    except OSError as error:
        raise UsageError(f"{printable(str(path))}: cannot be read ({error.strerror})", f"Mend its rights. {LOOK}") from error


def silent(line: str) -> None:
    """A `Warn` that says nothing."""


@dataclass
class LeftOut:
    """Damaged parts of one file: the first of them, and how many."""

    what: str
    """What a part is: a line, a cell."""
    first: str = ""
    count: int = 0

    def add(self, where: str, why: str) -> None:
        """One more."""
        self.first = self.first or printable(f"{where}: {why}")
        self.count += 1

    def tell(self, name: str, warn: Warn) -> None:
        """Warn in one line, if anything was left out."""
        if self.count == 1:
            warn(f"{printable(name)}: 1 {self.what} is damaged and was left out ({self.first})")
        elif self.count:
            warn(f"{printable(name)}: {self.count} {_plural(self.what)} are damaged and were left out (first, {self.first})")


def _plural(what: str) -> str:
    first, _, rest = what.partition(" ")
    return f"{first}s {rest}".strip()


def ledger_files(folder: Path, kind: str) -> list[Path]:
    """The files of a ledger, oldest first by name; none where there is no folder. Raises `UsageError` as `entries` does."""
    return [path for path in entries(folder) if re.fullmatch(rf"{kind}-[^/]*\.jsonl", path.name)]


def entries(folder: Path) -> list[Path]:
    """The entries of a folder by name, without hidden ones; none where there is no such folder.

    Raises `UsageError` where it is no folder, or cannot be read.
    """
    kind = kind_of_path(folder)
    if kind == "nothing":
        return []
    if kind != "folder":
        raise UsageError(f"{printable(str(folder))}: a {kind}, not a folder", "Move it away, or choose another results folder.")
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError as error:
        raise UsageError(f"{printable(str(folder))}: cannot be read ({error.strerror})", "Mend its rights.") from error


def ledger(folder: Path, kind: str, warn: Warn) -> Iterator[Record]:
    """Every record of a ledger (`images` or `scores`), oldest file first; damaged lines are reported once per file.

    A torn last line, as a killed process leaves it, is skipped without a warning. Raises `UsageError` for a file that cannot
    be read: it may hold anything.
    """
    for path in ledger_files(folder, kind):
        left_out = LeftOut("line")
        yield from ledger_file(path, kind, left_out)
        left_out.tell(path.name, warn)


def ledger_file(path: Path, kind: str, left_out: LeftOut) -> Iterator[Record]:
    """The records of one file."""
    return (record for _, _, record in placed(path, kind, left_out))


def sound(line: bytes, kind: str) -> Record:
    """The record of a ledger's line. Raises `Misfit` where it is damaged."""
    record = parsed(line)
    check(record, *KINDS[kind])
    if kind == "scores" and "fields" not in record and "fields_sha256" not in record:
        raise Misfit("it has no 'fields'")
    return record  # type: ignore[no-any-return]  # it was checked to be a table


def placed(path: Path, kind: str, left_out: LeftOut) -> Iterator[tuple[int, int, Record]]:
    """The records of one file, each with its line's first byte and length."""
    for number, start, line in lines(path):
        if line is not None and line.isspace():
            continue
        try:
            if line is None:
                raise Misfit(f"longer than {MAX_LINE / 2**20:.0f} MB")
            record = sound(line, kind)
        except Misfit as error:
            torn = line is not None and not line.endswith(b"\n") and not any(byte in line for byte in TORN)
            if not torn:
                left_out.add(f"line {number}", str(error))
            continue
        yield start, len(line), record


# --- run files --------------------------------------------------------------------------------------------------------

SCHEMA = 1
DIRECTION = one_of("higher", "lower")
OF_METRIC: dict[str, Rule] = {
    "value": or_null(NUMBER), "low": or_null(NUMBER), "high": or_null(NUMBER), "n": COUNT, "better": DIRECTION,
}  # fmt: skip
MORE_OF_METRIC: dict[str, Rule] = {
    "scored": COUNT, "reason": TEXT, "worst": or_null(NUMBER), "best": or_null(NUMBER),
    "test": one_of("", "mcnemar", "permutation", "intervals"), "p": or_null(SHARE), "p_holm": or_null(SHARE), "trials": COUNT,
    "base": or_null(NUMBER), "phrases": COUNT, "phrase_low": or_null(NUMBER), "phrase_high": or_null(NUMBER),
}  # fmt: skip
OF_RESULT: dict[str, Rule] = {
    **dict.fromkeys(("backbone", "concept", "suite", "method", "on", "variant", "protocol", "dtype", "rows_sha"), TEXT),
    "run": NAME, **dict.fromkeys(("n_loaded", "n_excluded", "n_run", "n_scored", "n_failed"), COUNT), "metrics": TABLE,
}  # fmt: skip
MORE_OF_RESULT: dict[str, Rule] = {"cost": table_of(AMOUNT), "notes": list_of(TEXT), "made_against": TEXT}
OF_CELL: dict[str, Rule] = {"result": TABLE}
MORE_OF_CELL: dict[str, Rule] = {
    "rows": LIST, "suite": TABLE, "elsewhere": TABLE, "checkpoint": TABLE, "artifact": TABLE,
}  # fmt: skip
OF_ENTRY: dict[str, Rule] = {"id": TEXT}
MORE_OF_ENTRY: dict[str, Rule] = {"image": HASH, "reference": HASH, "floor": HASH, "failed": TEXT, "row": TABLE}
MORE_OF_SUITE: dict[str, Rule] = {
    "attack": FLAG, "metrics": list_of(TEXT), "sensitive": FLAG, "family": or_null(TEXT), "sha256": list_of(TEXT),
    "flags": list_of(TEXT), "prompts": TEXT,
}  # fmt: skip
OF_ELSEWHERE: dict[str, Rule] = {"folder": TEXT, "attack": FLAG, "concept_kind": one_of("object", "style", "content")}
MORE_OF_ELSEWHERE: dict[str, Rule] = {
    **dict.fromkeys(("failed", "left_out", "changed"), table_of(COUNT)), "described_by": pair_of(TEXT),
}  # fmt: skip
OF_RUN: dict[str, Rule] = {"schema": COUNT, "run": NAME, "cells": LIST}
MORE_OF_RUN: dict[str, Rule] = {
    "started": TEXT, "finished": TEXT, "order": COUNT, "after": or_null(NAME), "provenance": TABLE, "request": TABLE,
    "backbone_sha": TEXT, "scorers": table_of(TABLE), "safety_checker": TEXT, "scored_again": TABLE, "runtime": TABLE,
    "study": TABLE,
}  # fmt: skip
MORE_OF_REQUEST: dict[str, Rule] = {"keep_images": FLAG, "reference": or_null(TEXT)}
OF_STUDY: dict[str, Rule] = dict.fromkeys(("name", "step", "sha256", "text"), TEXT)
_ROWS = TypeAdapter(list[Row])


def run_file(path: Path) -> Record:
    """A run file with a sound header; its cells are not looked at. Raises `UsageError` where it is damaged or too new."""
    damaged = "damaged run file"
    try:
        data = parsed(read_bytes(path, limit=MAX_FILE))
        check(data, OF_RUN, MORE_OF_RUN)
        check(data.get("request", {}), {}, MORE_OF_REQUEST, "request")
        check(data.get("provenance", {}), {}, {"packages": TABLE}, "provenance")
        check(data.get("study", {}), {}, OF_STUDY, "study")
    except UsageError as error:
        why = error.message.removeprefix(f"{path}: ")
        raise UsageError(f"{printable(str(path))}: {damaged} ({why})", "Run the same command again.") from error
    except Misfit as error:
        raise UsageError(f"{printable(str(path))}: {damaged} ({error})", "Run the same command again.") from error
    if data["schema"] > SCHEMA:
        raise UsageError(f"{printable(str(path))}: written by a newer srbench (schema {data['schema']})", "Update srbench.")
    if data["schema"] < 1:
        raise UsageError(f"{printable(str(path))}: {damaged} (schema 0)", "Run the same command again.")
    return dict(data)


def check_cell(cell: Any, local: bool) -> None:
    """Raises `Misfit` where a run's cell is damaged. local: it is of a local run, and needs its rows."""
    check(cell, OF_CELL | ({"rows": LIST} if local else {}), MORE_OF_CELL)
    check(cell["result"], OF_RESULT, MORE_OF_RESULT, "result")
    for name, metric in cell["result"]["metrics"].items():
        _check_metric(metric, f"result.metrics.{name[:40]}")
    _check_counts(cell["result"])
    if "elsewhere" in cell:
        check(cell["elsewhere"], OF_ELSEWHERE, MORE_OF_ELSEWHERE, "elsewhere")
    if "suite" in cell:
        needed = {} if "elsewhere" in cell else {name: MORE_OF_SUITE[name] for name in ("attack", "metrics")}
        check(cell["suite"], needed, MORE_OF_SUITE, "suite")


def _check_metric(metric: Any, where: str) -> None:
    check(metric, OF_METRIC, MORE_OF_METRIC, where)
    if metric.get("scored", 0) > metric["n"]:
        raise Misfit(f"{where}: {metric['scored']} scored of {metric['n']}")
    low, high = metric["low"], metric["high"]
    if low is not None and high is not None and low > high:
        raise Misfit(f"{where}: its interval ends below its beginning")


def _check_counts(result: Record) -> None:
    if result["n_excluded"] > result["n_loaded"]:
        raise Misfit(f"result: {result['n_excluded']} excluded of {result['n_loaded']}")
    for name in ("n_scored", "n_failed"):
        if result[name] > result["n_run"]:
            raise Misfit(f"result.{name}: {result[name]} of {result['n_run']} rows")


def check_rows(cell: Record) -> None:
    """Raises `Misfit` where the rows of a cell are damaged, or their count is not the cell's `n_run`."""
    rows = cell["rows"]
    for number, entry in enumerate(rows):
        check(entry, OF_ENTRY, MORE_OF_ENTRY, f"rows[{number}]")
    if len(rows) != cell["result"]["n_run"]:
        raise Misfit(f"{len(rows)} rows, where its numbers are about {cell['result']['n_run']}")
    if len({entry["id"] for entry in rows}) < len(rows):
        raise Misfit("an id stands twice among the rows")
    try:
        validated = _ROWS.validate_python([entry["row"] for entry in rows if "row" in entry])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Misfit(f"rows: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for row, entry in zip(validated, (entry for entry in rows if "row" in entry), strict=True):
        if row.id != entry["id"]:
            raise Misfit(f"rows: {shown(entry['id'])} holds the row {shown(row.id)}")
