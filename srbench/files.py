"""Files: written atomically, read only where they are regular files, JSON within limits."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from srbench.errors import UsageError

MAX_DEPTH = 100
"""Levels of nesting that a JSON file may have; files of srbench and its libraries have fewer than ten."""
NAME_KEPT = 120
"""Bytes of a file's name that its temporary name keeps: with host and process it stays below the usual limit of 255."""
LFS_MARK = b"version https://git-lfs"
"""How a git-lfs pointer begins (git-lfs, docs/spec.md)."""
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[0-9a-z_-]+)-(?P<pid>\d+)-(?P<token>[0-9a-f]{8})\.tmp", re.DOTALL)
_OLD_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.tmp", re.DOTALL)
_HOST = re.sub(r"[^0-9a-z_-]", "-", socket.gethostname().lower())[:32] or "host"


# --- writing ----------------------------------------------------------------------------------------------------------


def temporary_for(path: Path) -> Path:
    """A new name beside `path` for a file that is not complete yet.

    The random part tells writers apart: containers that share a folder may share host and process id. Long names are cut.
    """
    name = path.name.encode(errors="surrogateescape")[:NAME_KEPT].decode(errors="ignore")
    return path.with_name(f".{name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


def this_host() -> str:
    """This machine's name as it is written in temporary names."""
    return _HOST


def is_temporary(path: Path) -> bool:
    """Whether a file's name is one that `temporary_for` gives."""
    return _TEMPORARY.fullmatch(path.name) is not None


def writer_of(name: str) -> tuple[str, int] | None:
    """Host and process in a temporary file's name; None for other names. Names of older versions have no host."""
    match = _TEMPORARY.fullmatch(name) or _OLD_TEMPORARY.fullmatch(name)
    return None if match is None else (match.groupdict().get("host") or "", int(match["pid"]))


def is_running(host: str, pid: int, since: float | None = None) -> bool | None:
    """Whether a process is alive; None where it is on another host. An empty host is this one. since: as for `is_alive`."""
    return is_alive(pid, since) if host in ("", _HOST) else None


def is_alive(pid: int, since: float | None = None) -> bool:
    """Whether a process of this machine runs.

    since: seconds since the epoch at which the process had this id; ids are reused, and a later process does not count.
    """
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # it runs as another user
    except (OSError, OverflowError):
        return False
    began = None if since is None else _began(pid)
    return began is None or since is None or began <= since + 2  # seconds: clocks of files and processes differ


def _began(pid: int) -> float | None:
    """When a process was started, seconds since the epoch; None where the system does not report it."""
    try:
        ticks = float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])  # field 22 of proc(5)
        (boot,) = (float(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
        return boot + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def fsync_folder(folder: Path) -> None:
    """Sync a folder, so that new names in it survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: Path) -> None:
    """Sync a file's content."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


@contextmanager
def written_whole(path: Path, sync: bool = True) -> Iterator[IO[bytes]]:
    """A file to write; synced and renamed to `path` when the block ends without an error, else deleted.

    sync: false where the caller syncs it later.
    """
    temporary = temporary_for(path)
    try:
        with temporary.open("xb") as handle:
            yield handle
            handle.flush()
            if sync:
                os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either all of it or its old content."""
    with written_whole(path) as handle:
        handle.write(data)


# --- reading ----------------------------------------------------------------------------------------------------------


def kind_of_path(path: Path) -> str:
    """What is at a path, for messages: `file`, `folder`, `fifo`, `device`, `socket`, `dangling link` or `nothing`."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return "dangling link" if path.is_symlink() else "nothing"
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISFIFO(mode):
        return "fifo"
    return "socket" if stat.S_ISSOCK(mode) else "device"


def read_bytes(path: Path, hint: str = "", limit: int | None = None) -> bytes:
    """The content of a regular file; a fifo, which would block for ever, is never opened.

    limit: largest size in bytes. Raises `UsageError` for anything but a readable file.
    """
    kind = kind_of_path(path)
    if kind != "file":
        raise UsageError(f"{path}: {_no_file(kind)}", hint)
    try:
        if limit is not None and (size := path.stat().st_size) > limit:
            raise UsageError(f"{path}: {size / 1e6:.0f} MB, where {limit / 1e6:.0f} MB are the most that is read", hint)
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})", hint) from error


def _no_file(kind: str) -> str:
    return "there is no such file" if kind == "nothing" else f"a {kind}, not a file"


def file_sha(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def parse_json(data: bytes | str, where: str, hint: str = "", nan: bool = False, unique: bool = False) -> Any:
    """JSON as Python's values; a byte order mark is allowed.

    where: its name in messages. nan: whether `NaN` and `Infinity`, which JSON does not have and Python writes, are accepted.
    unique: whether a repeated key in an object is refused; else the last one counts.
    Raises `UsageError` with what is wrong: the encoding, the syntax, more than `MAX_DEPTH` levels, a number too long to read.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 (byte {error.start + 1})", hint) from error
    if _depth(text) > MAX_DEPTH:
        raise UsageError(f"{where}: nested more than {MAX_DEPTH} levels deep", hint)
    try:
        constant, pairs = None if nan else no_constant, _unique if unique else None
        return json.loads(text, parse_constant=constant, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON ({error.msg}, line {error.lineno}, column {error.colno})", hint) from error
    except (ValueError, RecursionError) as error:  # an integer of more digits than Python reads; a constant
        why = str(error).splitlines()[0]
        why = "a number of more digits than are read" if "integer string conversion" in why else why
        raise UsageError(f"{where}: not JSON that can be read ({why})", hint) from error


def read_json(path: Path, hint: str = "", limit: int | None = None, nan: bool = False, unique: bool = False) -> Any:
    """A JSON file. Raises `UsageError` as `read_bytes` and `parse_json` do, and for a git-lfs pointer in its place."""
    data = read_bytes(path, hint, limit)
    if data.startswith(LFS_MARK):
        raise UsageError(f"{path}: a git-lfs pointer, not the file", "Run `git lfs pull` in its clone, or download the file.")
    return parse_json(data, str(path), hint, nan, unique)


def no_constant(name: str) -> NoReturn:
    """For `parse_constant` of a JSON reader: refuses `NaN` and `Infinity`."""
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key '{printable(key)[:60]}' stands twice in an object")
        table[key] = value
    return table


_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
"""A JSON string, complete or cut off (possessive, since it may be half of a long file), or a bracket."""


def _depth(text: str) -> int:
    """Levels of nesting, up to one more than `MAX_DEPTH`; 0 for texts with few brackets, which cannot be deep."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        if match[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
        elif match[0] in "]}":
            depth -= 1
    return deepest


# --- names ------------------------------------------------------------------------------------------------------------

SYSTEM_NAMES = frozenset({
    "thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found",
    "system volume information", "__pycache__",
})  # fmt: skip
"""Names that operating systems, file servers and Python leave in folders, in lower case."""


def is_system_name(name: str) -> bool:
    """Whether a file or folder of that name is hidden or an operating system's, and so none of the user's data."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


# --- text -------------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """`text` on one line, with characters that would act on a terminal (escapes, controls, marks of direction) escaped.

    For every name and text that comes from a file and goes to a terminal or into a message.
    """
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters, marks of text direction, line ends other than a newline, and lone surrogates."""


def calm(text: str) -> str:
    """`text` of several lines with characters that would act on a terminal or a page escaped: for whole documents."""
    return ACTING.sub(lambda match: _escaped(match[0]), text)


NOT_ASCII = re.compile(r"[^\n -~]")


def escaped_json(text: str, ascii_only: bool = False) -> str:
    """JSON with what acts on a terminal escaped, or all that is not ASCII: either stands in strings alone."""
    pattern = NOT_ASCII if ascii_only else ACTING
    return pattern.sub(lambda match: json.dumps(match[0])[1:-1], text)


def _escaped(character: str) -> str:
    if 0xD800 <= ord(character) < 0xE000:  # a lone surrogate, which no codec encodes
        return f"\\u{ord(character):x}"
    return character.encode("unicode_escape").decode("ascii")
