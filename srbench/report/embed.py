"""Images as data URIs inside the page: scaled and compressed; sensitive ones only where the user kept them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from srbench.analysis.records import ImageRecord
from srbench.errors import SrbenchError
from srbench.report.sources import Source
from srbench.results import strips
from srbench.results.marks import KEPT, SENSITIVE
from srbench.results.store import Store, pixel_sha
from srbench.scoring.pictures import read

MAX_SIDE_PX, MAX_BYTES = 256, 18_000
"""Of one image; 500 of them then stay below 12 MB as base64."""
QUALITIES = (82, 65, 45, 25)
"""Of lossy WebP, tried in turn until an image is small enough."""


@dataclass(frozen=True)
class Album:
    """The images of a results folder."""

    store: Store
    most_bytes: int = MAX_BYTES
    """Of one image."""

    def sensitive(self, image: ImageRecord | None, source: Source) -> bool:
        """Whether an image is blurred on the page: its cell is sensitive, or its own record says that its row is."""
        return source.sensitive or bool(image is not None and self.store.images.get(image.key, {}).get(SENSITIVE))

    def data(self, image: ImageRecord | None, source: Source) -> tuple[str, str]:
        """An image as data URI and an empty string, or an empty string and the reason. source: of the image's cell."""
        if image is None or not image.key:
            return "", "no image"
        if source.sensitive and not source.kept:
            return "", "sensitive: images were not kept"
        record = self.store.images.get(image.key, {})
        if record.get(SENSITIVE) and not (record.get(KEPT) and source.kept):
            return "", "sensitive: images were not kept"
        try:
            if record.get("elsewhere"):
                return packed(_elsewhere(str(record["elsewhere"]), image.pixel_sha, source), self.most_bytes), ""
            if self.store.dropped(image.key):
                return "", "the image was scored and dropped"
            return packed(self.store.pixels(image.key), self.most_bytes), ""
        except SrbenchError as error:
            return "", error.message


    @cached_property
    def filmed(self) -> frozenset[str]:
        """Keys of the images that have a strip of their steps."""
        return frozenset(key for key, _ in strips.lying(self.store))

    def strip(self, image: ImageRecord | None, source: Source) -> tuple[strips.Strip, str] | None:
        """An image's steps: what they show, and a data URI. None where there are none; a sensitive image never has any."""
        if image is None or image.key not in self.filmed or self.sensitive(image, source):
            return None
        found = strips.get(self.store, image.key)
        return None if found is None else (found.strip, _uri(found.data))


def _elsewhere(name: str, sha: str, source: Source) -> np.ndarray:
    """An external image from the path where it was scored. Raises `SrbenchError` where it is missing or has changed."""
    folder, _, inside = name.partition("/")
    roots = [source.entry.get("elsewhere", {}).get("folder"), source.run.get("request", {}).get("reference")]
    for root in (Path(root) for root in roots if root):
        path = root / inside
        if path.is_file():
            pixels = read(path).pixels
            if pixel_sha(pixels) == sha:
                return pixels
    raise SrbenchError(f"made elsewhere: {folder}/{inside}")


def packed(pixels: np.ndarray, most_bytes: int = MAX_BYTES) -> str:
    """uint8 RGB (H, W, 3) as data URI, scaled down to at most 256 px a side; lossless where that is small enough."""
    image = Image.fromarray(pixels)
    if max(image.size) > MAX_SIDE_PX:
        image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    data = _webp(image, lossless=True)
    for quality in QUALITIES:
        if len(data) <= most_bytes:
            break
        data = _webp(image, quality=quality)
    return _uri(data)


def _uri(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"


def _webp(image: Image.Image, **options: int | bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=2, **options)
    return buffer.getvalue()
