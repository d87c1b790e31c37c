"""Shared by the bundled scorers: locating weight files, and refusing images that they were not made for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from srbench.backbones import folder, weights
from srbench.downloads import Download
from srbench.errors import CellError, MissingError, UsageError
from srbench.files import file_sha as sha256_of
from srbench.scorers import base
from srbench.scorers.base import check_rgb as check_rgb

POCKET_SIDE_PX = 64


class Folder(base.Options):
    """Options of a scorer whose weights are a folder."""

    weights: Path | None = Field(None, exclude=True)
    """The folder; None: the installed package's."""


def need(path: Path, command: str) -> Path:
    """`path`, which must exist. Raises `MissingError` with the command that makes it."""
    if not path.is_file():
        raise MissingError(f"{path.name} is not in {path.parent.name}/ of the installed package", f"Make it with: {command}")
    return path


class File(base.Options):
    """Options of a scorer whose weights are one file."""

    weights: Path | None = Field(None, exclude=True)
    """The file; None: where its library's own download would put it."""


def fetched(user_file: Path | None, url: str, scorer: str) -> Path:
    """The file that a scorer's library downloads from `url` into torch's hub cache, or the user's own file.

    A name that ends in the first digits of the file's sha256, as torch.hub's do, is compared with the content. Raises
    `MissingError` with the command that fetches it, `UsageError` where the content is another.
    """
    name = url.rsplit("/", 1)[-1]
    path = user_file.expanduser() if user_file else Path(torch.hub.get_dir()) / "checkpoints" / name
    stated = re.search(r"-([0-9a-f]{8,})\.\w+$", name)
    if not path.is_file():
        download = Download(url=url, path=path, sha256=stated[1] if stated else "")
        message = f"{scorer}: its weights are not on this machine ({path.name})"
        raise MissingError(message, f"Fetch them: {download.command()}", [download])
    if user_file is None and stated and not sha256_of(path).startswith(stated[1]):
        raise UsageError(f"{path}: its sha256 does not begin with {stated[1]}", "Remove it, and fetch it again.")
    return path


def read_state(path: Path) -> dict[str, Any]:
    """Named tensors of a file, whatever its name; nothing but tensors and plain containers is unpickled.

    Raises `UsageError` with the cause where it holds no weights.
    """
    return weights.named(path)[0]


def settings(path: Path) -> dict[str, Any]:
    """A configuration beside weights, within limits of size, depth and numbers. Raises `UsageError`."""
    return folder.configuration(path)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread.

    A network this small gains nothing from a second one. Beside a backbone that samples on all cores, threads that wait for
    each other cost it seven times the work; and numbers would depend on how many there are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 RGB (H, W, 3) to float32 in [-1, 1], (1, 3, H, W)."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def check_pair(image: Any, reference: Any, scorer: str) -> tuple[np.ndarray, np.ndarray]:
    """Both images if they are uint8 RGB of one size, (H, W, 3). Raises `CellError`."""
    one, other = check_rgb(image, scorer), check_rgb(reference, scorer)
    if one.shape != other.shape:
        sizes = " and ".join(f"{picture.shape[1]} x {picture.shape[0]}" for picture in (one, other))
        raise CellError(f"{scorer} compares pictures of one size, not {sizes} px", "Scale them before, and say how.")
    return one, other


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
