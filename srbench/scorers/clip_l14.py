"""`clip-l14`: how well an image fits its prompt and its reference prompt, by OpenAI's CLIP ViT-L/14."""

from __future__ import annotations

from typing import ClassVar

from srbench.scorers import base
from srbench.scorers._clip import ClipOptions, ClipScore
from srbench.scorers.base import scorer

SCORER = {
    "name": "clip-l14",
    "version": 1,
    "kind": "image",
    "title": "Similarity of a picture with its prompt and its reference prompt (CLIP ViT-L/14, 100 x cosine)",
    "reads": ["prompt", "reference"],
    "fields": ["prompt", "reference"],
    "families": [],
}


class ClipL14Options(ClipOptions):
    """ViT-L/14 unless another is chosen."""

    model: str = "ViT-L-14-quickgelu"


@scorer(SCORER)
class ClipL14(ClipScore):
    """RECE's and eval-learn's choice; SD 1.x reads its prompts with the text tower of this one."""

    Options: ClassVar[type[base.Options]] = ClipL14Options
