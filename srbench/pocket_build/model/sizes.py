"""How long each stage trains, on how many scenes, and how many scenes it is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_STEPS = MappingProxyType({"vae": 3000, "text": 1100, "judge": 1800, "clip": 800, "unet": 3400})
_BATCH = MappingProxyType({"vae": 16, "text": 128, "judge": 64, "clip": 128, "unet": 128})


@dataclass(frozen=True)
class Sizes:
    """The shipped pocket's are the defaults. Fewer build a model of the same form that draws nothing."""

    steps: Mapping[str, int] = field(default_factory=lambda: _STEPS)
    """Stage -> optimiser steps."""
    batch: Mapping[str, int] = field(default_factory=lambda: _BATCH)
    """Stage -> scenes a step."""
    unet_scenes: int = 32_000
    """Encoded once, for the U-Net to train on."""
    whitening_scenes: int = 512
    """From which the mean and deviation of each latent channel are taken."""
    held_scenes: int = 500
    """Of the judge's progress line."""
    vae_scenes: int = 64
    """Of the VAE's progress line."""
    calibration_scenes: int = 4000
    accuracy_scenes: int = 1000
    empty_scenes: int = 2000
    """Among which those without an object are looked for."""


FULL = Sizes()
FURTHER = Sizes(steps=MappingProxyType({**_STEPS, "text": 260, "unet": 500}), unet_scenes=48_000)
"""Of a build that goes on from the shipped text encoder and U-Net, and takes the shipped VAE and tokenizer as they are."""
PASSES = (
    "from nothing, with 24 objects and one form of sentence: VAE 3000 steps, text 1100, U-Net 3400 on 32,000 scenes",
    "further (`--further`), with 26 objects and six forms: text 700, U-Net 1100 on 48,000 scenes",
    "further, with captions of scenes without an object that name nothing: text 260, begun with the image tower of the pass "
    "before, U-Net 500 on 48,000 scenes; judge 1800 and CLIP 800 from nothing",
)
"""How the shipped weights came to be. A build from nothing has one pass, of the steps in `FULL`."""
