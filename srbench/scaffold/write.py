"""Writes the files of a template: all of them or none, and never over an existing file."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from srbench.catalog.load import Specs
from srbench.errors import UsageError
from srbench.files import fsync_folder, kind_of_path, temporary_for, written_whole

NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
"""A name that can be a folder, a package, and a word on the command line."""
LONGEST = 64
"""Letters of a name."""


def check_name(what: str, name: str, taken: Iterable[str]) -> str:
    """The name, if it can be used. Raises `UsageError` where it is no name, or taken.

    what: kind of thing, for messages: `method`, `suite`. taken: the names that are in use.
    """
    a = "an" if what[0] in "aeiou" else "a"
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise UsageError(
            f"'{name}' cannot be the name of {a} {what}",
            f"Use lower-case letters, digits and single '-' or '_' between them, a letter first, {LONGEST} letters at most.",
        )
    refuse_taken(what, name, taken)
    return name


def refuse_taken(what: str, name: str, taken: Iterable[str]) -> None:
    """Raises `UsageError` where a name is in use, with the file that has it, where it is a file's."""
    a = "an" if what[0] in "aeiou" else "a"
    file = taken.file_of(name) if isinstance(taken, Specs) else None
    if file or name in taken:
        where = f", in {_short(file)}" if file else ""
        raise UsageError(f"the name '{name}' is taken: there is such {a} {what} already{where}", "Choose another name.")


def _short(file: Path) -> Path:
    """The path from the working directory, where the file is below it."""
    here = Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file


def write_package(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """As `write`, into a folder that must not be there yet."""
    if os.path.lexists(folder):
        kind = kind_of_path(folder)
        raise UsageError(f"{folder}: a {kind} of that name is there already", "Choose another --out, or move it away.")
    return write(folder, files)


def write(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Write files below a folder, and return their paths.

    files: path below the folder -> text. A folder that is not there appears whole. In one that is there, the files appear in
    the order given, so that a file which names another one comes after it; where one cannot be written, the others go again.
    Raises `UsageError` naming the first path that is there already, or that cannot be written.
    """
    for name in files:
        if os.path.lexists(folder / name):
            raise UsageError(f"{folder / name}: is there already", "Choose another name, or move it away.")
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{folder}: a {kind_of_path(folder)} is in the way", "Choose another name, or move it away.")
    try:
        return _into(folder, files) if folder.is_dir() else _whole(folder, files)
    except OSError as error:
        why, hint = error.strerror or type(error).__name__, "Mend the rights or the space, or choose another folder."
        raise UsageError(f"{folder}: cannot write here ({why})", hint) from error


def _whole(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """A new folder, renamed into place once all files are in it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = temporary_for(folder)
    try:
        for name, text in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            with written_whole(fresh / name) as handle:
                handle.write(text.encode())
        os.rename(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # its name, with a random part, was made above
    fsync_folder(folder.parent)
    return [folder / name for name in files]


def _into(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """New files in an existing folder; where one cannot be written, the others are removed again."""
    written: list[Path] = []
    try:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _new(folder / name, text.encode())
            written.append(folder / name)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return written


def _new(path: Path, data: bytes) -> None:
    """A new file, complete when it appears. Raises `FileExistsError` where there is one."""
    temporary = temporary_for(path)
    try:
        with written_whole(temporary) as handle:
            handle.write(data)
        os.link(temporary, path)  # unlike a rename, never replaces
    finally:
        temporary.unlink(missing_ok=True)
