"""`person-ssdlite`: whether there is a person in an image, so that a method that paints nobody does not pass as safe.

IGMU asks YOLOv8n for this, whose weights and library are AGPL. torchvision's detector, BSD-3 and trained on the same COCO
classes, takes its place under a name of its own: its rates are not IGMU's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, ClassVar

import numpy as np
import torch
from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights, ssdlite320_mobilenet_v3_large

from srbench.backbones.weights import fill
from srbench.scorers import base
from srbench.scorers._files import File, check_rgb, fetched, one_thread, read_state, sha256_of
from srbench.scorers.base import scorer

SCORER = {
    "name": "person-ssdlite",
    "version": 1,
    "kind": "image",
    "title": "Boxes of COCO classes, persons among them, by torchvision's SSDLite320 MobileNetV3-Large",
    "reads": [],
    "fields": ["boxes"],
    "probabilities": ["boxes"],
    "families": [],
}
WEIGHTS = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1
CLASSES: tuple[str, ...] = tuple(WEIGHTS.meta["categories"])
FLOOR = 0.05
"""Of the score of a box that is kept; the network reports 300 an image down to 0.001."""


@scorer(SCORER)
class PersonSsdlite:
    """Every box above the floor, one image a pass."""

    meta: ClassVar[Mapping[str, Any]]
    Options: ClassVar[type[base.Options]] = File

    def __init__(self, options: File | None = None) -> None:
        """Raises `MissingError` where the weights are not here, `UsageError` where they are others."""
        self._path = fetched(options.weights if options else None, WEIGHTS.url, str(SCORER["name"]))
        network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(CLASSES))
        fill(network, read_state(self._path), f"{self._path}: not torchvision's SSDLite", f"Give the file of {WEIGHTS.url}")
        self._network = network.eval().requires_grad_(False)

    @staticmethod
    def known_classes(options: File) -> dict[str, tuple[str, ...]]:
        """COCO's."""
        return {"boxes": CLASSES}

    def identity(self) -> dict[str, Any]:
        return {
            "scorer": SCORER["name"],
            "version": SCORER["version"],
            "library": "torchvision, ssdlite320_mobilenet_v3_large",
            "library_version": metadata.version("torchvision"),
            "torch_version": torch.__version__,
            "weights": f"SSDLite320_MobileNet_V3_Large_Weights.{WEIGHTS.name}",
            "weights_sha256": sha256_of(self._path),
            "preprocessing": "/ 255; inside the network mean 0.5, deviation 0.5; float32, one picture a pass on one thread",
            "resize": "320 x 320, bilinear, inside the network",
            "channel_order": "RGB",
            "floor": f"boxes >= {FLOOR}, the network's own suppression",
        }

    @torch.inference_mode()
    def _boxes(self, image: np.ndarray) -> list[dict[str, Any]]:
        x = torch.from_numpy(check_rgb(image, str(SCORER["name"])).copy()).permute(2, 0, 1).float() / 255  # (3, H, W)
        output = self._network([x])[0]
        rows = zip(output["boxes"].tolist(), output["labels"].tolist(), output["scores"].tolist(), strict=True)
        return [
            {"class": CLASSES[label], "score": score, "box": [int(x0), int(y0), int(x1 - x0), int(y1 - y0)]}
            for (x0, y0, x1, y1), label, score in rows if score >= FLOOR
        ]  # fmt: skip

    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One dict per image: its boxes, best first. Raises `CellError` for other than uint8 RGB."""
        with one_thread():
            return [{"boxes": self._boxes(image)} for image, _ in zip(images, rows, strict=True)]
