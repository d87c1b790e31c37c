"""Base of the image classifiers: one image per pass on one thread, probabilities by softmax."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor

from srbench.scorers._files import check_rgb, one_thread

DIGITS = 6
"""Probabilities are rounded to so many digits."""


class Classifier(ABC):
    """A subclass loads its network, and gives its logits and the fields made from the probabilities."""

    meta: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def logits(self, picture: Image.Image) -> Tensor:
        """The network's output for one RGB image, (classes,)."""

    @abstractmethod
    def fields(self, probabilities: Tensor) -> dict[str, Any]:
        """Raw numbers of one image, JSON-ready. probabilities: (classes,) float64, of sum 1."""

    def identity(self) -> dict[str, Any]:
        """The part that all classifiers share."""
        return {
            "scorer": self.meta["name"],
            "version": self.meta["version"],
            "torch_version": torch.__version__,
            "pillow_version": PIL.__version__,
            "channel_order": "RGB",
            "output": f"softmax over all classes, {DIGITS} digits, one picture a pass on one thread",
        }

    @torch.inference_mode()
    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One dict per image. Raises `CellError` for other than uint8 RGB."""
        scores = []
        with one_thread():
            for image, _ in zip(images, rows, strict=True):
                picture = Image.fromarray(np.ascontiguousarray(check_rgb(image, self.meta["name"])))
                scores.append(self.fields(self.logits(picture).double().softmax(0)))
        return scores
