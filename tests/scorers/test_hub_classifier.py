"""Classifiers in a folder of the hub's format: the artists' one against transformers' pipeline, and folders that are broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import pipeline

from srbench.errors import MissingError, UsageError
from srbench.scorers._hub_classifier import HubFolder
from srbench.scorers.artist129 import Artist129
from srbench.scorers.resnet50_hf import ResNet50Hf

Pictures = Callable[[int], list[np.ndarray]]
CLASSES = {"artist129": Artist129, "resnet50-hf": ResNet50Hf}


@pytest.fixture(params=sorted(CLASSES))
def kept(request: pytest.FixtureRequest, options_for: Callable[[str], Any], tmp_path: Path) -> tuple[type, Path]:
    """A scorer's class and a folder of its own to break."""
    folder = shutil.copytree(options_for(request.param).weights, tmp_path / "classifier")
    return CLASSES[request.param], folder


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("count", [1, 4])
def test_styles_are_what_unlearndiffatk_s_call_gives(
    count: int, options_for: Callable[[str], Any], opened: Callable[[str], Any], pictures: Pictures
) -> None:
    """`style_eval.py` there: the pipeline with `top_k=129`."""
    folder = str(options_for("artist129").weights)
    judge = pipeline("image-classification", model=folder, image_processor=folder, use_fast=False, device="cpu")
    images = pictures(96)[:count]
    theirs = judge([Image.fromarray(image) for image in images], top_k=129, batch_size=count)
    for ours, expected in zip(opened("artist129").score(images, [{}] * count), theirs, strict=True):
        assert list(ours["style"]) == [f"artist-{i}" for i in range(129)]
        assert ours["style"] == pytest.approx({each["label"]: each["score"] for each in expected}, abs=1e-5)
        assert max(ours["style"].values()) > 2 / 129


def test_weights_that_are_not_given_say_where_they_are_published() -> None:
    with pytest.raises(MissingError, match="artist129") as caught:
        Artist129()
    for part in ("drive.google.com", "OPTML-Group/Diffusion-MU-Attack", "--set artist129.weights=FOLDER"):
        assert part in caught.value.hint


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_missing_weights(name: str, kept: tuple[type, Path]) -> None:
    cls, folder = kept
    (folder / name).unlink()
    with pytest.raises(MissingError) as caught:
        cls(HubFolder(weights=folder))
    assert caught.value.hint


def test_a_pickle_of_tensors_gives_the_same(kept: tuple[type, Path], images: list, rows: list) -> None:
    cls, folder = kept
    expected = cls(HubFolder(weights=folder))
    identity = expected.identity()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    assert cls(HubFolder(weights=folder)).identity() == identity
    (folder / "model.safetensors").unlink()
    found = cls(HubFolder(weights=folder))
    assert found.score(images, rows) == expected.score(images, rows)
    assert found.identity()["weights_sha256"] != identity["weights_sha256"]


class Malicious:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('ran')",))


def test_a_malicious_pickle_is_never_executed(kept: tuple[type, Path]) -> None:
    cls, folder = kept
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.weight": Malicious()}, folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="not a file of weights"):
        cls(HubFolder(weights=folder))


def test_code_in_the_folder_is_never_executed(kept: tuple[type, Path]) -> None:
    cls, folder = kept
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    names = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model", "AutoImageProcessor": "evil.P"}
    _edit(folder / "config.json", auto_map=names)
    _edit(folder / "preprocessor_config.json", auto_map=names)
    cls(HubFolder(weights=folder))  # both kinds are known, so that nobody needs that code
    _edit(folder / "config.json", model_type="evil")
    with pytest.raises(UsageError, match="not an image classifier"):
        cls(HubFolder(weights=folder))


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x08\0\0\0\0\0\0\0{}      "])
def test_damaged_weights_are_refused(content: bytes, kept: tuple[type, Path]) -> None:
    cls, folder = kept
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UsageError):
        cls(HubFolder(weights=folder))


@pytest.mark.parametrize(("name", "content"), [
    *[(name, content) for name in ("config.json", "preprocessor_config.json") for content in ("", "[]", "{")],
    ("config.json", '{"model_type": "nothing"}'), ("config.json", '{"model_type": "gpt2"}'),
    ("preprocessor_config.json", '{"image_processor_type": "Nothing"}'),
])
def test_damaged_configuration_is_refused(name: str, content: str, kept: tuple[type, Path]) -> None:
    cls, folder = kept
    (folder / name).write_text(content)
    with pytest.raises(UsageError):
        cls(HubFolder(weights=folder))


@pytest.mark.parametrize("change", ["fewer", "more", "other shape"])
def test_weights_that_are_not_the_configuration_s_are_refused(change: str, kept: tuple[type, Path]) -> None:
    cls, folder = kept
    path = folder / "model.safetensors"
    state = load_file(path)
    name = next(name for name in state if name.endswith("weight"))
    if change == "fewer":
        del state[name]
    elif change == "more":
        state["another.weight"] = torch.zeros(2)
    else:
        state[name] = torch.zeros(3)
    save_file({key: value.clone() for key, value in state.items()}, path)
    with pytest.raises(UsageError):
        cls(HubFolder(weights=folder))


def test_an_adapter_beside_the_weights_changes_nothing(kept: tuple[type, Path], images: list, rows: list) -> None:
    cls, folder = kept
    expected = cls(HubFolder(weights=folder)).score(images, rows)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere", "peft_type": "LORA"}')
    assert cls(HubFolder(weights=folder)).score(images, rows) == expected


def test_the_processor_s_settings_are_in_the_identity(kept: tuple[type, Path]) -> None:
    cls, folder = kept
    before = cls(HubFolder(weights=folder)).identity()
    _edit(folder / "preprocessor_config.json", image_mean=[0.4, 0.4, 0.4])
    assert cls(HubFolder(weights=folder)).identity() != before
    assert str(folder) not in json.dumps(before)


def test_two_styles_of_one_name_are_refused(options_for: Callable[[str], Any], tmp_path: Path) -> None:
    folder = shutil.copytree(options_for("artist129").weights, tmp_path / "classifier")
    _edit(folder / "config.json", id2label={str(i): f"artist-{min(i, 127)}" for i in range(129)})
    with pytest.raises(UsageError, match="one label to two styles"):
        Artist129(HubFolder(weights=folder))


def test_a_classifier_of_other_classes_is_no_imagenet(options_for: Callable[[str], Any]) -> None:
    with pytest.raises(UsageError, match="knows 129 classes"):
        ResNet50Hf(HubFolder(weights=options_for("artist129").weights))
