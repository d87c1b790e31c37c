"""`clip-b16`: how well an image fits its prompt and its reference prompt, by OpenAI's CLIP ViT-B/16."""

from __future__ import annotations

from typing import ClassVar

from srbench.scorers import base
from srbench.scorers._clip import ClipOptions, ClipScore
from srbench.scorers.base import scorer

SCORER = {
    "name": "clip-b16",
    "version": 1,
    "kind": "image",
    "title": "Similarity of a picture with its prompt and its reference prompt (CLIP ViT-B/16, 100 x cosine)",
    "reads": ["prompt", "reference"],
    "fields": ["prompt", "reference"],
    "families": [],
}


class ClipB16Options(ClipOptions):
    """ViT-B/16 unless another is chosen."""

    model: str = "ViT-B-16-quickgelu"


@scorer(SCORER)
class ClipB16(ClipScore):
    """IGMU's choice for CSDR."""

    Options: ClassVar[type[base.Options]] = ClipB16Options
