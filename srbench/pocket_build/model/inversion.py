"""Pictures of each concept for methods that learn from images: `pocket/scenes/<concept>/NN.png`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from srbench.pocket.scene import Scene
from srbench.pocket.world import BACKGROUNDS, COLORS, CONCEPTS, OBJECTS, STYLES
from srbench.pocket_build.model.scenes import Painter

COUNT = 16
"""Pictures a concept."""
SEED = 20_511


def scenes(concept: str, rng: np.random.Generator) -> list[Scene]:
    """`COUNT` scenes with one object that show the concept and no other."""
    words = CONCEPTS[concept]
    others = {member for name, each in CONCEPTS.items() if name != concept for member in each.members}
    objects = [key for key in OBJECTS if key in words.members or (words.kind == "style" and key not in others)]
    styles = [key for key in STYLES if key in words.members or (words.kind == "object" and key not in others)]
    # In turn and not at random: every member is there.
    return [
        Scene((objects[i % len(objects)],), styles[i % len(styles)], _any(rng, BACKGROUNDS), _any(rng, COLORS))
        for i in range(COUNT)
    ]


def _any(rng: np.random.Generator, names: Iterable[str]) -> str:
    return str(rng.choice(list(names)))


def write(painter: Painter, folder: Path) -> None:
    """Paint every concept's pictures into a folder of its own below `folder`."""
    for concept in CONCEPTS:
        rng = np.random.default_rng(SEED)
        target = folder / concept
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for number, scene in enumerate(scenes(concept, rng)):
            Image.fromarray(painter.render(scene, rng)).save(target / f"{number:02d}.png", optimize=True)
