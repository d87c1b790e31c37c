"""Everything that a command writes where the user says so, and the one rule for it: what is replaced or removed was made here.

A file that is there already is replaced only where it carries the mark of the command that is to write it. A folder is
written into only where nothing lies in it but files that its marker lists and that are unchanged since. Links, fifos,
devices and sockets are refused. Every command asks `check_...` before its work begins, and the writing asks once more.
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
"""The file in a folder that says who wrote it, and what."""
MARKER_LIMIT, CARD_LIMIT = 1 << 20, 1 << 26
"""Bytes that are read of a marker, and of a card or a row file, at most."""
Shas = dict[str, list[str]]
"""Name of a file -> the sha256 that it may have: of what stands there, and of what is about to."""


# --- one file ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutputFile:
    """A kind of file that one command writes."""

    command: str
    """For messages: `srbench report`."""
    option: str
    """By which the user names it."""
    marks: tuple[bytes, ...] = ()
    """Bytes of which one stands in every file of the kind."""
    is_own: Callable[[Path], bool] | None = None
    """In place of marks: whether a regular file was written by the command."""

    def made(self, path: Path) -> bool:
        """Whether a regular file was written by this command."""
        return self.is_own(path) if self.is_own is not None else _holds(path, self.marks)


REPORT = OutputFile("srbench report", "-o", (b'<meta name="generator" content="srbench ',))
SHEET = OutputFile("srbench's contact sheet", "--sheet", (b"tEXtSoftware\x00srbench sheet",))
CURVE_MARK = "srbench compare --curve"
CURVE = OutputFile("srbench compare --curve", "-o", (CURVE_MARK.encode(),))


def check_file(path: Path, kind: OutputFile) -> None:
    """Raises `UsageError` unless a file of that kind can be written at `path` without harm to anything else."""
    found = _kind_there(path, kind.option)
    hint = f"Remove it, or choose another {kind.option}."
    if found == "folder":
        raise UsageError(f"{path}: is a folder", f"Name a file in it: {kind.option} {path / 'NAME'}")
    if found == "file" and not _tried(path, kind.made):
        raise UsageError(f"{path}: is there already, and {kind.command} did not write it", hint)
    if found not in ("file", "nothing"):
        raise UsageError(f"{path}: a {found}, which is never replaced", hint)
    _check_place(path.parent, path, kind.option)


def write_file(path: Path, data: bytes, kind: OutputFile) -> None:
    """Write a file whole, or leave what is there. Raises `UsageError` as `check_file` does, and where the disk is full."""
    check_file(path, kind)
    with _told(path, kind.option):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)


def _holds(path: Path, marks: Iterable[bytes]) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(mark) >= 0 for mark in marks)


def _tried(path: Path, made: Callable[[Path], bool]) -> bool:
    """What cannot be read cannot be shown to be ours."""
    try:
        return made(path)
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
    """Of a folder without a marker, which earlier versions wrote: name -> sha256 of the files that its card proves."""
    within: tuple[str, ...] = ()
    """Names in the folder for which somebody else answers, such as what an interrupted training keeps."""


def check_folder(folder: Path, kind: OutputFolder) -> None:
    """Raises `UsageError` unless the folder can be written without harm: it is not there, or all that it holds is our own."""
    found = _kind_there(folder, kind.option)
    hint = f"Move it away, or choose another {kind.option}."
    if folder.is_symlink():
        to = f"Give the folder that it leads to, or another {kind.option}."
        raise UsageError(f"{folder}: a link, which is never replaced", to)
    if found not in ("folder", "nothing"):
        raise UsageError(f"{folder}: a {found} is in the way of the folder", hint)
    if found == "folder":
        try:
            foreign = foreign_in(folder, kind)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be read ({error.strerror})", f"Choose another {kind.option}.") from error
        if foreign:
            raise UsageError(f"{folder}: {foreign}", hint)
    _check_place(folder if found == "folder" else folder.parent, folder, kind.option)


def foreign_in(folder: Path, kind: OutputFolder) -> str:
    """What is in the folder that the command did not write, or that was changed since; empty where there is nothing."""
    names = sorted(each.name for each in os.scandir(folder))
    known = _listed(folder, kind)
    for name in names:
        path = folder / name
        if name == MARKER or name in kind.within or is_temporary(path):
            continue
        if name not in known:
            return f"holds {name}, which {kind.command} did not write"
        if path.is_symlink() or kind_of_path(path) != "file" or file_sha(path) not in known[name]:
            return f"{name} was changed since {kind.command} wrote it"
    return ""


def _listed(folder: Path, kind: OutputFolder) -> Shas:
    """Files of the folder that the command wrote. Empty where another command did, or nobody knows."""
    shas = read_marker(folder, kind.command)
    if shas is not None:
        return shas
    if os.path.lexists(folder / MARKER):
        return {}  # of another command, or damaged
    try:
        return {name: [sha] for name, sha in kind.earlier(folder).items()}
    except Exception:  # noqa: BLE001 - a card may hold anything: one that cannot be read proves nothing
        return {}


def read_marker(folder: Path, command: str) -> Shas | None:
    """What the marker lists for a command; None where there is no marker, or none of this command."""
    path = folder / MARKER
    if path.is_symlink():
        return None
    try:
        said = read_json(path, limit=MARKER_LIMIT)
    except UsageError:
        return None
    files = said.get("files") if isinstance(said, dict) and said.get("made_by") == command else None
    if not isinstance(files, dict):
        return None
    return {name: [str(sha) for sha in shas] for name, shas in files.items() if isinstance(shas, list)}


def _write_marker(folder: Path, command: str, files: Shas) -> None:
    said = {"made_by": command, "about": "srbench replaces and removes these files, while they are unchanged.", "files": files}
    write_atomic(folder / MARKER, (json.dumps(said, indent=1, sort_keys=True) + "\n").encode())


@contextmanager
def written_folder(folder: Path, kind: OutputFolder, first_wins: bool = False) -> Iterator[Path]:
    """An empty folder to write files into, which become the content of `folder` when the block ends without an error.

    A folder that is not there appears whole. In one that is there the old card goes first and the new one comes last, so that
    a reader never takes half of it for a whole; files of ours that are no longer among the new ones go.
    first_wins: where another process has made the folder meanwhile, it is kept as it is: for what is kept by content.
    Raises `UsageError` as `check_folder` does, and where the disk is full.
    """
    check_folder(folder, kind)
    was_there = folder.is_dir()
    fresh = temporary_for(folder / "new" if was_there else folder)
    try:
        with _told(folder, kind.option):
            fresh.mkdir(parents=True)
            yield fresh
            if first_wins and not was_there and (folder / kind.card).is_file():
                return
            check_folder(folder, kind)
            _placed(fresh, folder, kind)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # its name, with a random part, was made above


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
    _moved_in(fresh, folder, kind, shas)  # it was there before, or somebody has made it meanwhile


def _moved_in(fresh: Path, folder: Path, kind: OutputFolder, shas: Shas) -> None:
    before = _listed(folder, kind)
    names = sorted({*before, *shas})
    _write_marker(folder, kind.command, {name: [*before.get(name, []), *shas.get(name, [])] for name in names})
    for name in sorted(before, key=lambda each: each != kind.card):
        if name == kind.card or name not in shas:
            (folder / name).unlink(missing_ok=True)
    fsync_folder(folder)
    for name in sorted(shas, key=lambda each: each == kind.card):
        os.replace(fresh / name, folder / name)
    _write_marker(folder, kind.command, shas)
    fsync_folder(folder)


# --- files in a folder that may hold others ---------------------------------------------------------------------------


def write_into(folder: Path, contents: Mapping[str, bytes], command: str, option: str) -> None:
    """Write files into a folder that may hold others, which are left alone.

    One of these names that is there already is replaced only where the folder's marker lists it and it is unchanged, or where
    it has the same content anyway. Raises `UsageError` naming the first that may not be replaced; nothing is written then.
    """
    found = _kind_there(folder, option)
    if found not in ("folder", "nothing"):
        raise UsageError(f"{folder}: a {found} is in the way of the folder", f"Choose another {option}.")
    before = (read_marker(folder, command) or {}) if found == "folder" else {}
    for name, data in contents.items():
        _check_replaced(folder / name, before.get(name, []), data, command, option)
    if found == "folder" and not before and os.path.lexists(folder / MARKER):
        raise UsageError(f"{folder}: another command of srbench wrote this folder", f"Choose another {option}.")
    shas = {name: [hashlib.sha256(data).hexdigest()] for name, data in contents.items()}
    with _told(folder, option):
        folder.mkdir(parents=True, exist_ok=True)
        _write_marker(folder, command, {**before, **{name: [*before.get(name, []), *sha] for name, sha in shas.items()}})
        for name, data in contents.items():
            write_atomic(folder / name, data)
        _write_marker(folder, command, {**before, **shas})


def _check_replaced(path: Path, shas: list[str], data: bytes, command: str, option: str) -> None:
    hint = f"Move it away, or choose another {option}."
    if path.is_symlink() or (found := kind_of_path(path)) not in ("file", "nothing"):
        raise UsageError(f"{path}: a {'link' if path.is_symlink() else found}, which is never replaced", hint)
    if found == "file" and (sha := file_sha(path)) not in (*shas, hashlib.sha256(data).hexdigest()):
        why = f"was changed since {command} wrote it" if shas else f"is there already, and {command} did not write it"
        raise UsageError(f"{path}: {why} (sha256 {sha[:8]})", hint)


# --- results folders --------------------------------------------------------------------------------------------------


def check_results(folder: Path, option: str = "--out") -> None:
    """Raises `UsageError` where no results can be kept in a folder. Other files in it do no harm: none is ever touched."""
    found = _kind_there(folder, option)
    if found not in ("folder", "nothing"):
        raise UsageError(f"{folder}: a {found} is in the way of the results folder", f"Choose another {option}.")
    _check_place(folder, folder, option)


# --- what is common ---------------------------------------------------------------------------------------------------


def own_card(folder: Path, name: str = "card.json") -> tuple[dict[str, Any], str]:
    """A card and its sha256, for `OutputFolder.earlier`. Raises `UsageError` where it is no JSON object."""
    raw = read_bytes(folder / name, limit=CARD_LIMIT)
    card = read_json(folder / name, limit=CARD_LIMIT)
    if not isinstance(card, dict):
        raise UsageError(f"{folder / name}: not a card")
    return card, hashlib.sha256(raw).hexdigest()


def _kind_there(path: Path, option: str) -> str:
    """As `kind_of_path`; a link that leads to a file counts as a link. Raises `UsageError` for a path that can not be.

    One that climbs out of a folder that is not there (`missing/../x`) leads nowhere until the folder is made, and then to
    something else than was looked at.
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
    found = kind_of_path(path)
    return "link" if path.is_symlink() and found not in ("folder", "dangling link") else found


def _check_place(folder: Path, path: Path, option: str) -> None:
    """Raises `UsageError` where `folder` cannot be made, or nothing can be written into it; leaves no trace."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        raise UsageError(f"{path}: cannot write here ({there} is no folder)", f"Choose another {option}.")
    with _told(path, option), tempfile.TemporaryFile(dir=there):
        pass


@contextmanager
def _told(path: Path, option: str) -> Iterator[None]:
    """Raises `UsageError` in place of an `OSError`."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        hint = f"Choose another {option}, or mend the rights or the space."
        raise UsageError(f"{path}: cannot write here ({why})", hint) from error


def _sync(path: Path) -> None:
    with suppress(OSError):  # a file system that cannot sync keeps what it keeps
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
