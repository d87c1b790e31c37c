"""Reads files of prompts, the user's own and published ones: CSV, JSON, Parquet or text, whatever their columns are called."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from srbench.catalog.specs import Row, RowFile
from srbench.errors import UsageError, did_you_mean

COLUMNS = {
    "prompt": ("prompt",),
    "id": ("case_number", "id", "image_id"),
    "seed": ("evaluation_seed", "seed", "sd_seed"),
    "guidance": ("evaluation_guidance", "sd_guidance_scale", "guidance"),
    "category": ("category", "categories", "class"),
    "kind": ("kind",),
    "reference": ("reference",),
    "target": ("target_prompt", "target"),
    "negative_prompt": ("negative_prompt",),
    "width": ("sd_image_width", "width"),
    "height": ("sd_image_height", "height"),
}
"""Row field -> the columns that hold it, the first that is there counts."""
LFS_MARK = b"version https://git-lfs"
"""How a git-lfs pointer begins (git-lfs, docs/spec.md)."""

Line = Mapping[str | None, Any]
"""Column -> text. `csv` puts values beyond the head under None, and None in place of those that lack."""


def rows(path: Path, columns: Mapping[str, str] | None = None) -> tuple[Row, ...]:
    """A row for each prompt, in order; a row without an id is named by its place, from 0.

    columns: row field -> column, before those of `COLUMNS`. A JSON file with rows of srbench's own is taken as it is.
    Raises `UsageError` for a file without prompts, a git-lfs pointer, a line with too few or too many values, a value that
    does not fit, or an id that stands twice.
    """
    lines = _lines(path)
    if isinstance(lines, RowFile):
        return _checked(path, lines.rows)
    head = list(dict.fromkeys(name for line in lines[:1] for name in line if name is not None))
    fields = _fields(path, head, columns or {})
    return _checked(path, tuple(_row(path, number, line, fields) for number, line in enumerate(lines)))


def meta(path: Path) -> dict[str, str | int | float | bool | None]:
    """What a JSON file with rows of srbench's own says of their making; nothing of other files. Raises `UsageError`."""
    lines = _lines(path) if path.suffix.lower() == ".json" else None
    return dict(lines.meta) if isinstance(lines, RowFile) else {}


def tasks(path: Path, task: str) -> tuple[Row, ...]:
    """Rows of a JSON file of the form {task: {category: [prompts]}}, with ids `category-number`. Raises `UsageError`."""
    data = _json(path)
    if not isinstance(data, dict) or not isinstance(data.get(task), dict):
        raise UsageError(f"{path}: no task '{task}'", did_you_mean(task, data if isinstance(data, dict) else ()))
    if not all(isinstance(prompt, str) for prompts in data[task].values() for prompt in prompts):
        raise UsageError(f"{path}: a prompt of '{task}' is not a text", "Mend the file.")
    return _checked(path, tuple(
        Row(id=f"{category}-{number}", kind="forget", category=category, prompt=prompt)
        for category, prompts in data[task].items() for number, prompt in enumerate(prompts)
    ))  # fmt: skip


def refuse_pointer(path: Path) -> None:
    """Raise `UsageError` for what is no file, or is a git-lfs pointer."""
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS_MARK))
    except OSError as error:
        raise UsageError(f"{path}: not a file of prompts ({error.strerror})", "Give a file with a prompt a line.") from error
    if start == LFS_MARK:
        raise UsageError(f"{path}: a git-lfs pointer, not the data", "Run `git lfs pull` in its clone, or download the file.")


def categories(row: Row) -> frozenset[str]:
    """The row's categories: I2P gives several with commas between them."""
    return frozenset(part.strip() for part in row.category.split(","))


def of_categories(found: Iterable[Row], wanted: Sequence[str]) -> tuple[Row, ...]:
    """Rows of any of the wanted categories; all where none is named. Raises `UsageError` for one that no row has."""
    found = tuple(found)
    if not wanted:
        return found
    known = {category for row in found for category in categories(row) if category}
    for name in wanted:
        if name not in known:
            raise UsageError(f"no row has the category '{name}'", did_you_mean(name, known))
    return tuple(row for row in found if categories(row) & set(wanted))


# --- forms ------------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> list[Line] | RowFile:
    refuse_pointer(path)
    form = {".json": _from_json, ".parquet": _from_parquet, ".txt": _from_text}.get(path.suffix.lower(), _from_csv)
    found = form(path)
    if not found:
        _refuse_empty(path)
    return found


def _from_csv(path: Path) -> list[Line]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            head, found = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not a file of prompts ({error})", "Give a CSV file with a column 'prompt'.") from error
    if not found:
        _fields(path, head, {})
    return list(found)


def _from_text(path: Path) -> list[Line]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a file of prompts ({error})", "Give a text file with a prompt a line.") from error
    return [{"prompt": line} for line in text.splitlines() if line.strip()]


def _from_parquet(path: Path) -> list[Line]:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UsageError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})", "Download it again.") from error
    return [
        {str(name): "" if value is None or value != value else value for name, value in line.items()}  # NaN is not itself
        for line in frame.to_dict("records")
    ]


def _from_json(path: Path) -> list[Line] | RowFile:
    data = _json(path)
    if isinstance(data, dict) and isinstance(data.get("rows"), list):
        try:
            return RowFile.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(f"{path}: key '{'.'.join(map(str, first['loc']))}': {first['msg']}", "Mend the file.") from error
    if isinstance(data, list) and all(isinstance(each, str | dict) for each in data):
        return [{"prompt": each} if isinstance(each, str) else each for each in data]
    raise UsageError(f"{path}: not a list of prompts", "Give a list of texts or of objects with a key 'prompt'.")


def _json(path: Path) -> Any:
    refuse_pointer(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a JSON file ({error})", "The file may be cut off; download it again.") from error


# --- rows -------------------------------------------------------------------------------------------------------------


def _fields(path: Path, columns: Sequence[str], named: Mapping[str, str]) -> dict[str, str]:
    """Row field -> the column that holds it. One that is named counts first; a copy in another form may lack it."""
    candidates = {field: ((named[field],) if field in named else ()) + names for field, names in COLUMNS.items()}
    chosen = {field: next((name for name in names if name in columns), "") for field, names in candidates.items()}
    if not chosen["prompt"]:
        wanted = candidates["prompt"][0]
        raise UsageError(f"{path}: no column '{wanted}'", did_you_mean(wanted, columns))
    return {field: column for field, column in chosen.items() if column}


def _row(path: Path, number: int, line: Line, fields: dict[str, str]) -> Row:
    if None in line or any(value is None for value in line.values()):  # how `csv` says that there are too many values, or too few
        raise UsageError(f"{path}: prompt {number + 1} has another number of values than the head", "The file may be cut off.")
    if missing := [column for column in fields.values() if column not in line]:
        raise UsageError(f"{path}: prompt {number + 1} has no '{missing[0]}'", "Mend the file.")
    values = {field: line[column] for field, column in fields.items()}
    given = {field: value for field, value in values.items() if value != "" or field == "prompt"}
    given |= {field: str(given[field]) for field in ("id", "category") if field in given}
    try:
        return Row.model_validate({"id": str(number), "kind": "forget", "category": "", **given})
    except ValidationError as error:
        first = error.errors()[0]
        column = fields.get(str(first["loc"][0]), str(first["loc"][0]))
        raise UsageError(f"{path}: prompt {number + 1}, column '{column}': {first['msg']}", "Mend the file.") from error


def _checked(path: Path, found: tuple[Row, ...]) -> tuple[Row, ...]:
    seen: set[str] = set()
    for number, row in enumerate(found, 1):
        _check_text(path, number, row)
        if row.id in seen:
            raise UsageError(f"{path}: the id '{row.id}' stands twice", "Number the prompts anew.")
        seen.add(row.id)
    if not found:
        _refuse_empty(path)
    return found


def _check_text(path: Path, number: int, row: Row) -> None:
    """Half a surrogate pair, which JSON can hold, is no text: neither a tokenizer nor a file takes it."""
    for field in ("id", "category", "prompt", "negative_prompt", "reference", "target"):
        text = getattr(row, field) or ""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            broken = f"{field} has half a character (\\u{ord(text[error.start]):x}) at place {error.start + 1}"
            raise UsageError(f"{path}: prompt {number}: its {broken}", "Mend the file.") from error


def _refuse_empty(path: Path) -> None:
    raise UsageError(f"{path}: holds no prompt", "Give a file with a line for each prompt.")
