"""Every training stage for a few steps on painted squares, stopped and gone on with, up to a folder that diffusers opens."""

from __future__ import annotations

import shutil
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
from srbench.pocket_build.model import assemble, checkpoints, contrastive, judge, unet, vae

STEPS = 3
STAGES = ("vae", "text", "judge", "clip", "unet")
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


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build of a few steps that writes into `tmp_path`."""
    named = ((vae, "STEPS"), (contrastive, "TEXT_STEPS"), (contrastive, "CLIP_STEPS"), (judge, "STEPS"), (unet, "STEPS"))
    for module, name in named:
        monkeypatch.setattr(module, name, STEPS)
    for module, size in ((vae, 4), (contrastive, 8), (judge, 8), (unet, 8)):
        monkeypatch.setattr(module, "BATCH", size)
    monkeypatch.setattr(unet, "SCENES", 100)
    monkeypatch.setattr(assemble, "STEPS", dict.fromkeys(STAGES, STEPS))
    monkeypatch.setattr(assemble, "CALIBRATION_SCENES", 600)
    monkeypatch.setattr(assemble, "ACCURACY_SCENES", 50)
    monkeypatch.setattr(build, "Painter", Squares)
    monkeypatch.setattr(build, "check_tools", lambda icons: None)
    monkeypatch.setattr(build, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(assemble, "CATALOG", tmp_path / "catalog")
    shutil.copytree(CATALOG / "protocols", tmp_path / "catalog" / "protocols")
    shutil.copytree(PACKAGE / "pocket" / "model" / "tokenizer", tmp_path / "cache" / "tokenizer")
    return tmp_path


def _build(folder: Path, only: str, device: str) -> int:
    return build.main(["--cache", str(folder / "cache"), "--only", only, "--device", device, "--threads", "1"])


def test_a_stage_out_of_time_stops_with_its_own_code_and_goes_on(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `left` is a second at least; here a call has no time at all, so that each makes one step.
    monkeypatch.setattr(build.Build, "left", lambda self: -1.0)
    assert [_build(small, "vae", "cpu") for _ in range(STEPS)] == [build.TEMPORARY] * (STEPS - 1) + [0]
    index = checkpoints.index(small / "cache", "vae")
    assert index is not None
    assert index.finished


@pytest.mark.parametrize("device", DEVICES)
def test_all_stages_end_in_folders_that_are_read_as_shipped_ones_are(small: Path, device: str) -> None:
    assert _build(small, ",".join([*STAGES, "assemble"]), device) == 0
    pipeline: Any = StableDiffusionPipeline.from_pretrained(small / "package" / "model")
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(["a cat"], num_inference_steps=2, output_type="np").images
    assert made.shape == (1, 64, 64, 3)
    assert np.isfinite(made).all()
    for path in (small / "cache" / "stages").rglob("*"):
        assert path.is_dir() or path.stat().st_size <= 15_000_000, path


@pytest.mark.slow
def test_another_vae_makes_the_unet_start_afresh(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _build(small, "vae,text,unet", "cpu") == 0
    before = checkpoints.index(small / "cache", "unet")
    state = checkpoints.read(small / "cache", "vae")
    name = next(iter(state["average"]))
    state["average"][name] = state["average"][name] + 0.1
    checkpoints.write(small / "cache", "vae", state, step=STEPS, steps=STEPS)
    assert _build(small, "unet", "cpu") == 0
    assert "training starts afresh" in capsys.readouterr().out
    after = checkpoints.index(small / "cache", "unet")
    assert before is not None
    assert after is not None
    assert before.inputs != after.inputs
    assert before.sha256 != after.sha256
