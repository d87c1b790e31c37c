"""Carries a `Download` out: hub repositories through huggingface_hub, addresses with the standard library. Both go on where they
were cut off, and what arrives is hashed before it is believed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from srbench.downloads import Download
from srbench.errors import MissingError, SrbenchError, UsageError
from srbench.files import file_sha, write_atomic
from srbench.version import __version__

Tell = Callable[[str, int, int, str], None]
"""Called with (phase, bytes done, all bytes, note); all bytes are 0 where the server does not say."""

TRIES = 5
"""Times that an address is asked before a connection that is cut off again and again is given up."""
WAIT_S = 1.0
"""Before the second try; each further one waits twice as long."""
TIMEOUT_S = 30.0
"""Without a byte."""
REACHED_WITHIN_S = 10.0
"""Of the hub's machine, before it is asked for anything."""
BLOCK = 1 << 20
RANGE_NOT_THERE = 416
SPARE_BYTES = 200 << 20
"""Left free beside what is downloaded."""


@dataclass(frozen=True)
class Sized:
    """What a download would fetch."""

    download: Download
    size: int | None
    """Bytes that are not here yet; None where the server does not say."""
    files: int


def sized(download: Download) -> Sized:
    """Ask the server what there is to fetch. Raises as `fetch` does."""
    with _explained(download):
        if download.url:
            return Sized(download, _length(download), 1)
        lacking = [each for each in _listed(download) if not each.here]
        return Sized(download, sum(each.size for each in lacking), len(lacking))


def fetch(download: Download, tell: Tell) -> Path:
    """Fetch it, and return its file or folder. What an earlier call left is gone on with.

    Raises `MissingError` where the network or the server is not to be had, or access must be asked for; `UsageError` where
    what arrived has another sha256 than it should, or cannot be written.
    """
    with _explained(download):
        path = _of_address(download, tell) if download.url else _of_hub(download, tell)
    return path


def check_space(sizes: list[Sized]) -> None:
    """Raises `UsageError` where a disk has less room than what is to be fetched takes."""
    needed: dict[Path, int] = {}
    for each in sizes:
        place = _existing(_place(each.download))
        needed[place] = needed.get(place, 0) + (each.size or 0)
    for place, size in needed.items():
        free = shutil.disk_usage(place).free
        if size and free < size + SPARE_BYTES:
            raise UsageError(
                f"{place}: {in_bytes(free)} are free, and {in_bytes(size)} are to be fetched",
                "Make room, or set HF_HOME and XDG_CACHE_HOME to a larger disk.",
            )


def in_bytes(size: int) -> str:
    """For people: `4.3 GB`, powers of ten."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size} bytes"


def _place(download: Download) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return download.path or download.folder or Path(HF_HUB_CACHE)


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.absolute().parents) if each.exists())


# --- what goes wrong ----------------------------------------------------------------------------------------------------


@contextmanager
def _explained(download: Download) -> Iterator[None]:
    """Errors of the network, the hub and the disk as one line each."""
    from huggingface_hub import errors

    name = download.name
    try:
        yield
    except SrbenchError:
        raise
    except errors.GatedRepoError as error:
        raise MissingError(
            f"{name}: access is given on request", f"Ask for it at {download.page}, then log in: hf auth login", [download]
        ) from error
    except errors.RepositoryNotFoundError as error:
        hint = f"Look at {download.page}; a private repository needs: hf auth login"
        raise MissingError(f"{name}: the hub shows no such repository", hint, [download]) from error
    except errors.RevisionNotFoundError as error:
        raise MissingError(f"{name}: it has no revision {download.revision}", f"Look at {download.page}", [download]) from error
    except errors.OfflineModeIsEnabled as error:
        raise MissingError(f"{name}: HF_HUB_OFFLINE forbids the network", "Unset it, and run this again.", [download]) from error
    except errors.HfHubHTTPError as error:
        raise _of_status(download, error.response.status_code) from error
    except urllib.error.HTTPError as error:
        raise _of_status(download, error.code) from error
    except OSError as error:
        raise _of_system(download, error) from error
    except (HTTPException, errors.HTTPError) as error:
        raise _unreachable(download, error) from error


def _of_status(download: Download, code: int) -> MissingError:
    if code in (401, 403):
        return MissingError(f"{download.name}: the server refuses access ({code})", f"Look at {download.page}", [download])
    if code in (404, 410):
        return MissingError(f"{download.name}: it is not there any more ({code})", "Give your own copy.", [download])
    return MissingError(f"{download.name}: the server answered {code}", "Try again later.", [download])


def _of_system(download: Download, error: OSError) -> SrbenchError:
    """The disk's errors have a path or a number of their own; all others are the network's."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR):
        where = f": {error.filename}" if error.filename else ""
        return UsageError(f"{download.name}: {error.strerror}{where}", "Mend that, then run the same command again: it goes on.")
    return _unreachable(download, error)


def _unreachable(download: Download, error: Exception) -> MissingError:
    reason = str(getattr(error, "reason", "") or error).splitlines()
    why = f" ({reason[0][:160]})" if reason else ""
    hint = f"Try again where there is a network, or there: {download.command()}"
    return MissingError(f"{download.name}: no connection{why}", hint, [download])


def _wrong(path: Path, expected: str, found: str) -> UsageError:
    return UsageError(
        f"{path.name}: its sha256 is {found[:12]}..., {expected[:12]}... was expected; it was removed",
        "Run this again; if it stays so, the file was changed where it comes from.",
    )


# --- the hub ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A file of a repository."""

    name: str
    size: int
    sha256: str
    """As the hub states it; empty of small files, which git keeps."""
    here: bool


def _listed(download: Download) -> list[Entry]:
    """The repository's files that are asked for. Raises `MissingError` where it has none of them."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE
    from huggingface_hub.utils import filter_repo_objects

    if not HF_HUB_OFFLINE:  # else the library refuses by itself
        _check_reach(_endpoint() or ENDPOINT)
    tree = HfApi(endpoint=_endpoint()).list_repo_tree(
        download.hub, recursive=True, revision=download.revision, repo_type=download.kind
    )
    files: dict[str, Any] = {each.path: each for each in tree if hasattr(each, "size")}  # folders have none
    names = filter_repo_objects(files, allow_patterns=[*download.files, *download.include] or None)
    entries = [
        Entry(name, files[name].size, files[name].lfs.sha256 if files[name].lfs else "", _is_here(download, name))
        for name in names
    ]  # fmt: skip
    lacking = set(download.files) - {each.name for each in entries}
    if lacking or not entries:
        what = f"it has no {sorted(lacking)[0]}" if lacking else "it holds no such files"
        raise MissingError(f"{download.name}: {what}", f"Look at {download.page}", [download])
    return entries


def _is_here(download: Download, name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    if download.folder:
        return (download.folder / name).is_file()
    return isinstance(try_to_load_from_cache(download.hub, name, revision=download.revision, repo_type=download.kind), str)


def _check_reach(address: str) -> None:
    """Raise `OSError` where the hub cannot be reached at all: its library would ask for half a minute, and say so each time."""
    parts = urllib.parse.urlsplit(address)
    if parts.hostname is None or urllib.request.getproxies().keys() & {parts.scheme, "all"}:
        return  # a proxy reaches it
    port = parts.port or (80 if parts.scheme == "http" else 443)
    socket.create_connection((parts.hostname, port), REACHED_WITHIN_S).close()


def _endpoint() -> str | None:
    """The hub's address, where the user has another one."""
    return os.environ.get("HF_ENDPOINT") or None


def _of_hub(download: Download, tell: Tell) -> Path:
    """The file, or the folder of several. Each file goes on where it was cut off; the cache is huggingface_hub's own."""
    from huggingface_hub import hf_hub_download

    entries = _listed(download)
    whole = sum(each.size for each in entries)
    done, path = 0, Path()
    for number, each in enumerate(entries, 1):
        path = Path(hf_hub_download(
            download.hub, each.name, repo_type=download.kind, revision=download.revision, local_dir=download.folder,
            endpoint=_endpoint(),
        ))  # fmt: skip
        if not each.here:
            _check_file(path, [each.sha256, download.sha256 if len(download.files) == 1 else ""])
        done += each.size
        tell("download", done, whole, f"{in_bytes(done)}, file {number} of {len(entries)}")
    return path if len(download.files) == 1 else _above(path, entries[-1].name)


def _above(path: Path, name: str) -> Path:
    """The folder that `name` is in at `path`."""
    return path.parents[name.count("/")]


def _check_file(path: Path, stated: list[str]) -> None:
    """Raises `UsageError`, and removes the file, where it has another sha256 than one that is stated."""
    blob = path.resolve()
    for expected in filter(None, stated):
        if not (found := file_sha(blob)).startswith(expected):
            path.unlink()
            blob.unlink(missing_ok=True)
            raise _wrong(path, expected, found)


# --- an address ---------------------------------------------------------------------------------------------------------


def _request(download: Download, headers: dict[str, str], method: str = "GET") -> HTTPResponse:
    request = urllib.request.Request(download.url, headers={"User-Agent": f"srbench/{__version__}", **headers}, method=method)
    response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    return response


def _length(download: Download) -> int | None:
    with _request(download, {}, "HEAD") as response:
        length = response.headers.get("Content-Length")
    have = _begun(download)[0] if length else 0
    return max(0, int(length) - have) if length else None


def _begun(download: Download) -> tuple[int, str]:
    """Bytes that an earlier call left, and the mark of the file that they are of."""
    part, mark = _parts(download)
    try:
        return part.stat().st_size, json.loads(mark.read_text(encoding="utf-8"))["mark"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""


def _parts(download: Download) -> tuple[Path, Path]:
    assert download.path is not None  # as `Download` promises
    return download.path.with_name(f"{download.path.name}.part"), download.path.with_name(f"{download.path.name}.part.json")


def _of_address(download: Download, tell: Tell) -> Path:
    """One process at a time; a second one waits, and finds the file."""
    from filelock import FileLock

    path = download.path
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            _fetched(download, tell)
            part, mark = _parts(download)
            found = file_sha(part)
            if not found.startswith(download.sha256):
                part.unlink()
                mark.unlink(missing_ok=True)
                raise _wrong(path, download.sha256, found)
            part.replace(path)
            mark.unlink(missing_ok=True)
    return path


def _fetched(download: Download, tell: Tell) -> None:
    """All bytes into `.part`, in several tries where the connection is cut off."""
    for attempt in range(TRIES):
        before = _begun(download)[0]
        try:
            if _received(download, tell):
                return
        except urllib.error.HTTPError as error:
            if error.code == RANGE_NOT_THERE:  # what is begun is longer than the file: it is of another one
                _parts(download)[0].unlink()
            elif error.code < 500:
                raise
            failure: Exception = error
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and isinstance(_of_system(download, error), UsageError):
                raise
            failure = error
        else:
            failure = ConnectionError("it was cut off")
        if attempt + 1 == TRIES:
            raise failure
        if _begun(download)[0] == before:
            time.sleep(WAIT_S * 2**attempt)


def _received(download: Download, tell: Tell) -> bool:
    """Go on with `.part`, or begin it; whether the whole file is there then."""
    part, mark = _parts(download)
    have, of = _begun(download)
    resume = {"Range": f"bytes={have}-", "If-Range": of} if have and of else {}
    with _request(download, {**resume, "Accept-Encoding": "identity"}) as response:
        goes_on = response.status == 206
        have = have if goes_on else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else 0
        now = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        if not goes_on:
            write_atomic(mark, json.dumps({"mark": "" if now.startswith("W/") else now}).encode())
        with part.open("ab" if goes_on else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                have += len(block)
                tell("download", have, total, in_bytes(have))
    return not total or have == total
