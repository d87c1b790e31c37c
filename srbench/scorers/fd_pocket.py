"""`fd-pocket`: Frechet and kernel distance of sets of pocket images on pocket's own CLIP features. Not FID, not KID."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from srbench.scorers._files import one_thread
from srbench.scorers._sets import LIBRARY, both
from srbench.scorers.base import scorer
from srbench.scorers.pocket_clip import PocketClip

SCORER = {
    "name": "fd-pocket",
    "version": 1,
    "kind": "set",
    "title": "Frechet and kernel distance to the reference images on features of pocket's CLIP (not FID, not KID)",
    "reads": [],
    "fields": ["feature"],
    "metrics": {
        "fd_pocket": {"field": "frechet", "better": "lower"},
        "kd_pocket": {"field": "kernel", "better": "lower"},
    },
    "families": ["pocket"],
}


@scorer(SCORER)
class FdPocket(PocketClip):
    """Unit vectors of images, (N, D), D the width of pocket's CLIP."""

    def identity(self) -> dict[str, Any]:
        changes = {"scorer": SCORER["name"], "version": SCORER["version"], "distance_library": LIBRARY}
        return super().identity() | changes

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """(N, D) float32, one image a pass. Raises `CellError` for other than 64 x 64 uint8 RGB."""
        with one_thread():
            vectors = [self.image_feature(image).numpy() for image in images]
        return np.stack(vectors) if vectors else np.zeros((0, self.width), np.float32)

    @staticmethod
    def reduce(images: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """`frechet`, `kernel`, `kernel_std`. Raises `CellError` for fewer than two images."""
        return both(images, references)
