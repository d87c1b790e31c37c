"""What an interrupted training leaves behind, so that the same command goes on from there and ends at the same result."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from srbench.errors import UsageError
from srbench.files import kind_of_path, read_bytes
from srbench.rules import AMOUNT, check

FOLDER = ".partial"


def write(path: Path, raw: bytes) -> None:
    """A file, whole or not at all: written beside and renamed."""
    beside = path.with_name(f".{path.name}.writing")
    with beside.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


class Partial:
    """Finished parts of one training, in a folder inside the one that its result goes to.

    They belong to one identity, all that decides the result: those of another are thrown away.
    """

    def __init__(self, out: Path, identity: dict[str, Any]) -> None:
        self.folder = out / FOLDER
        self.seconds = 0.0
        """That the parts took which were found."""
        made_of = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        name = self.folder / "identity"
        if kind_of_path(name) != "file" or read_bytes(name) != made_of.encode():
            self.drop()
            self.folder.mkdir(parents=True)
            write(name, made_of.encode())

    def load(self, part: str) -> dict[str, Any] | None:
        """A finished part as it was saved; None where it is not there."""
        path = self.folder / f"{part}.pt"
        if kind_of_path(path) == "nothing":
            return None
        try:
            found = torch.load(io.BytesIO(read_bytes(path)), map_location="cpu", weights_only=True)
            check(found, {"seconds": AMOUNT}, {})
        # torch raises what it likes for damaged files.
        except Exception as error:
            raise UsageError(f"{path}: damaged ({type(error).__name__})", "Remove it, and the part is made again.") from error
        self.seconds += found["seconds"]
        return dict(found)

    def save(self, part: str, seconds: float, **values: Any) -> None:
        """Keep a part: tensors, numbers and texts, in lists and dicts. seconds: what it took in all."""
        raw = io.BytesIO()
        torch.save({**values, "seconds": seconds}, raw)
        write(self.folder / f"{part}.pt", raw.getvalue())

    def drop(self) -> None:
        """Throw everything away: the result is there."""
        shutil.rmtree(self.folder, ignore_errors=True)
