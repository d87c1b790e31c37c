"""`clip-b32`: how well an image fits its prompt and its reference prompt, by OpenAI's CLIP ViT-B/32."""

from __future__ import annotations

from typing import ClassVar

from srbench.scorers import base
from srbench.scorers._clip import ClipOptions, ClipScore
from srbench.scorers.base import scorer

SCORER = {
    "name": "clip-b32",
    "version": 1,
    "kind": "image",
    "title": "Similarity of a picture with its prompt and its reference prompt (CLIP ViT-B/32, 100 x cosine)",
    "reads": ["prompt", "reference"],
    "fields": ["prompt", "reference"],
    "families": [],
}


class ClipB32Options(ClipOptions):
    """ViT-B/32 unless another is chosen."""

    model: str = "ViT-B-32-quickgelu"


@scorer(SCORER)
class ClipB32(ClipScore):
    """MACE's choice (logits of 100 x cosine)."""

    Options: ClassVar[type[base.Options]] = ClipB32Options
