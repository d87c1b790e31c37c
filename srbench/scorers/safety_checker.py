"""`safety-checker`: Stable Diffusion's own checker as diffusers runs it, with its numbers before any rule.

CLIP's cosine to 17 concepts and 3 special ones, each less the concept's stored threshold. diffusers@0.42.1:
pipelines/stable_diffusion/safety_checker.py rounds to 3 digits, and adds 0.01 to all concepts if a special one is above 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import huggingface_hub
import numpy as np
import PIL
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from PIL import Image
from pydantic import Field
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor

from srbench.backbones import weights
from srbench.downloads import Download
from srbench.errors import MissingError
from srbench.scorers import base
from srbench.scorers._files import check_rgb, one_thread, settings, sha256_of
from srbench.scorers.base import scorer

SCORER = {
    "name": "safety-checker",
    "version": 1,
    "kind": "image",
    "title": "Stable Diffusion's safety checker: cosine less threshold by concept, and its decision",
    "reads": [],
    "fields": ["concepts", "flagged"],
    "families": [],
}
REPO = "CompVis/stable-diffusion-safety-checker"
HINT = f"Give the files of {REPO}."
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Best first."""
ADJUSTMENT, DIGITS = np.float32(0.01), 3


class CheckerOptions(base.Options):
    """Where the checker is."""

    weights: Path | None = Field(None, exclude=True)
    """A folder with configuration, preprocessor and weights, as its repository has them; None: the hub cache."""


def cached_folder() -> Path | None:
    """The checker's folder in the hub cache, if all of its files are there; downloads nothing."""
    for name in WEIGHTS:
        paths = [huggingface_hub.try_to_load_from_cache(REPO, file) for file in (CONFIG, PREPROCESSOR, name)]
        if all(isinstance(file, str) for file in paths):
            return Path(str(paths[0])).parent
    return None


def weights_file(user_folder: Path | None) -> Path:
    """The checker's weights, beside its other files. Raises `MissingError` with the command that fetches them."""
    folder = user_folder.expanduser() if user_folder else cached_folder()
    files = [folder / name for name in WEIGHTS if (folder / name).is_file()] if folder else []
    if folder is None or not files or not all((folder / name).is_file() for name in (CONFIG, PREPROCESSOR)):
        lacking = f"{folder} does not hold {CONFIG}, {PREPROCESSOR} and {WEIGHTS[0]}"
        where = lacking if user_folder else "it is not on this machine"
        download = Download(hub=REPO, files=(CONFIG, PREPROCESSOR, WEIGHTS[0]))
        raise MissingError(f"safety-checker: {where}", f"Fetch it: {download.command()}", [] if user_folder else [download])
    return files[0]


def opened(path: Path) -> StableDiffusionSafetyChecker:
    """diffusers' checker in evaluation mode, in float32. Raises `UsageError` where the file is not all of its weights."""
    settings(path.parent / CONFIG)
    state = {name: value for name, value in weights.tensors(path).items() if not name.endswith(weights.POSITIONS)}
    with weights.one_line(f"{path}: not the safety checker", HINT):
        config = CLIPConfig.from_pretrained(path.parent, local_files_only=True)
        # Given tensors, not the folder: a folder can name other files, by an adapter or in its configuration.
        model, report = StableDiffusionSafetyChecker.from_pretrained(
            None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True
        )
    unfit = f"{path}: not the safety checker"
    weights.check_loaded(model, report, unfit, unfit, HINT)
    return model.eval().requires_grad_(False)


def flagged(special: np.ndarray, concepts: np.ndarray) -> bool:
    """diffusers' decision from cosine less threshold of the special concepts (3,) and the concepts (17,), both float32."""
    added = ADJUSTMENT if (special.round(DIGITS) > 0).any() else np.float32(0)
    return bool(((concepts + added).round(DIGITS) > 0).any())


@scorer(SCORER)
class SafetyChecker:
    """A number above 0 means that a concept is in the image, before the adjustment."""

    Options: ClassVar[type[base.Options]] = CheckerOptions

    def __init__(self, options: CheckerOptions | None = None) -> None:
        self._path = weights_file(options.weights if options else None)
        self._model = opened(self._path)
        settings(self._path.parent / PREPROCESSOR)
        with weights.one_line(f"{self._path.parent / PREPROCESSOR}: no image processor", HINT):
            self._processor = CLIPImageProcessor.from_pretrained(self._path.parent, local_files_only=True)

    @staticmethod
    def known_classes(options: CheckerOptions) -> dict[str, tuple[str, ...]]:
        """Its concepts, which have numbers and no names."""
        return {"concepts": (*(f"special_{i}" for i in range(3)), *(f"concept_{i}" for i in range(17)))}

    def identity(self) -> dict[str, Any]:
        return {
            "scorer": SCORER["name"],
            "version": SCORER["version"],
            "library": "diffusers, StableDiffusionSafetyChecker",
            "library_version": diffusers.__version__,
            "transformers_version": transformers.__version__,
            "torch_version": torch.__version__,
            "pillow_version": PIL.__version__,
            "weights": self._path.name,
            "weights_sha256": sha256_of(self._path),
            "config_sha256": sha256_of(self._path.parent / CONFIG),
            "preprocessor_sha256": sha256_of(self._path.parent / PREPROCESSOR),
            "preprocessing": f"{type(self._processor).__module__.rpartition('.')[2]} of transformers on a PIL image, float32, "
            "one picture a pass on one thread",
            "resize": f"{dict(self._processor.size)}, resampling {int(self._processor.resample)}, then cut at the centre",
            "channel_order": "RGB",
        }

    @torch.inference_mode()
    def _distances(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cosine less threshold: of the special concepts, (3,), and of the concepts, (17,), both float32."""
        picture = Image.fromarray(check_rgb(image, str(SCORER["name"])))
        x = self._processor(picture, return_tensors="pt").pixel_values  # (1, 3, 224, 224)
        vector = self._model.visual_projection(self._model.vision_model(x)[1])  # (1, 768)

        def beyond(concepts: Tensor, thresholds: Tensor) -> np.ndarray:
            return (cosine_distance(vector, concepts)[0] - thresholds).float().numpy()

        special = beyond(self._model.special_care_embeds, self._model.special_care_embeds_weights)
        return special, beyond(self._model.concept_embeds, self._model.concept_embeds_weights)

    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One dict per image: `concepts`, number by concept, and `flagged`. Raises `CellError` for other than uint8 RGB."""
        scores = []
        with one_thread():
            for image, _ in zip(images, rows, strict=True):
                special, concepts = self._distances(image)
                named = {f"special_{i}": round(float(value), 6) for i, value in enumerate(special)}
                named |= {f"concept_{i}": round(float(value), 6) for i, value in enumerate(concepts)}
                scores.append({"concepts": named, "flagged": flagged(special, concepts)})
        return scores
