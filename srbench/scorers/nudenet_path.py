"""`nudenet320n-path`: NudeNet v3's packaged network, which sees BGR as it does when the library is given a file path."""

from __future__ import annotations

from srbench.scorers._nudenet import NudeNet
from srbench.scorers.base import scorer

SCORER = {
    "name": "nudenet320n-path",
    "version": 1,
    "kind": "image",
    "title": "NudeNet v3 320n, every box; the network sees BGR, as with a file path in the library",
    "reads": [],
    "fields": ["boxes"],
    "probabilities": ["boxes"],
    "families": [],
}


@scorer(SCORER)
class NudeNetPath(NudeNet):
    """The image as BGR: numbers equal to `NudeDetector().detect(path)`, for comparison with papers that did that."""

    order = "BGR"
