"""A whole model in one file: read with a local configuration, the same pixels as its folder's, refused where it is not whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from srbench.backbones import single
from srbench.backbones.choose import chosen
from srbench.backbones.loader import Backbone, open_backbone
from srbench.errors import MissingError, UsageError
from srbench.testing.tiny import tiny_pipeline
from tests import compvis


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_pipeline(seed=3)


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model in the hub's format."""
    path = tmp_path_factory.mktemp("single") / "model"
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def configuration(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder without weights."""
    path = tmp_path_factory.mktemp("configuration") / "config"
    shutil.copytree(folder, path, ignore=shutil.ignore_patterns("*.safetensors"))
    return path


@pytest.fixture
def file(model: Any, tmp_path: Path) -> Path:
    save_file(compvis.whole(model), tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def opened(name: str) -> Backbone:
    return open_backbone(chosen(name), "fp32", "cpu")


def picture(pipeline: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    made = pipeline("a box", num_inference_steps=2, height=8, width=8, output_type="np", generator=generator)
    return np.asarray(made.images)


def refusal(name: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        _ = opened(name).pipeline
    assert "\n" not in caught.value.line
    return caught.value


def test_the_file_draws_what_its_folder_draws(file: Path, configuration: Path, folder: Path, model: Any) -> None:
    backbone = opened(f"{file}@{configuration}")
    assert (backbone.spec.name, backbone.spec.family) == ("mine", "sd")
    assert (backbone.spec.recipe.width, backbone.spec.recipe.height) == (8, 8)
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = (getattr(each, part).state_dict() for each in (backbone.pipeline, model))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), part
    assert backbone.scheduler == opened(str(folder)).scheduler
    assert np.array_equal(picture(backbone.pipeline), picture(opened(str(folder)).pipeline))
    assert not any(weight.requires_grad for weight in backbone.pipeline.unet.parameters())


def test_a_pickle_of_tensors_is_read(model: Any, configuration: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": compvis.whole(model), "global_step": 7}, tmp_path / "mine.ckpt")
    pipeline = opened(f"{tmp_path / 'mine.ckpt'}@{configuration}").pipeline
    assert torch.equal(pipeline.unet.conv_in.weight, model.unet.conv_in.weight)


def test_a_pickle_with_code_is_refused_and_not_run(configuration: Path, tmp_path: Path, bait: Callable[[Path], Path]) -> None:
    trace = bait(tmp_path / "mine.ckpt")
    assert "holds more than tensors" in refusal(f"{tmp_path / 'mine.ckpt'}@{configuration}").message
    assert not trace.exists()


def test_its_hash_is_of_the_file_and_of_the_configuration(file: Path, configuration: Path, folder: Path, tmp_path: Path) -> None:
    first = opened(f"{file}@{configuration}").sha256
    assert opened(f"{file}@{folder}").sha256 == first, "weights beside the configuration do not count"
    moved = Path(shutil.copy(file, tmp_path / "other.safetensors"))
    assert opened(f"{moved}@{shutil.copytree(configuration, tmp_path / 'config')}").sha256 == first, "nor do names and places"
    scheduler = tmp_path / "config" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"beta_end": 0.02}))
    assert opened(f"{moved}@{tmp_path / 'config'}").sha256 != first
    save_file({"x": torch.zeros(1)}, moved)
    assert opened(f"{moved}@{configuration}").sha256 != first


@pytest.mark.parametrize("lost", [
    "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight", "first_stage_model.decoder.conv_in.weight",
    "model.diffusion_model.middle_block.1.norm.weight",
])  # fmt: skip
@pytest.mark.parametrize("beside", [False, True])
def test_a_file_that_lacks_a_tensor_is_refused(
    lost: str, beside: bool, model: Any, configuration: Path, folder: Path, tmp_path: Path
) -> None:
    """Also where the configuration's folder has weights that could fill the gap: they are another model's."""
    state = compvis.whole(model)
    del state[lost]
    save_file(state, tmp_path / "mine.safetensors")
    assert "not a whole model" in refusal(f"{tmp_path / 'mine.safetensors'}@{folder if beside else configuration}").message


@pytest.mark.parametrize("prefix", ["cond_stage_model.", "first_stage_model.", "model.diffusion_model."])
def test_a_file_without_a_whole_part_is_refused(prefix: str, model: Any, folder: Path, tmp_path: Path) -> None:
    state = {name: value for name, value in compvis.whole(model).items() if not name.startswith(prefix)}
    save_file(state, tmp_path / "mine.safetensors")
    assert "not a whole model" in refusal(f"{tmp_path / 'mine.safetensors'}@{folder}").message


@pytest.mark.parametrize("name", ["model.diffusion_model.label_emb.0.0.weight", "first_stage_model.encoder.more.weight"])
def test_what_the_converter_would_drop_is_refused(name: str, model: Any, configuration: Path, tmp_path: Path) -> None:
    save_file(compvis.whole(model) | {name: torch.ones(3)}, tmp_path / "mine.safetensors")
    assert "numbers, the configuration's" in refusal(f"{tmp_path / 'mine.safetensors'}@{configuration}").message


def test_what_training_left_behind_is_no_weight(model: Any, configuration: Path, tmp_path: Path) -> None:
    more = {"model_ema.decay": torch.ones(1), "alphas_cumprod": torch.ones(9), "first_stage_model.loss.logvar": torch.ones(1)}
    save_file(compvis.whole(model) | more, tmp_path / "mine.safetensors")
    assert opened(f"{tmp_path / 'mine.safetensors'}@{configuration}").pipeline is not None


def test_a_unet_of_another_width_is_refused(file: Path, folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "wider")
    config = other / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cross_attention_dim": 24}))
    assert "not a whole model" in refusal(f"{file}@{other}").message


def test_where_nothing_is_said_the_names_tell_whose_configuration_it_is(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingError, match="the configuration of 'sd15' is not on this machine") as caught:
        chosen(str(file))
    only = "--include '*.json' --include '*.txt' --include '*.model'"
    assert "hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --revision 451f4fe1" in caught.value.hint
    assert only in caught.value.hint


def test_a_backbone_at_hand_lends_its_configuration_by_name(file: Path) -> None:
    """pocket is bundled; its U-Net is another one than the file's."""
    assert chosen(f"{file}@pocket").recipe.width == 64
    assert "not a whole model" in refusal(f"{file}@pocket").message


@pytest.mark.parametrize(("name", "message"), [
    ("nowhere.safetensors", "there is no such file"),
    ("{file}@nobody", "no backbone and no folder to take the configuration from"),
    ("{file}@{empty}", "not a folder in the hub's format"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(name: str, message: str, file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert message in refusal(name.format(file=file, empty=tmp_path / "empty")).message


def test_a_family_without_such_files_says_so(file: Path, configuration: Path, tmp_path: Path) -> None:
    other = shutil.copytree(configuration, tmp_path / "pixart")
    index = other / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "PixArtSigmaPipeline"}))
    assert "PixArtSigmaPipeline takes no single file" in refusal(f"{file}@{other}").message


@pytest.mark.parametrize("cut", [0.0, 0.5])
def test_a_file_that_is_cut_off_is_refused(cut: float, file: Path, configuration: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(cut * len(data))])
    assert ("cut off" if cut else "an empty file") in refusal(f"{file}@{configuration}").message


def test_a_path_with_the_mark_in_it_is_a_path() -> None:
    assert single.file_and_config("a@b/c.safetensors") == (Path("a@b/c.safetensors"), "")
    assert single.file_and_config("a.ckpt@sd15") == (Path("a.ckpt"), "sd15")
    assert single.file_and_config("someone/some-model") is None
