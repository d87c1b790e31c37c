"""What processes that were killed leave behind: temporary files, which go at the next start."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from srbench.files import is_running, writer_of

OLD_SECONDS = 86_400
"""Age from which a temporary file of another host is nobody's: nothing takes a day to be written."""
FOLDERS = (".erasing-", ".inverting-")
"""Begin the names of folders in which checkpoints and embeddings are made; these tell no process."""


def removed(folders: Iterable[Path]) -> int:
    """Remove temporary files and folders of processes that are gone, below some folders; returns how many.

    Those of a process that is alive on this host stay, and those of other hosts until they are a day old.
    """
    return sum(_remove(path) for folder in folders for path in list(left(folder)) if is_left(path))


def left(folder: Path) -> Iterator[Path]:
    """Everything below a folder with the name of something temporary."""
    for place, folders, files in os.walk(folder):
        mine = [name for name in folders if _is_temporary_folder(name)]
        folders[:] = [name for name in folders if name not in mine]
        yield from (Path(place, name) for name in (*mine, *files) if name in mine or writer_of(name) is not None)


def _is_temporary_folder(name: str) -> bool:
    return name.startswith(FOLDERS) or writer_of(name) is not None


def is_left(path: Path) -> bool:
    """Whether whoever was writing it is gone."""
    writer = writer_of(path.name)
    running = None if writer is None else is_running(*writer, _written(path))
    # Containers may share host name and process id with us: what has our own id may be another's, too.
    if running is None or (writer is not None and writer[1] == os.getpid()):
        return _age(path) > OLD_SECONDS
    return not running


def _written(path: Path) -> float:
    """When it was last written to, seconds since the epoch; now where it is gone meanwhile."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()


def _age(path: Path) -> float:
    return time.time() - _written(path)


def _remove(path: Path) -> bool:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        return False
    return True
