"""`lpips-64`: perceptual distance to the reference image, both scaled to 64 x 64 px."""

from __future__ import annotations

from srbench.scorers._lpips import Lpips
from srbench.scorers.base import scorer

SCORER = {
    "name": "lpips-64",
    "version": 1,
    "kind": "pair",
    "title": "LPIPS (AlexNet, v0.1) to the reference image, both scaled to 64 x 64 px as the scripts of ESD and UCE do",
    "reads": [],
    "fields": ["distance"],
    "metrics": {"lpips_64": {"field": "distance", "better": "lower"}},
    "families": [],
}


@scorer(SCORER)
class Lpips64(Lpips):
    """Scaling changes the range of the distances: a scorer of its own."""

    side_px = 64
