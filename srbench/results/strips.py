"""Strips: what a picture looked like at its steps, as one small WebP beside it. Never of a sensitive or gated row.

A strip belongs to the pixels that it was made with; its own head says which. It has no key of its own, no number depends on it,
and one that is lost is made again by the run that asks for it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from srbench.errors import UsageError
from srbench.files import kind_of_path, parse_json, read_bytes
from srbench.hashing import canonical
from srbench.results.marks import DROPPED, GATED, SENSITIVE
from srbench.results.records import Record, entries
from srbench.rules import COUNT, HASH, Misfit, check, list_of

if TYPE_CHECKING:
    from srbench.results.store import Store

SIDE_PX, MOST_FRAMES = 64, 24
"""Of a frame at most, and of a strip."""
SMALL = 30_000
"""Bytes up to which a strip is lossless; a report then stays below a few megabytes."""
QUALITIES = (90, 75, 50)
"""Of lossy WebP, tried in turn until a strip is small enough."""
LARGEST = 1_000_000
"""Bytes of a file that is read."""
SAID = 0x010E
"""Exif's ImageDescription, which holds the head."""
_HEAD = {"key": HASH, "pixel_sha": HASH, "steps": COUNT, "frames": list_of(COUNT), "acted": list_of(COUNT)}


@dataclass(frozen=True)
class Strip:
    """What a strip shows; frames stand side by side and are equally large."""

    frames: tuple[int, ...]
    """The steps that are shown, from 1, in order; the last one is the picture itself."""
    steps: int
    """Steps in all."""
    acted: tuple[int, ...] = ()
    """The steps, from 1, at which the denoiser read another text than the prompt's own."""


@dataclass(frozen=True)
class Stored:
    """A strip as it lies in the store."""

    strip: Strip
    data: bytes
    """WebP."""


def harmless(record: Record) -> bool:
    """Whether a picture with this record may have a strip."""
    return not any(record.get(mark) for mark in (SENSITIVE, GATED, DROPPED))


def put(store: Store, key: str, strip: Strip, pixels: np.ndarray) -> None:
    """Write the strip of a stored picture. pixels: uint8 RGB (h, frames * w, 3).

    Raises `SrbenchError` where the disk is full or not writable.
    """
    about = {"frames": list(strip.frames), "steps": strip.steps, "acted": list(strip.acted)}
    head = canonical({**about, "key": key, "pixel_sha": store.images[key]["pixel_sha"]})
    store.put_strip(key, _packed(Image.fromarray(pixels), head))


def get(store: Store, key: str) -> Stored | None:
    """The strip of a stored picture; None where there is none, it is damaged or of other pixels, or may not be there."""
    path, record = store.strip_path(key), store.images.get(key)
    if record is None or not harmless(record) or kind_of_path(path) != "file":
        return None
    try:
        data = read_bytes(path, limit=LARGEST)
        head, size = _head(data)
        check(head, _HEAD, {})
    except (Misfit, UsageError):
        return None
    strip = Strip(tuple(head["frames"]), head["steps"], tuple(head["acted"]))
    if head["key"] != key or head["pixel_sha"] != record["pixel_sha"] or not _fits(strip, size):
        return None
    return Stored(strip, data)


def lying(store: Store) -> Iterator[tuple[str, Path]]:
    """Key and path of every strip on the disk, by file name alone."""
    for folder in entries(store.root / "steps"):
        if kind_of_path(folder) == "folder":
            for path in entries(folder):
                if path.suffix == ".webp" and len(path.stem) == 64 and path.stem[:2] == folder.name:
                    yield path.stem, path


def stray(store: Store) -> list[Path]:
    """The strips whose pictures were marked as sensitive, or deleted, after they were made: they are deleted, too."""
    return [path for key, path in lying(store) if not harmless(store.images.get(key, {}))]


def _fits(strip: Strip, size: tuple[int, int]) -> bool:
    """Whether frames and picture go together. size: width and height in px."""
    count = len(strip.frames)
    ordered = list(strip.frames) == sorted(set(strip.frames)) and all(1 <= each <= strip.steps for each in strip.frames)
    return 0 < count <= MOST_FRAMES and ordered and size[0] % count == 0 and max(size[0] // count, size[1]) <= SIDE_PX


def _head(data: bytes) -> tuple[Record, tuple[int, int]]:
    """What a strip says of itself, and its width and height in px. Raises `Misfit` or `UsageError` for another file."""
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
            said = image.getexif().get(SAID)
            if max(image.size) <= SIDE_PX * MOST_FRAMES:
                image.load()
            return parse_json(str(said), "a strip"), image.size
    except UsageError:
        raise
    except Exception as error:  # Pillow's decoder may raise anything for a damaged file
        raise Misfit(f"is damaged ({type(error).__name__})") from error


def _packed(image: Image.Image, head: str) -> bytes:
    exif = Image.Exif()
    exif[SAID] = head
    data = _webp(image, exif, lossless=True)
    for quality in QUALITIES:
        if len(data) <= SMALL:
            break
        data = _webp(image, exif, quality=quality)
    return data


def _webp(image: Image.Image, exif: Image.Exif, **options: int | bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=4, exif=exif, **options)
    return buffer.getvalue()
