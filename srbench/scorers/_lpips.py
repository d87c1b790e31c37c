"""LPIPS (1801.03924) by its authors' library: AlexNet as torchvision publishes it under the library's linear heads, v0.1."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import lpips
import numpy as np
import torch
from torch import Tensor
from torchvision.models import AlexNet_Weights

from srbench.backbones.weights import fill, one_line
from srbench.errors import UsageError
from srbench.scorers import base
from srbench.scorers._files import File, check_pair, fetched, one_thread, read_state, sha256_of, to_tensor

HINT = "Give the file of AlexNet_Weights.IMAGENET1K_V1."
_SLICES = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
"""Convolution in torchvision's `features` -> the slice of the library's trunk that holds it."""


def trunk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's AlexNet under the names of the library's trunk. Raises `UsageError` for other weights."""
    tensors = {}
    for name, value in state.items():
        match = re.fullmatch(r"features\.(\d+)\.(weight|bias)", name)
        if match is not None and int(match[1]) in _SLICES:
            tensors[f"net.slice{_SLICES[int(match[1])]}.{match[1]}.{match[2]}"] = value
    if len(tensors) != 2 * len(_SLICES):
        raise UsageError("LPIPS: the trunk's file is not torchvision's AlexNet", HINT)
    return tensors


def network(path: Path) -> lpips.LPIPS:
    """The library's network in evaluation mode, with its own heads and the trunk of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the library's own call of torchvision is out of date
        with one_line("LPIPS: the heads in the package lpips cannot be opened", "pip install --force-reinstall lpips"):
            model = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    fill(model, {**model.state_dict(), **trunk(read_state(path))}, f"{path}: not torchvision's AlexNet", HINT)
    return model.eval().requires_grad_(False)


class Lpips:
    """Distance of an image and its reference image; one pair a pass."""

    meta: ClassVar[Mapping[str, Any]]
    Options: ClassVar[type[base.Options]] = File
    side_px: ClassVar[int | None] = None
    """Both are scaled to this side; None: compared as they are."""

    def __init__(self, options: File | None = None) -> None:
        self._path = fetched(options.weights if options else None, AlexNet_Weights.IMAGENET1K_V1.url, self.meta["name"])
        self._network = network(self._path)

    def identity(self) -> dict[str, Any]:
        return {
            "scorer": self.meta["name"],
            "version": self.meta["version"],
            "library": "lpips, net alex, version 0.1",
            "library_version": metadata.version("lpips"),
            "torch_version": torch.__version__,
            "weights": "torchvision AlexNet_Weights.IMAGENET1K_V1 under the library's linear heads",
            "weights_sha256": sha256_of(self._path),
            "preprocessing": "uint8 / 127.5 - 1, float32, one pair a pass on one thread",
            "resize": f"{self.side_px} x {self.side_px}, bilinear with anti-aliasing" if self.side_px else "none",
            "channel_order": "RGB",
        }

    def _input(self, image: np.ndarray) -> Tensor:
        x = to_tensor(image)  # (1, 3, H, W)
        if self.side_px is None:
            return x
        size = (self.side_px, self.side_px)
        return torch.nn.functional.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)

    @torch.inference_mode()
    def score(
        self, images: Sequence[np.ndarray], references: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """One dict per pair: `distance`. Raises `CellError` for other than uint8 RGB, or for two sizes."""
        scores = []
        with one_thread():
            for image, reference, _ in zip(images, references, rows, strict=True):
                a, b = check_pair(image, reference, self.meta["name"])
                scores.append({"distance": round(float(self._network(self._input(a), self._input(b))), 6)})
        return scores
