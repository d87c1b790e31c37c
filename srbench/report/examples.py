"""A few rows with images, stored beside committed summaries, so that the report of a fresh clone shows failures.

Sensitive and gated rows are never among them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from srbench.errors import UsageError
from srbench.files import write_atomic
from srbench.report.gallery import NAMED, GalleryRow, place_of
from srbench.report.sources import Source
from srbench.results.records import LeftOut, lines

NAME = "examples.jsonl"
DATA = re.compile(r"(data:image/(webp);base64,[A-Za-z0-9+/]+=*)?")
ROW = TypeAdapter(GalleryRow)


def read(folder: Path, sources: Sequence[Source], warn: Callable[[str], None]) -> list[GalleryRow]:
    """Examples beside the committed summaries, without images whose cell and run are not in `sources`."""
    rows, foreign = [], 0
    places = {(place_of(each.cell)[:NAMED], each.cell.run) for each in sources if each.cell.source == "committed"}
    for path in sorted(folder.glob(f"*/{NAME}")):
        left_out = LeftOut("line")
        for row in (replace(each, place=each.place[:NAMED]) for each in _rows(path, left_out, warn)):
            pictures = tuple(each for each in row.pictures if (row.place, each.run) in places and DATA.fullmatch(each.data))
            foreign += len(row.pictures) - len(pictures)
            if pictures and not any(each.sensitive for each in row.pictures):
                rows.append(replace(row, pictures=pictures))
        left_out.tell(f"{path.parent.name}/{path.name}", warn)
    if foreign:
        warn(f"{foreign} example pictures are of other runs than the summaries and were left out")
    return rows


def _rows(path: Path, left_out: LeftOut, warn: Callable[[str], None]) -> Iterator[GalleryRow]:
    """A file's rows; damaged lines are left out, and so is a file that cannot be read."""
    try:
        for number, _, line in lines(path):
            try:
                yield ROW.validate_json(line or b"")
            except ValidationError:
                left_out.add(f"line {number}", "not a row of examples")
    except UsageError as error:
        warn(error.line)


def write(path: Path, rows: Iterable[GalleryRow]) -> int:
    """Write one line per row; returns their number. Rows that are sensitive, gated or without an image are left out."""
    chosen = [row for row in rows if row.embedded and not row.gated and not any(each.sensitive for each in row.pictures)]
    lines = [json.dumps(asdict(row) | {"place": row.place[:NAMED]}, ensure_ascii=False, allow_nan=False) for row in chosen]
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
    return len(chosen)
