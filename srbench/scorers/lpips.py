"""`lpips`: perceptual distance to the reference image, in the images' own size."""

from __future__ import annotations

from srbench.scorers._lpips import Lpips
from srbench.scorers.base import scorer

SCORER = {
    "name": "lpips",
    "version": 1,
    "kind": "pair",
    "title": "LPIPS (AlexNet, v0.1) to the reference image, in its own size",
    "reads": [],
    "fields": ["distance"],
    "metrics": {"lpips": {"field": "distance", "better": "lower"}},
    "families": [],
}


@scorer(SCORER)
class LpipsNative(Lpips):
    """Nothing is scaled."""
