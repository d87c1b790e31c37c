"""State of an interrupted training: the same command resumes from it and ends at the same result."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from srbench.errors import UsageError
from srbench.files import is_temporary, kind_of_path, read_bytes, write_atomic

FOLDER, IDENTITY = ".partial", "identity"
PART = re.compile(r"(training|trajectories-\d+-\d+)\.pt")
_DIGEST = re.compile(rb"[0-9a-f]{64}")


def check(out: Path) -> None:
    """Raises `UsageError` where `out` holds a folder of that name that no training of srbench left."""
    folder = out / FOLDER
    kind = "link" if folder.is_symlink() else kind_of_path(folder)
    if kind == "nothing" or (kind == "folder" and (_identity(folder) or not any(_foreign(folder)))):
        return
    why = f"a {kind}" if kind != "folder" else f"holds {next(_foreign(folder), 'files')}"
    hint = "Move it away, or choose another --out."
    raise UsageError(f"{folder}: {why}, which is not what an interrupted training leaves", hint)


def _foreign(folder: Path) -> Iterator[str]:
    """Names of files that a training stopped at its very beginning does not leave."""
    return (path.name for path in sorted(folder.iterdir()) if not is_temporary(path))


def _identity(folder: Path) -> str:
    """The digest that the folder belongs to; empty where there is none."""
    try:
        identity = read_bytes(folder / IDENTITY, limit=64)
    except UsageError:
        return ""
    return identity.decode() if _DIGEST.fullmatch(identity) else ""


class Partial:
    """Finished parts of one training, in a folder inside the one that its result goes to.

    They belong to one identity, all that decides the result; parts of another identity are deleted.
    """

    def __init__(self, out: Path, identity: dict[str, Any]) -> None:
        """Raises `UsageError` where the folder cannot be written, or holds something else."""
        check(out)
        self.folder = out / FOLDER
        self.seconds = 0.0
        """Spent on the parts that were loaded."""
        made_of = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        if _identity(self.folder) != made_of:
            self.drop()
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomic(self.folder / IDENTITY, made_of.encode())
            except OSError as error:
                raise UsageError(f"{out}: cannot write here ({error.strerror})", "Choose another --out.") from error

    def load(self, part: str) -> dict[str, Any] | None:
        """A finished part as it was saved; None where it is missing or damaged: making it again gives the same part."""
        path = self.folder / f"{part}.pt"
        if kind_of_path(path) != "file":
            return None
        try:
            values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self.seconds += values["seconds"]
        except Exception:  # noqa: BLE001 - torch raises what it likes for a damaged file
            return None
        return values

    def save(self, part: str, seconds: float, **values: Any) -> None:
        """Keep a part: tensors, numbers and texts, in lists and dicts. seconds: what it took in all."""
        raw = io.BytesIO()
        torch.save({**values, "seconds": seconds}, raw)
        write_atomic(self.folder / f"{part}.pt", raw.getvalue())

    def drop(self) -> None:
        """Delete the parts, the identity last; files of other names stay, and the folder with them."""
        if not self.folder.is_dir() or self.folder.is_symlink():
            return
        for path in sorted(self.folder.iterdir(), key=lambda file: file.name == IDENTITY):
            if (PART.fullmatch(path.name) or is_temporary(path) or path.name == IDENTITY) and kind_of_path(path) == "file":
                path.unlink(missing_ok=True)
        with suppress(OSError):  # what is not ours is in it
            self.folder.rmdir()
