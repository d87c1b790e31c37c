"""Which backbone a name means, and how its folder is opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

from srbench.backbones.choose import chosen
from srbench.backbones.loader import open_backbone
from srbench.backbones.pipelines import KINDS, kind_of
from srbench.catalog import load
from srbench.engine.prepare import prepare_method
from srbench.errors import MissingError, UsageError
from srbench.testing.families import MADE, SIDE_PX, tiny


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every family's tiny pipeline in the hub's folder format."""
    root = tmp_path_factory.mktemp("models")
    for family in MADE:
        tiny(family).save_pretrained(root / family)
    return {family: root / family for family in MADE}


def test_known_names_are_known() -> None:
    assert chosen("pocket") is load.backbones()["pocket"]
    assert {spec.family for spec in load.backbones().values()} == {"pocket", *(kind.name for kind in KINDS.values())}


@pytest.mark.parametrize("family", sorted(MADE))
def test_a_folder_is_a_backbone_of_its_class(family: str, folders: dict[str, Path]) -> None:
    spec = chosen(str(folders[family]))
    assert (spec.name, spec.family, spec.recipe.width, spec.recipe.height) == (family, family, SIDE_PX, SIDE_PX)
    pipeline = open_backbone(spec, "fp32", "cpu").pipeline
    assert kind_of(pipeline).name == family
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert not any(weight.requires_grad for part in parts for weight in part.parameters())


@pytest.mark.parametrize("name", [name for name, spec in load.backbones().items() if spec.family != "pocket"])
def test_a_model_that_is_not_here_says_what_fetches_it(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingError) as error:
        open_backbone(load.backbones()[name], "fp32", "cpu")
    spec = load.backbones()[name]
    pinned = f" --revision {spec.revision}" if spec.revision else ""
    assert error.value.hint == f"Fetch it: hf download {spec.source}{pinned}"


def test_a_hub_id_that_is_not_here_says_what_fetches_it() -> None:
    with pytest.raises(MissingError, match="someone/some-model") as error:
        chosen("someone/some-model")
    assert error.value.hint == "Fetch it: hf download someone/some-model"


def test_what_is_no_backbone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown backbone 'poket'") as error:
        chosen("poket")
    assert "Did you mean 'pocket'?" in error.value.hint
    with pytest.raises(UsageError, match="not a folder in the hub's format"):
        chosen(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DiTPipeline"}))
    with pytest.raises(UsageError, match="class 'DiTPipeline'"):
        chosen(str(tmp_path))


def test_a_safety_checker_is_never_loaded(folders: dict[str, Path], tmp_path: Path) -> None:
    """It would blacken images before a judge sees them."""
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 32}
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    pipeline = open_backbone(chosen(str(folders["sd"])), "fp32", "cpu").pipeline
    more = {"safety_checker": checker, "feature_extractor": CLIPImageProcessor()}
    with_checker: Any = type(pipeline)(**{**pipeline.components, **more})
    with_checker.save_pretrained(tmp_path / "checked")
    assert (tmp_path / "checked" / "safety_checker").is_dir()
    opened = open_backbone(chosen(str(tmp_path / "checked")), "fp32", "cpu").pipeline
    assert opened.safety_checker is None


@pytest.mark.parametrize(("preset", "family"), [
    ("sld-max", "flux"), ("safree", "sd3"), ("esd-x", "sdxl"), ("rece", "sdxl"), ("ablation", "sdxl"),
])  # fmt: skip
def test_a_method_that_does_not_fit_says_so_before_anything_is_loaded(
    preset: str, family: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = open_backbone(chosen(str(folders[family])), "fp32", "cpu")
    monkeypatch.setattr("srbench.backbones.loader.load_pipeline", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UsageError, match=rf"does not fit backbone '{family}' \(family {family}\)"):
        prepare_method(preset, backbone, load.concepts()["church"], ())


def test_a_class_that_transformers_has_no_more_is_not_asked_for(folders: dict[str, Path], tmp_path: Path) -> None:
    """Old folders name one for the safety checker's pictures, and no image comes from it."""
    old = shutil.copytree(folders["sd"], tmp_path / "old")
    index = old / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"feature_extractor": ["transformers", "CLIPFeatureExtractor"]}))
    assert open_backbone(chosen(str(old)), "fp32", "cpu").pipeline.feature_extractor is None


def test_a_released_backbone_is_the_same_when_it_is_asked_for_again(folders: dict[str, Path]) -> None:
    backbone = open_backbone(chosen(str(folders["sd"])), "fp32", "cpu")
    sha, first = backbone.sha256, backbone.pipeline
    backbone.release()
    assert backbone.pipeline is not first
    assert backbone.sha256 == sha
    assert torch.equal(backbone.pipeline.unet.conv_in.weight, first.unet.conv_in.weight)
