"""Batches of rendered scenes with captions, seeded by stage and step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from srbench.pocket.captions import caption
from srbench.pocket.scene import Scene
from srbench.pocket_build.model.scenes import Painter, labels, sample_scene

# One number a purpose, so that no two stages ever draw the same scene stream.
STREAM = {"vae": 1, "text": 2, "clip": 3, "judge": 4, "unet": 5, "validate": 6, "calibrate": 7, "heldout": 8}


@dataclass
class Batch:
    """Pictures in [-1, 1] (n, 3, 64, 64) float32, their scenes and one caption each."""

    images: Tensor
    scenes: list[Scene]
    captions: list[str]

    def targets(self) -> tuple[Tensor, Tensor, Tensor]:
        """Objects multi-hot (n, objects), style (n,), background (n,)."""
        objects, styles, backgrounds = labels(self.scenes)
        return torch.from_numpy(objects), torch.from_numpy(styles), torch.from_numpy(backgrounds)


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (n, 64, 64, 3) to float in [-1, 1], (n, 3, 64, 64)."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def _with_swaps(scenes: list[Scene]) -> list[Scene]:
    """`scenes` with the swapped pair after each pair at an even index: a caption fits only one of the two orders."""
    after = {i + 1: scene.swapped() for i, scene in enumerate(scenes[:-1]) if i % 2 == 0 and len(scene.objects) == 2}
    return [after.get(i, scene) for i, scene in enumerate(scenes)]


def batch(painter: Painter, stream: str, step: int, size: int, which: str = "train", *, swaps: bool = False) -> Batch:
    """The `step`-th batch of a stream; equal for equal arguments. `swaps` puts pairs beside themselves swapped."""
    rng = np.random.default_rng([STREAM[stream], step])
    scenes = [sample_scene(rng, which) for _ in range(size)]
    scenes = _with_swaps(scenes) if swaps else scenes
    images = np.stack([painter.render(scene, rng) for scene in scenes])
    return Batch(to_tensor(images), scenes, [caption(scene, rng) for scene in scenes])
