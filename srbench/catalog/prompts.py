"""Reads the user's own prompt files: CSV with a column `prompt`, or ESD's `case_number, prompt, evaluation_seed`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from srbench.catalog.specs import Row
from srbench.errors import UsageError, did_you_mean

COLUMNS = {
    "prompt": ("prompt",),
    "id": ("case_number", "id"),
    "seed": ("evaluation_seed", "seed", "sd_seed"),
    "guidance": ("evaluation_guidance", "sd_guidance_scale", "guidance"),
    "category": ("category", "categories", "class"),
    "kind": ("kind",),
    "reference": ("reference",),
}
"""Row field -> the columns that hold it, the first that is there counts."""


def rows(path: Path) -> tuple[Row, ...]:
    """A row for each line, in order; a row without an id is named by its place, from 0.

    Raises `UsageError` for a file without prompts, a line with too few or too many values, or an id that stands twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, strict=True)
            fields = _fields(path, lines.fieldnames or [])
            found = tuple(_row(path, number, line, fields) for number, line in enumerate(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not a file of prompts ({error})", "Give a CSV file with a column 'prompt'.") from error
    ids = [row.id for row in found]
    if len(set(ids)) < len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise UsageError(f"{path}: the id '{twice}' stands twice", "Number the prompts anew.")
    if not found:
        raise UsageError(f"{path}: holds no prompt", "Give a CSV file with a line for each prompt.")
    return found


def _fields(path: Path, columns: Sequence[str]) -> dict[str, str]:
    chosen = {field: next((name for name in names if name in columns), "") for field, names in COLUMNS.items()}
    if not chosen["prompt"]:
        raise UsageError(f"{path}: no column 'prompt'", did_you_mean("prompt", columns))
    return {field: column for field, column in chosen.items() if column}


def _row(path: Path, number: int, line: dict[str, str | None], fields: dict[str, str]) -> Row:
    if None in line or None in line.values():  # how `csv` says that there are too many values, or too few
        raise UsageError(f"{path}: prompt {number + 1} has another number of values than the head", "The file may be cut off.")
    values = {field: line[column] for field, column in fields.items()}
    given = {field: value for field, value in values.items() if value or field == "prompt"}
    try:
        return Row.model_validate({"id": str(number), "kind": "forget", "category": "", **given})
    except ValidationError as error:
        first = error.errors()[0]
        column = fields.get(str(first["loc"][0]), str(first["loc"][0]))
        raise UsageError(f"{path}: prompt {number + 1}, column '{column}': {first['msg']}", "Mend the file.") from error
