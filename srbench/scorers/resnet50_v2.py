"""`resnet50-v2`: torchvision's ResNet-50 with its second, better trained ImageNet weights; UCE, RECE and ConceptPrune use it."""

from __future__ import annotations

from importlib import metadata
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from srbench.backbones.weights import fill
from srbench.scorers import base
from srbench.scorers._files import File, fetched, read_state, sha256_of
from srbench.scorers._imagenet import ImageNet
from srbench.scorers.base import scorer

SCORER = {
    "name": "resnet50-v2",
    "version": 1,
    "kind": "image",
    "title": "ImageNet classes by torchvision's ResNet-50 (IMAGENET1K_V2), the 50 likeliest",
    "reads": [],
    "fields": ["objects", "rest"],
    "probabilities": ["objects", "rest"],
    "families": [],
}
NAME, URL = "IMAGENET1K_V2", "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
"""Of torchvision's weights."""


@scorer(SCORER)
class ResNet50V2(ImageNet):
    """Probabilities of objects, with the transforms that belong to the weights."""

    Options: ClassVar[type[base.Options]] = File

    def __init__(self, options: File | None = None) -> None:
        self._path = fetched(options.weights if options else None, URL, str(SCORER["name"]))
        from torchvision.models import ResNet50_Weights, resnet50  # takes seconds to import, so only where the weights are here

        self._transform = ResNet50_Weights[NAME].transforms()
        network = resnet50(weights=None)
        fill(network, read_state(self._path), f"{self._path}: not torchvision's ResNet-50", f"Give the file of {URL}")
        self._network = network.eval().requires_grad_(False)

    def logits(self, picture: Image.Image) -> Tensor:
        return self._network(self._transform(picture)[None])[0]

    def identity(self) -> dict[str, Any]:
        preset = self._transform
        return {
            **super().identity(),
            "library": "torchvision, resnet50",
            "library_version": metadata.version("torchvision"),
            "weights": f"ResNet50_Weights.{NAME}",
            "weights_sha256": sha256_of(self._path),
            "preprocessing": f"the weights' own, from PIL: / 255, mean {preset.mean}, deviation {preset.std}, float32",
            "resize": f"shorter side {preset.resize_size[0]}, {preset.interpolation.value} (PIL), centre {preset.crop_size[0]}",
        }
