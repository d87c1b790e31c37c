"""A contact sheet: one line per prompt row, one column per method, images of a row from the same noise, with captions."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from srbench.analysis.origin import SHOWN, ground_text
from srbench.analysis.records import ImageRecord
from srbench.analysis.results import name_of
from srbench.errors import MissingError, UsageError
from srbench.files import kind_of_path, printable
from srbench.hashing import digest
from srbench.outputs import SHEET, write_file
from srbench.report.embed import Album
from srbench.report.gallery import REFERENCE, place_of, spread
from srbench.report.sources import Source, sources
from srbench.results.run_files import LOCAL, read_run
from srbench.results.store import Store
from srbench.results.stored import from_store

ROWS = 24
"""Rows of a sheet at most, divided among its concepts and suites and evenly spread over each."""
SIDE, CAPTION, GAP, FONT = 192, 260, 6, 13
"""In pixels: side of an image, width of a caption, gap between images, height of the font."""
LINES = 8
"""Of a caption at most; they fit beside an image."""
DRAWN = 2000
"""Characters of a text that are drawn at most."""
INK, PAPER, BLANK = "#202020", "#ffffff", "#dddddd"


@dataclass(frozen=True)
class Tile:
    """One method's image of a row, or why there is none."""

    data: str
    """Data URI; empty where there is none."""
    why: str


@dataclass(frozen=True)
class Strip:
    """A row with its images by method."""

    caption: str
    tiles: dict[str, Tile]


# --- which rows -------------------------------------------------------------------------------------------------------


def of_run(folder: Path, run: str, store: Store) -> list[Strip]:
    """Rows of a local run, evenly spread. Raises `UsageError` for an unknown run."""
    path = folder / "runs" / run / LOCAL
    if "/" in run or kind_of_path(path) == "nothing":
        raise UsageError(f"{folder}: no run '{run}'", "Give the name of a folder under runs/.")
    data = read_run(path, store.warn)
    header = {name: value for name, value in data.items() if name != "cells"}
    return _strips([Source(entry["result"], entry, header) for entry in data["cells"]], store, lambda row: True, ROWS)


def of_rows(folder: Path, ids: Sequence[str], store: Store, warn: Callable[[str], None]) -> list[Strip]:
    """Rows by id with every method that has them, from the newest local runs."""
    with_rows = [source for source in sources(folder, warn) if "rows" in source.entry]
    return _strips(with_rows, store, lambda row: row["id"] in ids, len(ids) * len(with_rows))


def _strips(sources: Sequence[Source], store: Store, wanted: Callable[[dict[str, Any]], bool], most: int) -> list[Strip]:
    places: dict[tuple[str, ...], list[Source]] = {}
    for source in sources:
        if any(map(wanted, source.entry["rows"])):
            places.setdefault(place_of(source.cell), []).append(source)
    titles = _titles(places)
    return [
        strip for place, members in places.items()
        for strip in _of_place(members, store, wanted, max(1, most // len(places)), titles[place])
    ]  # fmt: skip


def _titles(places: Mapping[tuple[str, ...], Sequence[Source]]) -> dict[tuple[str, ...], str]:
    """Concept and suite of each place; where these are ambiguous, also backbone, seed, and the rows' hash."""
    first = {place: members[0].cell for place, members in places.items()}
    plain = {place: f"{cell.concept} × {cell.suite}" for place, cell in first.items()}
    count = Counter(plain.values())
    return {
        place: text if count[text] == 1 else f"{text}\n{ground_text(first[place])}\nrows {first[place].rows_sha[:SHOWN]}"
        for place, text in plain.items()
    }  # fmt: skip


def _of_place(
    cells: Sequence[Source], store: Store, wanted: Callable[[dict[str, Any]], bool], most: int, title: str
) -> list[Strip]:
    """Strips of comparable cells. Rows of two cells are the same where id, prompt and seed agree."""
    rows: dict[str, list[tuple[Source, dict[str, Any]]]] = {}
    for source in cells:
        for entry in filter(wanted, source.entry["rows"]):
            row = entry.get("row", {})
            rows.setdefault(digest([entry["id"], row.get("prompt"), row.get("seed")]), []).append((source, entry))
    album = Album(store)
    return [_strip(entries, album, title) for entries in spread(list(rows.values()), most)]


def _strip(entries: Sequence[tuple[Source, dict[str, Any]]], album: Album, title: str) -> Strip:
    _, first = entries[0]
    tiles = {}
    beside = next(((source, entry) for source, entry in entries if "reference" in entry), None)
    if beside is not None:
        tiles[REFERENCE] = _tile(beside[0], beside[1]["reference"], album)
    tiles |= {name_of(source.cell): _tile(source, entry.get("image"), album) for source, entry in entries}
    # Prompts of gated suites are not stored in run files, and must not appear in images.
    prompt = first["row"].get("prompt", "") if "row" in first else "(gated: prompt not stored)"
    return Strip(f"{title}\n{first['id']}\n{prompt}", tiles)


def _tile(source: Source, key: str | None, album: Album) -> Tile:
    stored = album.store.images.get(key or "")
    record: ImageRecord | None = from_store(str(key), stored, {}, {}) if stored is not None else None
    return Tile(*album.data(record, source))


# --- drawing ----------------------------------------------------------------------------------------------------------


def write(strips: Sequence[Strip], path: Path) -> int:
    """Draw a sheet as PNG; returns the number of images on it.

    Raises `MissingError` where there is no image that may be shown, `UsageError` where the file cannot be written.
    """
    tiles = [tile for strip in strips for tile in strip.tiles.values()]
    shown = sum(bool(tile.data) for tile in tiles)
    if not shown:
        why = next((tile.why for tile in tiles), "no rows")
        raise MissingError(f"{path}: no picture to show ({why})", "Images of sensitive runs are there only with --keep-images.")
    data, mark = io.BytesIO(), PngInfo()
    mark.add_text("Software", "srbench sheet")
    sheet(strips).save(data, "PNG", optimize=True, pnginfo=mark)
    write_file(path, data.getvalue(), SHEET)
    return shown


def sheet(strips: Sequence[Strip]) -> Image.Image:
    """The sheet as an image: a line of names, then one line per row."""
    columns = list(dict.fromkeys(name for strip in strips for name in strip.tiles))
    font = _font()
    names = [_wrapped(name, SIDE, font, 3) for name in columns]
    head = GAP + (FONT + 4) * max(len(name.splitlines()) for name in names)
    size = (CAPTION + (SIDE + GAP) * len(columns), head + (SIDE + GAP) * len(strips))
    image = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(image)
    for column, name in enumerate(names):
        pen.text((CAPTION + (SIDE + GAP) * column, GAP // 2), name, INK, font)
    for number, strip in enumerate(strips):
        top = head + (SIDE + GAP) * number
        pen.text((GAP, top), _wrapped(strip.caption, CAPTION - 2 * GAP, font, LINES), INK, font)
        for column, name in enumerate(columns):
            tile = strip.tiles.get(name)
            if tile is not None or name != REFERENCE:  # a retain row has none
                image.paste(_picture(tile, font), (CAPTION + (SIDE + GAP) * column, top))
    return image


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which comes with matplotlib and covers most letters of prompts."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", FONT)


def _picture(tile: Tile | None, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """(SIDE, SIDE) at most, small images enlarged by a whole factor; or a grey field with the reason for no image."""
    if tile is not None and tile.data:
        image = Image.open(io.BytesIO(base64.b64decode(tile.data.partition(",")[2]))).convert("RGB")
        longest = max(image.size)
        scale = SIDE // longest if longest <= SIDE else SIDE / longest
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, Image.Resampling.NEAREST if longest <= SIDE else Image.Resampling.LANCZOS)
    field = Image.new("RGB", (SIDE, SIDE), BLANK)
    text = "not in this run" if tile is None else tile.why
    ImageDraw.Draw(field).text((GAP, GAP), _wrapped(text, SIDE - 2 * GAP, font, LINES), INK, font)
    return field


def _wrapped(text: str, width: int, font: Any, most: int) -> str:
    """Text wrapped to `width` pixels and `most` lines; long words are broken, and text that is cut ends in three dots."""
    lines: list[str] = []
    for part in map(printable, text[:DRAWN].split("\n")):
        line = ""
        for word in part.split():
            for piece in _pieces(word, width, font):
                longer = f"{line} {piece}".strip()
                if font.getlength(longer) > width:
                    lines.append(line)
                    longer = piece
                line = longer
        lines.append(line)
    return "\n".join(lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][:-3]}..."])


def _pieces(word: str, width: int, font: Any) -> list[str]:
    pieces = [""]
    for letter in word:
        if font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces
