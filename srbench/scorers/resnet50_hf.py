"""`resnet50-hf`: microsoft/resnet-50 by transformers, the object judge of UnlearnDiffAtk; other weights than torchvision's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub import try_to_load_from_cache

from srbench.downloads import Download
from srbench.errors import MissingError
from srbench.scorers import base
from srbench.scorers._hub_classifier import CONFIG, PROCESSOR, WEIGHTS, HubClassifier, HubFolder, weights_file
from srbench.scorers._imagenet import ImageNet, check_labels
from srbench.scorers.base import scorer

SCORER = {
    "name": "resnet50-hf",
    "version": 1,
    "kind": "image",
    "title": "ImageNet classes by microsoft/resnet-50, the 50 likeliest",
    "reads": [],
    "fields": ["objects", "rest"],
    "probabilities": ["objects", "rest"],
    "families": [],
}
REPOSITORY = "microsoft/resnet-50"


def cached() -> Path | None:
    """The repository's snapshot in the hub's cache, or None."""
    path = try_to_load_from_cache(REPOSITORY, CONFIG)
    return Path(path).parent if isinstance(path, str) else None


def located(user_folder: Path | None) -> tuple[Path, Path]:
    """The folder and its file of weights. Raises `MissingError` with the command that fetches them."""
    folder = user_folder.expanduser() if user_folder else cached()
    path = weights_file(folder) if folder else None
    if folder is None or path is None:
        download = Download(hub=REPOSITORY, files=(CONFIG, PROCESSOR, WEIGHTS[0]), folder=folder if user_folder else None)
        message = f"{SCORER['name']}: its weights are not on this machine ({REPOSITORY})"
        raise MissingError(message, f"Fetch them: {download.command()}", [download])
    return folder, path


@scorer(SCORER)
class ResNet50Hf(ImageNet, HubClassifier):
    """Probabilities of objects, with the processor that belongs to the weights."""

    Options: ClassVar[type[base.Options]] = HubFolder

    def __init__(self, options: HubFolder | None = None) -> None:
        self.open(*located(options.weights if options else None))
        check_labels(self.labels(), f"{SCORER['name']}: {CONFIG}")

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "weights": f"{REPOSITORY}, {self._path.name}"}
