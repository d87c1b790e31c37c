"""`pocket-perceptual`: LPIPS's distance on pocket's own CLIP, a perceptual distance without downloads.

The form of 1801.03924, equation 1, with all weights 1 (its uncalibrated baseline): squared differences of channel-normalised
features, averaged over places and added up over stages. It is not LPIPS, and never printed under that name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lpips
import numpy as np
import torch
from torch import Tensor

from srbench.scorers._files import check_pair, check_pocket, one_thread, to_tensor
from srbench.scorers.base import scorer
from srbench.scorers.pocket_clip import PocketClip

SCORER = {
    "name": "pocket-perceptual",
    "version": 1,
    "kind": "pair",
    "title": "Perceptual distance of a pocket picture to its reference image (own CLIP; LPIPS's form, not LPIPS)",
    "reads": [],
    "fields": ["distance"],
    "metrics": {"pocket_perceptual": {"field": "distance", "better": "lower"}},
    "families": ["pocket"],
}
STAGES = ("layer1", "layer2", "layer3", "layer4")


def distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Sum over stages of the mean over places of || f / |f| - g / |g| ||^2; features (1, C, h, w) each."""
    parts = [
        (lpips.normalize_tensor(f) - lpips.normalize_tensor(g)).square().sum(1).mean() for f, g in zip(ours, theirs, strict=True)
    ]
    return float(torch.stack(parts).sum())


@scorer(SCORER)
class PocketPerceptual(PocketClip):
    """Features of the image tower's four stages."""

    def identity(self) -> dict[str, Any]:
        changes = {"scorer": SCORER["name"], "version": SCORER["version"], "lpips_form": "normalised features, all weights 1"}
        return super().identity() | changes | {"stages": list(STAGES)}

    @torch.inference_mode()
    def stages(self, image: np.ndarray) -> list[Tensor]:
        """The stages' features of a uint8 RGB image (64, 64, 3), each (1, C, h, w)."""
        features: list[Tensor] = []
        stages = [getattr(self._model.visual, name) for name in STAGES]
        hooks = [stage.register_forward_hook(lambda module, args, output: features.append(output)) for stage in stages]
        try:
            self._model.encode_image(to_tensor(check_pocket(image, str(SCORER["name"]))))
        finally:
            for hook in hooks:
                hook.remove()
        return features

    def score(  # type: ignore[override]  # the same network, read for pairs
        self, images: Sequence[np.ndarray], references: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """One dict per pair: `distance`. Raises `CellError` for other than 64 x 64 uint8 RGB."""
        scores = []
        with one_thread():
            for image, reference, _ in zip(images, references, rows, strict=True):
                a, b = check_pair(image, reference, str(SCORER["name"]))
                scores.append({"distance": round(distance(self.stages(a), self.stages(b)), 6)})
        return scores
