"""`clip-object`: which object an image shows, by CLIP ViT-B/32 without training."""

from __future__ import annotations

from typing import ClassVar

from srbench.scorers import base
from srbench.scorers.base import scorer
from srbench.scorers.zero_shot import ZeroShot, ZeroShotOptions

SCORER = {
    "name": "clip-object",
    "version": 1,
    "kind": "image",
    "title": "Probability by object among given labels (CLIP ViT-B/32, zero-shot)",
    "reads": [],
    "fields": ["objects"],
    "probabilities": ["objects"],
    "families": [],
}


class ClipObjectOptions(ZeroShotOptions):
    """ViT-B/32 unless another is chosen."""

    model: str = "ViT-B-32-quickgelu"
    template: str = "a photo of a {}"


@scorer(SCORER)
class ClipObject(ZeroShot):
    """The labels have no default: a probability is a share among these labels alone."""

    Options: ClassVar[type[base.Options]] = ClipObjectOptions
