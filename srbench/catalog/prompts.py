"""Reads files of prompts and of pairs, the user's own and published ones, whatever their columns are called.

`table_files` reads the tables; here their columns become the fields of rows, and what was read as what is told in one line.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from srbench.catalog import table_files
from srbench.catalog.specs import Row, RowFile
from srbench.catalog.table_files import Table, same_name, shown, texts_of
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
}
"""Row field -> the columns that hold it, the first that is there counts."""
PAIR = {"unsafe": ("unsafe",), "safe": ("safe",)}
"""The same for pairs of a prompt with the concept and one without."""
TEXTS = ("prompt", "reference", "target", "negative_prompt", "unsafe", "safe")
NUMBERS = ("seed", "guidance", "width", "height")
SCREENED = (*TEXTS, "category")
"""Fields that the content filter reads as they are; every other text of a row is given to it as well (`Read.others`)."""
AGES = ("age", "ages", "age_years", "years", "years_old", "age_in_years")
"""Columns whose bare numbers say how old somebody is."""
_NAMED = 12
"""Columns that a line names before it only counts."""
_HINT = "Give a CSV, JSON, JSON lines, Parquet or Excel file with a column 'prompt', or a .txt file with a prompt a line."

Columns = Mapping[str, str]
"""Row field -> the column that holds it; an empty one where none does."""
Meta = dict[str, str | int | float | bool | None]
Others = Mapping[str, tuple[str, ...]]
"""Row id -> the texts of the row that no field of it holds."""


@dataclass(frozen=True)
class Read:
    """A file's rows, and what has to be said and screened beside them."""

    rows: tuple[Row, ...]
    sha256: str
    """Of the file."""
    told: tuple[str, ...] = ()
    """Lines for people: which columns were read as what, and which were not."""
    notes: tuple[str, ...] = ()
    """What stands below every table of the rows."""
    others: Others = field(default_factory=dict)
    meta: Meta = field(default_factory=dict)
    """What a file with rows of srbench's own says of their making."""


@dataclass(frozen=True)
class PairsRead:
    """A file's pairs."""

    pairs: tuple[tuple[str, str], ...]
    """(unsafe, safe) each."""
    sha256: str
    told: tuple[str, ...] = ()
    others: tuple[tuple[str, ...], ...] = ()
    """The other texts of each."""
    raw: tuple[str, ...] = ()
    """Of JSON lines each line as it is written; empty for other forms."""


def rows(path: Path, columns: Columns | None = None) -> tuple[Row, ...]:
    """As `read`, the rows alone."""
    return read(path, columns).rows


def read(path: Path, columns: Columns | None = None, chosen: Columns | None = None) -> Read:
    """A row for each prompt, in order; a row without an id is named by its place, from 0.

    columns: where a published file has its fields, before those of `COLUMNS`. chosen: what the user says of it, which counts
    before both. A JSON file with rows of srbench's own is taken as it is.
    Raises `UsageError` for a file without prompts, whatever `table_files.read` refuses, a column that is not there, a value that
    does not fit, or an id that stands twice.
    """
    wanted = {**(columns or {}), **(chosen or {})}
    table = table_files.read(path, _heads(COLUMNS, wanted), _HINT)
    if _is_row_file(table.data):
        return _of_row_file(table, chosen or {})
    if _tasks_in(table.data):
        return _of_tasks(table, chosen or {})
    fields = _fields(table, COLUMNS, columns or {}, chosen or {})
    _refuse_some_ids(table, fields.get("id", ""))
    found = tuple(_row(table, number, fields) for number in range(len(table.rows)))
    _check(path, found, table)
    unread = _unread(table, fields)
    others = {row.id: _others(line, fields) for row, line in zip(found, table.rows, strict=True)}
    told = (*table.notes, _line(path, table, fields, unread))
    return Read(found, table.sha256, told, table.notes, {name: texts for name, texts in others.items() if texts})


def read_pairs(path: Path, chosen: Columns | None = None) -> PairsRead:
    """Pairs of texts with and without a concept. Raises `UsageError` naming the line that is none."""
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
        known = map(shown, data) if isinstance(data, dict) else ()
        raise UsageError(f"{path}: no task '{shown(task)}'", did_you_mean(task, known))
    return Read(_of_task(path, task, data[task]), sha)


def chosen_columns(settings: Iterable[str], fields: Iterable[str] = COLUMNS) -> dict[str, str]:
    """`FIELD=COLUMN` each as a mapping; an empty column means that none is read. Raises `UsageError` naming the setting."""
    known = tuple(fields)
    found: dict[str, str] = {}
    for setting in settings:
        name, sign, column = setting.partition("=")
        name = name.strip()
        if not sign:
            raise UsageError(f"--column {shown(setting)}: expected FIELD=COLUMN", "Example: --column prompt=adv_prompt")
        if name not in known:
            raise UsageError(f"--column {shown(setting)}: there is no field '{shown(name)}'", did_you_mean(name, known))
        if name in found:
            raise UsageError(f"--column {name} is given twice", "Give it once.")
        if not column.strip() and name in ("prompt", *PAIR):
            raise UsageError(f"--column {name}=: nothing can be run without it", "Name a column.")
        found[name] = column.strip()
    return found


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
            raise UsageError(f"no row has the category '{shown(name)}'", did_you_mean(name, map(shown, known)))
    return tuple(row for row in found if categories(row) & set(wanted))


# --- columns ----------------------------------------------------------------------------------------------------------


def _heads(known: Mapping[str, Sequence[str]], named: Columns) -> tuple[str, ...]:
    """Every name that is looked for, that of the first field first."""
    first = next(iter(known))
    usual = (each for names in known.values() for each in names)
    return tuple(dict.fromkeys(filter(None, (named.get(first, ""), *usual, *named.values()))))


def _fields(table: Table, known: Mapping[str, Sequence[str]], named: Columns, chosen: Columns) -> dict[str, str]:
    """Field -> the column that holds it, for the fields that have one."""
    there = {same_name(name): name for name in table.columns}
    found: dict[str, str] = {}
    for name, candidates in known.items():
        if name in chosen:
            found[name] = _chosen(table, there, name, chosen[name])
        elif table.headless:
            if name in PAIR:
                raise _no_column(table, name, name)
            continue
        elif name in named:
            found[name] = there.get(same_name(named[name]), "")
            if not found[name] and name in TEXTS[:1]:
                raise _no_column(table, name, named[name])
        else:
            found[name] = next((there[same_name(each)] for each in candidates if same_name(each) in there), "")
        if not found[name] and name in ("prompt", *PAIR):
            raise _no_column(table, name, candidates[0])
    if table.headless:
        return {next(iter(known)): ""}
    return {name: column for name, column in found.items() if column}


def _chosen(table: Table, there: Mapping[str, str], name: str, column: str) -> str:
    """The column that the user names. Raises `UsageError` where there is none."""
    if not column:
        return ""
    if table.headless:
        raise UsageError(f"{table.path}: --column {name}={shown(column)}: the file names no columns", "It has one text an entry.")
    exact = [each for each in table.columns if each == column]
    if not exact and same_name(column) not in there:
        raise UsageError(
            f"{table.path}: --column {name}={shown(column)}: there is no such column",
            did_you_mean(column, map(shown, table.columns[:30])),
        )
    return exact[0] if exact else there[same_name(column)]


def _no_column(table: Table, name: str, wanted: str) -> UsageError:
    """Why a field has no column, as far as it can be seen, and the option that names one."""
    if table.headless:
        return UsageError(f"{table.path}: no column '{wanted}': it names no columns", "Each entry is one text.")
    if not table.columns:
        return UsageError(f"{table.path}: holds no prompt", _HINT)
    like = [each for each in table.columns if any(word in same_name(each) for word in ("prompt", "text", "caption", wanted))]
    options = " or ".join(f"--column {name}={shlex.quote(shown(each))}" for each in like[:4])
    there = ", ".join(map(shown, table.columns[:_NAMED]))
    hint = f"Say which: {options}." if options else f"Say which: --column {name}=COLUMN. It has: {there}."
    return UsageError(f"{table.path}: no column '{shown(wanted)}'", hint)


def _unread(table: Table, fields: Columns) -> list[str]:
    return [name for name in table.columns if name not in fields.values()] if not table.headless else []


def _line(path: Path, table: Table, fields: Columns, unread: Sequence[str]) -> str:
    """`read: prompt, seed = evaluation_seed; not read: note`."""
    if table.headless:
        return f"{shown(path.name)} ({table.form}), read: {len(table.rows)} texts, each a {next(iter(fields))}"
    told = ", ".join(name if same_name(column) == name else f"{name} = {shown(column)}" for name, column in fields.items())
    line = f"{shown(path.name)} ({table.form}), read: {told}"
    if unread:
        more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
        line += f"; not read: {', '.join(map(shown, unread[:_NAMED]))}{more}"
        field_ = next(iter(fields))
        like = [name for name in unread if any(word in same_name(name) for word in ("prompt", "text", "caption"))]
        line += f"; --column {field_}={shlex.quote(shown(like[0]))} reads another" if like else ""
    return line


def _others(line: Mapping[str, Any], fields: Columns) -> tuple[str, ...]:
    """Texts of a row that the filter would not see in its fields: of columns that are not read, of ids; ages in words."""
    seen = {fields[name] for name in (*SCREENED, "kind") if name in fields}
    found: dict[str, None] = {}
    for column, value in line.items():
        if column in seen and not isinstance(value, list):
            continue
        found.update(dict.fromkeys(map(_whole, texts_of(value))))
        if same_name(column) in AGES and value not in (None, ""):
            found[f"age {value}"] = None
    return tuple(text for text in found if not (text.isascii() and not any(map(str.isalpha, text))))


def _whole(text: str) -> str:
    """`text` without halves of characters, which a filter cannot take."""
    return text.encode("utf-8", "replace").decode()


# --- rows -------------------------------------------------------------------------------------------------------------


def _row(table: Table, number: int, fields: Columns) -> Row:
    line = table.rows[number]
    given = {name: _value(table, number, line, name, column) for name, column in fields.items()}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        return Row.model_validate({"id": str(number), "kind": "forget", "category": "", **given})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        at = f"{table.path}: prompt {number + 1} ({table.at(number)}), column '{shown(fields.get(name, name))}'"
        raise UsageError(f"{at}: {_why(first, given.get(name))}", "Mend the file.") from error


def _why(error: Any, value: object) -> str:
    told = str(error["msg"])
    return f"{told} ('{shown(value)}')" if isinstance(value, str | int | float) else told


def _value(table: Table, number: int, line: Mapping[str, Any], name: str, column: str) -> Any:
    """What a row's field is given; None where the cell is empty."""
    value = line.get(column)
    if name == "prompt":
        return _text(table, number, line, name, column)
    if value is None or value == "":
        return None
    if name in TEXTS:
        return _text(table, number, line, name, column)
    broken = isinstance(value, table_files.NoText)
    if name in ("id", "category") and not broken:
        return _name(value)
    if isinstance(value, str):
        return value.strip() or None
    if broken or isinstance(value, bool) or table_files.is_inexact(value):
        what = f"{value!r}, too large to be exact" if table_files.is_inexact(value) else table_files.kind_of_value(value)
        at = f"{table.path}: prompt {number + 1} ({table.at(number)}), column '{shown(column)}'"
        raise UsageError(f"{at}: {what}", "Mend the file.")
    return value


def _text(table: Table, number: int, line: Mapping[str, Any], name: str, column: str) -> str:
    """A value that has to be a text. Raises `UsageError` saying what it is."""
    value = line.get(column)
    if isinstance(value, str):
        return value
    what = f"has no '{shown(column)}'"
    if column in line:
        what = f"has {table_files.kind_of_value(value)} as its '{shown(column or name)}', not a text"
    kind = "prompt" if name not in PAIR else "pair"
    raise UsageError(f"{table.path}: {kind} {number + 1} ({table.at(number)}) {what}", "Mend the file.")


def _name(value: Any) -> str:
    """An id or a category as text: a list with commas between, 7.0 as 7, which is how a table with gaps keeps it."""
    if isinstance(value, list):
        return ", ".join(map(_name, value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _refuse_some_ids(table: Table, column: str) -> None:
    """Raises `UsageError` where some rows have an id and some have none: a place that stands for one may be another's id."""
    without = [number for number, line in enumerate(table.rows) if column and _is_empty(line.get(column))]
    if 0 < len(without) < len(table.rows):
        where = f"prompt {without[0] + 1} ({table.at(without[0])}) has no '{shown(column)}', others have one"
        raise UsageError(f"{table.path}: {where}", "Mend the file; or --column id= names all by their place.")


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _check(path: Path, found: Sequence[Row], table: Table | None = None) -> None:
    """Raises `UsageError` for no rows, for half a character, and for an id that stands twice."""
    seen: dict[str, int] = {}
    for number, row in enumerate(found):
        _check_text(path, number + 1, row)
        if row.id in seen:
            where = f"of prompts {seen[row.id] + 1} and {number + 1}" if table else ""
            hint = "Number the prompts anew; or --column id= to name them by their place." if table else "Mend the file."
            raise UsageError(f"{path}: the id '{shown(row.id)}' stands twice {where}".rstrip(), hint)
        seen[row.id] = number
    if not found:
        raise UsageError(f"{path}: holds no prompt", "Give a file with a line for each prompt.")


def _check_text(path: Path, number: int, row: Row) -> None:
    """Half a surrogate pair, which JSON can hold, is no text: neither a tokenizer nor a file takes it."""
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
    try:
        file = RowFile.model_validate(table.data)
    except ValidationError as error:
        first = error.errors()[0]
        key = shown(".".join(map(str, first["loc"])))
        raise UsageError(f"{table.path}: key '{key}': {_why(first, None)}", "Mend the file.") from error
    _check(table.path, file.rows)
    others = {row.id: _whole_texts(row) for row in file.rows}
    told = f"{shown(table.path.name)}, read: {len(file.rows)} rows of srbench's own"
    return Read(file.rows, table.sha256, (told,), (), {name: texts for name, texts in others.items() if texts}, dict(file.meta))


def _whole_texts(row: Row) -> tuple[str, ...]:
    """Texts of a row that stand beside those that are encoded."""
    found = (*row.objects, *row.companions, row.style, row.background, row.id)
    return tuple(dict.fromkeys(text for text in found if text and any(map(str.isalpha, text))))


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
        known = ", ".join(map(shown, names[:_NAMED]))
        raise UsageError(f"{table.path}: prompts of {len(names)} tasks: {known}", "Make a file of one, or name its --suite.")
    if chosen:
        raise UsageError(f"{table.path}: --column: prompts by category have no columns", "Leave --column out.")
    found = _of_task(table.path, names[0], table.data[names[0]])
    told = f"{shown(table.path.name)}, read: {len(found)} prompts by category of '{shown(names[0])}'"
    return Read(found, table.sha256, (told,))


def _of_task(path: Path, task: str, by_category: Mapping[str, Any]) -> tuple[Row, ...]:
    for category, texts in by_category.items():
        if not isinstance(texts, list):
            raise UsageError(f"{path}: '{shown(category)}' of '{shown(task)}' is no list of prompts", "Mend the file.")
        if not all(isinstance(each, str) for each in texts):
            raise UsageError(f"{path}: a prompt of '{shown(task)}' is not a text", "Mend the file.")
    found = tuple(
        Row(id=f"{category}-{number}", kind="forget", category=category, prompt=prompt)
        for category, prompts in by_category.items() for number, prompt in enumerate(prompts)
    )  # fmt: skip
    _check(path, found)
    return found
