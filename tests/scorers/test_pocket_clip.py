"""The pocket CLIP: it pools and scales as it was trained, and scores texts the way transformers would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from srbench.errors import CellError, MissingError
from srbench.scorers._files import Folder, to_tensor
from srbench.scorers.base import package_folder
from srbench.scorers.pocket_clip import PocketClip

TEXTS = [
    "a cat on a beach, noto style", "an empty scene under a night sky", "dagger, red, sketch", "a", "",
    "a picture of a castle and a key in the desert in the style of van gogh " * 8,
]


@pytest.fixture(scope="module")
def clip() -> PocketClip:
    return PocketClip()


def _renamed(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """open_clip's text tower under transformers' names."""
    made = {
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_model.final_layer_norm.weight": state["ln_final.weight"],
        "text_model.final_layer_norm.bias": state["ln_final.bias"],
        "text_projection.weight": state["text_projection"].T,
    }
    names = {
        "attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for i in range(layers):
        source, target = f"transformer.resblocks.{i}.", f"text_model.encoder.layers.{i}."
        for end in ("weight", "bias"):
            for theirs, ours in names.items():
                made[f"{target}{ours}.{end}"] = state[f"{source}{theirs}.{end}"]
            for name, part in zip("qkv", state[f"{source}attn.in_proj_{end}"].chunk(3), strict=True):
                made[f"{target}self_attn.{name}_proj.{end}"] = part
    return made


def _in_transformers(folder: Path) -> CLIPTextModelWithProjection:
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    text = config["text_cfg"]
    model = CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=text["vocab_size"], hidden_size=text["width"], intermediate_size=4 * text["width"],
        num_hidden_layers=text["layers"], num_attention_heads=text["heads"], max_position_embeddings=text["context_length"],
        projection_dim=config["embed_dim"], hidden_act="gelu", eos_token_id=text["eos_id"], bos_token_id=0,
    ))
    state = open_clip.create_model(f"local-dir:{folder}").state_dict()
    missing, unexpected = model.load_state_dict(_renamed(state, text["layers"]), strict=False)
    assert (missing, unexpected) == ([], [])
    return model.eval()


def test_text_features_equal_transformers_to_1e_5(clip: PocketClip) -> None:
    folder = package_folder("pocket/clip")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        theirs = torch.nn.functional.normalize(_in_transformers(folder)(input_ids=ids).text_embeds, dim=-1)
    ours = torch.stack([clip.text_feature(text) for text in TEXTS])
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert len({tuple(row.tolist()) for row in ours.round(decimals=4)}) == len(TEXTS)


def test_the_tokenizer_is_the_backbone_s_vocabulary_cut_at_77(clip: PocketClip) -> None:
    ids = open_clip.get_tokenizer(f"local-dir:{package_folder('pocket/clip')}")(TEXTS)
    assert ids.shape == (len(TEXTS), 77)
    assert (ids[:, 0] == 0).all()
    assert (ids == 1).any(1).all()


def test_open_clip_s_own_transform_agrees(clip: PocketClip, images: list) -> None:
    name = f"local-dir:{package_folder('pocket/clip')}"
    _, _, transform = open_clip.create_model_and_transforms(name)
    for image in images:
        assert torch.allclose(transform(Image.fromarray(image))[None], to_tensor(image), atol=1e-6)


def test_scores_are_100_times_the_cosine(clip: PocketClip, images: list, rows: list) -> None:
    for score, image, row in zip(clip.score(images, rows), images, rows, strict=True):
        feature = clip.image_feature(image)
        assert float(feature.norm()) == pytest.approx(1, abs=1e-5)
        assert score["prompt"] == pytest.approx(100 * float(feature @ clip.text_feature(row["prompt"])), abs=1e-4)
        assert -100 <= score["prompt"] <= 100


def test_reference_is_null_without_one(clip: PocketClip, images: list, rows: list) -> None:
    for score, row in zip(clip.score(images, rows), rows, strict=True):
        assert (score["reference"] is None) == (row["reference"] is None)


def test_equal_pixels_under_two_captions_differ(clip: PocketClip, images: list) -> None:
    first, second = clip.score([images[1]] * 2, [{"prompt": p, "reference": None} for p in ("a cat", "a car at night")])
    assert first["prompt"] != second["prompt"]


def test_a_text_is_encoded_once(clip: PocketClip, monkeypatch: pytest.MonkeyPatch) -> None:
    clip.text_feature("an owl in the snow")

    def never(*_: object, **__: object) -> Tensor:
        raise AssertionError("encoded twice")

    monkeypatch.setattr(clip._model, "encode_text", never)
    assert clip.text_feature("an owl in the snow").shape == (clip.width,)


def test_other_sizes_are_refused(clip: PocketClip) -> None:
    with pytest.raises(CellError, match="64 x 64 px, not 48 x 64"):
        clip.score([np.zeros((64, 48, 3), np.uint8)], [{"prompt": "a cat", "reference": None}])


def test_missing_weights_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"open_clip_config\.json"):
        PocketClip(Folder(weights=tmp_path))
