"""`fid`: FID (1706.08500) and KID (1801.01401) to the reference images, on torch-fidelity's Inception features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from srbench.backbones.weights import not_finite, one_line
from srbench.errors import UsageError
from srbench.scorers import base
from srbench.scorers._files import File, check_rgb, fetched, one_thread, read_state, sha256_of
from srbench.scorers._sets import LIBRARY, both
from srbench.scorers.base import scorer

SCORER = {
    "name": "fid",
    "version": 1,
    "kind": "set",
    "title": "FID and KID to the reference images (torch-fidelity, inception-v3-compat, layer 2048)",
    "reads": [],
    "fields": ["feature"],
    "metrics": {"fid": {"field": "frechet", "better": "lower"}, "kid": {"field": "kernel", "better": "lower"}},
    "families": [],
}
HINT = f"Give the file of {URL_INCEPTION_V3}"
NETWORK, LAYER = "inception-v3-compat", "2048"


@scorer(SCORER)
class Fid:
    """Inception features of images, (N, 2048); they are scaled inside the network as TensorFlow 1 did."""

    Options: ClassVar[type[base.Options]] = File

    def __init__(self, options: File | None = None) -> None:
        self._path = fetched(options.weights if options else None, URL_INCEPTION_V3, str(SCORER["name"]))
        # The library unpickles anything, so the strict reader opens the file first.
        state, what = read_state(self._path), f"{self._path}: not torch-fidelity's Inception"
        bad = not_finite(state)
        if bad:
            raise UsageError(f"{what}: {bad[0]} has values that are not numbers", HINT)
        with one_line(what, HINT):
            self._network = FeatureExtractorInceptionV3(NETWORK, [LAYER], feature_extractor_weights_path=str(self._path))

    def identity(self) -> dict[str, Any]:
        return {
            "scorer": SCORER["name"],
            "version": SCORER["version"],
            **LIBRARY,
            "torch_version": torch.__version__,
            "weights": f"{NETWORK}, {URL_INCEPTION_V3.rsplit('/', 1)[-1]}",
            "weights_sha256": sha256_of(self._path),
            "preprocessing": "uint8 into the network, one picture a pass on one thread",
            "resize": "299 x 299 inside the network, bilinear as in TensorFlow 1, no anti-aliasing",
            "channel_order": "RGB",
        }

    @torch.inference_mode()
    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """(N, 2048) float32. Raises `CellError` for other than uint8 RGB."""
        vectors = [np.zeros((0, 2048), np.float32)]
        with one_thread():
            for image in images:
                x = torch.from_numpy(check_rgb(image, str(SCORER["name"])).copy()).permute(2, 0, 1)[None]  # (1, 3, H, W)
                vectors.append(self._network(x)[0].float().numpy())
        return np.concatenate(vectors)

    @staticmethod
    def reduce(images: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """`frechet`, `kernel`, `kernel_std`. Raises `CellError` for fewer than two images."""
        return both(images, references)
