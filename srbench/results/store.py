"""The store: images as PNG files named by their key, and append-only ledgers that can be rebuilt from them.

An image is on disk, complete and synced, before its ledger line is written. A process that dies at any moment
loses at most the batch it was sampling. Images are checked against the hash of their pixels when they are read, records by
`results/records.py`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import stat
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from srbench.errors import SrbenchError, UsageError
from srbench.files import (
    fsync_file,
    fsync_folder,
    kind_of_path,
    read_bytes,
    temporary_for,
    this_host,
    write_atomic,
    written_whole,
)
from srbench.hashing import canonical
from srbench.results import folding, leftovers, records
from srbench.results.index import Lines
from srbench.results.keys import KEY_VERSION
from srbench.results.marks import DROPPED, GATED, SENSITIVE, merged
from srbench.results.records import Record, Warn
from srbench.rules import Misfit, check

CHUNK = "srbench"
MAX_PIXELS = 2**26
"""Of a stored image: 8192 x 8192. A larger one is not opened."""
MAX_VECTOR = 2**26
"""Largest file of a stored vector in bytes."""
FULL = (errno.ENOSPC, errno.EDQUOT)
_VERSION = re.compile(r"[0-9]{1,9}")
_PICTURE = re.compile(r"([0-9a-f]{2})[0-9a-f]{62}\.png")


def pixel_sha(pixels: np.ndarray) -> str:
    """sha256 of an uint8 RGB image (H, W, 3): shape and bytes."""
    return hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def once(warn: Warn) -> Warn:
    """A `warn` that passes each line on only once."""
    shown: set[str] = set()

    def tell(line: str) -> None:
        if line not in shown:
            shown.add(line)
            warn(line)

    return tell


def picture(path: Path) -> tuple[np.ndarray, Record]:
    """A stored PNG's pixels, uint8 RGB (H, W, 3), and the record inside. Raises `Misfit` where the file is damaged."""
    kind = kind_of_path(path)
    if kind != "file":
        raise Misfit("is not there" if kind == "nothing" else f"is a {kind}")
    try:
        with warnings.catch_warnings(), Image.open(path, formats=("PNG",)) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if image.width * image.height > MAX_PIXELS:
                raise Misfit(f"is said to have {image.width} x {image.height} px")
            image.load()
            pixels, text = np.asarray(image.convert("RGB")), image.text[CHUNK]  # type: ignore[attr-defined]  # PNGs have it
    except KeyError as error:
        raise Misfit("holds no record") from error
    except Misfit:
        raise
    except Exception as error:  # Pillow's decoder may raise anything for a damaged file
        raise Misfit(f"is damaged ({type(error).__name__})") from error
    try:
        record = records.parsed(text.encode("utf-8", "surrogatepass"))
        check(record, records.IN_PICTURE, records.MORE_OF_IMAGE)
    except Misfit as error:
        raise Misfit(f"holds a damaged record ({error})") from error
    if pixel_sha(pixels) != record["pixel_sha"]:
        raise Misfit("holds other pixels than its record says")
    return pixels, record


EACH, BATCH, NONE = "each", "batch", "none"
DURABLE = (EACH, BATCH, NONE)
"""When images are synced to the disk: one by one; all of a batch at once, before their ledger lines; by the system alone."""


class Ledger:
    """Append-only JSON lines, one file per process; a torn last line is ignored when read."""

    def __init__(self, folder: Path, kind: str, sync: bool = True) -> None:
        self.folder, self.kind, self.sync = folder, kind, sync
        self.path = self._new()
        self._exists = False

    def _new(self) -> Path:
        """A new file's path. Containers that share a folder may share host, process id and time; the random part differs."""
        name = f"{self.kind}-{time.time_ns():x}-{this_host()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        return self.folder / name

    def append(self, records: Iterable[Record]) -> None:
        """Write and sync lines."""
        text = "".join(canonical(record) + "\n" for record in records)
        if not text:
            return
        try:
            kept = self._write(text.encode())
        except OSError:
            self.path, self._exists = self._new(), False  # the next line must not follow a torn one
            raise
        self._exists = True
        if not kept:
            self.path, self._exists = self._new(), False
            self._write(text.encode())
            self._exists = True

    def _write(self, data: bytes) -> bool:
        """Append; returns whether the file that was written to is still the ledger: another process may have folded it."""
        with self.path.open("ab" if self._exists else "xb") as handle:
            handle.write(data)
            handle.flush()
            if self.sync:
                os.fsync(handle.fileno())
            written = os.fstat(handle.fileno())
        if not self._exists and self.sync:
            fsync_folder(self.folder)
        try:
            return os.path.samestat(written, self.path.stat())
        except FileNotFoundError:
            return False


def _last(before: Record | None, record: Record) -> Record:
    return record


class Store:
    """Images and scores by content key, under `<results>/store`.

    What the ledgers say is there is taken to be there: a picture's file is looked at by `recover`, for the images of a plan, and
    when it is read.
    """

    def __init__(self, root: Path, warn: Warn = lambda line: None, tidy: bool = True, durable: str = EACH) -> None:
        """tidy: whether to remove what others left behind, and to write the index; one of many on a folder does neither.

        durable: one of `DURABLE`.
        """
        self._begin(root, warn, writes=True, tidy=tidy)
        self._open()
        self.durable = durable
        self._image_ledger = Ledger(root / "ledger", "images", durable != NONE)
        self._score_ledger = Ledger(root / "ledger", "scores", durable != NONE)
        if tidy:
            self._sweep()
            self._fold()
        self.refresh()

    def _begin(self, root: Path, warn: Warn, writes: bool, indexed: bool = True, tidy: bool = True) -> None:
        self.root, self.warn, self.writes = root, once(warn), writes
        index = {kind: root / "index" / kind if indexed else None for kind in records.KINDS}
        self.images = Lines(root / "ledger", "images", "key", merged, self.warn, index["images"], writes and tidy)
        self.scores = Lines(root / "ledger", "scores", "score_key", _last, self.warn, index["scores"], writes and tidy)

    @classmethod
    def peek(cls, root: Path, warn: Warn = lambda line: None, indexed: bool = True) -> Store:
        """The store for reading only: nothing is made, moved or rebuilt on disk.

        indexed: whether to use the index of the ledgers where there is one; else every line is read and checked.
        Raises `UsageError` where something else is in its place.
        """
        store = cls.__new__(cls)
        store._begin(root, warn, False, indexed)
        for folder in (root, root / "images", root / "ledger"):
            if (kind := kind_of_path(folder)) not in ("folder", "nothing"):
                raise UsageError(f"{folder}: a {kind} is in the way of the results folder", "Choose another results folder.")
        if kind_of_path(root / "version") != "nothing":
            store._check_version(root / "version")
        store.images.open()
        store.scores.open()
        return store

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Raises `SrbenchError` where the disk is full or not writable."""
        try:
            yield
        except OSError as error:
            mend = "Free some space" if error.errno in FULL else f"Look at {error.filename or self.root}"
            raise SrbenchError(
                f"cannot write to {self.root} ({error.strerror or error})", f"{mend}, then run the same command again."
            ) from error

    def _open(self) -> None:
        """Make the folders. Raises `UsageError` where that can not be, or where a newer srbench wrote here."""
        try:
            for name in ("images", "ledger"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            version_file = self.root / "version"
            if kind_of_path(version_file) in ("nothing", "dangling link"):
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
        mend = "Restore the file, or choose another --out."
        text = read_bytes(path, mend, limit=1000).decode("ascii", "replace").strip()
        if not _VERSION.fullmatch(text) or int(text) < 1:
            raise UsageError(f"{path}: expected a key version, found {text[:20]!r}", mend)
        if int(text) > KEY_VERSION:
            raise UsageError(
                f"{self.root}: written by a newer srbench (key version {text}, this one knows {KEY_VERSION})",
                "Update srbench, or choose another --out.",
            )

    def _sweep(self) -> None:
        """Remove temporary files of killed processes."""
        beside = [self.root.parent / "runs"] if self.root.name == "store" else []
        count = leftovers.removed([self.root, *beside])
        if count:
            what = "a temporary file of a process that has ended was" if count == 1 else (
                f"{count} temporary files of processes that have ended were"
            )  # fmt: skip
            self.warn(f"{what} removed")

    def _fold(self) -> None:
        """Fold ledgers of ended processes, where there are many; a folder that does not let it stays as it is."""
        with suppress(OSError):
            count = sum(folding.fold(self.root / "ledger", kind) for kind in records.KINDS)
            if count:
                self.warn(f"{count} small ledgers of processes that have ended were folded")

    def refresh(self) -> None:
        """Read the ledgers again, with what other processes have written since."""
        self.images.open()
        self.scores.open()
        if self.writes and not records.ledger_files(self.root / "ledger", "images"):
            self.recover(key for key, _ in self.pictures())  # the ledger was lost: the pictures hold its records

    def image_path(self, key: str) -> Path:
        """Where the PNG of `key` is, or would be."""
        return self.root / "images" / key[:2] / f"{key}.png"

    def strip_path(self, key: str) -> Path:
        """Where the steps of the image of `key` are shown, or would be."""
        return self.root / "steps" / key[:2] / f"{key}.webp"

    def harmless(self, key: str) -> bool:
        """Whether an image is in the ledger, and no line marks it as sensitive, dropped or of a gated row."""
        lines = [*self.images.history(key), self.images.get(key, {})]
        return len(lines) > 1 and not any(record.get(flag) for record in lines for flag in (SENSITIVE, DROPPED, GATED))

    def _others(self, key: str) -> dict[str, Record]:
        """Pixel sha -> record, for an image that two processes sampled, which may differ by rounding; else empty."""
        lines = [*self.images.history(key), *([self.images[key]] if key in self.images else [])]
        found = {record["pixel_sha"]: record for record in lines}
        return found if len(found) > 1 else {}

    def pictures(self) -> Iterator[tuple[str, Path]]:
        """Key and path of every image on disk, by file name alone."""
        for folder in records.entries(self.root / "images"):
            if kind_of_path(folder) == "folder":
                for path in records.entries(folder):
                    match = _PICTURE.fullmatch(path.name)
                    if match is not None and match[1] == folder.name:
                        yield path.stem, path

    def recover(self, keys: Iterable[str]) -> None:
        """Compare these images with their files: what has lost its line is found, what is gone or damaged will be sampled again.

        A process that was killed between a picture and its line leaves the first. Of a store for reading only, images without
        a file are forgotten, and nothing is written.
        """
        written = self.images.newest_ns()  # a younger picture was changed, or has no line
        rebuilt = []
        for key in dict.fromkeys(keys):
            before, path = self.images.get(key), self.image_path(key)
            if before is not None and (before.get(DROPPED) or _untouched(path, before["bytes"], written)):
                continue  # a dropped image that is still there is deleted by a sweep
            if kind_of_path(path) == "nothing":
                self._missing(key)
            elif self.writes and (record := self._rebuild(key, path)) is not None:
                self.images[key] = {**merged(before, record), "pixel_sha": record["pixel_sha"], "bytes": record["bytes"]}
                rebuilt.append(self.images[key])
        if rebuilt:
            with self._disk():
                self._image_ledger.append(rebuilt)

    def _missing(self, key: str) -> None:
        if key in self.images:
            self.warn(f"image {key[:12]} is in the ledger but not on disk; it will be sampled again")
            del self.images[key]

    def _rebuild(self, key: str, path: Path) -> Record | None:
        """The record inside a PNG, or None where the file is damaged or foreign; such a file is moved aside."""
        try:
            _, inside = picture(path)
            self.agree(key, inside)
            return {**inside, "bytes": path.stat().st_size}
        except (Misfit, OSError) as error:
            self._set_aside(key, path, str(error))
            return None

    def agree(self, key: str, inside: Record) -> None:
        """Raises `Misfit` where the record inside a PNG does not match the ledger."""
        if inside["key"] != key:
            raise Misfit("holds another image's key")
        record = self.images.get(key)
        if record is None or inside["pixel_sha"] == record["pixel_sha"] or inside["pixel_sha"] in self._others(key):
            return
        raise Misfit("holds other pixels than the ledger says")

    def _set_aside(self, key: str, path: Path, why: str) -> None:
        """Move an image to `damaged/` and drop it from the index, so that it is sampled again."""
        aside = self.root / "damaged"
        self.images.pop(key, None)
        if kind_of_path(path) == "nothing":
            self.warn(f"image {key[:12]} {why}; it will be sampled again")
            return
        with self._disk():
            aside.mkdir(exist_ok=True)
            target = aside / path.name
            # An earlier damaged file of this name is overwritten; a folder of this name cannot be replaced.
            os.replace(path, temporary_for(target).with_suffix("") if kind_of_path(target) == "folder" else target)
        self.warn(f"image {key[:12]} {why}; moved to {aside.name}/, it will be sampled again")

    def check(self, keys: Iterable[str]) -> list[str]:
        """Keys of those images whose files are damaged or not theirs; these are set aside, with a warning."""
        return [key for key in dict.fromkeys(keys) if key in self.images and not self.dropped(key) and not self._sound(key)]

    def _sound(self, key: str) -> bool:
        try:
            self.pixels(key)
        except SrbenchError:
            return False
        return True

    def put_images(self, items: Iterable[tuple[str, np.ndarray, Record]]) -> list[Record]:
        """Write a batch of (key, uint8 RGB pixels (H, W, 3), record): files first, then the ledger.

        Raises `SrbenchError` where the disk is full or not writable; what was written before stays.
        """
        records = []
        with self._disk():
            for key, pixels, extra in items:
                records.append(self._put(key, pixels, extra))
            self._synced([self.image_path(record["key"]) for record in records])
            self._image_ledger.append(records)
        self.images.update({record["key"]: record for record in records})
        return records

    def _synced(self, paths: Sequence[Path]) -> None:
        """Sync what was written of a batch, and the folders that it is in: a ledger line comes after its file."""
        if self.durable == BATCH:
            for path in paths:
                fsync_file(path)
        if self.durable != NONE:
            for folder in {path.parent for path in paths}:
                fsync_folder(folder)

    def _put(self, key: str, pixels: np.ndarray, extra: Record) -> Record:
        record = {**extra, "key": key, "pixel_sha": pixel_sha(pixels)}
        path = self.image_path(key)
        path.parent.mkdir(exist_ok=True)
        chunk = PngImagePlugin.PngInfo()
        chunk.add_text(CHUNK, canonical(record))
        with written_whole(path, self.durable == EACH) as handle:
            Image.fromarray(pixels).save(handle, "PNG", pnginfo=chunk, compress_level=1)
            size = handle.tell()
        return {**record, "bytes": size}

    def note(self, records: Iterable[Record]) -> None:
        """Record external images, whose scores are stored. Raises `SrbenchError` where the disk is full."""
        new = [record for record in records if record["key"] not in self.images]
        with self._disk():
            self._image_ledger.append(new)
        self.images.update({record["key"]: record for record in new})

    def pixels(self, key: str) -> np.ndarray:
        """The image as uint8 RGB (H, W, 3), checked against its record.

        Raises `SrbenchError` where it was dropped, cannot be read, or does not match its record; a store that is open for
        writing sets such an image aside.
        """
        path = self.image_path(key)
        try:
            pixels, inside = picture(path)
            self.agree(key, inside)
        except Misfit as error:
            if self.writes and key in self.images and not self.dropped(key):
                self._set_aside(key, path, str(error))
            raise SrbenchError(f"image {key[:12]} {error}", "Run the command that made it again: it is made anew.") from error
        if inside["pixel_sha"] != self.images.get(key, inside)["pixel_sha"]:
            seen = self._others(key)[inside["pixel_sha"]]  # scores belong to the pixels on disk
            self.images[key] = {**merged(self.images[key], seen), "pixel_sha": seen["pixel_sha"]}
        return pixels

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
        """The stored vector (D,); None where there is none, or its file is not one vector of finite numbers."""
        return vector(self.feature_path(identity, pixels))

    def put_strip(self, key: str, data: bytes) -> None:
        """Keep what an image looked like at its steps, a WebP. Raises `SrbenchError` where the disk is full or not writable."""
        path = self.strip_path(key)
        with self._disk():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
            fsync_folder(path.parent)

    def restate(self, records: Iterable[Record]) -> None:
        """Append new lines about stored images. Raises `SrbenchError` where the disk is full or not writable."""
        new = list(records)
        with self._disk():
            self._image_ledger.append(new)
        self.images.update({record["key"]: record for record in new})

    def drop(self, keys: Iterable[str]) -> dict[str, str]:
        """Delete images and their strips, but keep their records, pixel hashes and scores.

        Returns path -> why it could not be deleted. The ledger line comes first: if the process is killed before the files are
        deleted, the next start deletes them.
        Raises `SrbenchError` where the ledger cannot be written; then nothing is deleted.
        """
        stored = [key for key in keys if key in self.images]
        self.restate([{**self.images[key], DROPPED: True} for key in stored if not self.images[key].get(DROPPED)])
        stuck, emptied = {}, set()
        for path in (each for key in stored for each in (self.strip_path(key), self.image_path(key))):
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
        """Whether the image of `key` was scored and deleted."""
        return bool(self.images.get(key, {}).get("dropped"))


def _untouched(path: Path, size: int, written: int) -> bool:
    """Whether an image is a file of its recorded size (bytes), and no younger than the ledger (`written`, ns)."""
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size and status.st_mtime_ns <= written


def vector(path: Path) -> np.ndarray | None:
    """A stored vector (D,), or None where the file is not one vector of finite numbers."""
    try:
        if kind_of_path(path) != "file" or path.stat().st_size > MAX_VECTOR:
            return None
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.ndim != 1 or not len(array) or array.dtype.kind != "f":
            return None
        return np.array(array) if np.isfinite(array).all() else None
    # numpy may raise anything for a damaged header; a vector that cannot be read is made again.
    except Exception:  # noqa: BLE001 - see above
        return None
