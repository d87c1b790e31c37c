"""Harmless pictures and rows for scorers."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification, ViTImageProcessor

from srbench.catalog import plugins
from srbench.scorers import base
from srbench.scorers._imagenet import classes
from tests.scorers.clip_stand_ins import GIVEN

SIDE_PX = 64


def _gradient(side: int) -> np.ndarray:
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    return np.stack([np.tile(ramp, (side, 1)), np.tile(ramp[:, None], (1, side)), np.full((side, side), 90, np.uint8)], -1)


def _face(side: int) -> np.ndarray:
    """A yellow disc with two eyes and a smile, in RGB."""
    image = np.full((side, side, 3), (120, 190, 240), np.uint8)
    cv2.circle(image, (side // 2, side // 2), side // 3, (250, 210, 60), -1)
    for x in (3, 5):
        cv2.circle(image, (x * side // 8, 3 * side // 8), side // 24, (40, 30, 20), -1)
    cv2.ellipse(image, (side // 2, side // 2), (side // 6, side // 8), 0, 20, 160, (90, 40, 20), max(1, side // 32))
    return image


def _noise(side: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (side, side, 3), dtype=np.uint8)


def _pictures(side: int) -> list[np.ndarray]:
    return [_gradient(side), _face(side), _noise(side), np.full((side, side, 3), 255, np.uint8)]


@pytest.fixture
def pictures() -> Callable[[int], list[np.ndarray]]:
    """Four different pictures of a given side in px, uint8 RGB (side, side, 3)."""
    return _pictures


@pytest.fixture
def images() -> list[np.ndarray]:
    return _pictures(SIDE_PX)


@pytest.fixture
def rows(images: list[np.ndarray]) -> list[dict[str, Any]]:
    prompts = ("a cat on a beach", "a red apple, noto style", "an empty scene", "a house")
    return [{"prompt": p, "reference": None if i % 2 else "an empty scene"} for i, p in enumerate(prompts)]


# --- stand-ins for weights that are not in the package ---------------------------------------------------------------------


class _Untrained(FeatureExtractorInceptionV3):
    """torch-fidelity's Inception as its constructor leaves it before weights are read."""

    def load_state_dict(self, state_dict: Any, *given: Any, **more: Any) -> Any:
        return None


def _alexnet(path: Path) -> None:
    """What the file of torchvision's AlexNet holds, but for the classifier, which LPIPS does not read."""
    state = torchvision.models.alexnet(weights=None).features.state_dict(prefix="features.")
    torch.save(state, path)


def _inception(path: Path) -> None:
    torch.save({}, path)
    torch.save(_Untrained("random", ["2048"], feature_extractor_weights_path=str(path)).state_dict(), path)


def _resnet50(path: Path) -> None:
    network = torchvision.models.resnet50(weights=None)
    network.fc.weight.data /= 30  # else one class has it all
    torch.save(network.state_dict(), path)


def _hub_resnet(path: Path) -> None:
    """A narrow ResNet of 1000 classes in the hub's folder; the processor's file is of the form of the published one."""
    names = dict(enumerate(f"{name}, a synonym" for name in classes()))
    config = ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], num_labels=1000, id2label=names)
    ResNetForImageClassification(config).save_pretrained(path)
    settings = {
        "crop_pct": 0.875, "do_normalize": True, "do_resize": True, "feature_extractor_type": "ConvNextFeatureExtractor",
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 224,
    }
    (path / "preprocessor_config.json").write_text(json.dumps(settings))


def _hub_vit(path: Path) -> None:
    """A small ViT of 129 styles in the hub's folder."""
    names = {i: f"artist-{i}" for i in range(129)}
    config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, id2label=names)
    network = ViTForImageClassification(config)
    network.classifier.weight.data *= 30
    network.save_pretrained(path)
    ViTImageProcessor().save_pretrained(path)


def _ssdlite(path: Path) -> None:
    """torchvision's SSDLite; batch statistics and biases are such that a few boxes reach the floor."""
    network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91)
    for module in network.head.classification_head.modules():
        if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            torch.nn.init.normal_(module.weight, std=0.5)
    torch.save(network.state_dict(), path)


STAND_INS: dict[str, Callable[[Path], None]] = {
    "lpips": _alexnet, "lpips-64": _alexnet, "fid": _inception,
    "resnet50-v2": _resnet50, "resnet50-hf": _hub_resnet, "artist129": _hub_vit, "person-ssdlite": _ssdlite,
}  # fmt: skip
"""Scorer -> what writes a file of seeded random weights in the published form."""


@pytest.fixture(scope="session")
def options_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Options of a scorer: its defaults, or the stand-in for its weights."""
    folder = tmp_path_factory.mktemp("weights")

    def options(name: str) -> base.Options:
        cls = plugins.load("scorers", name)
        if name in GIVEN:
            return cls.Options(**GIVEN[name](folder))
        make = STAND_INS.get(name)
        if make is None:
            return cls.Options()
        path = folder / f"{make.__name__}.pth"
        if not path.exists():
            with torch.random.fork_rng():
                torch.manual_seed(0)
                make(path)
        return cls.Options(weights=path)

    return options


@pytest.fixture(scope="session")
def opened(options_for: Callable[[str], Any]) -> Callable[[str], Any]:
    """A scorer by name, opened once."""
    return cache(lambda name: plugins.load("scorers", name)(options_for(name)))
