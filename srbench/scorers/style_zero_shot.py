"""`clip-style`: in whose style an image is painted, by CLIP ViT-L/14 without training."""

from __future__ import annotations

from typing import ClassVar

from srbench.scorers import base
from srbench.scorers.base import scorer
from srbench.scorers.zero_shot import ZeroShot, ZeroShotOptions

SCORER = {
    "name": "clip-style",
    "version": 1,
    "kind": "image",
    "title": "Probability by artist among given labels (CLIP ViT-L/14, zero-shot)",
    "reads": [],
    "fields": ["style"],
    "probabilities": ["style"],
    "families": [],
}


class ClipStyleOptions(ZeroShotOptions):
    """ViT-L/14 unless another is chosen."""

    model: str = "ViT-L-14-quickgelu"
    template: str = "a painting in the style of {}"


@scorer(SCORER)
class ClipStyle(ZeroShot):
    """The labels have no default: a probability is a share among these labels alone."""

    Options: ClassVar[type[base.Options]] = ClipStyleOptions
