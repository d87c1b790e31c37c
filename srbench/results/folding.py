"""Folds many small ledgers into one: each process writes ledgers of its own, and a start reads the name of every one.

A folded ledger stands in the place of ledgers that follow each other by name, with their lines in the same order, so that of
two lines of one key the later one stays the later one. It is written whole before the others go. A process that is killed in
between leaves lines twice, which say what they said once; the next folding takes them together.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from srbench.files import fsync_folder, written_whole
from srbench.results import records
from srbench.results.leftovers import at_work
from srbench.rules import Misfit

FEWEST = 64
"""Ledgers in a row from which they are folded."""
LARGEST = 16 * 2**20
"""Bytes of a ledger that is still small: larger ones are not copied again and again."""
_FOLDED = re.compile(r"-folded-[0-9a-f]{8}(?=\.jsonl$)")


@dataclass(frozen=True)
class Small:
    """A ledger that may be folded, as it was when it was read."""

    path: Path
    size: int
    mtime_ns: int
    data: bytes
    """Its lines; the last one ends."""

    @property
    def unchanged(self) -> bool:
        """Whether nothing was written to it since."""
        return _state(self.path) == (self.size, self.mtime_ns)


def fold(folder: Path, kind: str, fewest: int = FEWEST) -> int:
    """Fold the small ledgers of a folder whose processes have ended; returns how many are gone.

    fewest: how many have to follow each other. Raises `OSError` where the folder cannot be written to; no line is lost then.
    """
    return sum(_folded(paths, kind) for paths in list(_runs(records.ledger_files(folder, kind))) if len(paths) >= fewest)


def _runs(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Ledgers that follow each other by name and may be folded."""
    run: list[Path] = []
    for path in paths:
        size, _ = _state(path)
        if 0 <= size <= LARGEST and not at_work(path):
            run.append(path)
        else:
            yield run
            run = []
    yield run


def _state(path: Path) -> tuple[int, int]:
    """Size and time of a plain file; (-1, 0) for anything else."""
    try:
        status = path.stat()
    except OSError:
        return -1, 0
    return (status.st_size, status.st_mtime_ns) if path.is_file() else (-1, 0)


def _folded(paths: Sequence[Path], kind: str) -> int:
    try:
        found = [_read(path, kind) for path in paths]
    except FileNotFoundError:
        return 0  # another process is folding them
    last = paths[-1]
    target = last.with_name(f"{_FOLDED.sub('', last.name).removesuffix('.jsonl')}-folded-{secrets.token_hex(4)}.jsonl")
    newest = max(each.mtime_ns for each in found)
    with written_whole(target) as handle:
        for each in found:
            handle.write(each.data)
        handle.flush()
        os.utime(handle.fileno(), ns=(newest, newest))  # a picture that is younger than all ledgers is looked at
    fsync_folder(target.parent)
    gone = [each for each in found if each.unchanged]
    for each in gone:
        each.path.unlink(missing_ok=True)
    return len(gone)


def _read(path: Path, kind: str) -> Small:
    """A ledger whose last line ends: one that was torn, which no reader takes, is left out."""
    size, mtime_ns = _state(path)
    data = path.read_bytes()
    whole, end, rest = data.rpartition(b"\n")
    if rest and not _torn(rest, kind):
        whole, end = data, b"\n"
    return Small(path, size, mtime_ns, whole + end)


def _torn(line: bytes, kind: str) -> bool:
    """Whether a last line without an end is what a killed process leaves, as `records.placed` sees it."""
    try:
        records.sound(line, kind)
    except Misfit:
        return not any(byte in line for byte in records.TORN)
    return False
