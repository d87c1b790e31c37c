"""Where the lines of a ledger are: an index beside them, so that a store is opened without reading every line.

The ledgers alone count. An index is made of them, is checked against their sizes and times, and may be deleted at any moment; a
file that is new or changed is read anew. Lines are parsed and checked when the index is made, and again when one is used.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, ItemsView, Iterator, MutableMapping, ValuesView
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from srbench.files import written_whole
from srbench.results import records
from srbench.results.records import LeftOut, Record, Warn
from srbench.rules import Misfit

MAGIC = b"srbench index 2\n"
PLACE = np.dtype([("file", "<u4"), ("start", "<u8"), ("size", "<u4"), ("flags", "u1"), ("about", "<u8")])
"""Of a line: its file's number, its first byte, its bytes, which of `FLAGS` it has set, and the start of what it is about."""
ABOUT = {"images": "pixel_sha", "scores": "image"}
"""Kind of ledger -> the hash by which its lines are found beside their keys (`Lines.about`)."""
FLAGS = ("dropped", "sensitive", "gated", "elsewhere")
KEY_BYTES = 32
WRITTEN_FROM = 1000
"""New lines from which an index is written."""
SHARE = 0.05
"""And their share of those that it has: so that writing costs little for each line, however many there are."""
KEPT = 20_000
"""Records that are kept in memory once they were read."""
Merge = Callable[[Record | None, Record], Record]
"""What two lines of one key come to, the later one second."""


@dataclass(frozen=True)
class Scanned:
    """A ledger file as it was when it was read."""

    name: str
    size: int
    mtime_ns: int
    damaged: int = 0
    """Lines that were left out."""
    first: str = ""
    """Of these, the first."""

    def tell(self, warn: Warn) -> None:
        """Warn of lines that were left out, as when they were read."""
        LeftOut("line", self.first, self.damaged).tell(self.name, warn)


@dataclass(frozen=True)
class Table:
    """Lines of some files, sorted by key."""

    files: tuple[Scanned, ...]
    keys: np.ndarray
    """(n,) of 32 bytes."""
    places: np.ndarray
    """(n,) of `PLACE`."""

    def at(self, key: bytes) -> np.ndarray:
        """The places of a key's lines."""
        one = np.array([key], dtype=f"S{KEY_BYTES}")
        first, last = (int(np.searchsorted(self.keys, one, side)[0]) for side in ("left", "right"))  # type: ignore[call-overload]  # of a literal side
        return self.places[first:last]


EMPTY = Table((), np.empty(0, f"S{KEY_BYTES}"), np.empty(0, PLACE))


def _sorted(files: tuple[Scanned, ...], keys: np.ndarray, places: np.ndarray) -> Table:
    order = np.argsort(keys, kind="stable")
    return Table(files, np.ascontiguousarray(keys[order]), places[order])


# --- the file ---------------------------------------------------------------------------------------------------------


def read_index(path: Path) -> Table:
    """The lines that an index file lists; none where it is missing or damaged.

    It is read whole: on a network folder a mapped file that another machine replaces would end the process.
    """
    try:
        with path.open("rb") as handle:
            if handle.read(len(MAGIC)) != MAGIC:
                return EMPTY
            size = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(size))
            data, count = handle.read(), int(header["lines"])
        if zlib.crc32(data) != header["crc32"] or len(data) != count * (KEY_BYTES + PLACE.itemsize):
            return EMPTY
        files = tuple(Scanned(**each) for each in header["files"])
        keys = np.frombuffer(data, f"S{KEY_BYTES}", count)
        places = np.frombuffer(data, PLACE, count, count * KEY_BYTES)
        return Table(files, keys, places) if not count or int(places["file"].max()) < len(files) else EMPTY
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError):
        return EMPTY


def write_index(path: Path, table: Table) -> None:
    """Write an index file, whole or not at all. Raises `OSError`."""
    keys, places = table.keys.tobytes(), table.places.tobytes()
    facts = {"lines": len(table.keys), "crc32": zlib.crc32(places, zlib.crc32(keys)), "files": list(map(asdict, table.files))}
    header = json.dumps(facts).encode()
    path.parent.mkdir(exist_ok=True)
    with written_whole(path) as handle:
        for part in (MAGIC, len(header).to_bytes(8, "little"), header, keys, places):
            handle.write(part)


def scan(paths: list[Path], kind: str, key_field: str) -> Table:
    """Read, check and place every line of some ledger files."""
    files, keys, places = list[Scanned](), list[bytes](), list[tuple[int, int, int, int, int]]()
    for number, path in enumerate(paths):
        (length, mtime_ns), left_out = _state(path), LeftOut("line")
        for start, size, record in records.placed(path, kind, left_out):
            if start + size <= length:  # what another process appends meanwhile is read at the next start
                keys.append(bytes.fromhex(record[key_field]))
                places.append((number, start, size, _bits(record), _start(record[ABOUT[kind]])))
        files.append(Scanned(path.name, length, mtime_ns, left_out.count, left_out.first))
    return _sorted(tuple(files), np.array(keys, dtype=f"S{KEY_BYTES}"), np.array(places, dtype=PLACE))


def _bits(record: Record) -> int:
    return sum(1 << number for number, name in enumerate(FLAGS) if record.get(name))


def _start(sha: str) -> int:
    """The first 8 bytes of a hash; 0 where it is no hash."""
    try:
        return int(sha[:16], 16)
    except ValueError:
        return 0


def _kept(table: Table, names: set[str]) -> Table:
    """The lines of these files alone."""
    if all(each.name in names for each in table.files):
        return table
    old = [number for number, each in enumerate(table.files) if each.name in names]
    renumbered = np.zeros(len(table.files), "<u4")
    renumbered[old] = np.arange(len(old))
    stays = np.isin(table.places["file"], old)
    places = np.array(table.places[stays])
    places["file"] = renumbered[places["file"]]
    return Table(tuple(table.files[number] for number in old), np.array(table.keys[stays]), places)


def joined(one: Table, other: Table) -> Table:
    """The lines of both."""
    places = np.array(other.places)
    places["file"] += len(one.files)
    keys = np.concatenate([one.keys, other.keys])
    return _sorted(one.files + other.files, keys, np.concatenate([one.places, places]))


# --- the lines --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Lines(MutableMapping[str, Record]):
    """The records of one kind of ledger by key: looked up in the ledgers when they are asked for, what is new in memory."""

    folder: Path
    """Of the ledgers."""
    kind: str
    key_field: str
    merge: Merge
    warn: Warn
    index: Path | None = None
    """The index file; None to read every line."""
    writes: bool = False
    """Whether the index may be written."""
    _tables: tuple[Table, ...] = ()
    _new: dict[str, Record] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)
    _read: dict[str, Record] = field(default_factory=dict)
    _lock: Any = field(default_factory=RLock)
    _doubts: int = 0
    """How often a line was not where it should be since the opening."""

    def open(self) -> None:
        """Find every line, and forget what was looked up. Raises `UsageError` for a ledger that cannot be read."""
        with self._lock:
            self._find(self.index)
            self._new, self._gone, self._read, self._doubts = {}, set(), {}, 0

    def _find(self, index: Path | None) -> None:
        """Find every line. index: the file to begin from; None to read all of them."""
        paths = {path.name: path for path in records.ledger_files(self.folder, self.kind)}
        base = read_index(index) if index is not None else EMPTY
        base = _kept(base, {each.name for each in base.files if each.name in paths and _is_same(paths[each.name], each)})
        known = {each.name for each in base.files}
        fresh = scan([path for name, path in paths.items() if name not in known], self.kind, self.key_field)
        for each in sorted((*base.files, *fresh.files), key=lambda scanned: scanned.name):
            each.tell(self.warn)
        if self.writes and len(fresh.keys) >= max(WRITTEN_FROM, SHARE * len(base.keys)):
            base, fresh = joined(base, fresh), EMPTY
            self._write(base)
        self._tables = tuple(table for table in (base, fresh) if table.files)

    def _write(self, table: Table) -> None:
        """Write the index file; where that fails the next start tries again, and nothing depends on it."""
        if self.index is not None:
            with suppress(OSError):
                write_index(self.index, table)

    def history(self, key: str) -> list[Record]:
        """The records of all lines of a key that were there when the ledgers were opened, oldest file first."""
        try:
            raw = bytes.fromhex(key)
        except ValueError:
            return []
        if len(raw) != KEY_BYTES:
            return []
        places = [(table.files[place["file"]].name, int(place["start"]), int(place["size"])) for table in self._tables
                  for place in table.at(raw)]  # fmt: skip
        found = [self._line(*place, key) for place in sorted(places)]
        if None in found and self._doubts < 2:
            with self._lock:  # another process has rewritten a ledger; else the index does not fit, whatever it says
                self._doubts += 1
                self._find(self.index if self._doubts == 1 else None)
            return self.history(key)
        return [record for record in found if record is not None]

    def _line(self, name: str, start: int, size: int, key: str) -> Record | None:
        """The record of a line; None where another one is there."""
        try:
            with (self.folder / name).open("rb", buffering=0) as handle:
                handle.seek(start)
                data = handle.read(size)
            record = records.sound(data, self.kind)
        except (OSError, Misfit):
            return None
        return record if record[self.key_field] == key else None

    def flagged(self, *names: str) -> set[str]:
        """Keys of which any line has one of these flags set."""
        bits = sum(1 << FLAGS.index(name) for name in names)
        found = {
            _hex(key) for table in self._tables for key in table.keys[(table.places["flags"] & bits) != 0]
        }  # fmt: skip
        found |= {key for key, record in self._new.items() if any(map(record.get, names))}
        return found - self._gone

    def about(self, sha: str) -> list[Record]:
        """The records whose hash of `ABOUT` is this one, in the order of the ledgers: images with these pixels, scores of an
        image. Only their lines are read."""
        name, start = ABOUT[self.kind], _start(sha)
        places = [
            (table.files[table.places[number]["file"]].name, int(table.places[number]["start"]), _hex(table.keys[number]))
            for table in self._tables for number in np.flatnonzero(table.places["about"] == start)
        ]  # fmt: skip
        keys = dict.fromkeys([key for _, _, key in sorted(places)] + [k for k, each in self._new.items() if each[name] == sha])
        return [record for key in keys if (record := self.get(key)) is not None and record[name] == sha]

    def newest_ns(self) -> int:
        """When a ledger was last written to, before the ledgers were opened; 0 where there is none."""
        return max((each.mtime_ns for table in self._tables for each in table.files), default=0)

    def sample(self, most: int) -> Iterator[Record]:
        """About `most` of the records, spread evenly over all keys."""
        keys = [key for table in self._tables for key in table.keys[:: max(1, len(table.keys) // most)]]
        names = dict.fromkeys([*map(_hex, keys), *list(self._new)[:most]])
        yield from (self[name] for name in names if name in self)

    def stream(self) -> Iterator[Record]:
        """Every record, in the order of the ledgers: each file is read once from one end to the other, and nothing is kept."""
        if any(not (self.folder / each.name).is_file() for table in self._tables for each in table.files):
            with self._lock:  # another process has folded ledgers
                self._find(self.index)
        several = self._several()
        held: dict[str, Record] = {}
        files = (scanned for table in self._tables for scanned in table.files)
        for scanned in sorted(files, key=lambda each: each.name):
            for start, size, record in records.placed(self.folder / scanned.name, self.kind, LeftOut("line")):
                key = record[self.key_field]
                if start + size > scanned.size or key in self._new or key in self._gone:
                    continue
                if bytes.fromhex(key) in several:
                    held[key] = self.merge(held.get(key), record)
                else:
                    yield record
        yield from held.values()
        yield from list(self._new.values())

    def _several(self) -> set[bytes]:
        """Keys that have more than one line."""
        keys = np.sort(np.concatenate([EMPTY.keys, *(table.keys for table in self._tables)]))
        return {bytes(key).ljust(KEY_BYTES, b"\0") for key in keys[1:][keys[1:] == keys[:-1]]}

    # --- as a mapping ---

    def values(self) -> ValuesView[Record]:
        """A view whose iteration streams."""
        return _Values(self)

    def items(self) -> ItemsView[str, Record]:
        """A view whose iteration streams."""
        return _Items(self)

    def __getitem__(self, key: str) -> Record:
        if key in self._new:
            return self._new[key]
        if key in self._gone:
            raise KeyError(key)
        read = self._read.get(key)  # another thread may empty it
        if read is not None:
            return read
        merged: Record | None = None
        for record in self.history(key):
            merged = self.merge(merged, record)
        if merged is None:
            raise KeyError(key)
        if len(self._read) >= KEPT:
            self._read.clear()
        self._read[key] = merged
        return merged

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str) or key in self._gone:
            return False
        if key in self._new or key in self._read:
            return True
        try:
            raw = bytes.fromhex(key)
        except ValueError:
            return False
        return len(raw) == KEY_BYTES and any(len(table.at(raw)) for table in self._tables)

    def __setitem__(self, key: str, record: Record) -> None:
        self._gone.discard(key)
        self._new[key] = record

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._new.pop(key, None)
        self._gone.add(key)

    def __iter__(self) -> Iterator[str]:
        for key in self._keys():
            if key not in self._new and key not in self._gone:
                yield key
        yield from list(self._new)

    def __len__(self) -> int:
        known = sum(key not in self._new and key not in self._gone for key in self._keys())
        return known + len(self._new)

    def _keys(self) -> Iterator[str]:
        """Keys of the ledgers, each once, in the order of their lines: so files are read from one end to the other."""
        seen: set[bytes] = set()
        for table in self._tables:
            for number in np.lexsort((table.places["start"], table.places["file"])):
                key = bytes(table.keys[number])
                if key not in seen:
                    seen.add(key)
                    yield _hex(key)


class _Values(ValuesView[Record]):
    _mapping: Lines

    def __iter__(self) -> Iterator[Record]:
        return self._mapping.stream()


class _Items(ItemsView[str, Record]):
    _mapping: Lines

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        return ((record[self._mapping.key_field], record) for record in self._mapping.stream())


def _hex(key: bytes) -> str:
    """numpy drops the zero bytes at a text's end."""
    return bytes(key).ljust(KEY_BYTES, b"\0").hex()


def _is_same(path: Path, scanned: Scanned) -> bool:
    return _state(path) == (scanned.size, scanned.mtime_ns)


def _state(path: Path) -> tuple[int, int]:
    """Size and time of a file; (-1, 0) where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns
