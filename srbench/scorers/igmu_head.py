"""`igmu-head`: one of IGMU's released heads (2506.02761) on CLIP ViT-B/32 of OpenAI.

Architecture and names: ryliu68/IGMU@a9dc4ce:model.py, `AdvancedClassifierHead_CLIP`. The field is the probability of each label.
What label 1 means is not decided here: it differs by head (the concept for Van Gogh and parachute, its absence for nudity and
church, if the labels follow the names of the training folders), and a table in the repository says the opposite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from srbench.backbones.weights import fill
from srbench.errors import MissingError, UsageError
from srbench.scorers import base
from srbench.scorers._clip import Clip, source
from srbench.scorers._files import one_thread, read_state
from srbench.scorers.base import scorer

SCORER = {
    "name": "igmu-head",
    "version": 1,
    "kind": "image",
    "title": "Probabilities of labels 0 and 1 by a head of IGMU on CLIP ViT-B/32",
    "reads": [],
    "fields": ["label"],
    "probabilities": ["label"],
    "families": [],
}
MODEL, TAG, WIDTH = "ViT-B-32-quickgelu", "openai", 512
SOURCE = "ryliu68/IGMU on GitHub, Weights/<task>/classifier_head.pth"


class HeadOptions(base.Options):
    """Which head, and where its CLIP is."""

    weights: Path | None = Field(None, exclude=True)
    """The head's file, .safetensors or torch's own format; there is no default."""
    clip: Path | None = Field(None, exclude=True)
    """A file of OpenAI's ViT-B/32, or a folder in open_clip's local-dir format; None: the file in the hub cache."""


class Head(nn.Module):
    """CLIP image vectors (N, 512), not of length 1, to logits (N, 1): a gate on each number, then a small network."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter = WIDTH // 2, WIDTH // 4
        self.attention = nn.Sequential(nn.Linear(WIDTH, half), nn.ReLU(), nn.Linear(half, WIDTH), nn.Sigmoid())
        self.classifier = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, half), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(half, quarter), nn.ReLU(), nn.Dropout(0.3), nn.Linear(quarter, 1),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """(N, 512) to (N, 1)."""
        return self.classifier(features * self.attention(features))


def read_head(path: Path) -> Head:
    """A head in evaluation mode. Raises `UsageError` where names or shapes are not the released ones."""
    head, state = Head(), read_state(path)
    expected = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    actual = {name: tuple(value.shape) if isinstance(value, Tensor) else None for name, value in state.items()}
    wrong = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    if wrong:
        message = f"{path}: not a head of IGMU: {wrong[0]} is {actual.get(wrong[0], 'missing')}"
        raise UsageError(message, f"Expected {expected.get(wrong[0], 'no such name')}. The heads are in {SOURCE}.")
    fill(head, state, f"{path}: not a head of IGMU", f"The heads are in {SOURCE}.")
    return head.eval().requires_grad_(False)


def head_path(user_file: Path | None) -> Path:
    """The head's file. Raises `MissingError` where none is given, or where it is not there."""
    if user_file is None or not user_file.expanduser().is_file():
        message = f"igmu-head: {user_file} does not exist" if user_file else "igmu-head: no head is given"
        raise MissingError(message, f"Get one from {SOURCE}, and pass --set igmu-head.weights=FILE")
    return user_file.expanduser()


@scorer(SCORER)
class IgmuHead:
    """Probability of label 1; CLIP computes in float32 by open_clip where IGMU used transformers."""

    Options: ClassVar[type[base.Options]] = HeadOptions

    def __init__(self, options: HeadOptions | None = None) -> None:
        chosen = options or HeadOptions()
        name = str(SCORER["name"])
        self._path = head_path(chosen.weights)
        self._head = read_head(self._path)
        self._clip = Clip(source(MODEL, TAG, chosen.clip, name), name)
        self._clip.need_width(WIDTH)

    @staticmethod
    def known_classes(options: HeadOptions) -> dict[str, tuple[str, ...]]:
        """The two labels."""
        return {"label": ("0", "1")}

    def identity(self) -> dict[str, Any]:
        return self._clip.identity_under(SCORER, "a head of IGMU", self._path)

    @torch.inference_mode()
    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One dict per image: `label`, the probabilities of "0" and "1". Raises `CellError` for other than uint8 RGB."""
        scores = []
        with one_thread():
            for image, _ in zip(images, rows, strict=True):
                logit = self._head(self._clip.image(image)[None])  # (1, 1)
                one = round(float(torch.sigmoid(logit)), 6)
                scores.append({"label": {"0": round(1 - one, 6), "1": one}})
        return scores
