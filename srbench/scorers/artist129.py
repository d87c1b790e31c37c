"""`artist129`: UnlearnDiffAtk's classifier of 129 artists' styles, from the user's own copy of its checkpoint.

The checkpoint is a folder for `transformers.pipeline("image-classification")`, and its labels are in its configuration
(OPTML-Group/Diffusion-MU-Attack, `src/tasks/utils/metrics/style_eval.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from srbench.errors import MissingError, UsageError
from srbench.scorers import base
from srbench.scorers._classifier import DIGITS
from srbench.scorers._hub_classifier import CONFIG, HINT, HubClassifier, HubFolder, weights_file
from srbench.scorers.base import scorer

SCORER = {
    "name": "artist129",
    "version": 1,
    "kind": "image",
    "title": "Artists' styles by UnlearnDiffAtk's classifier of 129",
    "reads": [],
    "fields": ["style"],
    "probabilities": ["style"],
    "families": [],
}
PUBLISHED = "https://drive.google.com/file/d/1me_MOrXip1Xa-XaUrPZZY7i49pgFe1po/view"
"""The link of UnlearnDiffAtk's README."""


def located(user_folder: Path | None) -> tuple[Path, Path]:
    """The folder and its file of weights. Raises `MissingError`."""
    hint = (
        f"Unpack UnlearnDiffAtk's artist classifier, {PUBLISHED} (in the README of "
        f"github.com/OPTML-Group/Diffusion-MU-Attack), and give its folder: --set {SCORER['name']}.weights=FOLDER"
    )
    if user_folder is None:
        raise MissingError(f"{SCORER['name']}: its weights are not given", hint)
    folder = user_folder.expanduser()
    path = weights_file(folder)
    if path is None:
        raise MissingError(f"{SCORER['name']}: no classifier in {folder}. {HINT}", hint)
    return folder, path


@scorer(SCORER)
class Artist129(HubClassifier):
    """The probability of every style."""

    Options: ClassVar[type[base.Options]] = HubFolder

    def __init__(self, options: HubFolder | None = None) -> None:
        self.open(*located(options.weights if options else None))
        self._labels = self.labels()
        if len(set(self._labels)) < len(self._labels):
            raise UsageError(f"{SCORER['name']}: {CONFIG} gives one label to two styles", HINT)

    def fields(self, probabilities: Tensor) -> dict[str, Any]:
        styles = zip(self._labels, probabilities.tolist(), strict=True)
        return {"style": {label: round(p, DIGITS) for label, p in styles}}

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "weights": f"UnlearnDiffAtk's artist classifier as given, {self._path.name}"}
