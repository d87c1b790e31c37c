"""Image classifiers of transformers from a folder in the hub's format: configuration, image processor, weights.

Only these three files are read, no code from the folder is run, and nothing is downloaded.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
from transformers.utils import logging as transformers_logging

from srbench.backbones import weights
from srbench.errors import UsageError
from srbench.scorers import base
from srbench.scorers._classifier import Classifier
from srbench.scorers._files import settings, sha256_of

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The first that exists is read."""
HINT = f"Give a folder of an image classifier with {CONFIG}, {PROCESSOR} and {WEIGHTS[0]}."


class HubFolder(base.Options):
    """Options of a scorer whose weights are a folder in the hub's format."""

    weights: Path | None = Field(None, exclude=True)
    """The folder; None: where the hub's own download put it."""


def weights_file(folder: Path) -> Path | None:
    """The file of weights, or None where the folder lacks it, the configuration or the processor."""
    if not all((folder / name).is_file() for name in (CONFIG, PROCESSOR)):
        return None
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def network(folder: Path, path: Path) -> Any:
    """transformers' classifier in float32 and evaluation mode. Raises `UsageError`.

    Every weight of the network must be in the file and every one of the file in the network.
    """
    transformers_logging.disable_progress_bar()
    settings(folder / CONFIG)
    state = {name: value for name, value in weights.tensors(path).items() if not name.endswith("position_ids")}
    with weights.one_line(f"{folder}: not an image classifier in the hub's format", HINT):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            sketch = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
        _check_bulk(sketch, state, path)
        # Given tensors, not the folder: a folder can name other files, by an adapter or in its configuration.
        classifier, report = type(sketch).from_pretrained(
            None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True,
        )
    unfit = f"{path}: its weights are not those of {config.model_type} as {CONFIG} describes it"
    weights.check_loaded(classifier, report, unfit, str(path), HINT)
    return classifier.eval().requires_grad_(False)


def _check_bulk(sketch: torch.nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Check that the configuration describes no more than the file holds, before memory is reserved. Raises `UsageError`."""
    described, stored = (sum(value.numel() for value in part.values()) for part in (sketch.state_dict(), state))
    if described > 2 * stored:
        raise UsageError(f"{path}: holds {stored:,} numbers, and {CONFIG} describes {described:,}", HINT)


def processor(folder: Path) -> Any:
    """transformers' image processor on PIL, which is what the published numbers were made with. Raises `UsageError`."""
    settings(folder / PROCESSOR)
    with weights.one_line(f"{folder}: no image processor in {PROCESSOR}", HINT):
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False, backend="pil")


class HubClassifier(Classifier):
    """A classifier from a folder in the hub's format."""

    def open(self, folder: Path, path: Path) -> None:
        """Load the three files. Raises `UsageError`."""
        self._folder, self._path = folder, path
        self._network, self._processor = network(folder, path), processor(folder)

    def labels(self) -> list[str]:
        """The classes in the order of the output, as the configuration names them."""
        named = self._network.config.id2label
        if sorted(named) != list(range(self._network.config.num_labels)):
            raise UsageError(f"{self._folder / CONFIG}: does not number its labels from 0 on", HINT)
        return [str(named[number]) for number in sorted(named)]

    def logits(self, picture: Image.Image) -> Tensor:
        return self._network(**self._processor(images=picture, return_tensors="pt")).logits[0]

    def identity(self) -> dict[str, Any]:
        return {
            **super().identity(),
            "library": f"transformers, {type(self._network).__name__}",
            "library_version": metadata.version("transformers"),
            "weights_sha256": sha256_of(self._path),
            "config_sha256": sha256_of(self._folder / CONFIG),
            "processor": json.loads(self._processor.to_json_string()),
            "preprocessing": f"{type(self._processor).__name__} with the settings named as `processor`, float32",
            "resize": "the processor's, by PIL",
        }
