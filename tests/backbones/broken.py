"""Copies of pocket's model in which something is broken, as downloads and conversions break them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from srbench.catalog.resolve import package_path

MODEL = package_path("package:pocket/model")


def copied(to: Path, origin: Path = MODEL) -> Path:
    """A copy. Its weights are links to the same bytes: they may be replaced or removed, and must not be written in place."""
    shutil.copytree(origin, to, copy_function=_link)
    return to


def _link(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        os.link(source, target)
    else:
        shutil.copyfile(source, target)


def replaced(path: Path, data: bytes) -> None:
    """Other bytes at a path; the file that it was linked to stays."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def edited(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """A changed JSON file. change: may change the object, or return what takes its place."""
    found = json.loads(path.read_text(encoding="utf-8"))
    other = change(found)
    replaced(path, json.dumps(found if other is None else other).encode())


def retensored(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """A changed file of weights."""
    made = change(load_file(path))
    path.unlink()
    save_file(made, path, {"format": "pt"})
