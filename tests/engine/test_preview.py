"""Previews: a picture at five moments, the pipeline as before, and none of a sensitive concept."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from srbench.catalog import load
from srbench.cli.main import app
from srbench.engine.preview import SHOTS, Preview

QUICK = ("--set", "iterations=4", "--set", "steps=2", "--set", "lr=0.001")


def test_a_shot_at_each_quarter_and_the_pipeline_as_before(world: Any) -> None:
    pipeline = world.backbone().pipeline
    own, other = pipeline.unet, copy.deepcopy(pipeline.unet)
    with torch.no_grad():
        other.conv_out.bias.add_(1)
    preview = Preview(pipeline, "a box", world.spec.recipe)
    preview.begin()
    for done in range(1, 11):
        preview(other, done, 10)
    assert len(preview.shots) == SHOTS
    assert pipeline.unet is own
    assert not np.array_equal(preview.shots[0], preview.shots[1])
    assert np.array_equal(preview.shots[1], preview.shots[-1])
    assert preview.strip().size == (SHOTS * 8, 8)


def test_the_pipeline_is_as_before_where_drawing_fails(world: Any) -> None:
    pipeline = world.backbone().pipeline
    own, broken = pipeline.unet, copy.deepcopy(pipeline.unet)
    broken.forward = None
    preview = Preview(pipeline, "a box", world.spec.recipe)
    with pytest.raises(TypeError):
        preview(broken, 10, 10)
    assert pipeline.unet is own


def test_erase_writes_what_it_drew_and_nothing_of_a_sensitive_concept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def erased(out: Path) -> list[str]:
        done = CliRunner().invoke(app, ["erase", "esd-x", "--concept", "church", "--out", str(out), *QUICK])
        assert done.exit_code == 0, done.stderr
        return sorted(path.name for path in out.iterdir() if path.name != ".srbench.json")  # the marker

    assert erased(tmp_path / "plain") == ["card.json", "preview.png", "unet.safetensors"]
    secret = load.concepts()["church"].model_copy(update={"sensitive": True})
    monkeypatch.setitem(load.concepts(), "church", secret)
    monkeypatch.setattr(Preview, "_draw", lambda *a: pytest.fail("drew a sensitive concept"))
    assert erased(tmp_path / "secret") == ["card.json", "unet.safetensors"]
