"""What the bundled scorers share: naming weight files, and refusing pictures they were not made for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from srbench.errors import CellError, MissingError
from srbench.scorers import base

POCKET_SIDE_PX = 64


class Folder(base.Options):
    """Options of a scorer whose weights are a folder."""

    weights: Path | None = Field(None, exclude=True)
    """The folder; None: the installed package's."""


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def need(path: Path, command: str) -> Path:
    """`path`, which must exist. Raises `MissingError` with the command that makes it."""
    if not path.is_file():
        raise MissingError(f"{path.name} is not in {path.parent.name}/ of the installed package", f"Make it with: {command}")
    return path


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes on one thread inside.

    A network this small gains nothing from a second one. Beside a backbone that samples on all cores, threads that wait for
    each other cost it seven times the work; and numbers would depend on how many there are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_rgb(image: Any, scorer: str) -> np.ndarray:
    """`image` if it is uint8 RGB, (H, W, 3). Raises `CellError`."""
    fits = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
    if not fits:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise CellError(f"{scorer} reads uint8 RGB pictures (height, width, 3), not {found}", "Convert the picture to 8-bit RGB.")
    return image


def check_pocket(image: Any, scorer: str) -> np.ndarray:
    """`image` if it is uint8 RGB, (64, 64, 3). Raises `CellError`."""
    height, width = check_rgb(image, scorer).shape[:2]
    side = POCKET_SIDE_PX
    if (height, width) != (side, side):
        raise CellError(
            f"{scorer} reads pictures of {side} x {side} px, not {width} x {height}",
            "It knows the pocket world only; choose a protocol made for this backbone.",
        )
    return image
