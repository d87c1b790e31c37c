"""A package with a scorer."""

from __future__ import annotations

from srbench.scaffold.package import package

MODULE = '''\
"""$name: how red an image is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srbench.scorers import base

SCORER = {
    "name": "$name",
    "version": 1,  # part of every score's key: raise it when the code changes the numbers
    "title": "mean of the red channel",
    "fields": ["red"],
    "metrics": {"$name": {"field": "red", "better": "lower"}},  # a column of the tables
}


@base.scorer(SCORER)
class $cls:
    """The mean of the red channel, 0 to 255."""

    Options = base.Options  # or a class of its own, with a default and a range for each option

    def __init__(self, options: base.Options) -> None:
        """Weights are loaded here."""

    def identity(self) -> dict[str, Any]:
        """Everything that changes the numbers."""
        return {
            "scorer": SCORER["name"], "version": SCORER["version"], "library": "numpy", "library_version": np.__version__,
            "weights": "", "weights_sha256": "", "preprocessing": "none", "resize": "none", "channel_order": "rgb",
        }

    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One dict of numbers per image. images: uint8 RGB, (H, W, 3) each."""
        checked = [base.check_rgb(image, "$name") for image, _ in zip(images, rows, strict=True)]
        return [{"red": float(image[..., 0].mean())} for image in checked]
'''
TEST = '''\
"""What srbench asks of every scorer; `srbench.testing` says what each test means. Add your own below."""

from srbench.testing import ScorerTests


class Test$cls(ScorerTests):
    scorer = "$name"
'''


def files(name: str) -> dict[str, str]:
    """Path below the package's folder -> text."""
    return package("scorers", name, MODULE, TEST)
