"""Writes outputs to paths that the user names. One rule holds: only srbench's own files are replaced or removed.

An existing file is replaced only if it has the mark of the command that writes it. A folder is written into only if it holds
nothing but files that its marker lists and that are unchanged. Links, fifos, devices and sockets are refused. Every command
calls `check_...` before its work begins; the functions that write check again.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srbench.errors import UsageError
from srbench.files import (
    file_sha,
    fsync_folder,
    is_temporary,
    kind_of_path,
    read_bytes,
    read_json,
    temporary_for,
    write_atomic,
)

MARKER = ".srbench.json"
"""The file in a folder that records which command wrote it, and which files."""
MARKER_LIMIT, CARD_LIMIT = 1 << 20, 1 << 26
"""Largest sizes in bytes of a marker, and of a card or a row file."""
Shas = dict[str, list[str]]
"""Name of a file -> the sha256 values that it may have: of the present content, and of the one about to be written."""


# --- one file ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutputFile:
    """A kind of file that one command writes."""

    command: str
    """For messages: `srbench report`."""
    option: str
    """The option that names its path."""
    marks: tuple[bytes, ...] = ()
    """Every file of the kind contains one of these."""
    is_own: Callable[[Path], bool] | None = None
    """Used instead of marks: whether a regular file was written by the command."""

    def made(self, path: Path) -> bool:
        """Whether a regular file was written by this command."""
        return self.is_own(path) if self.is_own is not None else _holds(path, self.marks)


REPORT = OutputFile("srbench report", "-o", (b'<meta name="generator" content="srbench ',))
SHEET = OutputFile("srbench's contact sheet", "--sheet", (b"tEXtSoftware\x00srbench sheet",))
CURVE_MARK = "srbench compare --curve"
CURVE = OutputFile("srbench compare --curve", "-o", (CURVE_MARK.encode(),))


def check_file(path: Path, kind: OutputFile) -> None:
    """Raises `UsageError` unless a file of that kind can be written to `path` without replacing anything else."""
    present = _kind_at(path, kind.option)
    hint = f"Remove it, or choose another {kind.option}."
    if present == "folder":
        raise UsageError(f"{path}: is a folder", f"Name a file in it: {kind.option} {path / 'NAME'}")
    if present == "file" and not _tried(path, kind.made):
        raise UsageError(f"{path}: is there already, and {kind.command} did not write it", hint)
    if present not in ("file", "nothing"):
        raise UsageError(f"{path}: a {present}, which is never replaced", hint)
    _check_place(path.parent, path, kind.option)


def write_file(path: Path, data: bytes, kind: OutputFile) -> None:
    """Write a file atomically. Raises `UsageError` as `check_file` does, and where the disk is full."""
    check_file(path, kind)
    with _refusing_os_errors(path, kind.option):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)


def _holds(path: Path, marks: Iterable[bytes]) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(mark) >= 0 for mark in marks)


def _tried(path: Path, is_own: Callable[[Path], bool]) -> bool:
    """`is_own(path)`; False where the file cannot be read, so that it is not replaced."""
    try:
        return is_own(path)
    except Exception:  # noqa: BLE001 - the file may hold anything
        return False


# --- a folder ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutputFolder:
    """A kind of folder that one command writes, with a card that is written last."""

    command: str
    option: str = "--out"
    card: str = "card.json"
    earlier: Callable[[Path], Mapping[str, str]] = field(default=lambda folder: {})
    """For a folder without a marker, from an earlier version: name -> sha256 of the files that its card proves."""
    within: tuple[str, ...] = ()
    """Names in the folder that are not checked, such as the state of an interrupted training."""


def check_folder(folder: Path, kind: OutputFolder) -> None:
    """Raises `UsageError` unless the folder does not exist yet, or holds only files of this command."""
    present = _kind_at(folder, kind.option)
    hint = f"Move it away, or choose another {kind.option}."
    if folder.is_symlink():
        to = f"Give the folder that it leads to, or another {kind.option}."
        raise UsageError(f"{folder}: a link, which is never replaced", to)
    if present not in ("folder", "nothing"):
        raise UsageError(f"{folder}: a {present} is in the way of the folder", hint)
    if present == "folder":
        try:
            foreign = foreign_in(folder, kind)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be read ({error.strerror})", f"Choose another {kind.option}.") from error
        if foreign:
            raise UsageError(f"{folder}: {foreign}", hint)
    _check_place(folder if present == "folder" else folder.parent, folder, kind.option)


def foreign_in(folder: Path, kind: OutputFolder) -> str:
    """The first file in the folder that the command did not write, or that was changed since, in words; else empty."""
    names = sorted(entry.name for entry in os.scandir(folder))
    shas = _listed(folder, kind)
    for name in names:
        path = folder / name
        if name == MARKER or name in kind.within or is_temporary(path):
            continue
        if name not in shas:
            return f"holds {name}, which {kind.command} did not write"
        if path.is_symlink() or kind_of_path(path) != "file" or file_sha(path) not in shas[name]:
            return f"{name} was changed since {kind.command} wrote it"
    return ""


def _listed(folder: Path, kind: OutputFolder) -> Shas:
    """Files of the folder that the command wrote; empty where another command wrote it, or it is not known."""
    shas = read_marker(folder, kind.command)
    if shas is not None:
        return shas
    if os.path.lexists(folder / MARKER):
        return {}  # of another command, or damaged
    try:
        return {name: [sha] for name, sha in kind.earlier(folder).items()}
    except Exception:  # noqa: BLE001 - a card may hold anything; an unreadable one proves nothing
        return {}


def read_marker(folder: Path, command: str) -> Shas | None:
    """The files that the marker lists; None where there is no marker, or it is another command's."""
    path = folder / MARKER
    if path.is_symlink():
        return None
    try:
        marker = read_json(path, limit=MARKER_LIMIT)
    except UsageError:
        return None
    files = marker.get("files") if isinstance(marker, dict) and marker.get("made_by") == command else None
    if not isinstance(files, dict):
        return None
    return {name: [str(sha) for sha in shas] for name, shas in files.items() if isinstance(shas, list)}


def _write_marker(folder: Path, command: str, files: Shas) -> None:
    marker = {"made_by": command, "about": "srbench replaces and removes these files, while they are unchanged.", "files": files}
    write_atomic(folder / MARKER, (json.dumps(marker, indent=1, sort_keys=True) + "\n").encode())


@contextmanager
def written_folder(folder: Path, kind: OutputFolder, first_wins: bool = False) -> Iterator[Path]:
    """An empty folder to write files into, which become the content of `folder` when the block ends without an error.

    A new folder appears complete. In an existing one, the old card is removed first and the new one is written last, so that
    no reader takes an incomplete folder for a complete one; own files that are not among the new ones are removed.
    first_wins: if another process made the folder in the meantime, it is left as it is; for folders stored by content.
    Raises `UsageError` as `check_folder` does, and where the disk is full.
    """
    check_folder(folder, kind)
    was_there = folder.is_dir()
    fresh = temporary_for(folder / "new" if was_there else folder)
    try:
        with _refusing_os_errors(folder, kind.option):
            fresh.mkdir(parents=True)
            yield fresh
            if first_wins and not was_there and (folder / kind.card).is_file():
                return
            check_folder(folder, kind)
            _placed(fresh, folder, kind)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # safe: its name has a random part


def _placed(fresh: Path, folder: Path, kind: OutputFolder) -> None:
    shas = {path.name: [file_sha(path)] for path in sorted(fresh.iterdir())}
    for name in shas:
        _sync(fresh / name)
    if not folder.is_dir():
        _write_marker(fresh, kind.command, shas)
        fsync_folder(fresh)
        try:
            os.rename(fresh, folder)
        except OSError:
            if not folder.is_dir():
                raise
        else:
            fsync_folder(folder.parent)
            return
    _moved_in(fresh, folder, kind, shas)  # it existed before, or another process has made it


def _moved_in(fresh: Path, folder: Path, kind: OutputFolder, shas: Shas) -> None:
    before = _listed(folder, kind)
    names = sorted({*before, *shas})
    _write_marker(folder, kind.command, {name: [*before.get(name, []), *shas.get(name, [])] for name in names})
    for name in sorted(before, key=lambda name: name != kind.card):
        if name == kind.card or name not in shas:
            (folder / name).unlink(missing_ok=True)
    fsync_folder(folder)
    for name in sorted(shas, key=lambda name: name == kind.card):
        os.replace(fresh / name, folder / name)
    _write_marker(folder, kind.command, shas)
    fsync_folder(folder)


# --- files in a folder that may hold others ---------------------------------------------------------------------------


def write_into(folder: Path, contents: Mapping[str, bytes], command: str, option: str) -> None:
    """Write files into a folder that may hold others, which are left alone.

    An existing file of one of these names is replaced only if the folder's marker lists it and it is unchanged, or if it has the
    same content. Raises `UsageError` naming the first that may not be replaced; then nothing is written.
    """
    present = _kind_at(folder, option)
    if present not in ("folder", "nothing"):
        raise UsageError(f"{folder}: a {present} is in the way of the folder", f"Choose another {option}.")
    before = (read_marker(folder, command) or {}) if present == "folder" else {}
    for name in contents:
        _check_parents(folder, name, option)
    for name, data in contents.items():
        _check_replaced(folder / name, before.get(name, []), data, command, option)
    if present == "folder" and not before and os.path.lexists(folder / MARKER):
        raise UsageError(f"{folder}: another command of srbench wrote this folder", f"Choose another {option}.")
    shas = {name: [hashlib.sha256(data).hexdigest()] for name, data in contents.items()}
    with _refusing_os_errors(folder, option):
        folder.mkdir(parents=True, exist_ok=True)
        _write_marker(folder, command, {**before, **{name: [*before.get(name, []), *sha] for name, sha in shas.items()}})
        for name, data in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / name, data)
        _write_marker(folder, command, {**before, **shas})


def _check_parents(folder: Path, name: str, option: str) -> None:
    """Raises `UsageError` where something else than a folder stands between the folder and one of its files."""
    for parent in [*(folder / name).parents][: len(Path(name).parts) - 1]:
        if parent.is_symlink() or (present := kind_of_path(parent)) not in ("folder", "nothing"):
            what = "link" if parent.is_symlink() else present
            raise UsageError(f"{parent}: a {what} is in the way of the folder", f"Move it away, or choose another {option}.")


def _check_replaced(path: Path, shas: list[str], data: bytes, command: str, option: str) -> None:
    hint = f"Move it away, or choose another {option}."
    if path.is_symlink() or (present := kind_of_path(path)) not in ("file", "nothing"):
        raise UsageError(f"{path}: a {'link' if path.is_symlink() else present}, which is never replaced", hint)
    if present == "file" and (sha := file_sha(path)) not in (*shas, hashlib.sha256(data).hexdigest()):
        why = f"was changed since {command} wrote it" if shas else f"is there already, and {command} did not write it"
        raise UsageError(f"{path}: {why} (sha256 {sha[:8]})", hint)


# --- results folders --------------------------------------------------------------------------------------------------


def check_results(folder: Path, option: str = "--out") -> None:
    """Raises `UsageError` where a folder cannot hold results. Other files in it are allowed and never touched."""
    present = _kind_at(folder, option)
    if present not in ("folder", "nothing"):
        raise UsageError(f"{folder}: a {present} is in the way of the results folder", f"Choose another {option}.")
    _check_place(folder, folder, option)


# --- what is common ---------------------------------------------------------------------------------------------------


def own_card(folder: Path, name: str = "card.json") -> tuple[dict[str, Any], str]:
    """A card and its sha256, for `OutputFolder.earlier`. Raises `UsageError` where it is no JSON object."""
    raw = read_bytes(folder / name, limit=CARD_LIMIT)
    card = read_json(folder / name, limit=CARD_LIMIT)
    if not isinstance(card, dict):
        raise UsageError(f"{folder / name}: not a card")
    return card, hashlib.sha256(raw).hexdigest()


def _kind_at(path: Path, option: str) -> str:
    """As `kind_of_path`; a link to a file counts as a link. Raises `UsageError` for a path that cannot exist.

    A path such as `missing/../x` is refused: it cannot be checked before the folder `missing` is made.
    """
    for end, part in enumerate(path.parts):
        if part == ".." and end and not os.path.isdir(above := Path(*path.parts[:end])):
            raise UsageError(f"{path}: cannot write here ({above} is no folder)", f"Choose another {option}, without '..'.")
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{path}: cannot write here ({why})", f"Choose another {option}.") from error
    kind = kind_of_path(path)
    return "link" if path.is_symlink() and kind not in ("folder", "dangling link") else kind


def _check_place(folder: Path, path: Path, option: str) -> None:
    """Raises `UsageError` where `folder` cannot be made or written into; leaves nothing behind."""
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
    if not existing.is_dir():
        raise UsageError(f"{path}: cannot write here ({existing} is no folder)", f"Choose another {option}.")
    with _refusing_os_errors(path, option), tempfile.TemporaryFile(dir=existing):
        pass


@contextmanager
def _refusing_os_errors(path: Path, option: str) -> Iterator[None]:
    """Raises `UsageError` in place of an `OSError`."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        hint = f"Choose another {option}, or mend the rights or the space."
        raise UsageError(f"{path}: cannot write here ({why})", hint) from error


def _sync(path: Path) -> None:
    with suppress(OSError):  # some file systems cannot sync
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
