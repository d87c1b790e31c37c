"""Checkpoints of others: every published form lands tensor by tensor, and what does not fit is refused with one line."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from srbench.backbones import foreign
from srbench.backbones.checkpoint import laid_over
from srbench.backbones.foreign import guess_kind, open_baseline, open_foreign
from srbench.catalog.specs import BaselineSpec
from srbench.errors import MissingError, UsageError
from srbench.files import file_sha
from srbench.hashing import folder_sha
from tests.compvis import U_RESNET as RESNET
from tests.compvis import unet as compvis

PARTS = ("unet", "text_encoder", "vae")
NAME = "conv_in.weight"
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
State = dict[str, Tensor]


def state(pipeline: Any, part: str = "unet") -> State:
    return {name: value.clone() for name, value in getattr(pipeline, part).state_dict().items()}


def same(one: Any, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in other)


def saved(tensors: State, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


def refusal(path: Path, pipeline: Any, **how: Any) -> str:
    with pytest.raises(UsageError) as caught:
        open_foreign(path, "c", pipeline, **how)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value.message


# --- pipelines ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(other: Any, tmp_path: Path) -> Path:
    """The other model as diffusers saves it."""
    other.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", [None, "pipeline"])
def test_a_pipeline_folder(pipeline: Any, other: Any, folder: Path, kind: str | None) -> None:
    found = open_foreign(folder, "theirs", pipeline, kind=kind)
    assert set(found.tensors) == set(PARTS)
    assert all(same(found.tensors[part], state(other, part)) for part in PARTS)
    assert found.passport.matched == found.passport.expected == sum(len(state(other, part)) for part in PARTS)
    assert (found.name, found.passport.kind, found.passport.format) == ("theirs", "pipeline", "safetensors")
    assert found.sha256 == folder_sha(folder)
    with laid_over(pipeline, found):
        assert all(same(state(pipeline, part), state(other, part)) for part in PARTS)


def test_a_pipeline_folder_with_pickles_and_shards(pipeline: Any, other: Any, folder: Path) -> None:
    (folder / "text_encoder" / "model.safetensors").unlink()
    saved(state(other, "text_encoder"), folder / "text_encoder" / "pytorch_model.bin")
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    halves = [dict(list(tensors.items())[:50]), dict(list(tensors.items())[50:])]
    names = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for half, name in zip(halves, names, strict=True):
        save_file(half, whole.parent / name)
    index = {"weight_map": {n: file for half, file in zip(halves, names, strict=True) for n in half}}
    Path(f"{whole}.index.json").write_text(json.dumps(index))
    found = open_foreign(folder, "c", pipeline)
    assert all(same(found.tensors[part], state(other, part)) for part in PARTS)
    assert found.passport.format == "pickle (weights only), safetensors"
    (whole.parent / names[1]).unlink()
    assert "its part diffusion_pytorch_model-00002-of-00002.safetensors is missing" in refusal(folder, pipeline)


def test_a_single_variant_file_is_taken_and_two_are_ambiguous(pipeline: Any, other: Any, folder: Path) -> None:
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert same(open_foreign(folder, "c", pipeline).tensors["vae"], state(other, "vae"))
    saved(state(other, "vae"), weights.with_name("diffusion_pytorch_model.ema.safetensors"))
    assert "2 files of weights" in refusal(folder, pipeline)


def test_a_pipeline_without_a_component_is_refused(pipeline: Any, folder: Path) -> None:
    (folder / "vae").rename(folder / "old_vae")
    assert "the checkpoint has no vae" in refusal(folder, pipeline)


def test_a_pipeline_with_a_component_more_is_refused(pipeline: Any, folder: Path) -> None:
    (folder / "text_encoder_2").mkdir()
    assert "this backbone has no text_encoder_2" in refusal(folder, pipeline)


def test_a_component_without_weights_is_refused(pipeline: Any, folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert "no file of weights" in refusal(folder, pipeline)


def test_a_pipeline_is_never_partial(pipeline: Any, other: Any, folder: Path) -> None:
    saved({NAME: state(other)[NAME]}, folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert "tensors of unet are missing" in refusal(folder, pipeline)
    assert "never partial" in refusal(folder, pipeline, kind="pipeline", partial=True)


def test_old_names_of_the_autoencoders_attention(pipeline: Any, other: Any, folder: Path) -> None:
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {re.sub("|".join(map(re.escape, old)), lambda m: old[m[0]], n): v for n, v in state(other, "vae").items()}
    assert renamed.keys() != state(other, "vae").keys()
    saved(renamed, folder / "vae" / "diffusion_pytorch_model.safetensors")
    assert same(open_foreign(folder, "c", pipeline).tensors["vae"], state(other, "vae"))


# --- U-Nets ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["unet.pt", "unet.bin", "unet.ckpt", "unet.safetensors"])
@pytest.mark.parametrize("kind", [None, "unet"])
def test_a_state_dict_file(pipeline: Any, other: Any, tmp_path: Path, file: str, kind: str | None) -> None:
    path = saved(state(other), tmp_path / file)
    found = open_foreign(path, "c", pipeline, kind=kind, partial=False)
    assert same(found.tensors["unet"], state(other))
    assert found.passport.format == ("safetensors" if path.suffix == ".safetensors" else "pickle (weights only)")
    assert found.sha256 == file_sha(path)


@pytest.mark.parametrize("wrapper", ["state_dict", "unet", "model"])
def test_one_level_of_wrapping_is_undone(pipeline: Any, other: Any, tmp_path: Path, wrapper: str) -> None:
    torch.save({wrapper: state(other), "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "unet.pt")
    assert same(open_foreign(tmp_path / "unet.pt", "c", pipeline).tensors["unet"], state(other))


@pytest.mark.parametrize("wrappers", [("state_dict", "model"), ("ema",)])
def test_other_wrapping_is_refused(pipeline: Any, other: Any, tmp_path: Path, wrappers: tuple[str, ...]) -> None:
    inner: Any = state(other)
    for wrapper in wrappers:
        inner = {wrapper: inner}
    torch.save(inner, tmp_path / "unet.pt")
    refusal(tmp_path / "unet.pt", pipeline, kind="unet")


def test_two_models_in_one_file_are_refused(pipeline: Any, other: Any, tmp_path: Path) -> None:
    torch.save({"unet": state(other), "text_encoder": state(other, "text_encoder")}, tmp_path / "both.pt")
    assert "state dicts under unet, text_encoder" in refusal(tmp_path / "both.pt", pipeline, kind="unet")


def test_parameters_lose_their_gradients(pipeline: Any, other: Any, tmp_path: Path) -> None:
    torch.save({name: nn.Parameter(value) for name, value in state(other).items()}, tmp_path / "unet.pt")
    found = open_foreign(tmp_path / "unet.pt", "c", pipeline)
    assert not any(value.requires_grad for value in found.tensors["unet"].values())


@pytest.mark.parametrize("kind", [None, "unet"])
def test_a_unet_folder(pipeline: Any, other: Any, tmp_path: Path, kind: str | None) -> None:
    other.unet.save_pretrained(tmp_path / "unet")
    found = open_foreign(tmp_path / "unet", "c", pipeline, kind=kind)
    assert same(found.tensors["unet"], state(other))
    saved({NAME: state(other)[NAME]}, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert "are missing" in refusal(tmp_path / "unet", pipeline, kind=kind)


def test_a_partial_file_says_how_much_of_the_backbone_it_is(pipeline: Any, other: Any, tmp_path: Path) -> None:
    keys = {n: v for n, v in state(other).items() if "attn2.to_k" in n or "attn2.to_v" in n}
    path = saved(keys, tmp_path / "uce.safetensors")
    whole = len(state(pipeline))
    for partial in (None, True):
        found = open_foreign(path, "c", pipeline, partial=partial, kind="unet" if partial else None)
        assert same(found.tensors["unet"], keys)
        assert f"{len(keys)} of {whole} tensors, {len(keys)} changed" in found.passport.line()
    assert f"{whole - len(keys)} of {whole} tensors of unet are missing" in refusal(path, pipeline, kind="unet", partial=False)


def test_one_foreign_name_spoils_a_partial_file(pipeline: Any, other: Any, tmp_path: Path) -> None:
    path = saved({NAME: state(other)[NAME], "conv_in.gain": torch.ones(1)}, tmp_path / "unet.safetensors")
    assert "1 of 2 tensors are not in this backbone's unet" in refusal(path, pipeline)


def test_no_matching_name_is_refused(pipeline: Any, tmp_path: Path) -> None:
    path = saved({"nothing.weight": torch.ones(2), "else.weight": torch.ones(2)}, tmp_path / "unet.safetensors")
    assert "2 of 2 tensors are not in this backbone's unet" in refusal(path, pipeline, kind="unet")
    assert "its kind can not be told" in refusal(path, pipeline)


def test_another_width_is_refused(pipeline: Any, other: Any, tmp_path: Path) -> None:
    wider = {n: torch.cat([v, v]) if n == NAME else v for n, v in state(other).items()}
    assert "(16, 4, 3, 3), in this backbone (8, 4, 3, 3)" in refusal(saved(wider, tmp_path / "unet.pt"), pipeline)


def test_nan_is_refused(pipeline: Any, other: Any, tmp_path: Path) -> None:
    broken = state(other)
    broken[NAME][0] = float("nan")
    assert "not numbers" in refusal(saved(broken, tmp_path / "unet.pt"), pipeline)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_backbone_itself_is_refused(pipeline: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    path = saved({name: value.to(dtype) for name, value in state(pipeline).items()}, tmp_path / "unet.pt")
    assert "equals the backbone" in refusal(path, pipeline)


# --- CompVis names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", ""])
@pytest.mark.parametrize("kind", [None, "unet"])
def test_compvis_names(pipeline: Any, other: Any, tmp_path: Path, prefix: str, kind: str | None) -> None:
    theirs = {prefix + compvis(name): value for name, value in state(other).items()}
    assert len(theirs) == len(state(other))
    assert f"{prefix}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight" in theirs
    torch.save({"state_dict": theirs}, tmp_path / "esd.ckpt")
    found = open_foreign(tmp_path / "esd.ckpt", "c", pipeline, kind=kind)
    assert same(found.tensors["unet"], state(other))
    assert found.passport.format == "CompVis names, pickle (weights only)"
    assert found.passport.matched == found.passport.expected


def test_compvis_names_of_another_architecture_are_refused(pipeline: Any, other: Any, tmp_path: Path) -> None:
    theirs = {compvis(name): value for name, value in state(other).items()}
    longer = theirs | {f"output_blocks.7.0.{RESNET['conv1']}.weight": torch.ones(1)}
    unknown = theirs | {"label_emb.0.0.weight": torch.ones(1)}
    shorter = {name: value for name, value in theirs.items() if not name.startswith("middle_block.0")}
    odd = theirs | {"middle_block.1": torch.ones(1)}
    for i, wrong in enumerate((longer, unknown, shorter, odd)):
        message = refusal(saved(wrong, tmp_path / f"{i}.pt"), pipeline, partial=True)
        assert "CompVis U-Net of another architecture" in message


def test_whatever_the_converter_raises_is_one_line(pipeline: Any, tmp_path: Path) -> None:
    only = {"input_blocks.3.0.in_layers.0.weight": torch.ones(1)}
    assert "CompVis U-Net" in refusal(saved(only, tmp_path / "odd.pt"), pipeline)
    stub = SimpleNamespace(unet=nn.Linear(1, 1))  # no config to convert by
    assert "CompVis U-Net" in refusal(tmp_path / "odd.pt", stub, kind="unet")


def test_a_whole_compvis_model_is_refused(pipeline: Any, other: Any, tmp_path: Path) -> None:
    whole = {f"model.diffusion_model.{compvis(name)}": value for name, value in state(other).items()}
    whole["first_stage_model.encoder.conv_in.weight"] = torch.ones(1)
    assert "1 tensors beside the CompVis U-Net (first_stage_model" in refusal(saved(whole, tmp_path / "sd.ckpt"), pipeline)


# --- text encoders -----------------------------------------------------------------------------------------------------------


def prefixed(tensors: State, prefix: bool) -> State:
    bare = {name.removeprefix("text_model."): value for name, value in tensors.items()}
    return {f"text_model.{name}": value for name, value in bare.items()} if prefix else bare


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("kind", [None, "text_encoder"])
def test_a_text_encoder_folder_in_both_styles(
    pipeline: Any, other: Any, tmp_path: Path, prefix: bool, kind: str | None
) -> None:
    folder = tmp_path / "church_unlearned"
    other.text_encoder.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["CLIPTextModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    saved(prefixed(state(other, "text_encoder"), prefix), folder / "pytorch_model.bin")
    found = open_foreign(folder, "c", pipeline, kind=kind)
    assert same(found.tensors["text_encoder"], state(other, "text_encoder"))
    assert found.passport.kind == "text_encoder"
    assert found.passport.format == "pickle (weights only)"


def test_a_backbone_with_prefixed_names_takes_both_styles(tmp_path: Path) -> None:
    encoder = nn.Module()
    encoder.text_model = nn.Linear(2, 2)
    for prefix in (True, False):
        path = saved(prefixed({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, prefix), tmp_path / f"{prefix}.pt")
        found = open_foreign(path, "c", SimpleNamespace(text_encoder=encoder), kind="text_encoder")
        assert set(found.tensors["text_encoder"]) == {"text_model.weight", "text_model.bias"}


@pytest.mark.parametrize("prefix", [True, False])
def test_a_text_encoder_file(pipeline: Any, other: Any, tmp_path: Path, prefix: bool) -> None:
    path = saved(prefixed(state(other, "text_encoder"), prefix), tmp_path / "encoder.pt")
    assert same(open_foreign(path, "c", pipeline).tensors["text_encoder"], state(other, "text_encoder"))


def test_a_stored_position_buffer_is_no_weight(pipeline: Any, other: Any, tmp_path: Path) -> None:
    tensors = prefixed(state(other, "text_encoder"), True)
    buffer = "text_model.embeddings.position_ids"
    path = saved(tensors | {buffer: torch.arange(6)[None]}, tmp_path / "encoder.pt")
    assert same(open_foreign(path, "c", pipeline).tensors["text_encoder"], state(other, "text_encoder"))
    path = saved(tensors | {buffer: torch.arange(6).flip(0)[None]}, tmp_path / "reversed.pt")
    assert "not in this backbone's text_encoder" in refusal(path, pipeline)


def test_a_text_encoder_is_never_partial(pipeline: Any, other: Any, tmp_path: Path) -> None:
    tensors = state(other, "text_encoder")
    tensors.pop("final_layer_norm.bias")
    path = saved(tensors, tmp_path / "encoder.pt")
    assert "are missing" in refusal(path, pipeline)
    assert "never partial" in refusal(path, pipeline, kind="text_encoder", partial=True)


def test_another_prefix_is_refused(pipeline: Any, other: Any, tmp_path: Path) -> None:
    tensors = {f"encoder.{name}": value for name, value in state(other, "text_encoder").items()}
    assert "not in this backbone's text_encoder" in refusal(saved(tensors, tmp_path / "e.pt"), pipeline, kind="text_encoder")


def test_a_tensor_that_is_stored_once_for_two_names(tmp_path: Path) -> None:
    config = T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    stub = SimpleNamespace(text_encoder=T5EncoderModel(config))
    names = set(stub.text_encoder.state_dict())
    tied = {name for name in names if name == "shared.weight" or name.endswith("embed_tokens.weight")}
    assert len(tied) == 2
    given = {name: value + 1 for name, value in stub.text_encoder.state_dict().items() if name not in tied - {"shared.weight"}}
    found = open_foreign(saved(given, tmp_path / "t5.pt"), "c", stub, kind="text_encoder")
    assert set(found.tensors["text_encoder"]) == names


# --- LoRA --------------------------------------------------------------------------------------------------------------------

TARGETS = ["to_k", "to_v"]


def adapted(pipeline: Any, rank: int = 2, alpha: int = 2, zero: bool = False) -> tuple[UNet2DConditionModel, Any]:
    """A copy of the U-Net with an adapter of random matrices, and its settings."""
    unet = UNet2DConditionModel.from_config(pipeline.unet.config)
    unet.load_state_dict(pipeline.unet.state_dict())
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS)
    unet.add_adapter(config)
    torch.manual_seed(3)
    for name, value in unet.named_parameters():
        if "lora_" in name:
            nn.init.normal_(value) if not zero or "lora_A" in name else nn.init.zeros_(value)
    return unet, config


def expected(pipeline: Any, unet: UNet2DConditionModel, scale: float) -> State:
    """W + scale * B A, module by module, in float32."""
    matrices = get_peft_model_state_dict(unet)
    own = {name: value.float() for name, value in state(pipeline).items()}
    names = [name.removesuffix(".lora_A.weight") for name in matrices if name.endswith(".lora_A.weight")]
    assert names
    deltas = {name: scale * matrices[f"{name}.lora_B.weight"] @ matrices[f"{name}.lora_A.weight"] for name in names}
    return {f"{name}.weight": own[f"{name}.weight"] + delta for name, delta in deltas.items()}


def close(found: Any, wanted: State) -> bool:
    return found.keys() == wanted.keys() and all(torch.allclose(found[n], wanted[n], atol=1e-5) for n in wanted)


def save_lora(unet: UNet2DConditionModel, folder: Path, config: Any = None, **how: Any) -> Path:
    metadata = {k: v for k, v in config.to_dict().items() if k in ("r", "lora_alpha")} if config else None
    if metadata:
        metadata |= {"target_modules": TARGETS}
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=get_peft_model_state_dict(unet), unet_lora_adapter_metadata=metadata, **how
    )
    return folder


@pytest.mark.parametrize("form", ["folder", "file", "pickle"])
def test_a_lora_is_fused_in_float32(pipeline: Any, tmp_path: Path, form: str) -> None:
    unet, _ = adapted(pipeline)
    path = save_lora(unet, tmp_path / "lora", safe_serialization=form != "pickle")
    if form == "file":
        path = (path / "pytorch_lora_weights.safetensors").rename(tmp_path / "duo.safetensors")
    found = open_foreign(path, "c", pipeline)
    assert close(found.tensors["unet"], expected(pipeline, unet, 1.0))
    assert set(found.tensors) == {"unet"}
    assert found.passport.kind == "lora"
    assert found.passport.format == ("pickle (weights only)" if form == "pickle" else "safetensors")
    assert (found.passport.matched, found.passport.expected) == (len(found.tensors["unet"]), len(state(pipeline)))
    assert found.sha256 == (file_sha(path) if form == "file" else folder_sha(path))


def test_a_loras_scale_in_the_files_header_is_used(pipeline: Any, tmp_path: Path) -> None:
    unet, config = adapted(pipeline, rank=2, alpha=6)
    found = open_foreign(save_lora(unet, tmp_path / "lora", config), "c", pipeline)
    assert close(found.tensors["unet"], expected(pipeline, unet, 3.0))


def test_a_lora_in_kohyas_names_with_alpha(pipeline: Any, tmp_path: Path) -> None:
    torch.manual_seed(4)
    key = f"lora_unet_{ATTENTION.replace('.', '_')}_to_k"
    down, up = torch.randn(2, 16), torch.randn(8, 2)
    tensors = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0)}
    found = open_foreign(saved(tensors, tmp_path / "spm.safetensors"), "c", pipeline)
    name = f"{ATTENTION}.to_k.weight"
    assert close(found.tensors["unet"], {name: state(pipeline)[name] + 0.5 * up @ down})


def test_a_lora_on_a_half_precision_pipeline(pipeline: Any, tmp_path: Path) -> None:
    unet, _ = adapted(pipeline)
    path = save_lora(unet, tmp_path / "lora")
    half = StableDiffusionPipeline(**(pipeline.components | {"unet": UNet2DConditionModel.from_config(pipeline.unet.config)}))
    half.unet.load_state_dict(pipeline.unet.state_dict())
    half.unet.to(torch.bfloat16)
    found = open_foreign(path, "c", half)
    assert all(value.dtype == torch.float32 for value in found.tensors["unet"].values())
    assert close(found.tensors["unet"], expected(half, unet, 1.0))
    assert half.unet.dtype == torch.bfloat16


def lora(modules: list[str], out: int = 8, width: int = 16) -> State:
    sides = {"lora_A": torch.ones(2, width), "lora_B": torch.ones(out, 2)}
    return {f"unet.{module}.{side}.weight": value.clone() for module in modules for side, value in sides.items()}


def test_a_lora_with_one_module_that_is_not_there_is_refused(pipeline: Any, tmp_path: Path) -> None:
    fits = saved(lora([f"{ATTENTION}.to_k"]), tmp_path / "fits.safetensors")
    assert open_foreign(fits, "c", pipeline).passport.matched == 1
    path = saved(lora([f"{ATTENTION}.to_k", "down_blocks.9.conv"]), tmp_path / "lora.safetensors")
    assert "2 of 4 LoRA matrices are for modules that this backbone does not have" in refusal(path, pipeline)


@pytest.mark.parametrize(
    "tensors",
    [
        lora(["down_blocks.9.conv"]),
        {name.replace("unet.", "transformer."): value for name, value in lora([f"{ATTENTION}.to_k"]).items()},
        {name.replace("unet.", "base_model.model."): value for name, value in lora([f"{ATTENTION}.to_k"]).items()},
        lora([f"{ATTENTION}.to_k"], width=12),
        lora([f"{ATTENTION}.to_k"]) | {"unet.conv_in.weight": torch.ones(8, 4, 3, 3)},
    ],
    ids=["no such module", "a transformer's", "peft's own names", "another width", "other tensors too"],
)
def test_a_lora_for_something_else_is_refused(pipeline: Any, tmp_path: Path, tensors: State) -> None:
    refusal(saved(tensors, tmp_path / "lora.safetensors"), pipeline)
    refusal(saved(tensors, tmp_path / "lora.pt"), pipeline)


def test_a_dora_is_refused_by_name(pipeline: Any, tmp_path: Path) -> None:
    """diffusers drops its scales with a warning, and what is left is another model."""
    tensors = lora([f"{ATTENTION}.to_k"]) | {f"unet.{ATTENTION}.to_k.lora_magnitude_vector.dora_scale": torch.ones(8)}
    assert "a DoRA" in refusal(saved(tensors, tmp_path / "lora.safetensors"), pipeline)


def test_a_lora_that_changes_nothing_is_refused(pipeline: Any, tmp_path: Path) -> None:
    unet, _ = adapted(pipeline, zero=True)
    assert "equals the backbone" in refusal(save_lora(unet, tmp_path / "lora"), pipeline)


def test_a_lora_with_nan_is_refused(pipeline: Any, tmp_path: Path) -> None:
    tensors = lora([f"{ATTENTION}.to_k"])
    tensors[f"unet.{ATTENTION}.to_k.lora_B.weight"][0] = float("nan")
    assert "not numbers" in refusal(saved(tensors, tmp_path / "lora.safetensors"), pipeline)


def test_a_backbone_that_takes_no_lora_is_refused(tmp_path: Path) -> None:
    path = saved(lora([f"{ATTENTION}.to_k"]), tmp_path / "lora.safetensors")
    assert "no LoRA for this backbone" in refusal(path, SimpleNamespace(unet=nn.Linear(1, 1)))


# --- broken, hostile, wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "unet", "text_encoder", "lora"])
def test_a_malicious_pickle_is_never_executed(
    pipeline: Any, tmp_path: Path, bait: Callable[[Path], Path], kind: str | None
) -> None:
    trace = bait(tmp_path / "unet.pt")
    assert "was not opened" in refusal(tmp_path / "unet.pt", pipeline, kind=kind)
    assert not trace.exists()


@pytest.mark.parametrize(("kind", "file"), [
    ("unet", "diffusion_pytorch_model.bin"), ("text_encoder", "pytorch_model.bin"), ("lora", "pytorch_lora_weights.bin"),
])  # fmt: skip
def test_a_malicious_pickle_in_a_folder_is_never_executed(
    pipeline: Any, tmp_path: Path, bait: Callable[[Path], Path], kind: str, file: str
) -> None:
    (tmp_path / "folder").mkdir()
    trace = bait(tmp_path / "folder" / file)
    assert "was not opened" in refusal(tmp_path / "folder", pipeline, kind=kind)
    assert not trace.exists()


def test_the_hint_names_a_way_without_a_switch(pipeline: Any, tmp_path: Path, bait: Callable[[Path], Path]) -> None:
    bait(tmp_path / "unet.pt")
    with pytest.raises(UsageError) as caught:
        open_foreign(tmp_path / "unet.pt", "c", pipeline)
    assert "safetensors" in caught.value.hint
    assert "no switch" in caught.value.hint


@pytest.mark.parametrize("file", ["unet.pt", "unet.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(pipeline: Any, other: Any, tmp_path: Path, file: str, share: float) -> None:
    path = saved(state(other), tmp_path / file)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert ("cut off" if share else "an empty file") in refusal(path, pipeline)


@pytest.mark.parametrize("content", [{}, {"conv_in.weight": 3}, [torch.ones(1)], torch.ones(1), {3: torch.ones(1)}])
def test_something_else_than_a_state_dict_is_refused(pipeline: Any, tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "unet.pt")
    refusal(tmp_path / "unet.pt", pipeline)


def test_another_hash_is_refused_before_the_file_is_opened(
    pipeline: Any, tmp_path: Path, bait: Callable[[Path], Path]
) -> None:
    bait(tmp_path / "unet.pt")
    found = file_sha(tmp_path / "unet.pt")
    message = refusal(tmp_path / "unet.pt", pipeline, sha256="e" * 64)
    assert f"expected sha256 {'e' * 12}..., found {found[:12]}..." in message


def test_the_right_hash_is_taken_of_a_file_and_of_a_folder(pipeline: Any, other: Any, tmp_path: Path) -> None:
    path = saved(state(other), tmp_path / "unet.pt")
    assert open_foreign(path, "c", pipeline, sha256=file_sha(path)).sha256 == file_sha(path)
    other.unet.save_pretrained(tmp_path / "unet")
    sha = folder_sha(tmp_path / "unet")
    assert open_foreign(tmp_path / "unet", "c", pipeline, sha256=sha).sha256 == sha
    saved(state(pipeline), tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert "expected sha256" in refusal(tmp_path / "unet", pipeline, sha256=sha)


def test_an_ambiguous_file_asks_for_its_kind(pipeline: Any, other: Any, tmp_path: Path) -> None:
    both = {**state(other), **state(other, "text_encoder")}
    path = saved(both, tmp_path / "both.pt")
    assert "looks like unet or text_encoder" in refusal(path, pipeline)
    with pytest.raises(UsageError) as caught:
        guess_kind(path, pipeline)
    assert "kind:" in caught.value.hint


def test_an_ambiguous_folder_asks_for_its_kind(pipeline: Any, folder: Path, tmp_path: Path) -> None:
    saved(lora([f"{ATTENTION}.to_k"]), folder / "pytorch_lora_weights.safetensors")
    assert "looks like pipeline or lora" in refusal(folder, pipeline)
    (tmp_path / "empty").mkdir()
    assert "no weights in it" in refusal(tmp_path / "empty", pipeline)


def test_an_autoencoders_folder_is_no_kind(pipeline: Any, folder: Path) -> None:
    assert "its kind can not be told" in refusal(folder / "vae", pipeline)


def test_what_is_not_there_or_not_known(pipeline: Any, tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nowhere.pt", pipeline)
    (tmp_path / "x.txt").write_text("a text\nof two lines\n")
    assert "not a file of weights (a text)" in refusal(tmp_path / "x.txt", pipeline)
    with pytest.raises(UsageError, match="unknown kind of checkpoint 'unett'") as caught:
        open_foreign(tmp_path / "x.txt", "c", pipeline, kind="unett")
    assert "Did you mean 'unet'?" in caught.value.hint


# --- baselines ---------------------------------------------------------------------------------------------------------------


def spec(source: Path | str, **changes: Any) -> BaselineSpec:
    fields = {"name": "theirs", "title": "t", "kind": "unet", "family": "tiny", "concept": "box", "sha256": "unverified"}
    return BaselineSpec(**(fields | {"source": str(source), "licence": "MIT"} | changes))


def test_a_baseline_is_opened_as_its_file_says(pipeline: Any, other: Any, tmp_path: Path) -> None:
    keys = {n: v for n, v in state(other).items() if "attn2" in n}
    saved(keys, tmp_path / "x.safetensors")
    found = open_baseline(spec(tmp_path, file="x.safetensors", partial=True), pipeline, "tiny", "box")
    assert found.name == "theirs"
    assert same(found.tensors["unet"], keys)
    with pytest.raises(UsageError, match="are missing"):
        open_baseline(spec(tmp_path, file="x.safetensors"), pipeline, "tiny", "box")
    with pytest.raises(UsageError, match="expected sha256"):
        open_baseline(spec(tmp_path / "x.safetensors", partial=True, sha256="0" * 64), pipeline, "tiny", "box")


@pytest.mark.parametrize(("family", "concept", "message"), [
    ("sd", "box", "is for family 'tiny', not 'sd'"), ("tiny", "tree", "unlearned 'box', not 'tree'"),
])  # fmt: skip
def test_a_baseline_of_another_family_or_concept_is_refused(
    pipeline: Any, tmp_path: Path, family: str, concept: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        open_baseline(spec(tmp_path / "nowhere"), pipeline, family, concept)


def test_a_baseline_that_is_not_there_names_the_command(pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    url = "https://example.org/weights/x.pt"
    with pytest.raises(MissingError) as caught:
        open_baseline(spec(url), pipeline, "tiny", "box")
    assert caught.value.exit_code == 3
    assert caught.value.hint == f"Fetch it: curl -fL --create-dirs -o {tmp_path}/srbench/baselines/x.pt {url}"


def test_reading_asks_no_hub(pipeline: Any, other: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A LoRA's folder is given to diffusers by path: whatever it is called, no hub id is looked up."""
    monkeypatch.chdir(tmp_path)
    path = saved(lora([f"{ATTENTION}.to_k"]), Path("lora.safetensors"))
    assert open_foreign(path, "c", pipeline).passport.matched == 1
    assert foreign.guess_kind(path, pipeline) == "lora"


# --- what programs put around names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [
    "module.", "_orig_mod.", "unet.", "model.", "model.diffusion_model.", "module._orig_mod.", "_orig_mod.module.model.",
    "model.unet.", "module.unet._orig_mod.",
])  # fmt: skip
@pytest.mark.parametrize("kind", [None, "unet"])
def test_prefixes_that_every_name_carries_are_taken_off(
    pipeline: Any, other: Any, tmp_path: Path, prefix: str, kind: str | None
) -> None:
    path = saved({prefix + name: value for name, value in state(other).items()}, tmp_path / "unet.pt")
    found = open_foreign(path, "c", pipeline, kind=kind, partial=False)
    assert same(found.tensors["unet"], state(other))
    assert found.sha256 == file_sha(path)


@pytest.mark.parametrize("prefix", ["module.", "text_encoder.", "module.text_encoder.", "_orig_mod.", "text_encoder.text_model."])
def test_prefixes_of_a_text_encoder_are_taken_off(pipeline: Any, other: Any, tmp_path: Path, prefix: str) -> None:
    tensors = {name.removeprefix("text_model."): value for name, value in state(other, "text_encoder").items()}
    path = saved({prefix + name: value for name, value in tensors.items()}, tmp_path / "encoder.pt")
    assert same(open_foreign(path, "c", pipeline).tensors["text_encoder"], state(other, "text_encoder"))


def test_a_prefix_before_some_names_is_left_and_refused(pipeline: Any, other: Any, tmp_path: Path) -> None:
    names = sorted(state(other))
    mixed = {("module." if name in names[:3] else "") + name: state(other)[name] for name in names}
    assert "3 of" in refusal(saved(mixed, tmp_path / "unet.pt"), pipeline)


def test_a_prefix_before_names_of_another_model_is_refused_with_a_name(pipeline: Any, tmp_path: Path) -> None:
    path = saved({"module.layer.weight": torch.ones(2, 2)}, tmp_path / "unet.pt")
    assert "none of its 1 names is one of this backbone's (module.layer.weight" in refusal(path, pipeline)


def wrapped_encoder(other: Any) -> State:
    """As AdvUnlearn's trainer saves it: the encoder as a part, and its parts once more beside it."""
    own = {name.removeprefix("text_model."): value for name, value in state(other, "text_encoder").items()}
    inside = {f"text_encoder.text_model.{name}": value for name, value in own.items()}
    parts = {name: value.clone() for name, value in own.items() if name.startswith(("encoder.", "final_layer_norm."))}
    token = {"embedding.weight": own["embeddings.token_embedding.weight"].clone()}
    return {**inside, **parts, **token, "position_ids": torch.arange(own["embeddings.position_embedding.weight"].shape[0])[None]}


@pytest.mark.parametrize("kind", [None, "text_encoder"])
def test_an_encoder_saved_with_its_parts_beside_it(pipeline: Any, other: Any, tmp_path: Path, kind: str | None) -> None:
    path = saved(wrapped_encoder(other), tmp_path / "TextEncoder.pt")
    assert same(open_foreign(path, "c", pipeline, kind=kind).tensors["text_encoder"], state(other, "text_encoder"))


def test_parts_that_differ_from_the_encoder_are_refused(pipeline: Any, other: Any, tmp_path: Path) -> None:
    tensors = wrapped_encoder(other)
    tensors["final_layer_norm.weight"] = tensors["final_layer_norm.weight"] + 1e-3
    for kind in (None, "text_encoder"):
        said = refusal(saved(tensors, tmp_path / "TextEncoder.pt"), pipeline, kind=kind)
        assert "two copies of one component, whose 'final_layer_norm.weight' differ" in said


# --- folders -----------------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_only_a_unet(pipeline: Any, other: Any, tmp_path: Path) -> None:
    other.unet.save_pretrained(tmp_path / "mine" / "unet")
    found = open_foreign(tmp_path / "mine", "c", pipeline)
    assert same(found.tensors["unet"], state(other))
    assert found.sha256 == folder_sha(tmp_path / "mine" / "unet")


def test_a_trainings_folder_says_which_to_name(pipeline: Any, other: Any, tmp_path: Path) -> None:
    for step in (500, 1000):
        other.unet.save_pretrained(tmp_path / "run" / f"checkpoint-{step}" / "unet")
    with pytest.raises(UsageError) as caught:
        open_foreign(tmp_path / "run", "c", pipeline)
    assert str(tmp_path / "run" / "checkpoint-500") in caught.value.hint
    assert same(open_foreign(tmp_path / "run" / "checkpoint-500", "c", pipeline).tensors["unet"], state(other))


@pytest.mark.parametrize("name", ["unet.pt", "unet.safetensors", "erased-cat,dog.pt", "ü =x.pt", "-on.pt"])
def test_a_folder_with_one_file_is_that_file(pipeline: Any, other: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "uce_models").mkdir()
    path = saved(state(other), tmp_path / "uce_models" / name)
    found = open_foreign(tmp_path / "uce_models", "c", pipeline)
    assert same(found.tensors["unet"], state(other))
    assert found.sha256 == file_sha(path)
    saved(state(other), tmp_path / "uce_models" / "other.pt")
    assert "other.pt" in refusal(tmp_path / "uce_models", pipeline)


@pytest.mark.parametrize("shard", [None, "4KB"])
def test_a_variant_in_one_file_or_in_parts(pipeline: Any, other: Any, tmp_path: Path, shard: str | None) -> None:
    half = copy.deepcopy(other.unet).half()
    half.save_pretrained(tmp_path / "unet", variant="fp16", **({"max_shard_size": shard} if shard else {}))
    assert (tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json").is_file() == bool(shard)
    found = open_foreign(tmp_path / "unet", "c", pipeline)
    assert same(found.tensors["unet"], {name: value.half() for name, value in state(other).items()})
    if shard:
        part = sorted((tmp_path / "unet").glob("*.safetensors"))[0]
        part.unlink()
        assert part.name in refusal(tmp_path / "unet", pipeline)


@pytest.mark.parametrize("name", ["unet", "unet.weights", "unet.safetensors.part", "model.state"])
@pytest.mark.parametrize("form", ["pickle", "safetensors"])
def test_a_file_is_told_by_its_content(pipeline: Any, other: Any, tmp_path: Path, name: str, form: str) -> None:
    (torch.save if form == "pickle" else save_file)(state(other), tmp_path / name)
    assert same(open_foreign(tmp_path / name, "c", pipeline).tensors["unet"], state(other))


@pytest.mark.parametrize(("content", "said"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 10\n", "a git-lfs pointer"),
    (b"<!DOCTYPE html><html><head>", "a web page"), (b"\n <html lang=en>", "a web page"), (b"", "an empty file"),
    (b'{"error": "not found"}', "JSON"), (b"\0" * 4096, "zeros"), (b"PK\x03\x04" + b"\0" * 100, "cut off"),
    (b"GGUF" + b"\0" * 100, "a GGUF file"), (b"\x89PNG\r\n" + b"\0" * 100, "a picture"), (b"Not found\nsorry, nothing", "a text"),
    ((2**40).to_bytes(8, "little") + b"{" + b"x" * 100, ""), ((10).to_bytes(8, "little") + b'{"a":{}', "cut off"),
    ((60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}     ' + b"\0" * 20, "cut off"),
])  # fmt: skip
@pytest.mark.parametrize("name", ["pointer.pt", "pointer.safetensors"])
def test_what_is_no_weights_is_said(pipeline: Any, tmp_path: Path, content: bytes, said: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path / name, pipeline)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("nowhere", path)])
def test_a_fifo_is_not_waited_for(pipeline: Any, tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "x.pt", tmp_path / "folder" / "x.safetensors"):
        make(path)
    assert refusal(tmp_path / "x.pt", pipeline)
    assert refusal(tmp_path / "folder", pipeline)


# --- adapters of peft and of old versions ------------------------------------------------------------------------------------


def saved_by_peft(module: Any, folder: Path, targets: list[str], **settings: Any) -> tuple[Path, State]:
    """A folder of peft's own with random matrices, and B A by module, in float32."""
    model = PeftModel(copy.deepcopy(module), LoraConfig(target_modules=targets, **settings))
    torch.manual_seed(5)
    for name, value in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(value)
    model.save_pretrained(folder)
    saved_names = load_file(folder / "adapter_model.safetensors")
    matrices = {name.removeprefix("base_model.model."): value for name, value in saved_names.items()}
    modules = {name.split(".lora_A")[0] for name in matrices if ".lora_A" in name}
    return folder, {name: matrices[f"{name}.lora_B.weight"] @ matrices[f"{name}.lora_A.weight"] for name in modules}


@pytest.mark.parametrize("form", ["folder", "file"])
@pytest.mark.parametrize(("settings", "scale"), [
    ({"r": 4, "lora_alpha": 1}, 0.25), ({"r": 2, "lora_alpha": 6}, 3.0), ({"r": 4, "lora_alpha": 4, "use_rslora": True}, 2.0),
    ({"r": 2, "lora_alpha": 2, "rank_pattern": {"to_k": 4}, "alpha_pattern": {"to_k": 4}}, 1.0),
])  # fmt: skip
def test_an_adapter_of_pefts_is_fused_to_the_bit(
    pipeline: Any, tmp_path: Path, form: str, settings: dict[str, Any], scale: float
) -> None:
    path, products = saved_by_peft(pipeline.unet, tmp_path / "peft_lora", TARGETS, **settings)
    path = path / "adapter_model.safetensors" if form == "file" else path
    found = open_foreign(path, "c", pipeline)
    own = state(pipeline)
    wanted = {f"{name}.weight": own[f"{name}.weight"] + scale * product for name, product in products.items()}
    assert same(found.tensors["unet"], wanted)
    assert (found.passport.kind, found.passport.format) == ("lora", "peft, safetensors")


@pytest.mark.parametrize("spelled", [True, False])
def test_an_adapter_of_pefts_for_the_text_encoder(pipeline: Any, tmp_path: Path, spelled: bool) -> None:
    """transformers once had `text_model.` before a text encoder's names."""
    path, products = saved_by_peft(pipeline.text_encoder, tmp_path / "lora", ["q_proj", "v_proj"], r=2, lora_alpha=2)
    if spelled:
        file = path / "adapter_model.safetensors"
        plain = {name.replace("text_model.", ""): value for name, value in load_file(file).items()}
        save_file({name.replace(".model.", ".model.text_model.", 1): value for name, value in plain.items()}, file)
    found = open_foreign(path, "c", pipeline)
    own = state(pipeline, "text_encoder")
    assert same(found.tensors["text_encoder"], {f"{n}.weight": own[f"{n}.weight"] + product for n, product in products.items()})


def test_an_adapter_of_another_model_names_the_module(pipeline: Any, tmp_path: Path) -> None:
    path, _ = saved_by_peft(pipeline.unet, tmp_path / "lora", TARGETS, r=2)
    file = path / "adapter_model.safetensors"
    save_file({name.replace("down_blocks.0", "down_blocks.7"): value for name, value in load_file(file).items()}, file)
    assert "down_blocks.7" in refusal(path, pipeline)


@pytest.mark.parametrize(("change", "said"), [
    ({"peft_type": "LOHA"}, "LOHA"), ({"r": 3}, ""), ({"r": 10**6}, "sets 'r'"), ({"bias": "all"}, "sets 'bias'"),
    ({"init_lora_weights": "pissa"}, "sets 'init_lora_weights'"), ({"megatron_config": {"x": 1}}, "sets 'megatron_config'"),
    ({"target_modules": ["to_q"]}, ""), ({"modules_to_save": ["conv_in"]}, "sets 'modules_to_save'"), ({"lora_alpha": "x"}, ""),
])  # fmt: skip
def test_a_configuration_of_pefts_that_does_not_fit_is_refused(
    pipeline: Any, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path, _ = saved_by_peft(pipeline.unet, tmp_path / "lora", TARGETS, r=2)
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | change))
    assert said in refusal(path, pipeline)


def test_an_adapter_of_pefts_without_its_configuration_says_so(pipeline: Any, tmp_path: Path) -> None:
    path, _ = saved_by_peft(pipeline.unet, tmp_path / "lora", TARGETS, r=2)
    (path / "adapter_config.json").unlink()
    assert "adapter_config.json is missing" in refusal(path / "adapter_model.safetensors", pipeline)


def test_matrices_of_old_attention_processors(pipeline: Any, tmp_path: Path) -> None:
    """diffusers up to 0.17 saved them with `save_attn_procs`, without a scale."""
    unet, _ = adapted(pipeline, rank=2, alpha=2)
    old = {}
    for name, value in get_peft_model_state_dict(unet).items():
        module, side = name.removesuffix(".weight").split(".lora_")
        head, _, leaf = module.rpartition(".")
        old[f"{head}.processor.{leaf}_lora.{'down' if side == 'A' else 'up'}.weight"] = value.contiguous()
    found = open_foreign(saved(old, tmp_path / "pytorch_lora_weights.bin"), "c", pipeline)
    assert close(found.tensors["unet"], expected(pipeline, unet, 1.0))


@pytest.mark.parametrize(("name", "said"), [
    ("lora_unet_down_blocks_0_attn1_to_q.hada_w1_a", "a LoHa"), ("lora_unet_mid_block.lokr_w1", "a LoKr"),
    ("emb_params", "a textual inversion's embedding"), ("lora_unet_mid_block.oft_blocks", "an OFT"),
])  # fmt: skip
def test_adapters_of_other_kinds_are_named(pipeline: Any, tmp_path: Path, name: str, said: str) -> None:
    assert said in refusal(saved({name: torch.ones(2, 2)}, tmp_path / "other.safetensors"), pipeline)


def test_a_checkpoint_that_broke_off_is_refused(pipeline: Any, other: Any, tmp_path: Path) -> None:
    path = saved(state(other), tmp_path / "unet.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert "zeros from" in refusal(path, pipeline)
