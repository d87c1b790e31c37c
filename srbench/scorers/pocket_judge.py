"""`pocket-judge`: which objects, which style and which background a pocket picture shows, as probabilities."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from srbench.scorers import base
from srbench.scorers._files import Folder, check_pocket, need, one_thread, sha256_of, to_tensor
from srbench.scorers.base import package_folder, scorer
from srbench.scorers.pocket_net import JudgeNet

SCORER = {
    "name": "pocket-judge",
    "version": 1,
    "kind": "image",
    "title": "Objects, style and background of a pocket picture (own classifier, trained on scenes only)",
    "reads": [],
    "fields": ["objects", "style", "background"],
    "families": ["pocket"],
}


def load_judge(folder: Path) -> tuple[JudgeNet, dict[str, Any]]:
    """The judges' network in evaluation mode and its card. Raises `MissingError`."""
    card = json.loads(need(folder / "judge.json", "make pocket").read_text(encoding="utf-8"))
    weights = load_file(need(folder / "judge.safetensors", "make pocket"))
    network = JudgeNet(len(card["objects"]), len(card["styles"]), len(card["backgrounds"]), card["width"])
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False), card


def _named(names: Sequence[str], probabilities: Tensor) -> dict[str, float]:
    return {name: round(float(p), 6) for name, p in zip(names, probabilities.double(), strict=True)}


@scorer(SCORER)
class PocketJudge:
    """Probabilities per object (independent), per style and per background (each adding up to 1)."""

    Options: ClassVar[type[base.Options]] = Folder

    def __init__(self, options: Folder | None = None) -> None:
        given = options.weights if options else None
        self._folder = given or package_folder("pocket/judge")
        self._network, self._card = load_judge(self._folder)

    def identity(self) -> dict[str, Any]:
        return {
            "scorer": SCORER["name"],
            "version": SCORER["version"],
            "library": "torch",
            "library_version": torch.__version__,
            "weights": "pocket/judge/judge.safetensors",
            "weights_sha256": sha256_of(self._folder / "judge.safetensors"),
            "preprocessing": "uint8 / 127.5 - 1, float32, one picture a pass on one thread",
            "resize": "none: 64 x 64 only",
            "channel_order": "RGB",
        }

    @torch.inference_mode()
    def _one(self, image: np.ndarray) -> dict[str, Any]:
        objects, style, background = (part[0] for part in self._network(to_tensor(image)))
        return {
            "objects": _named(self._card["objects"], objects.sigmoid()),
            "style": _named(self._card["styles"], style.softmax(0)),
            "background": _named(self._card["backgrounds"], background.softmax(0)),
        }

    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One dict per image: field -> name -> probability. Raises `CellError` for other than 64 x 64 uint8 RGB."""
        # One picture a pass, one thread: its numbers depend on nothing but itself.
        with one_thread():
            return [self._one(check_pocket(image, str(SCORER["name"]))) for image, _ in zip(images, rows, strict=True)]
