"""Rows of gated suites: kept and reported by id and hash alone, and taken out of records that older versions wrote."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from srbench.errors import SrbenchError
from srbench.files import write_atomic, written_whole
from srbench.hashing import canonical

if TYPE_CHECKING:
    from srbench.results.store import Store

from srbench.catalog.specs import Row
from srbench.results.leftovers import at_work
from srbench.results.marks import FIELDS, FIELDS_SHA, GATED, MARKED, TEXT, TEXT_SHA

Record = dict[str, Any]
CHUNK = "srbench"
"""Name of the text in a PNG that holds its record."""
QUOTES = "(the message quotes a row of a gated suite and is not shown)"
_WINDOW = 3
"""Words in a row that a message may not share with a gated text."""


def text_sha(text: str) -> str:
    """sha256 of a text; lone surrogates, which UTF-8 cannot encode, are hashed as backslash escapes."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


# --- records ----------------------------------------------------------------------------------------------------------


def without_text(record: Record) -> Record:
    """An image's record as it is kept for a row of a gated suite: hashes in place of its prompt and of texts in its trace."""
    cleaned = {name: value for name, value in record.items() if name != TEXT}
    if TEXT in record:
        cleaned[TEXT_SHA] = text_sha(str(record[TEXT]))
    if "trace" in record:
        cleaned["trace"] = _hidden(record["trace"])
    return {**cleaned, GATED: True}


def _hidden(value: Any) -> Any:
    """`value` with a hash in place of every text in it, names of fields left as they are."""
    if isinstance(value, str):
        return value if value.startswith("sha256 ") else f"sha256 {text_sha(value)[:16]}"
    if isinstance(value, dict):
        return {name if str(name).isidentifier() else _hidden(str(name)): _hidden(item) for name, item in value.items()}
    return [_hidden(item) for item in value] if isinstance(value, list | tuple) else value


def fields_kept(fields: str, gated: bool) -> Record:
    """The part of a score's record that holds its row fields (canonical JSON); for a gated row their hash."""
    return {FIELDS_SHA: text_sha(fields)} if gated and fields != "{}" else {FIELDS: fields}


def fields_sha(record: Record) -> str:
    """sha256 of the row fields that a score was made with, whether its record holds them or their hash."""
    return str(record[FIELDS_SHA]) if FIELDS_SHA in record else text_sha(str(record.get(FIELDS, "{}")))


# --- messages ---------------------------------------------------------------------------------------------------------


class Hush:
    """Replaces messages that quote a text of a gated row before they are shown or stored."""

    def __init__(self, texts: Iterable[str | None]) -> None:
        self._pieces = {piece for text in texts if text for piece in _pieces(text)}

    def __call__(self, message: str) -> str:
        """The message, or `QUOTES` in its place; the kind of error before the colon stays."""
        if not self._quotes(message):
            return message
        kind = message.partition(":")[0]
        return QUOTES if kind == message or self._quotes(kind) else f"{kind}: {QUOTES}"

    def _quotes(self, message: str) -> bool:
        words = _words(message)
        return any(
            tuple(words[i : i + size]) in self._pieces for size in range(1, _WINDOW + 1) for i in range(len(words) - size + 1)
        )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _pieces(text: str) -> Iterator[tuple[str, ...]]:
    """Word sequences of a text that no message may contain; none for a single short word."""
    words = _words(text)
    if len(words) < 2 and len(text.strip()) < 8:
        return
    size = min(_WINDOW, len(words))
    yield from (tuple(words[i : i + size]) for i in range(len(words) - size + 1) if size)


# --- cleaning ---------------------------------------------------------------------------------------------------------


def clean(store: Store, keys: Collection[str], tell: Callable[[str], None]) -> None:
    """Remove the texts of these images of gated rows from ledgers and PNG files, and report how many.

    PNG files come first: ledger lines can be rebuilt from them, but not the reverse.
    """
    if not keys:
        return
    images = {key for key in keys if key in store.images and not _is_clean(store.images[key])}
    scores = {key for key, record in store.scores.items() if record["image"] in keys and record.get(FIELDS, "{}") != "{}"}
    if not images and not scores:
        return
    try:
        sizes = {key: _rechunked(path) for key in images if (path := store.image_path(key)).is_file()}
        count, waiting = _rewritten(store, images, scores, sizes)
    except OSError as error:
        raise SrbenchError(f"{store.root}: texts of gated rows cannot be taken out ({error.strerror})", "Mend it.") from error
    cleaned = {key: _cleaned(store.images[key], sizes) for key in images}
    without = {key: _score_cleaned(store.scores[key]) for key in scores}
    store.refresh()  # lines are in other places now
    store.images.update(cleaned)
    store.scores.update(without)
    if count or sizes:
        tell(f"rows of gated suites are kept by id and hash alone: texts of {max(count, len(sizes))} records were taken out")
    for path in waiting:
        tell(f"{path.name} belongs to a process that is at work: its texts are taken out at a later start")


def _is_clean(record: Record) -> bool:
    return bool(record.get(GATED)) and TEXT not in record


def _cleaned(record: Record, sizes: dict[str, int]) -> Record:
    size = {"bytes": sizes[record["key"]]} if record["key"] in sizes else {}
    return {**without_text(record), **size, MARKED: record.get(MARKED, 0) or time.time_ns()}


def _score_cleaned(record: Record) -> Record:
    rest = {name: value for name, value in record.items() if name != FIELDS}
    return rest | fields_kept(record.get(FIELDS, "{}"), gated=True)


def _rechunked(path: Path) -> int:
    """Rewrite a PNG with the same pixels and a record without text; returns its size in bytes.

    One that cannot be read may hold a text and is deleted; the image is sampled again.
    """
    try:
        with Image.open(path) as image:
            image.load()
            text = canonical(without_text(json.loads(image.text[CHUNK])))  # type: ignore[attr-defined]  # PNGs have it
            chunk = PngImagePlugin.PngInfo()
            chunk.add_text(CHUNK, text)
            with written_whole(path) as handle:
                image.save(handle, "PNG", pnginfo=chunk, compress_level=1)
                return handle.tell()
    except (SyntaxError, ValueError, KeyError, TypeError, AttributeError, UnidentifiedImageError):
        path.unlink()
        return 0


def _rewritten(store: Store, images: set[str], scores: set[str], sizes: dict[str, int]) -> tuple[int, list[Path]]:
    """Rewrite the ledger files that hold any of these records.

    Returns the number of changed lines, and the files that were left alone because their process is running.
    """
    count, waiting = 0, []
    for path in sorted((store.root / "ledger").glob("*.jsonl")):
        if not path.is_file():
            continue
        of_scores = path.name.startswith("scores-")
        wanted = scores if of_scores else images

        def change(record: Record, wanted: set[str] = wanted, of_scores: bool = of_scores) -> Record | None:
            if record.get("score_key" if of_scores else "key") not in wanted:
                return None
            return _score_cleaned(record) if of_scores else _cleaned(record, sizes)

        data = path.read_bytes()
        lines, changed = _changed(data, change)
        if changed and at_work(path):
            waiting.append(path)
        elif changed:
            _replace(path, lines, len(data), change)
            count += changed
    return count, waiting


def _changed(data: bytes, change: Callable[[Record], Record | None]) -> tuple[bytes, int]:
    """A ledger's lines with `change` applied, and how many changed; lines that are not records stay as they are."""
    lines, count = data.split(b"\n"), 0
    for i, line in enumerate(lines):
        try:
            record = json.loads(line) if line.startswith(b"{") else None
            new = change(record) if isinstance(record, dict) else None
        except (ValueError, RecursionError):
            continue
        if new is not None:
            lines[i], count = canonical(new).encode("utf-8", "surrogatepass"), count + 1
    return b"\n".join(lines), count


def _replace(path: Path, lines: bytes, before: int, change: Callable[[Record], Record | None]) -> None:
    """Replace a ledger by its changed lines.

    before: size of the old file in bytes when it was read; lines that another process appended since are carried over.
    """
    with path.open("rb") as old:
        write_atomic(path, lines)
        old.seek(before)
        late = old.read()
    if late:
        with path.open("ab") as new:
            new.write(_changed(late, change)[0])
            new.flush()
            os.fsync(new.fileno())


def texts_of(rows: Iterable[Row]) -> Iterator[str | None]:
    """Every text of some rows."""
    for row in rows:
        yield from (row.prompt, row.negative_prompt, row.reference, row.target)


class Hushed:
    """A reporter that quotes no gated row."""

    def __init__(self, reporter: Any, hush: Hush) -> None:
        self._reporter, self._hush = reporter, hush

    def line(self, text: str) -> None:
        self._reporter.line(self._hush(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reporter, name)
