"""The store: images as PNG files named by their key, and append-only ledgers that can be rebuilt from them.

An image is on disk, complete and synced, before its ledger line is written. A process that dies at any moment
loses at most the batch it was sampling.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from srbench.engine.keys import KEY_VERSION, canonical
from srbench.errors import SrbenchError, UsageError
from srbench.files import fsync_folder, write_atomic, written_whole
from srbench.results.sensitive import DROPPED, GATED, SENSITIVE, merged

CHUNK = "srbench"
Record = dict[str, Any]


def pixel_sha(pixels: np.ndarray) -> str:
    """sha256 of an uint8 RGB image (H, W, 3): shape and bytes."""
    return hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


class Ledger:
    """Append-only JSON lines, one file per process; a torn last line is ignored when read."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.path = folder / f"{kind}-{time.time_ns():x}-{os.getpid()}.jsonl"

    def read(self, warn: Callable[[str], None]) -> Iterator[Record]:
        """Every complete line of every file, oldest file first."""
        for path in sorted(self.folder.glob(f"{self.kind}-*.jsonl")):
            lines = path.read_bytes().split(b"\n")
            for number, line in enumerate(lines, 1):
                if not line:
                    continue
                try:
                    yield json.loads(line)
                except (json.JSONDecodeError, UnicodeDecodeError):
                    if number < len(lines):
                        warn(f"{path.name}: line {number} is damaged and was left out")

    def append(self, records: Iterable[Record]) -> None:
        """Write and sync lines."""
        text = "".join(canonical(record) + "\n" for record in records)
        if not text:
            return
        new = not self.path.exists()
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        if new:
            fsync_folder(self.folder)


class Store:
    """Images and scores by content key, under `<results>/store`."""

    def __init__(self, root: Path, warn: Callable[[str], None] = lambda line: None) -> None:
        self.root, self.warn = root, warn
        self._open()
        self._image_ledger = Ledger(root / "ledger", "images")
        self._score_ledger = Ledger(root / "ledger", "scores")
        self.images: dict[str, Record] = {}
        self.scores: dict[str, Record] = {}
        self._read()

    @classmethod
    def peek(cls, root: Path, warn: Callable[[str], None] = lambda line: None) -> Store:
        """The store for reading only: nothing is made, moved or rebuilt on disk."""
        store = cls.__new__(cls)
        store.root, store.warn = root, warn
        store.images, store.scores, store._harmless = {}, {}, frozenset()
        if (root / "version").exists():
            store._check_version(root / "version")
        for record in Ledger(root / "ledger", "images").read(warn):
            store.images[record["key"]] = merged(store.images.get(record["key"]), record)
        for key in [k for k, r in store.images.items() if not r.get(DROPPED) and not store.image_path(k).exists()]:
            del store.images[key]
        for record in Ledger(root / "ledger", "scores").read(warn):
            store.scores[record["score_key"]] = record
        return store

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Raises `SrbenchError` where the disk is full or not writable."""
        try:
            yield
        except OSError as error:
            raise SrbenchError(
                f"cannot write to {self.root} ({error.strerror})", "Free some space, then run the same command again."
            ) from error

    def _open(self) -> None:
        """Make the folders. Raises `UsageError` where that can not be, or where a newer srbench wrote here."""
        try:
            for name in ("images", "ledger"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            version_file = self.root / "version"
            if not version_file.exists():
                write_atomic(version_file, f"{KEY_VERSION}\n".encode())
            if not os.access(self.root / "ledger", os.W_OK) or not os.access(self.root / "images", os.W_OK):
                raise PermissionError(13, "not writable", str(self.root))
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(f"{self.root}: a file is in the way of the results folder", "Choose another --out.") from error
        except OSError as error:
            raise UsageError(
                f"{self.root}: cannot write here ({error.strerror})", "Choose another --out, or mend the rights or the space."
            ) from error
        self._check_version(version_file)

    def _check_version(self, path: Path) -> None:
        text = path.read_text().strip()
        if not text.isdigit():
            raise UsageError(f"{path}: expected a key version, found '{text[:20]}'", "Restore the file, or choose another --out.")
        if int(text) > KEY_VERSION:
            raise UsageError(
                f"{self.root}: written by a newer srbench (key version {text}, this one knows {KEY_VERSION})",
                "Update srbench, or choose another --out.",
            )

    def refresh(self) -> None:
        """Read what other processes have written meanwhile."""
        self.images.clear()
        self.scores.clear()
        self._read()

    def image_path(self, key: str) -> Path:
        """Where the PNG of `key` is, or would be."""
        return self.root / "images" / key[:2] / f"{key}.png"

    def _read(self) -> None:
        for record in self._image_ledger.read(self.warn):
            self.images[record["key"]] = merged(self.images.get(record["key"]), record)
        for record in self._score_ledger.read(self.warn):
            self.scores[record["score_key"]] = record
        flags = (SENSITIVE, DROPPED, GATED)
        self._harmless = frozenset(key for key, record in self.images.items() if not any(map(record.get, flags)))
        self._reconcile()

    def harmless(self, key: str) -> bool:
        """Whether a ledger line speaks of a picture, and none calls it sensitive or of a gated row."""
        record = self.images.get(key, {})
        return key in self._harmless and not any(map(record.get, (SENSITIVE, DROPPED, GATED)))

    def on_disk(self) -> dict[str, Path]:
        """Pictures that lie in the store, by key."""
        return {path.stem: path for path in (self.root / "images").glob("*/*.png") if not path.name.startswith(".")}

    def _reconcile(self) -> None:
        """Make the image index true of the files: rebuild missing lines, set damaged files aside."""
        on_disk = self.on_disk()
        rebuilt = []
        for key, path in on_disk.items():
            known = self.images.get(key)
            if known is not None and (known.get(DROPPED) or path.stat().st_size == known["bytes"]):
                continue  # what was dropped and is still there, a sweep deletes
            record = self._rebuild(key, path)
            if record is None:
                self.images.pop(key, None)
            else:
                self.images[key] = {**merged(known, record), "bytes": record["bytes"]}
                rebuilt.append(self.images[key])
        for key in [k for k, r in self.images.items() if k not in on_disk and not r.get("dropped")]:
            self.warn(f"image {key[:12]} is in the ledger but not on disk; it will be sampled again")
            del self.images[key]
        self._image_ledger.append(rebuilt)

    def _rebuild(self, key: str, path: Path) -> Record | None:
        """The record inside a PNG, or None where the file is damaged; a damaged file is moved aside."""
        try:
            with Image.open(path) as image:
                image.load()
                record = json.loads(image.text[CHUNK])  # type: ignore[attr-defined]
            if record["key"] == key:
                return {**record, "bytes": path.stat().st_size}
            reason = "holds another image's key"
        except (OSError, UnidentifiedImageError, SyntaxError, KeyError, json.JSONDecodeError) as error:
            reason = f"is damaged ({type(error).__name__})"
        aside = self.root / "damaged"
        aside.mkdir(exist_ok=True)
        os.replace(path, aside / path.name)
        self.warn(f"image {key[:12]} {reason}; moved to {aside.name}/, it will be sampled again")
        return None

    def put_images(self, items: Iterable[tuple[str, np.ndarray, Record]]) -> list[Record]:
        """Write a batch of (key, uint8 RGB pixels (H, W, 3), record): files first, then the ledger.

        Raises `SrbenchError` where the disk is full or not writable; what was written before stays.
        """
        records = []
        with self._disk():
            for key, pixels, extra in items:
                records.append(self._put(key, pixels, extra))
            for folder in {self.image_path(record["key"]).parent for record in records}:
                fsync_folder(folder)
            self._image_ledger.append(records)
        self.images.update({record["key"]: record for record in records})
        return records

    def _put(self, key: str, pixels: np.ndarray, extra: Record) -> Record:
        record = {**extra, "key": key, "pixel_sha": pixel_sha(pixels)}
        path = self.image_path(key)
        path.parent.mkdir(exist_ok=True)
        chunk = PngImagePlugin.PngInfo()
        chunk.add_text(CHUNK, canonical(record))
        with written_whole(path) as handle:
            Image.fromarray(pixels).save(handle, "PNG", pnginfo=chunk, compress_level=1)
            size = handle.tell()
        return {**record, "bytes": size}

    def note(self, records: Iterable[Record]) -> None:
        """Remember pictures that lie elsewhere, whose scores are kept. Raises `SrbenchError` where the disk is full."""
        new = [record for record in records if record["key"] not in self.images]
        with self._disk():
            self._image_ledger.append(new)
        self.images.update({record["key"]: record for record in new})

    def pixels(self, key: str) -> np.ndarray:
        """The image as uint8 RGB (H, W, 3). Raises `SrbenchError` where it was dropped or can not be read."""
        try:
            with Image.open(self.image_path(key)) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError) as error:
            why = f"image {key[:12]} cannot be read ({type(error).__name__})"
            raise SrbenchError(why, "Run the same command again.") from error

    def put_scores(self, records: list[Record]) -> None:
        """Append score records (each with its `score_key`)."""
        with self._disk():
            self._score_ledger.append(records)
        self.scores.update({record["score_key"]: record for record in records})

    def feature_path(self, identity: str, pixels: str) -> Path:
        """Where one scorer's vector of an image with these pixels is, or would be."""
        return self.root / "features" / identity[:16] / pixels[:2] / f"{pixels}.npy"

    def put_feature(self, identity: str, pixels: str, vector: np.ndarray) -> None:
        """Keep a vector (D,). Raises `SrbenchError` where the disk is full or not writable."""
        path, data = self.feature_path(identity, pixels), io.BytesIO()
        np.save(data, vector)
        with self._disk():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data.getvalue())
            fsync_folder(path.parent)

    def feature(self, identity: str, pixels: str) -> np.ndarray | None:
        """The vector (D,), or None where there is none or its file is damaged."""
        try:
            return np.load(self.feature_path(identity, pixels), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None

    def restate(self, records: Iterable[Record]) -> None:
        """Append new lines about pictures that are known. Raises `SrbenchError` where the disk is full or not writable."""
        new = list(records)
        with self._disk():
            self._image_ledger.append(new)
        self.images.update({record["key"]: record for record in new})

    def drop(self, keys: Iterable[str]) -> dict[str, str]:
        """Delete pictures whose scores are kept; their records and pixel hashes stay. Path -> why it could not be deleted.

        The ledger says so first: where a kill comes between, the next start finds the file of a dropped picture and deletes it.
        Raises `SrbenchError` where the ledger cannot be written; then nothing is deleted.
        """
        known = [key for key in keys if key in self.images]
        self.restate([{**self.images[key], DROPPED: True} for key in known if not self.images[key].get(DROPPED)])
        stuck, emptied = {}, set()
        for path in map(self.image_path, known):
            try:
                path.unlink(missing_ok=True)
                emptied.add(path.parent)
            except OSError as error:
                stuck[str(path)] = error.strerror or type(error).__name__
        for folder in sorted(emptied):
            if folder.is_dir():
                fsync_folder(folder)
        return stuck

    def dropped(self, key: str) -> bool:
        """Whether the picture of `key` was scored and deleted."""
        return bool(self.images.get(key, {}).get("dropped"))
