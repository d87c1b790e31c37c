"""The one reader of users' tables: CSV, JSON, JSON lines, Parquet, Excel workbooks, and text with an entry on each line.

The format is detected from the content, not from the name alone. Values are not converted ("0002" and "NA" stay texts), and a
file that cannot be read reliably is refused with the cause.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from srbench.errors import UsageError
from srbench.files import LFS_MARK, file_sha, kind_of_path, parse_json, printable, read_bytes

HINT = "Give a CSV, JSON, JSON lines, Parquet, Excel (.xlsx) or text (.txt) file."
MAX_BYTES = 2 * 10**9
"""The largest file that is read, in bytes."""
DELIMITERS = (",", ";", "\t", "|")
_SPELT = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MAX_COLUMNS = 10_000
MAX_NAME = 500
"""Characters of a column's name at most."""
_HEAD_BYTES = 4096
_SHOWN = 60
"""Characters of a name that a message shows at most."""
_EXACT = 2**53
"""From here on floating-point numbers cannot represent every whole number."""


@dataclass(frozen=True)
class Table:
    """A file's columns and rows."""

    path: Path
    form: str
    """The format in words: `CSV with commas`, `JSON`, `text`."""
    columns: tuple[str, ...]
    """Names in the file's order, over all rows, stripped and without duplicates (see `same_name`)."""
    rows: list[dict[str, Any]]
    """Column -> value: text, or in JSON and Parquet also numbers, booleans, lists and objects. None is a null; columns that a
    JSON row lacks are not in it. Cells of CSV files and workbooks are text, empty ones ""."""
    sha256: str
    lines: list[int] = field(default_factory=list)
    """The line on which each row begins; empty where the format has no lines."""
    raw: list[str] = field(default_factory=list)
    """The unparsed lines of a JSON lines file."""
    notes: tuple[str, ...] = ()
    """Notes on how it was read, such as a guessed encoding."""
    headless: bool = False
    """Whether the file has no column names: its one column is then called "" and holds the first field that is looked for."""
    data: Any = None
    """The whole value of a JSON file."""

    def at(self, number: int) -> str:
        """Position of a row, number from 0: `line 3`, or `row 2` where the format has no lines."""
        return f"line {self.lines[number]}" if self.lines else f"row {number + 1}"


def read(path: Path, heads: Sequence[str] = (), hint: str = HINT) -> Table:
    """Read a table.

    heads: names of the expected columns, by which the separator of a CSV file is chosen.
    Raises `UsageError` for a missing file, another kind of file under this name, an encoding other than UTF-8, UTF-16 and
    Windows-1252, a damaged file, a line with too few or too many values, and a duplicate column.
    """
    start = _start(path, hint)
    _refuse_by_start(path, start)
    if start.startswith(b"PAR1"):
        return _from_parquet(path)
    if start.startswith(b"PK\x03\x04"):
        return _from_workbook(path)
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".xlsx", ".xls"):
        kind = "a Parquet file" if suffix == ".parquet" else "an Excel workbook"
        raise UsageError(f"{path}: not {kind}, whatever its name says", "Give it the name of what it is, or download it again.")
    data = read_bytes(path, hint, MAX_BYTES)
    text, notes = decoded(path, data)
    table = _from_text(path, text, hashlib.sha256(data).hexdigest(), heads)
    return replace(table, notes=(*notes, *table.notes))


@lru_cache(maxsize=4096)
def same_name(name: str) -> str:
    """A column's name for comparison: case-folded, stripped, without invisible marks, blanks and hyphens as underscores."""
    if len(name) > MAX_NAME:
        return name  # a text, not a name
    seen = "".join(each for each in unicodedata.normalize("NFKC", name) if unicodedata.category(each) not in ("Cf", "Cc"))
    return re.sub(r"[\s_-]+", "_", seen.strip()).casefold() if seen.strip() else ""


def lines_of(text: str) -> list[str]:
    """Lines without their line ends. Only line feed and carriage return end a line: the others that `str.splitlines` splits at
    (U+2028, U+0085, vertical tab, form feed) occur inside texts."""
    lines = re.split(r"\r\n|\n|\r", text)
    return lines[:-1] if lines and not lines[-1] else lines


def shown(name: object) -> str:
    """A name or value from a file for a message: on one line, shortened."""
    text = printable(str(name))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a value at any depth, including keys of objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from texts_of(key)
            yield from texts_of(each)
    elif isinstance(value, list | tuple | set):
        for each in value:
            yield from texts_of(each)


def is_inexact(value: object) -> bool:
    """Whether a value is a floating-point number too large to represent every whole number."""
    return isinstance(value, float) and abs(value) >= (value.exact if isinstance(value, _Narrow) else _EXACT)


class _Narrow(float):
    """A number from a column of half or single precision."""

    exact: int
    """From here on it cannot represent every whole number."""


def _narrow(value: float | None, exact: int) -> float | None:
    if value is None:
        return None
    number = _Narrow(value)
    number.exact = exact
    return number


# --- what a file is ---------------------------------------------------------------------------------------------------

_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (LFS_MARK, "a git-lfs pointer, not the data", "Run `git lfs pull` in its clone, or download the file."),
    (b"\x1f\x8b", "packed with gzip", "Unpack it first: gunzip."),
    (b"BZh", "packed with bzip2", "Unpack it first: bunzip2."),
    (b"\xfd7zXZ\x00", "packed with xz", "Unpack it first: unxz."),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "Unpack it first: unzstd."),
    (b"7z\xbc\xaf", "a 7z archive", "Unpack it first."),
    (b"\xd0\xcf\x11\xe0", "an old or an encrypted Office document", "Save it as .xlsx or CSV, without a password."),
    (b"%PDF", "a PDF", HINT),
    (b"\x89PNG", "a picture", HINT),
    (b"\xff\xd8\xff", "a picture", HINT),
    (b"GIF8", "a picture", HINT),
    (b"RIFF", "a picture or a sound", HINT),
    (b"SQLite format 3", "a database", HINT),
    (b"ARROW1", "an Arrow file", "Save it as Parquet."),
    (b"\x93NUMPY", "an array of numpy", HINT),
    (b"\x80\x02", "a pickle, which is never opened", HINT),
    (b"\x80\x04", "a pickle, which is never opened", HINT),
    (b"\x80\x05", "a pickle, which is never opened", HINT),
)
"""(first bytes, what such a file is, hint)."""
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)?<(!doctype html|html|\?xml|head|body)\b", re.IGNORECASE | re.DOTALL)
_ANSWERS = ("404: Not Found", "Not Found", "Entry not found", "Access to dataset", "Access to model", "Invalid username or")
"""Beginnings of error pages that servers send in place of a file."""


def _start(path: Path, hint: str) -> bytes:
    """The first bytes of a regular file. Raises `UsageError` for anything else, and for an empty file."""
    kind = kind_of_path(path)
    if kind != "file":
        raise UsageError(f"{path}: {'there is no such file' if kind == 'nothing' else f'a {kind}, not a file'}", hint)
    try:
        with path.open("rb") as file:
            start = file.read(_HEAD_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})", hint) from error
    if not start:
        raise UsageError(f"{path}: the file is empty", hint)
    return start


def _refuse_by_start(path: Path, start: bytes) -> None:
    for mark, what, hint in _OTHERS:
        if start.startswith(mark):
            raise UsageError(f"{path}: {what}", hint)
    page = _PAGE.match(start)
    if page:
        what = "an XML file" if page[1].lower() == b"?xml" else "an HTML page"
        raise UsageError(f"{path}: {what}, not the data", "Download the file itself (on GitHub: the button Raw).")
    if len(start) < 300 and start.decode("utf-8", "replace").strip().startswith(_ANSWERS):
        raise UsageError(f"{path}: the answer of a server ({shown(start.decode('utf-8', 'replace').strip())}), not the data",
                         "Download it again.")  # fmt: skip


def refuse_other_kinds(path: Path, hint: str = HINT) -> None:
    """Raise `UsageError` for a path that is not a file, an empty file, or a kind without tables, such as a git-lfs pointer."""
    _refuse_by_start(path, _start(path, hint))


# --- encoding ---------------------------------------------------------------------------------------------------------

_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
"""Byte order marks; the longer ones first."""
_WESTERN = frozenset("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿŒœŠšŽžŸ‘’“”‚„–—…•€£¢°©®™«»‹›¿¡½¼¾²³´·§\xa0")
"""Non-ASCII characters of Western texts. Any other character means that the file is not Windows-1252."""
_FOREIGN = re.compile(r"[^\x00-\x7f]{3}")
"""Three in a row, as in Cyrillic, Greek or Chinese text decoded as Windows-1252."""

_PARTLY = re.compile(rb"[\xc2\xc3][\x80-\xbf]|\xe2\x80[\x80-\xbf]")
"""Letters and quotes of Western languages in UTF-8; these bytes do not follow each other in Windows-1252 texts."""


def decoded(path: Path, data: bytes) -> tuple[str, tuple[str, ...]]:
    """A file's text, and notes on its encoding. Raises `UsageError` where no encoding fits, or the text has a NUL."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None) or _without_mark(data) or "utf-8"
    notes: tuple[str, ...] = ()
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise _undecoded(path, f"damaged {encoding.upper()}", error) from error
        text, notes = _western(path, data, error)
    text = text.removeprefix("\ufeff")
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise UsageError(f"{path}: holds a NUL character (line {line}), which no text has", "Save it as text.")
    return text, notes


def _without_mark(data: bytes) -> str | None:
    """The encoding of UTF-16 without a byte order mark, else None: nearly every other byte of Western text is zero."""
    start = data[:512]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if len(start) < 4 or max(even, odd) < len(start) * 0.3 or min(even, odd) > len(start) * 0.1:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _western(path: Path, data: bytes, error: UnicodeDecodeError) -> tuple[str, tuple[str, ...]]:
    """Text in Windows-1252 and a note. Raises `UsageError` where it is partly UTF-8, or does not look like a Western language."""
    if _PARTLY.search(data):
        raise _undecoded(path, "partly UTF-8, partly another encoding, or damaged", error) from error
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        raise _undecoded(path, "not UTF-8", error) from error
    foreign = [each for each in text if each > "\x7f"]
    if not _WESTERN.issuperset(foreign) or _FOREIGN.search(text) or len(foreign) > len(text) / 4:
        raise _undecoded(path, "not UTF-8", error) from error
    few = f"{len(foreign)} characters beyond ASCII, the first '{foreign[0]}'"
    note = f"{shown(path.name)} is not UTF-8: read as Windows-1252 ({few})"
    return text, (note,)


def _undecoded(path: Path, what: str, error: UnicodeDecodeError) -> UsageError:
    return UsageError(f"{path}: {what} (byte {error.start + 1})", "Save it as UTF-8: in which encoding it is cannot be told.")


# --- text forms -------------------------------------------------------------------------------------------------------


def _from_text(path: Path, text: str, sha: str, heads: Sequence[str]) -> Table:
    if not text.strip():
        raise UsageError(f"{path}: the file is empty", HINT)
    suffix = path.suffix.lower()
    if suffix in (".json", ".jsonl", ".ndjson") or _looks_like_json(text):
        return _from_json(path, text, sha, heads)
    if suffix == ".txt" and not _is_table(path, text, heads):
        lines = [(number, line) for number, line in enumerate(lines_of(text), 1) if line.strip()]
        return Table(path, "text", ("",), [{"": line} for _, line in lines], sha, [number for number, _ in lines], headless=True)
    return _from_csv(path, text, sha, heads)


def _looks_like_json(text: str) -> bool:
    """Whether the text, or its first line, is a JSON object or list; a text may also begin with a bracket."""
    stripped = text.lstrip()
    if stripped[:1] not in ("{", "["):
        return False
    for part in (lines_of(stripped[:1_000_000])[0], stripped):
        try:
            parse_json(part, "", nan=True)
        except UsageError:
            continue
        return True
    return bool(re.match(r'[\[{]\s*[{"]', stripped)) and '":' in stripped[:10_000]


def _is_table(path: Path, text: str, heads: Sequence[str]) -> bool:
    """Whether a .txt file is a table as spreadsheets save it: its first line names expected columns.

    Raises `UsageError` where the first line is only one such name, since it may be a header or a text.
    """
    wanted = {same_name(name) for name in heads}
    first = next(line for line in lines_of(text) if line.strip())[: 10 * MAX_NAME]
    if same_name(first.strip(' "')) in wanted:
        raise UsageError(
            f"{path}: the first line is '{shown(first)}', the name of a column; a .txt file has none",
            "Name it .csv where that is a head; else take the line out.",
        )
    cells = [{same_name(cell.strip(' "')) for cell in first.split(delimiter)} for delimiter in DELIMITERS]
    several = [len(each & wanted) if len(each) > 1 else 0 for each in cells]
    return several[DELIMITERS.index("\t")] > 0 or max(several) > 1


# --- CSV --------------------------------------------------------------------------------------------------------------


def _from_csv(path: Path, text: str, sha: str, heads: Sequence[str]) -> Table:
    text, separator = _sep_line(text)
    delimiter = separator or _delimiter(path, text, heads)
    head = _first(text, delimiter)
    _refuse_prose(path, head, heads)
    # "prompt, seed": where every name has a leading blank, every value has one too, and it is not part of the value.
    spaced = delimiter != "\t" and len(head) > 1 and all(cell.startswith(" ") for cell in head[1:])
    records = _records(path, text, delimiter, spaced)
    _, cells = next(records, (0, []))
    columns = _columns(path, cells)
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for line, values in records:
        line += bool(separator)
        if len(values) != len(columns):
            _refuse_count(path, line, len(values), len(columns), len(rows) + 1, delimiter, text)
        rows.append(dict(zip(columns, values, strict=True)))
        lines.append(line)
    return Table(path, f"CSV with {_SPELT.get(delimiter, delimiter)}", columns, rows, sha, lines)


def _refuse_prose(path: Path, head: Sequence[str], heads: Sequence[str]) -> None:
    """Raise `UsageError` for a missing header: the first line has no expected name, and a long value or one of many words.

    The message does not repeat the line, since it is a prompt.
    """
    if {same_name(cell) for cell in head} & set(map(same_name, heads)) or not heads:
        return
    if any(len(cell.split()) > (3 if len(head) > 1 else 1) or len(cell) > 40 for cell in head):
        raise UsageError(
            f"{path}: no column '{heads[0]}': its first line looks like a text, not like names of columns",
            f"If it has no head and a text a line, name it .txt; else write a first line that names the columns: {heads[0]}, ...",
        )


def _sep_line(text: str) -> tuple[str, str]:
    """The text without a first line `sep=;`, as Excel writes it, and the separator that the line names."""
    match = re.match(r"\s*\"?sep=([,;\t|])\"?[ \t]*(?:\r\n|\n|\r)", text, re.IGNORECASE)
    return (text[match.end() :], match[1]) if match else (text, "")


def _first(text: str, delimiter: str) -> list[str]:
    """The first record that is not empty; an empty list where the text cannot be read with this separator."""
    reader = csv.reader(io.StringIO(text[:1_000_000], newline=""), delimiter=delimiter)
    try:
        return next((record for record in reader if record), [])
    except csv.Error:
        return []


def _delimiter(path: Path, text: str, heads: Sequence[str]) -> str:
    """The separator that gives the header most of the expected names, else the one with as many values in every record."""
    usual = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
    wanted = {same_name(name) for name in heads}
    firsts = {each: _first(text, each) for each in DELIMITERS}

    def fit(delimiter: str) -> tuple[int, int, bool]:
        cells = firsts[delimiter]
        matches = len({same_name(cell) for cell in cells} & wanted)
        return matches, 0 if matches else _even(text, delimiter, len(cells)), delimiter == usual

    return max(DELIMITERS, key=fit)


def _even(text: str, delimiter: str, count: int) -> int:
    """The number of columns where the first records have as many values as the header, else 0."""
    reader = csv.reader(io.StringIO(text[:100_000], newline=""), delimiter=delimiter)
    try:
        records = [record for record in islice(reader, 20) if record][:-1]
    except csv.Error:
        return 0
    return count if count > 1 and all(len(record) == count for record in records) else 0


def _records(path: Path, text: str, delimiter: str, spaced: bool) -> Iterator[tuple[int, list[str]]]:
    """(line, values) of each record; empty lines are skipped."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=spaced)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            _refuse_record(path, line, str(error))
        if record:
            yield line, record


def _refuse_record(path: Path, line: int, why: str) -> NoReturn:
    if "end of data" in why:
        what, hint = "the file ends inside a value that begins with a quote", "Is it cut off, or is a quote not closed?"
    elif "field limit" in why:
        what, hint = f"a value of more than {csv.field_size_limit():,} characters", "Is a quote not closed? Else give it as JSON."
    elif "expected after" in why:
        what = "something stands between a closing quote and the next separator"
        hint = 'Take it out, a blank too; a quote that belongs to the value is written twice: "".'
    else:
        what, hint = f"not CSV ({why})", "Mend the file."
    raise UsageError(f"{path}: line {line}: {what}", hint)


def _refuse_count(path: Path, line: int, count: int, head: int, number: int, delimiter: str, text: str) -> NoReturn:
    problem = f"{path}: line {line} (prompt {number}) has {count} values, the head names {head} columns"
    cut = count < head and not text.endswith(("\n", "\r")) and line == len(lines_of(text))
    if count > head:
        hint = f"Is a value with {_SPELT.get(delimiter, delimiter)} in it not in quotes?"
    else:
        hint = "The file ends here, without a line end: is it cut off?" if cut else "Values are missing in this line."
    raise UsageError(problem, hint)


def _columns(path: Path, cells: Sequence[object]) -> tuple[str, ...]:
    """Column names from a header; empty ones become `(column N)`. Raises `UsageError` for a duplicate name."""
    _refuse_wide(path, len(cells))
    names = [_clean(str(cell)) or f"(column {number})" for number, cell in enumerate(cells, 1)]
    seen: dict[str, str] = {}
    for name in names:
        same = same_name(name)
        if same in seen:
            _refuse_doubled(path, seen[same], name)
        seen[same] = name
    return tuple(names)


def _refuse_wide(path: Path, count: int) -> None:
    if count > MAX_COLUMNS:
        most = f"{count} columns, where {MAX_COLUMNS} are the most that is read"
        raise UsageError(f"{path}: {most}", "Leave out what is not needed.")


def _clean(name: str) -> str:
    return name.strip().strip("\ufeff\u200b").strip()


def _refuse_doubled(path: Path, first: str, second: str, where: str = "") -> NoReturn:
    twice = f"'{shown(first)}'" if first == second else f"'{shown(first)}', also as '{shown(second)}',"
    raise UsageError(f"{path}:{where} the column {twice} stands twice", "Rename one: which of them counts cannot be told.")


# --- JSON -------------------------------------------------------------------------------------------------------------


def _from_json(path: Path, text: str, sha: str, heads: Sequence[str]) -> Table:
    values, lines, raw = _values(path, text)
    if not lines:
        data = values[0]
        entries, notes = _entries(path, data, heads)
        return _of_objects(path, "JSON", entries, sha, notes=notes, data=data)
    return _of_objects(path, "JSON lines", values, sha, lines, raw, data=values[0] if len(values) == 1 else None)


def _values(path: Path, text: str) -> tuple[list[Any], list[int], list[str]]:
    """The values of a JSON lines file, their line numbers, and the unparsed lines; of a JSON file its one value alone."""
    written = [(number, line) for number, line in enumerate(lines_of(text), 1) if line.strip()]
    named = path.suffix.lower() in (".jsonl", ".ndjson")
    if ((named or len(written) > 1) and _is_whole(written[0][1])) or (named and not _is_whole(text)):
        values = [parse_json(line, f"{path}: line {number}", "Mend the line.", nan=True, unique=True) for number, line in written]
        if not (len(values) == 1 and isinstance(values[0], list)):
            return values, [number for number, _ in written], [line for _, line in written]
    return [parse_json(text, str(path), _json_hint(text), nan=True, unique=True)], [], []


def json_of(path: Path) -> tuple[Any, str]:
    """The one value of a JSON file, and the file's sha256. Raises `UsageError`."""
    data = read_bytes(path, HINT, MAX_BYTES)
    text, _ = decoded(path, data)
    return parse_json(text, str(path), _json_hint(text), unique=True), hashlib.sha256(data).hexdigest()


def _is_whole(text: str) -> bool:
    try:
        parse_json(text, "", nan=True)
    except UsageError:
        return False
    return True


def _json_hint(text: str) -> str:
    end = {"[": "]", "{": "}"}.get(text.strip()[:1], "")
    return "Mend the file." if text.rstrip().endswith(end) else f"It does not end with {end}: is it cut off?"


def _entries(path: Path, data: Any, heads: Sequence[str]) -> tuple[list[Any], tuple[str, ...]]:
    """The entries of a JSON file that is a list, one object, srbench's own rows, or a page of the hub's viewer, and notes."""
    if isinstance(data, list):
        return data, ()
    if isinstance(data, dict) and isinstance(data.get("rows"), list):
        return _page(path, data) if _is_page(data) else (data["rows"], ())
    if isinstance(data, dict) and set(data) == {"error"}:
        raise UsageError(f"{path}: the answer of a server ({shown(data['error'])}), not the data", "Download it again.")
    if isinstance(data, dict) and not any(isinstance(each, list) for each in data.values()):
        return [data], ()
    what = f"an object with the keys {', '.join(shown(key) for key in list(data)[:5])}" if isinstance(data, dict) else "one value"
    if "prompt" in heads or not heads:
        raise UsageError(f"{path}: {what}, not a list of prompts", "Give a list of texts, or of objects with a key 'prompt'.")
    raise UsageError(f"{path}: {what}, not a list of objects", f"Give a list of objects with the keys {', '.join(heads)}.")


def _is_page(data: Mapping[str, Any]) -> bool:
    return bool(data["rows"]) and all(isinstance(each, dict) and isinstance(each.get("row"), dict) for each in data["rows"])


def _page(path: Path, data: Mapping[str, Any]) -> tuple[list[Any], tuple[str, ...]]:
    """The rows of a page of the hub's viewer, and notes. Raises `UsageError` where a value is truncated."""
    for number, entry in enumerate(data["rows"], 1):
        if entry.get("truncated_cells"):
            names = ", ".join(map(shown, entry["truncated_cells"]))
            raise UsageError(f"{path}: the hub cut values of row {number} ({names})", "Download the data set's file itself.")
    count, total = len(data["rows"]), data.get("num_rows_total")
    part = isinstance(total, int) and total > count
    notes = (f"{shown(path.name)} is a page of the hub's: {count} of {total} rows",) if part else ()
    return [entry["row"] for entry in data["rows"]], notes


def _of_objects(
    path: Path, form: str, values: list[Any], sha: str, lines: list[int] | None = None, raw: list[str] | None = None,
    notes: tuple[str, ...] = (), data: Any = None,
) -> Table:
    """A table of objects, whose keys together are the columns, or of texts."""
    lines, raw = lines or [], raw or []
    if all(isinstance(each, str) for each in values):
        return Table(path, form, ("",), [{"": each} for each in values], sha, lines, raw, notes, headless=True, data=data)
    names: dict[str, str] = {}
    rows = []
    for number, value in enumerate(values):
        at = f" line {lines[number]}:" if lines else f" entry {number + 1}:"
        if not isinstance(value, dict):
            kinds = "an object, as the others are" if isinstance(value, str) else "a text or an object"
            raise UsageError(f"{path}:{at} {kind_of_value(value)}, not {kinds}", "Mend the file.")
        rows.append(_with_names(path, at, value, names))
    return Table(path, form, tuple(names.values()), rows, sha, lines, raw, notes, data=data)


def _with_names(path: Path, at: str, value: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A row under the column names of the rows before it; new names are added to `names`."""
    row: dict[str, Any] = {}
    written: dict[str, str] = {}
    for key, cell in value.items():
        name = names.setdefault(same_name(key), _clean(key) or "(no name)")
        if len(names) > MAX_COLUMNS:
            _refuse_wide(path, len(names))
        if name in row:
            _refuse_doubled(path, written[name], key, at)
        row[name], written[name] = cell, key
    return row


def kind_of_value(value: object) -> str:
    """The kind of a JSON value, for messages."""
    kinds = {
        str: "a text", bool: "a truth value", list: "a list", dict: "an object", type(None): "a null",
        datetime.date: "a date", datetime.datetime: "a date",
    }  # fmt: skip
    return value.what if isinstance(value, NoText) else kinds.get(type(value), "a number")




# --- Parquet ----------------------------------------------------------------------------------------------------------


def _from_parquet(path: Path) -> Table:
    """Read with pyarrow: pandas turns 1 into 1.0 in columns with gaps, and takes a named index out of the table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = _columns(path, file.schema_arrow.names)
            rows = [
                dict(zip(columns, values, strict=True)) for batch in file.iter_batches(batch_size=4096)
                for values in zip(*map(_plain_values, batch.columns), strict=True)
            ]  # fmt: skip
        sha = file_sha(path)
    except (OSError, ValueError, pa.ArrowException, NotImplementedError) as error:  # the last: kinds pyarrow cannot read
        why = shown(str(error).split("\n")[0])
        raise UsageError(f"{path}: not a Parquet file that can be read ({why})", _parquet_hint(path)) from error
    return Table(path, "Parquet", columns, rows, sha)


def _parquet_hint(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(-4, io.SEEK_END)
        whole = file.read() == b"PAR1"
    return "Write it again." if whole else "It does not end as a Parquet file does: it is cut off. Download it again."


_NARROW = {"halffloat": 11, "float": 24}
"""Arrow type of half or single precision -> bits up to which its whole numbers are exact."""


def _plain_values(column: Any) -> list[Any]:
    """A column's values; times that Python cannot represent become texts."""
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError):
        values = column.cast("string").to_pylist()
    if (bits := _NARROW.get(str(column.type))) is not None:
        values = [_narrow(value, 2**bits) for value in values]
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """A value with bytes that are not text (images) as `BINARY`, and NaN, pandas' null, as None."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return BINARY
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


class NoText:
    """In place of a value that is not a text, number or date."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __repr__(self) -> str:
        return self.what


BINARY = NoText("bytes that are no text")


# --- Excel ------------------------------------------------------------------------------------------------------------

_UNPACKED_BYTES = 10**9
_ZEROS = re.compile("0{2,}")


def _from_workbook(path: Path) -> Table:
    """The only sheet of a workbook that is not empty; cells as the text that they show, numbers in full.

    Read with openpyxl: pandas' reader ignores number formats and turns 0002 into 2.
    """
    import zipfile
    import zlib
    from xml.etree.ElementTree import ParseError

    data = read_bytes(path, HINT, MAX_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            names, size = packed.namelist(), sum(each.file_size for each in packed.infolist())
        if "xl/workbook.xml" not in names:
            raise UsageError(f"{path}: a zip archive, not a table", "Unpack it first.")
        if size > _UNPACKED_BYTES:
            raise UsageError(f"{path}: a workbook of {size / 1e9:.1f} GB unpacked", "Save it as CSV.")
        cells = _sheet(path, data)
    except (  # what openpyxl, and the archive and XML under it, raise for damaged workbooks
        OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, NotImplementedError, zipfile.BadZipFile,
        zlib.error, ParseError,
    ) as error:  # fmt: skip
        why = shown(str(error).split("\n")[0] or type(error).__name__)
        raise UsageError(f"{path}: not an Excel workbook that can be read ({why})", "Save it anew, or as CSV.") from error
    return _of_cells(path, cells, hashlib.sha256(data).hexdigest())


def _sheet(path: Path, data: bytes) -> list[tuple[int, list[Any]]]:
    """(row, texts) of rows that are not empty. Raises `UsageError` for several sheets, and for a formula without a value."""
    import openpyxl

    values = openpyxl.load_workbook(io.BytesIO(data), data_only=True)
    written = openpyxl.load_workbook(io.BytesIO(data))
    sheets = [sheet for sheet in values.worksheets if any(cell.value is not None for row in sheet.iter_rows() for cell in row)]
    if len(sheets) > 1:
        names = ", ".join(shown(sheet.title) for sheet in sheets)
        raise UsageError(f"{path}: a workbook with {len(sheets)} sheets: {names}", "Save the one that counts as a file.")
    if not sheets:
        raise UsageError(f"{path}: the workbook is empty", HINT)
    formulas = written[sheets[0].title]
    for row in formulas.iter_rows():
        for cell in row:
            if cell.data_type == "f" and sheets[0][cell.coordinate].value is None:
                raise UsageError(f"{path}: cell {cell.coordinate} holds a formula without its value", "Save it as CSV.")
    rows = [(number, [_cell(cell) for cell in row]) for number, row in enumerate(sheets[0].iter_rows(), sheets[0].min_row)]
    return [(number, cells) for number, cells in rows if any(cells)]


def _cell(cell: Any) -> str | NoText:
    """A cell as text, or a formula's error. Numbers in full, with the leading zeros of their format; dates in ISO format."""
    value = cell.value
    if value is None:
        return ""
    if cell.data_type == "e":
        return NoText(f"the error {value}")
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int) and _ZEROS.fullmatch(cell.number_format or ""):
        return str(value).zfill(len(cell.number_format))
    if isinstance(value, float) and value.is_integer() and not is_inexact(value):
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def _of_cells(path: Path, cells: list[tuple[int, list[Any]]], sha: str) -> Table:
    width = max((number for _, row in cells for number, cell in enumerate(row, 1) if cell), default=0)
    (_, head), *rest = cells
    columns = _columns(path, (head + [""] * width)[:width])
    rows = [dict(zip(columns, (row + [""] * width)[:width], strict=True)) for _, row in rest]
    return Table(path, "Excel", columns, rows, sha, [number for number, _ in rest])
