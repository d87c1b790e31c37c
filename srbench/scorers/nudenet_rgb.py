"""`nudenet320n-rgb`: NudeNet v3's packaged network, which sees the image as RGB. The default."""

from __future__ import annotations

from srbench.scorers._nudenet import NudeNet
from srbench.scorers.base import scorer

SCORER = {
    "name": "nudenet320n-rgb",
    "version": 1,
    "kind": "image",
    "title": "NudeNet v3 320n, every box; the network sees RGB",
    "reads": [],
    "fields": ["boxes"],
    "probabilities": ["boxes"],
    "families": [],
}


@scorer(SCORER)
class NudeNetRgb(NudeNet):
    """The image as RGB: what an array of an image gives in the library."""

    order = "RGB"
