"""Images per second of every scorer on this machine, and how many times NudeNet's time each takes.

Where published weights are not here, random ones of the same architecture and size stand in: the numbers would mean nothing,
the time they take is the same. Harmless pictures in memory, one process, every scorer as `srbench run` calls it.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open_clip
import torch
import torchvision
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from srbench.catalog import plugins
from srbench.errors import SrbenchError
from srbench.scorers._imagenet import classes
from srbench.scorers._nudenet import cores
from srbench.scorers.base import PAIR, SET, kind_of

BESIDE = "nudenet320n-rgb"
POCKET_PX, SIDE_PX = 64, 512
ROW = {"prompt": "a boat on a lake", "reference": "an empty lake"}
LABELS = "a boat,a house"


def pictures(count: int, side_px: int) -> list[np.ndarray]:
    """Soft coloured noise, uint8 RGB (side, side, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return [cv2.resize(each, (side_px, side_px), interpolation=cv2.INTER_CUBIC) for each in coarse]


# --- stand-ins of full size --------------------------------------------------------------------------------------------------


class _Untrained(FeatureExtractorInceptionV3):
    """Inception before its weights are read."""

    def load_state_dict(self, state_dict: Any, *given: Any, **more: Any) -> Any:
        return None


class StandIns:
    """Random weights in the published forms, written once each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cache  # noqa: B019 - lives as long as the process
    def clip(self, model: str) -> Path:
        path = self.folder / f"{model}.safetensors"
        save_file(open_clip.create_model(model).state_dict(), path)
        return path

    def torch_file(self, name: str, state: Any) -> Path:
        torch.save(state, self.folder / name)
        return self.folder / name

    def head(self) -> Path:
        shapes = {
            "attention.0": (256, 512), "attention.2": (512, 256), "classifier.0": (512,), "classifier.1": (256, 512),
            "classifier.4": (128, 256), "classifier.7": (1, 128),
        }  # fmt: skip
        weights = {f"{name}.weight": torch.randn(shape) / 8 for name, shape in shapes.items()}
        return self.torch_file("head.pth", weights | {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()})

    def q16(self) -> Path:
        path = self.folder / "prompts.p"
        path.write_bytes(pickle.dumps(np.random.default_rng(0).normal(size=(2, 768)).astype(np.float16)))
        return path

    def inception(self) -> Path:
        empty = self.torch_file("inception.pth", {})
        return self.torch_file("inception.pth", _Untrained("x", ["2048"], feature_extractor_weights_path=str(empty)).state_dict())

    def resnet_hf(self) -> Path:
        folder = self.folder / "resnet"
        ResNetForImageClassification(ResNetConfig(num_labels=1000, id2label=dict(enumerate(classes())))).save_pretrained(folder)
        settings = {
            "crop_pct": 0.875, "do_normalize": True, "do_resize": True, "feature_extractor_type": "ConvNextFeatureExtractor",
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 224,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
        return folder

    def artists(self) -> Path:
        folder = self.folder / "artists"
        names = {i: f"artist-{i}" for i in range(129)}
        ViTForImageClassification(ViTConfig(id2label=names)).save_pretrained(folder)
        ViTImageProcessor().save_pretrained(folder)
        return folder

    def checker(self) -> Path:
        folder = self.folder / "checker"
        folder.mkdir()
        vision = {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14,
        }
        model = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=768))
        nested = {name.replace("vision_model.", "vision_model.vision_model.", 1): v for name, v in model.state_dict().items()}
        nested["vision_model.vision_model.embeddings.position_ids"] = torch.arange(257)[None]
        save_file({name: value.contiguous() for name, value in nested.items()}, folder / "model.safetensors", {"format": "pt"})
        model.config.save_pretrained(folder)
        CLIPImageProcessor().save_pretrained(folder)
        return folder


def given(stand_ins: StandIns) -> dict[str, Callable[[], dict[str, Any]]]:
    """Scorer -> options that name its stand-ins, written only when they are asked for."""
    b32, b16, l14 = (f"ViT-{name}-quickgelu" for name in ("B-32", "B-16", "L-14"))
    return {
        "clip-b32": lambda: {"weights": stand_ins.clip(b32)},
        "clip-b16": lambda: {"weights": stand_ins.clip(b16)},
        "clip-l14": lambda: {"weights": stand_ins.clip(l14)},
        "csdr-igmu": lambda: {"weights": stand_ins.clip(b16)},
        "clip-style": lambda: {"weights": stand_ins.clip(l14), "model": l14, "labels": LABELS},
        "clip-object": lambda: {"weights": stand_ins.clip(b32), "model": b32, "labels": LABELS},
        "igmu-head": lambda: {"weights": stand_ins.head(), "clip": stand_ins.clip(b32)},
        "q16": lambda: {"weights": stand_ins.q16(), "clip": stand_ins.clip(l14)},
        "safety-checker": lambda: {"weights": stand_ins.checker()},
        "resnet50-hf": lambda: {"weights": stand_ins.resnet_hf()},
        "resnet50-v2": lambda: {"weights": stand_ins.torch_file("r50.pth", _resnet50())},
        "artist129": lambda: {"weights": stand_ins.artists()},
        "lpips": lambda: {"weights": stand_ins.torch_file("alex.pth", _alexnet())},
        "lpips-64": lambda: {"weights": stand_ins.torch_file("alex.pth", _alexnet())},
        "fid": lambda: {"weights": stand_ins.inception()},
        "person-ssdlite": lambda: {"weights": stand_ins.torch_file("ssd.pth", _ssdlite())},
    }


def _alexnet() -> dict[str, torch.Tensor]:
    return torchvision.models.alexnet(weights=None).features.state_dict(prefix="features.")


def _resnet50() -> dict[str, torch.Tensor]:
    return torchvision.models.resnet50(weights=None).state_dict()


def _ssdlite() -> dict[str, torch.Tensor]:
    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91).state_dict()


# --- measuring ---------------------------------------------------------------------------------------------------------------


def opened(name: str, options: dict[str, Callable[[], dict[str, Any]]]) -> tuple[Any, bool]:
    """A scorer, and whether random weights stand in for its own."""
    cls = plugins.load("scorers", name)
    try:
        return cls(cls.Options()), False
    except SrbenchError:
        return cls(cls.Options(**options[name]())), True


def called(scorer: Any, images: Sequence[np.ndarray]) -> Any:
    """The scorer on all pictures; a pair is a picture and the one before it."""
    kind = kind_of(scorer.meta)
    if kind == SET:
        return scorer.features(images)
    rows = [ROW] * len(images)
    return scorer.score(images, [*images[-1:], *images[:-1]], rows) if kind == PAIR else scorer.score(images, rows)


def seconds(scorer: Any, count: int, repeats: int) -> float:
    """The best time for one picture."""
    side = POCKET_PX if str(scorer.meta["name"]).startswith(("pocket", "fd-pocket")) else SIDE_PX
    images = pictures(count, side)
    called(scorer, images[:2])
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        called(scorer, images)
        taken.append(time.perf_counter() - start)
    return min(taken) / count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    names = sorted(plugins.plugins("scorers"), key=lambda name: (name != BESIDE, name))
    print(f"{asked.pictures} pictures, {SIDE_PX} px ({POCKET_PX} for pocket's own), {cores()} cores; torch {torch.__version__}")
    print(f"{'scorer':<20}{'images/s':>10}{'x ' + BESIDE:>20}")
    beside = 0.0
    with tempfile.TemporaryDirectory() as folder:
        options = given(StandIns(Path(folder)))
        for name in names:
            scorer, stands_in = opened(name, options)
            taken = seconds(scorer, asked.pictures, asked.repeats)
            beside = beside or taken
            print(f"{name:<20}{1 / taken:>10.1f}{taken / beside:>20.2f}{'  random weights' * stands_in}", flush=True)


if __name__ == "__main__":
    main()
