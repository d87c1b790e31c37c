"""IGMU's heads: their network written out, on the vectors that transformers gives, and strict about the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from srbench.errors import MissingError, UsageError
from srbench.scorers.igmu_head import Head, HeadOptions, IgmuHead, read_head
from tests.scorers.clip_stand_ins import clip_folder, head_state, model_config

Pictures = Callable[[int], list[np.ndarray]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("clip"), 512)


def _in_transformers(folder: Path) -> CLIPVisionModelWithProjection:
    """The stand-in's image tower under transformers' names, as IGMU's own code has it."""
    given = model_config(512)["vision_cfg"]
    state = open_clip.create_model(f"local-dir:{folder}").visual.state_dict()
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=given["width"], intermediate_size=4 * given["width"], num_hidden_layers=given["layers"],
        num_attention_heads=given["width"] // given["head_width"], image_size=given["image_size"], hidden_act="quick_gelu",
        patch_size=given["patch_size"], projection_dim=512,
    ))
    made = {
        "vision_model.embeddings.class_embedding": state["class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "visual_projection.weight": state["proj"].T,
    }
    around = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}
    names = {
        "attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for end in ("weight", "bias"):
        made |= {f"vision_model.{ours}.{end}": state[f"{theirs}.{end}"] for theirs, ours in around.items()}
        for i in range(given["layers"]):
            block, target = f"transformer.resblocks.{i}.", f"vision_model.encoder.layers.{i}."
            made |= {f"{target}{ours}.{end}": state[f"{block}{theirs}.{end}"] for theirs, ours in names.items()}
            for name, part in zip("qkv", state[f"{block}attn.in_proj_{end}"].chunk(3), strict=True):
                made[f"{target}self_attn.{name}_proj.{end}"] = part
    missing, unexpected = model.load_state_dict(made, strict=False)
    assert (list(missing), list(unexpected)) == ([], [])
    return model.eval()


def _by_hand(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """(N, 512) to the probability of label 1, (N,)."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    x = x * torch.sigmoid(linear("attention.2", torch.relu(linear("attention.0", x))))
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    x = x * state["classifier.0.weight"] + state["classifier.0.bias"]
    x = torch.relu(linear("classifier.4", torch.relu(linear("classifier.1", x))))
    return torch.sigmoid(linear("classifier.7", x))[:, 0]


@pytest.mark.parametrize("count", [1, 4])
def test_probabilities_are_those_of_transformers_and_the_written_out_head(
    count: int, folder: Path, opened: Callable[[str], Any], pictures: Pictures
) -> None:
    images = pictures(32)[:count]  # in the network's own size, where nothing is scaled
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    with torch.inference_mode():
        features = _in_transformers(folder)(processor(images, return_tensors="pt").pixel_values).image_embeds
        theirs = _by_hand(head_state(), features)
    ours = [score["label"]["1"] for score in opened("igmu-head").score(images, [{}] * count)]
    assert ours == pytest.approx(theirs.tolist(), abs=1e-5)
    assert all(0.01 < p < 0.99 for p in ours)


def test_the_head_is_the_released_one() -> None:
    assert {name: value.shape for name, value in Head().state_dict().items()} == {n: v.shape for n, v in head_state().items()}
    assert sum(value.numel() for value in Head().parameters()) == 428_289


@pytest.mark.parametrize("name", ["head.pth", "head.pt", "head.bin", "head.safetensors"])
def test_a_head_is_read_from_either_format_without_dropout(name: str, tmp_path: Path) -> None:
    save_file(head_state(), tmp_path / name) if name.endswith("safetensors") else torch.save(head_state(), tmp_path / name)
    head = read_head(tmp_path / name)
    x = torch.randn(3, 512, generator=torch.Generator().manual_seed(1))
    assert not head.training
    assert torch.allclose(torch.sigmoid(head(x))[:, 0], _by_hand(head_state(), x), atol=1e-5)


@pytest.mark.parametrize(("change", "message"), [
    ({"attention.0.weight": None}, "attention.0.weight is missing"), ({"other": torch.zeros(2)}, r"other is \(2,\)"),
    ({"classifier.7.bias": torch.zeros(2)}, r"classifier.7.bias is \(2,\)"), ({"classifier.0.bias": 3}, "classifier.0.bias is"),
])
def test_other_names_and_shapes_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    state = {name: value for name, value in (head_state() | change).items() if value is not None}
    torch.save(state, tmp_path / "head.pth")
    with pytest.raises(UsageError, match=message) as caught:
        read_head(tmp_path / "head.pth")
    assert "ryliu68/IGMU" in caught.value.hint


def test_a_clip_of_another_width_is_refused(tmp_path: Path) -> None:
    torch.save(head_state(), tmp_path / "head.pth")
    with pytest.raises(UsageError, match="reads CLIP vectors of 512 numbers, not 768"):
        IgmuHead(HeadOptions(weights=tmp_path / "head.pth", clip=clip_folder(tmp_path, 768)))


def test_a_missing_head_says_where_it_is_published(tmp_path: Path) -> None:
    for options in (None, HeadOptions(), HeadOptions(weights=tmp_path / "head.pth"), HeadOptions(clip=tmp_path)):
        with pytest.raises(MissingError) as caught:
            IgmuHead(options)
        assert "ryliu68/IGMU" in caught.value.hint
        assert caught.value.hint.endswith("--set igmu-head.weights=FILE")


def test_a_missing_clip_says_what_fetches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.save(head_state(), tmp_path / "head.pth")
    with pytest.raises(MissingError) as caught:
        IgmuHead(HeadOptions(weights=tmp_path / "head.pth"))
    assert caught.value.hint == "Fetch it: hf download timm/vit_base_patch32_clip_224.openai open_clip_model.safetensors"


class Malicious:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('ran')",))


def test_a_malicious_pickle_is_never_executed(tmp_path: Path) -> None:
    torch.save(head_state() | {"classifier.7.bias": Malicious()}, tmp_path / "head.pth")
    with pytest.raises(UsageError, match="not a file of weights"):
        read_head(tmp_path / "head.pth")


def test_a_head_saved_as_a_whole_network_is_refused(tmp_path: Path) -> None:
    torch.save(Head(), tmp_path / "head.pth")
    with pytest.raises(UsageError, match="not a file of weights"):
        read_head(tmp_path / "head.pth")
