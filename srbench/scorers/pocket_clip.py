"""`pocket-clip`: how well a pocket image fits its prompt and its reference prompt, by a small CLIP of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import open_clip
import torch
from torch import Tensor

from srbench.backbones.weights import one_line
from srbench.scorers import base
from srbench.scorers._clip import check_bulk, check_config, check_whole, tokenizer, words_of
from srbench.scorers._files import Folder, check_pocket, need, one_thread, read_state, sha256_of, to_tensor
from srbench.scorers.base import package_folder, scorer

SCORER = {
    "name": "pocket-clip",
    "version": 1,
    "kind": "image",
    "title": "Similarity of a pocket picture with its prompt and its reference prompt (own CLIP, 100 x cosine)",
    "reads": ["prompt", "reference"],
    "fields": ["prompt", "reference"],
    "families": ["pocket"],
}


def opened(folder: Path) -> tuple[Any, Any]:
    """The CLIP of a folder in evaluation mode, and its tokenizer. Raises `UsageError` where one of them is not whole."""
    name, what = f"local-dir:{folder}", f"{folder}: not pocket's CLIP"
    file = folder / "open_clip_model.safetensors"
    check_config(folder / "open_clip_config.json")
    state = read_state(file)
    check_bulk(folder / "open_clip_config.json", file)
    with one_line(what, "Make it again: make pocket"):
        model = open_clip.create_model(name).eval().requires_grad_(False)
    check_whole(model, state, what)
    return model, tokenizer(name, words_of(model), what)


@scorer(SCORER)
class PocketClip:
    """100 x cosine of image and text. Its text tower is not the backbone's, so attacks on that do not reach it."""

    meta: ClassVar[Mapping[str, Any]]
    Options: ClassVar[type[base.Options]] = Folder

    def __init__(self, options: Folder | None = None) -> None:
        user_folder = options.weights if options else None
        self._folder = user_folder or package_folder("pocket/clip")
        for file in ("open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            need(self._folder / file, "make pocket")
        self._model, self._tokenizer = opened(self._folder)
        self._texts: dict[str, Tensor] = {}

    def identity(self) -> dict[str, Any]:
        return {
            "scorer": SCORER["name"],
            "version": SCORER["version"],
            "library": "open_clip_torch",
            "library_version": open_clip.__version__,
            "torch_version": torch.__version__,
            "weights": "pocket/clip/open_clip_model.safetensors",
            "weights_sha256": sha256_of(self._folder / "open_clip_model.safetensors"),
            "tokenizer_sha256": sha256_of(self._folder / "tokenizer.json"),
            "preprocessing": "uint8 / 127.5 - 1, float32, one picture a pass on one thread; "
            "text cut at 77 tokens, pooled at end-of-text",
            "resize": "none: 64 x 64 only",
            "channel_order": "RGB",
        }

    @property
    def width(self) -> int:
        """D, of the vectors."""
        return len(self.text_feature(""))

    @torch.inference_mode()
    def text_feature(self, text: str) -> Tensor:
        """Unit vector of a text, (D,); encoded once."""
        if text not in self._texts:
            self._texts[text] = self._model.encode_text(self._tokenizer([text]), normalize=True)[0]
        return self._texts[text]

    @torch.inference_mode()
    def image_feature(self, image: np.ndarray) -> Tensor:
        """Unit vector of an image, (D,). Raises `CellError` for other than 64 x 64 uint8 RGB."""
        return self._model.encode_image(to_tensor(check_pocket(image, self.meta["name"])), normalize=True)[0]

    def _similarity(self, feature: Tensor, text: str | None) -> float | None:
        return round(100 * float(feature @ self.text_feature(text)), 6) if text is not None else None

    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One dict per image; `reference` is None where the row has no reference prompt."""
        scores = []
        with one_thread():
            for image, row in zip(images, rows, strict=True):
                feature = self.image_feature(image)
                scores.append({key: self._similarity(feature, row.get(key)) for key in ("prompt", "reference")})
        return scores
