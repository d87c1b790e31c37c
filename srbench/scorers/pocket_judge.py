"""`pocket-judge`: which objects, which style and which background a pocket image shows, as probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from srbench.backbones.weights import fill, tensors
from srbench.errors import UsageError
from srbench.scorers import base
from srbench.scorers._files import Folder, check_pocket, need, one_thread, settings, sha256_of, to_tensor
from srbench.scorers.base import package_folder, scorer
from srbench.scorers.pocket_net import JudgeNet

SCORER = {
    "name": "pocket-judge",
    "version": 1,
    "kind": "image",
    "title": "Objects, style and background of a pocket picture (own classifier, trained on scenes only)",
    "reads": [],
    "fields": ["objects", "style", "background"],
    "probabilities": ["objects", "style", "background"],
    "families": ["pocket"],
}
HINT = "Make it again: make pocket"
MOST = 1000
"""Names of a kind, and channels."""


def load_judge(folder: Path) -> tuple[JudgeNet, dict[str, Any]]:
    """The judges' network in evaluation mode and its card. Raises `MissingError`, and `UsageError` where they do not fit."""
    card = _card(need(folder / "judge.json", "make pocket"))
    path = need(folder / "judge.safetensors", "make pocket")
    network = JudgeNet(len(card["objects"]), len(card["styles"]), len(card["backgrounds"]), card["width"])
    fill(network, tensors(path), f"{path}: not the judge that {folder / 'judge.json'} describes", HINT)
    return network.eval().requires_grad_(False), card


def _card(path: Path) -> dict[str, Any]:
    """The judges' card: names of objects, styles and backgrounds, each once, and the network's width. Raises `UsageError`."""
    card = settings(path)
    for key in ("objects", "styles", "backgrounds"):
        names = card.get(key)
        if not isinstance(names, list) or not 0 < len(names) <= MOST or not all(isinstance(name, str) for name in names):
            raise UsageError(f"{path}: no judge's card, its '{key}' is no list of names", HINT)
        if len(set(names)) < len(names):
            raise UsageError(f"{path}: gives one name to two {key}", HINT)
    width = card.get("width")
    if not isinstance(width, int) or isinstance(width, bool) or not 0 < width <= MOST:
        raise UsageError(f"{path}: no judge's card, its 'width' is no number of channels", HINT)
    return card


def _named(names: Sequence[str], probabilities: Tensor) -> dict[str, float]:
    return {name: round(float(p), 6) for name, p in zip(names, probabilities.double(), strict=True)}


@scorer(SCORER)
class PocketJudge:
    """Probabilities per object (independent), per style and per background (each adding up to 1)."""

    Options: ClassVar[type[base.Options]] = Folder

    def __init__(self, options: Folder | None = None) -> None:
        user_folder = options.weights if options else None
        self._folder = user_folder or package_folder("pocket/judge")
        self._network, self._card = load_judge(self._folder)

    @staticmethod
    def known_classes(options: Folder) -> dict[str, list[str]]:
        """Of each field, as the judges' card names them."""
        card = _card(need((options.weights or package_folder("pocket/judge")) / "judge.json", "make pocket"))
        return {"objects": card["objects"], "style": card["styles"], "background": card["backgrounds"]}

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
        # One image a pass, one thread: its numbers depend on nothing but itself.
        with one_thread():
            return [self._one(check_pocket(image, str(SCORER["name"]))) for image, _ in zip(images, rows, strict=True)]
