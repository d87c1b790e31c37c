"""Temporary files that killed processes left behind, which are removed at the next start, and whether a ledger is in use."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from srbench.files import is_running, writer_of

OLD_SECONDS = 86_400
"""Age from which a temporary file of another host counts as abandoned: no file takes a day to write."""
FOLDERS = (".erasing-", ".inverting-")
"""Name prefixes of folders in which checkpoints and embeddings are trained; they do not name a process."""


def removed(folders: Iterable[Path]) -> int:
    """Remove temporary files and folders of processes that are gone, below some folders; returns how many.

    Those of a process that is alive on this host stay, and those of other hosts until they are a day old.
    """
    return sum(_remove(path) for folder in folders for path in list(left(folder)) if is_left(path))


def left(folder: Path) -> Iterator[Path]:
    """Everything below a folder that has the name of a temporary file or folder."""
    for place, folders, files in os.walk(folder):
        files = [name for name in files if name.startswith(".")]  # nearly all are pictures
        temporary = [name for name in folders if name.startswith(FOLDERS) or writer_of(name) is not None]
        folders[:] = [name for name in folders if name not in temporary]
        temporary += [name for name in files if writer_of(name) is not None]
        yield from (Path(place, name) for name in temporary)


def is_left(path: Path) -> bool:
    """Whether the process that was writing it has ended."""
    writer = writer_of(path.name)
    running = None if writer is None else is_running(*writer, _written(path))
    # Containers may share our host name and process id, so that a file with our id may be another process's.
    if running is None or (writer is not None and writer[1] == os.getpid()):
        return time.time() - _written(path) > OLD_SECONDS
    return not running


def _written(path: Path) -> float:
    """When it was last written to, seconds since the epoch; now if it has disappeared."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()


def _remove(path: Path) -> bool:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        return False
    return True


_OWNER = re.compile(
    r"[a-z]+-(?P<began>[0-9a-f]+)-(?:(?P<host>[0-9a-z_-]+)-(?P<pid>\d+)-[0-9a-f]{8}|(?P<old>\d+)(?:-[0-9a-f]{8})?)\.jsonl"
)
"""A ledger's name; those of older versions have no host."""


def at_work(path: Path) -> bool:
    """Whether a ledger belongs to another running process: of another machine, if it was written within a day."""
    owner = _OWNER.fullmatch(path.name)
    if owner is None:
        return False
    pid = int(owner["pid"] or owner["old"])
    running = is_running(owner["host"] or "", pid, int(owner["began"], 16) / 1e9)
    if running is None:
        return time.time() - path.stat().st_mtime < OLD_SECONDS
    return running and pid != os.getpid()
