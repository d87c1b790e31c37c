"""Every training stage for a few steps on painted squares, stopped and gone on with, up to a folder that diffusers opens."""

from __future__ import annotations

import shutil
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from srbench.catalog.load import CATALOG
from srbench.catalog.resolve import PACKAGE
from srbench.pocket.scene import Scene
from srbench.pocket.world import BACKGROUNDS, OBJECTS
from srbench.pocket_build import __main__ as build
from srbench.pocket_build.model import checkpoints
from srbench.pocket_build.model.sizes import Sizes

STEPS = 3
STAGES = ("vae", "text", "judge", "clip", "unet")
SIZES = Sizes(
    steps=dict.fromkeys(STAGES, STEPS), batch={"vae": 4, "text": 8, "judge": 8, "clip": 8, "unet": 8}, unet_scenes=20,
    whitening_scenes=16, held_scenes=20, vae_scenes=8, calibration_scenes=300, accuracy_scenes=20, empty_scenes=100,
)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))]


class Squares:
    """Stands in for the painter, whose artwork is not at hand in tests: a grey level for each object and background."""

    def __init__(self, folder: Path) -> None:
        """The artwork's folder is not looked at."""

    def render(self, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        image = np.full((64, 64, 3), 20 + 30 * list(BACKGROUNDS).index(scene.background), np.uint8)
        for place, key in enumerate(scene.objects):
            image[20:44, 4 + 32 * place : 28 + 32 * place] = 10 * list(OBJECTS).index(key)
        return image


class Small(build.Build):
    """A build of a few steps and scenes that writes beside its cache."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        super().__init__(
            folder / "cache", folder, deadline=time.monotonic() + 3600, count=1, device=torch.device(device), sizes=SIZES,
            package=folder / "package", protocols=folder / "protocols",
        )

    @cached_property
    def painter(self) -> Any:
        return Squares(self.icons)


class Rushed(Small):
    """One whose calls have no time at all, so that each makes one step; `left` is a second at least."""

    def left(self) -> float:
        return -1.0


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """What a build reads: the protocols, and the tokenizer that its first stage makes."""
    shutil.copytree(CATALOG / "protocols", tmp_path / "protocols")
    shutil.copytree(PACKAGE / "pocket" / "model" / "tokenizer", tmp_path / "cache" / "tokenizer")
    return tmp_path


def test_a_stage_out_of_time_stops_and_goes_on(small: Path) -> None:
    assert [build.run(Rushed(small), ["vae"]) for _ in range(STEPS)] == [False] * (STEPS - 1) + [True]
    index = checkpoints.index(small / "cache", "vae")
    assert index is not None
    assert index.finished


@pytest.mark.parametrize("device", DEVICES)
def test_all_stages_end_in_folders_that_are_read_as_shipped_ones_are(small: Path, device: str) -> None:
    assert build.run(Small(small, device), [*STAGES, "assemble"])
    pipeline: Any = StableDiffusionPipeline.from_pretrained(small / "package" / "model")
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(["a cat"], num_inference_steps=2, output_type="np").images
    assert made.shape == (1, 64, 64, 3)
    assert np.isfinite(made).all()
    for path in (small / "cache" / "stages").rglob("*"):
        assert path.is_dir() or path.stat().st_size <= 15_000_000, path


@pytest.mark.slow
def test_another_vae_makes_the_unet_start_afresh(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.run(Small(small), ["vae", "text", "unet"])
    before = checkpoints.index(small / "cache", "unet")
    state = checkpoints.read(small / "cache", "vae")
    name = next(iter(state["average"]))
    state["average"][name] = state["average"][name] + 0.1
    checkpoints.write(small / "cache", "vae", state, step=STEPS, steps=STEPS)
    assert build.run(Small(small), ["unet"])
    assert "training starts afresh" in capsys.readouterr().out
    after = checkpoints.index(small / "cache", "unet")
    assert before is not None
    assert after is not None
    assert before.inputs != after.inputs
    assert before.sha256 != after.sha256
