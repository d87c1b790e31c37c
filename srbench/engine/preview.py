"""Images that a denoiser draws at several moments of its training; never of a sensitive concept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from srbench.catalog.specs import Recipe
from srbench.methods.base import denoiser

SHOTS = 5
"""Images per training, the first before it and the last after it."""


@dataclass
class Preview:
    """Draws one prompt with one noise at `SHOTS` moments of a training."""

    pipeline: Any
    prompt: str
    recipe: Recipe
    shots: list[np.ndarray] = field(default_factory=list)
    """uint8 RGB, (H, W, 3) each, in order."""

    def begin(self) -> None:
        """Draw with the untouched denoiser."""
        self.shots.append(self._draw(denoiser(self.pipeline)))

    def __call__(self, network: Any, done: int, total: int) -> None:
        """A `Look`: draws after each part of the iterations."""
        moments = {round(total * i / (SHOTS - 1)) for i in range(1, SHOTS)}
        if done in moments:
            self.shots.append(self._draw(network))

    def strip(self) -> Image.Image:
        """All shots side by side."""
        return Image.fromarray(np.concatenate(self.shots, axis=1))

    def _draw(self, network: Any) -> np.ndarray:
        name = "unet" if getattr(self.pipeline, "unet", None) is not None else "transformer"
        original = getattr(self.pipeline, name)
        setattr(self.pipeline, name, network)
        try:
            with torch.inference_mode():
                drawn = self.pipeline(
                    self.prompt, num_inference_steps=self.recipe.steps, guidance_scale=self.recipe.guidance,
                    height=self.recipe.height, width=self.recipe.width, output_type="np",
                    generator=torch.Generator("cpu").manual_seed(0),
                ).images[0]
        finally:
            setattr(self.pipeline, name, original)
        return (drawn * 255).round().astype(np.uint8)  # (H, W, 3)
