"""`ssim`: structural similarity (Wang et al. 2004) to the reference image, by scikit-image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from skimage.metrics import structural_similarity

from srbench.errors import CellError
from srbench.scorers import base
from srbench.scorers._files import check_pair
from srbench.scorers.base import scorer

SCORER = {
    "name": "ssim",
    "version": 1,
    "kind": "pair",
    "title": "Structural similarity to the reference image (Gaussian window, sigma 1.5, RGB)",
    "reads": [],
    "fields": ["similarity"],
    "metrics": {"ssim": {"field": "similarity", "better": "higher"}},
    "families": [],
}
SMALLEST_PX = 11
"""Side of the window."""


@scorer(SCORER)
class Ssim:
    """The settings of the paper: 11 x 11 Gaussian window of sigma 1.5, K1 0.01, K2 0.03, population covariances."""

    def __init__(self, options: base.Options | None = None) -> None:
        """Has neither options nor weights."""

    def identity(self) -> dict[str, Any]:
        return {
            "scorer": SCORER["name"],
            "version": SCORER["version"],
            "library": "scikit-image, skimage.metrics.structural_similarity",
            "library_version": metadata.version("scikit-image"),
            "weights": "none",
            "weights_sha256": "",
            "preprocessing": "uint8, data range 255, mean of the three channels' values",
            "resize": "none",
            "channel_order": "RGB",
        }

    def score(
        self, images: Sequence[np.ndarray], references: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """One dict per pair: `similarity`. Raises `CellError` for other than uint8 RGB, for two sizes, or below 11 px."""
        pairs = [check_pair(a, b, str(SCORER["name"])) for a, b, _ in zip(images, references, rows, strict=True)]
        return [{"similarity": round(_similarity(a, b), 6)} for a, b in pairs]


def _similarity(a: np.ndarray, b: np.ndarray) -> float:
    if min(a.shape[:2]) < SMALLEST_PX:
        raise CellError(f"ssim needs {SMALLEST_PX} px at least, not {a.shape[1]} x {a.shape[0]}", "Its window does not fit.")
    return float(structural_similarity(
        a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    ))
