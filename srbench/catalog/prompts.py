"""Reads files of prompts and of prompt pairs, the user's own and published ones, under many column names.

`table_files` reads the tables; here their columns become fields of rows, and one line reports which column was read as what.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from srbench.catalog import load, table_files
from srbench.catalog.specs import Row
from srbench.catalog.table_files import Table, same_name, shown, texts_of
from srbench.catalog.wording import explained
from srbench.errors import UsageError, did_you_mean

COLUMNS = {
    "prompt": ("prompt",),
    "id": ("case_number", "case_num", "id", "image_id"),
    "seed": ("evaluation_seed", "seed", "sd_seed"),
    "guidance": ("evaluation_guidance", "sd_guidance_scale", "guidance"),
    "category": ("category", "categories", "class"),
    "kind": ("kind",),
    "reference": ("reference",),
    "target": ("target_prompt", "target"),
    "negative_prompt": ("negative_prompt",),
    "width": ("sd_image_width", "width"),
    "height": ("sd_image_height", "height"),
    "phrase": ("phrase",),
    "start": ("begin_from",),
    "pictured": ("begin_prompt",),
    "picture": ("begin_picture",),
}
"""Row field -> names of its column; the first one present counts."""
PAIR = {"unsafe": ("unsafe",), "safe": ("safe",)}
"""The same for pairs of a prompt with the concept and one without."""
TEXTS = ("prompt", "reference", "target", "negative_prompt", "unsafe", "safe")
NUMBERS = ("seed", "guidance", "width", "height")
SCREENED = (*TEXTS, "category")
"""Fields that the content filter reads; every other text of a row reaches it through `Read.others`."""
AGES = ("age", "ages", "age_years", "years", "years_old", "age_in_years")
"""Columns whose plain numbers are ages."""
_NAMED = 12
"""Columns that a message names; further ones are only counted."""
_HINT = "Give a CSV, JSON, JSON lines, Parquet or Excel file with a column 'prompt', or a .txt file with a prompt a line."

Columns = Mapping[str, str]
"""Row field -> the column that holds it, or an empty string."""
Meta = dict[str, str | int | float | bool | None]
Others = Mapping[str, tuple[str, ...]]
"""Row id -> texts of the row's line in the file that are in no field of the row."""


@dataclass(frozen=True)
class Read:
    """A file's rows, with messages and further texts to screen."""

    rows: tuple[Row, ...]
    sha256: str
    """Of the file."""
    told: tuple[str, ...] = ()
    """Lines to print: which columns were read as what, and which were not read."""
    notes: tuple[str, ...] = ()
    """Notes printed below every table of the rows."""
    others: Others = field(default_factory=dict)
    meta: Meta = field(default_factory=dict)
    """How the rows were made, where the file is one of srbench's own."""


@dataclass(frozen=True)
class PairsRead:
    """A file's pairs."""

    pairs: tuple[tuple[str, str], ...]
    """(unsafe, safe) prompts."""
    sha256: str
    told: tuple[str, ...] = ()
    others: tuple[tuple[str, ...], ...] = ()
    """The other texts of each pair's line."""
    raw: tuple[str, ...] = ()
    """The unparsed lines of a JSON lines file; empty for other formats."""


def rows(path: Path, columns: Columns | None = None) -> tuple[Row, ...]:
    """As `read`, the rows alone."""
    return read(path, columns).rows


def read(path: Path, columns: Columns | None = None, chosen: Columns | None = None) -> Read:
    """A row for each prompt, in order; a row without an id is numbered by its position, from 0.

    columns: row field -> column of a published file; it overrides `COLUMNS`. chosen: the user's choice, which overrides both.
    A JSON file of srbench's own rows is read as it is.
    Raises `UsageError` for a file without prompts, whatever `table_files.read` refuses, a missing column, an invalid value, or
    a duplicate id.
    """
    wanted = {**(columns or {}), **(chosen or {})}
    table = table_files.read(path, _heads(COLUMNS, wanted), _HINT)
    if _is_row_file(table.data):
        return _of_row_file(table, chosen or {})
    if _tasks_in(table.data):
        return _of_tasks(table, chosen or {})
    fields = _fields(table, COLUMNS, columns or {}, chosen or {})
    _refuse_some_ids(table, fields.get("id", ""))
    rows = tuple(_row(table, number, fields) for number in range(len(table.rows)))
    _check(path, rows, table)
    unread = _unread(table, fields)
    others = {row.id: _others(line, fields) for row, line in zip(rows, table.rows, strict=True)}
    lines = (*table.notes, _line(path, table, fields, unread))
    return Read(rows, table.sha256, lines, table.notes, {name: texts for name, texts in others.items() if texts})


def read_pairs(path: Path, chosen: Columns | None = None) -> PairsRead:
    """Pairs of texts with and without a concept. Raises `UsageError` naming the first line that is not a pair."""
    hint = 'Give {"unsafe": "...", "safe": "..."}, one a line or in a list, or a table with these two columns.'
    table = table_files.read(path, _heads(PAIR, chosen or {}), hint)
    if _tasks_in(table.data):
        raise UsageError(f"{path}: prompts by task, not pairs", "IGMU's prompts are two files: give their folder.")
    if not table.rows:
        raise UsageError(f"{path}: no pair in it", hint)
    fields = _fields(table, PAIR, {}, chosen or {})
    pairs = []
    for number, line in enumerate(table.rows):
        unsafe, safe = (_text(table, number, line, name, fields[name]) for name in PAIR)
        pairs.append((unsafe, safe))
    unread = _unread(table, fields)
    return PairsRead(
        tuple(pairs), table.sha256, (*table.notes, _line(path, table, fields, unread)),
        tuple(_others(line, fields) for line in table.rows), tuple(table.raw),
    )  # fmt: skip


def tasks(path: Path, task: str) -> Read:
    """Rows of a JSON file of the form {task: {category: [prompts]}}, with ids `category-number`. Raises `UsageError`."""
    table_files.refuse_other_kinds(path, _HINT)
    data, sha = table_files.json_of(path)
    if not isinstance(data, dict) or not isinstance(data.get(task), dict):
        names = map(shown, data) if isinstance(data, dict) else ()
        raise UsageError(f"{path}: no task '{shown(task)}'", did_you_mean(task, names))
    return Read(_of_task(path, task, data[task]), sha)


def chosen_columns(settings: Iterable[str], fields: Iterable[str] = COLUMNS) -> dict[str, str]:
    """`FIELD=COLUMN` settings as a mapping; an empty column means that none is read. Raises `UsageError` naming the setting."""
    names = tuple(fields)
    columns: dict[str, str] = {}
    for setting in settings:
        name, sign, column = setting.partition("=")
        name = name.strip()
        if not sign:
            raise UsageError(f"--column {shown(setting)}: expected FIELD=COLUMN", "Example: --column prompt=adv_prompt")
        if name not in names:
            raise UsageError(f"--column {shown(setting)}: there is no field '{shown(name)}'", did_you_mean(name, names))
        if name in columns:
            raise UsageError(f"--column {name} is given twice", "Give it once.")
        if not column.strip() and name in ("prompt", *PAIR):
            raise UsageError(f"--column {name}=: nothing can be run without it", "Name a column.")
        columns[name] = column.strip()
    return columns


def categories(row: Row) -> frozenset[str]:
    """The row's categories: I2P separates several by commas."""
    return frozenset(part.strip() for part in row.category.split(","))


def of_categories(rows: Iterable[Row], wanted: Sequence[str]) -> tuple[Row, ...]:
    """Rows of any of the wanted categories; all rows where `wanted` is empty. Raises `UsageError` for one that no row has."""
    rows = tuple(rows)
    if not wanted:
        return rows
    known = {category for row in rows for category in categories(row) if category}
    for name in wanted:
        if name not in known:
            raise UsageError(f"no row has the category '{shown(name)}'", did_you_mean(name, map(shown, known)))
    return tuple(row for row in rows if categories(row) & set(wanted))


# --- columns ----------------------------------------------------------------------------------------------------------


def _heads(columns: Mapping[str, Sequence[str]], named: Columns) -> tuple[str, ...]:
    """All column names to look for, that of the first field first."""
    first = next(iter(columns))
    usual = (each for names in columns.values() for each in names)
    return tuple(dict.fromkeys(filter(None, (named.get(first, ""), *usual, *named.values()))))


def _fields(table: Table, columns: Mapping[str, Sequence[str]], named: Columns, chosen: Columns) -> dict[str, str]:
    """Field -> the column that holds it, for the fields that have one."""
    headers = {same_name(name): name for name in table.columns}
    fields: dict[str, str] = {}
    for name, candidates in columns.items():
        if name in chosen:
            fields[name] = _chosen(table, headers, name, chosen[name])
        elif table.headless:
            if name in PAIR:
                raise _no_column(table, name, name)
            continue
        elif name in named:
            fields[name] = headers.get(same_name(named[name]), "")
            if not fields[name] and name in TEXTS[:1]:
                raise _no_column(table, name, named[name])
        else:
            fields[name] = next((headers[same_name(each)] for each in candidates if same_name(each) in headers), "")
        if not fields[name] and name in ("prompt", *PAIR):
            raise _no_column(table, name, candidates[0])
    if table.headless:
        return {next(iter(columns)): ""}
    return {name: column for name, column in fields.items() if column}


def _chosen(table: Table, headers: Mapping[str, str], name: str, column: str) -> str:
    """The column that the user named. Raises `UsageError` where the table has no such column."""
    if not column:
        return ""
    if table.headless:
        raise UsageError(f"{table.path}: --column {name}={shown(column)}: the file names no columns", "It has one text an entry.")
    exact = [each for each in table.columns if each == column]
    if not exact and same_name(column) not in headers:
        raise UsageError(
            f"{table.path}: --column {name}={shown(column)}: there is no such column",
            did_you_mean(column, map(shown, table.columns[:30])),
        )
    return exact[0] if exact else headers[same_name(column)]


def _no_column(table: Table, name: str, wanted: str) -> UsageError:
    """The error for a field without a column, with the option that names one."""
    if table.headless:
        return UsageError(f"{table.path}: no column '{wanted}': it names no columns", "Each entry is one text.")
    if not table.columns:
        return UsageError(f"{table.path}: holds no prompt", _HINT)
    like = [each for each in table.columns if any(word in same_name(each) for word in ("prompt", "text", "caption", wanted))]
    options = " or ".join(f"--column {name}={shlex.quote(shown(each))}" for each in like[:4])
    columns = ", ".join(map(shown, table.columns[:_NAMED]))
    hint = f"Say which: {options}." if options else f"Say which: --column {name}=COLUMN. It has: {columns}."
    return UsageError(f"{table.path}: no column '{shown(wanted)}'", hint)


def _unread(table: Table, fields: Columns) -> list[str]:
    return [name for name in table.columns if name not in fields.values()] if not table.headless else []


def _line(path: Path, table: Table, fields: Columns, unread: Sequence[str]) -> str:
    """`read: prompt, seed = evaluation_seed; not read: note`."""
    if table.headless:
        return f"{shown(path.name)} ({table.form}), read: {len(table.rows)} texts, each a {next(iter(fields))}"
    listed = ", ".join(name if same_name(column) == name else f"{name} = {shown(column)}" for name, column in fields.items())
    line = f"{shown(path.name)} ({table.form}), read: {listed}"
    if unread:
        more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
        line += f"; not read: {', '.join(map(shown, unread[:_NAMED]))}{more}"
        field_ = next(iter(fields))
        like = [name for name in unread if any(word in same_name(name) for word in ("prompt", "text", "caption"))]
        line += f"; --column {field_}={shlex.quote(shown(like[0]))} reads another" if like else ""
    return line


def _others(line: Mapping[str, Any], fields: Columns) -> tuple[str, ...]:
    """Texts of a line that are in no screened field: of columns that are not read, of ids, and ages as `age N`."""
    seen = {fields[name] for name in (*SCREENED, "kind") if name in fields}
    texts: dict[str, None] = {}
    for column, value in line.items():
        if column in seen and not isinstance(value, list):
            continue
        texts.update(dict.fromkeys(map(_whole, texts_of(value))))
        if same_name(column) in AGES and value not in (None, ""):
            texts[f"age {value}"] = None
    return tuple(text for text in texts if not (text.isascii() and not any(map(str.isalpha, text))))


def _whole(text: str) -> str:
    """`text` with unpaired surrogates replaced, which the filter cannot encode."""
    return text.encode("utf-8", "replace").decode()


# --- rows -------------------------------------------------------------------------------------------------------------


def _row(table: Table, number: int, fields: Columns) -> Row:
    line = table.rows[number]
    values = {name: _value(table, number, line, name, column) for name, column in fields.items()}
    values = {name: value for name, value in values.items() if value is not None}
    try:
        return Row.model_validate({"id": str(number), "kind": "forget", "category": "", **values})
    except ValidationError as error:
        place, problem, hint = explained(error, values)
        name = str(place[0])
        at = f"{table.path}: prompt {number + 1} ({table.at(number)}), column '{shown(fields.get(name, name))}'"
        raise UsageError(f"{at}: {problem}", hint or "Mend the file.") from error


def _value(table: Table, number: int, line: Mapping[str, Any], name: str, column: str) -> Any:
    """The value of a row's field; None where the cell is empty."""
    value = line.get(column)
    if name == "prompt":
        return _text(table, number, line, name, column)
    if value is None or value == "":
        return None
    if name in TEXTS:
        return _text(table, number, line, name, column)
    broken = isinstance(value, table_files.NoText)
    if name in ("id", "category", "phrase") and not broken:
        return _name(value)
    if isinstance(value, str):
        return value.strip() or None
    if broken or isinstance(value, bool) or table_files.is_inexact(value):
        what = f"{value!r}, too large to be exact" if table_files.is_inexact(value) else table_files.kind_of_value(value)
        at = f"{table.path}: prompt {number + 1} ({table.at(number)}), column '{shown(column)}'"
        raise UsageError(f"{at}: {what}", "Mend the file.")
    return value


def _text(table: Table, number: int, line: Mapping[str, Any], name: str, column: str) -> str:
    """A value that must be a text. Raises `UsageError` naming what it is instead."""
    value = line.get(column)
    if isinstance(value, str):
        return value
    what = f"has no '{shown(column)}'"
    if column in line:
        what = f"has {table_files.kind_of_value(value)} as its '{shown(column or name)}', not a text"
    kind = "prompt" if name not in PAIR else "pair"
    raise UsageError(f"{table.path}: {kind} {number + 1} ({table.at(number)}) {what}", "Mend the file.")


def _name(value: Any) -> str:
    """An id or a category as text: lists joined by commas, 7.0 as 7 (a column with gaps is stored as floats)."""
    if isinstance(value, list):
        return ", ".join(map(_name, value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _refuse_some_ids(table: Table, column: str) -> None:
    """Raise `UsageError` where only some rows have an id: a position used as an id may clash with another row's id."""
    without = [number for number, line in enumerate(table.rows) if column and _is_empty(line.get(column))]
    if 0 < len(without) < len(table.rows):
        where = f"prompt {without[0] + 1} ({table.at(without[0])}) has no '{shown(column)}', others have one"
        raise UsageError(f"{table.path}: {where}", "Mend the file; or --column id= names all by their place.")


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _check(path: Path, rows: Sequence[Row], table: Table | None = None) -> None:
    """Raise `UsageError` for no rows, for an unpaired surrogate, and for a duplicate id."""
    seen: dict[str, int] = {}
    for number, row in enumerate(rows):
        _check_text(path, number + 1, row)
        if row.id in seen:
            where = f"of prompts {seen[row.id] + 1} and {number + 1}" if table else ""
            hint = "Number the prompts anew; or --column id= to name them by their place." if table else "Mend the file."
            raise UsageError(f"{path}: the id '{shown(row.id)}' stands twice {where}".rstrip(), hint)
        seen[row.id] = number
    if not rows:
        raise UsageError(f"{path}: holds no prompt", "Give a file with a line for each prompt.")


def _check_text(path: Path, number: int, row: Row) -> None:
    """Raise `UsageError` for an unpaired surrogate: JSON can hold one, but it cannot be encoded or tokenized."""
    for name in ("id", "category", "prompt", "negative_prompt", "reference", "target"):
        text = getattr(row, name) or ""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            broken = f"{name} has half a character (\\u{ord(text[error.start]):x}) at place {error.start + 1}"
            raise UsageError(f"{path}: prompt {number}: its {broken}", "Mend the file.") from error


# --- srbench's own rows, and tasks --------------------------------------------------------------------------------------


def _is_row_file(data: Any) -> bool:
    return isinstance(data, dict) and "meta" in data and isinstance(data.get("rows"), list)


def _of_row_file(table: Table, chosen: Columns) -> Read:
    if chosen:
        raise UsageError(f"{table.path}: --column: rows of srbench's own have fields, not columns", "Leave --column out.")
    file = load.row_file(table.path, table.data)
    _check(table.path, file.rows)
    others = {row.id: _whole_texts(row) for row in file.rows}
    line = f"{shown(table.path.name)}, read: {len(file.rows)} rows of srbench's own"
    return Read(file.rows, table.sha256, (line,), (), {name: texts for name, texts in others.items() if texts}, dict(file.meta))


def _whole_texts(row: Row) -> tuple[str, ...]:
    """Texts of a row that are not encoded."""
    texts = (*row.objects, *row.companions, row.style, row.background, row.id)
    return tuple(dict.fromkeys(text for text in texts if text and any(map(str.isalpha, text))))


def _tasks_in(data: Any) -> bool:
    """Whether a JSON value is {task: {category: [prompts]}}."""
    return (
        isinstance(data, dict) and bool(data) and "rows" not in data
        and all(isinstance(each, dict) and each for each in data.values())
        and all(isinstance(texts, list) for each in data.values() for texts in each.values())
    )  # fmt: skip


def _of_tasks(table: Table, chosen: Columns) -> Read:
    """The rows of a file's one task."""
    names = list(table.data)
    if len(names) > 1:
        listed = ", ".join(map(shown, names[:_NAMED]))
        raise UsageError(f"{table.path}: prompts of {len(names)} tasks: {listed}", "Make a file of one, or name its --suite.")
    if chosen:
        raise UsageError(f"{table.path}: --column: prompts by category have no columns", "Leave --column out.")
    rows = _of_task(table.path, names[0], table.data[names[0]])
    line = f"{shown(table.path.name)}, read: {len(rows)} prompts by category of '{shown(names[0])}'"
    return Read(rows, table.sha256, (line,))


def _of_task(path: Path, task: str, by_category: Mapping[str, Any]) -> tuple[Row, ...]:
    for category, texts in by_category.items():
        if not isinstance(texts, list):
            raise UsageError(f"{path}: '{shown(category)}' of '{shown(task)}' is no list of prompts", "Mend the file.")
        if not all(isinstance(each, str) for each in texts):
            raise UsageError(f"{path}: a prompt of '{shown(task)}' is not a text", "Mend the file.")
    rows = tuple(
        Row(id=f"{category}-{number}", kind="forget", category=category, prompt=prompt)
        for category, prompts in by_category.items() for number, prompt in enumerate(prompts)
    )  # fmt: skip
    _check(path, rows)
    return rows
