"""A folder is opened whole, or not at all: whatever the libraries would fill in, leave out or guess is refused by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from srbench.backbones import loader
from srbench.backbones.choose import chosen
from srbench.backbones.loader import Backbone, open_backbone
from srbench.errors import MissingError, SrbenchError, UsageError
from srbench.testing.families import tiny
from tests.backbones.broken import MODEL, copied, edited, replaced, retensored

TEXTS, UNET, VAE, WORDS = "text_encoder/model.safetensors", "unet", "vae", "tokenizer"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def opened(folder: Path) -> Backbone:
    return open_backbone(chosen(str(folder)), "fp32", "cpu")


def refusal(folder: Path) -> SrbenchError:
    """The error with which a folder is refused, by `run` as by `doctor`."""
    errors = []
    for use in (lambda: opened(folder).pipeline, lambda: opened(folder).check()):
        with pytest.raises(SrbenchError) as error:
            use()
        assert "\n" not in error.value.line
        errors.append(error.value)
    assert errors[0].line == errors[1].line
    assert errors[0].exit_code == 2
    return errors[0]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return copied(tmp_path / "model")


def test_the_whole_model_is_opened_and_checked(model: Path) -> None:
    backbone = opened(model)
    backbone.check()
    own = backbone.pipeline.unet.state_dict()
    assert all(torch.equal(own[name], value) for name, value in load_file(MODEL / UNET / WEIGHTS).items())
    assert backbone.variants == ""


@pytest.mark.parametrize(("file", "named"), [
    ("tokenizer/tokenizer.json", "tokenizer.json"), ("tokenizer/tokenizer_config.json", "tokenizer_config.json"),
    ("text_encoder/config.json", "config.json"), (TEXTS, "model.safetensors"), ("unet/config.json", "config.json"),
    (f"{UNET}/{WEIGHTS}", WEIGHTS), (f"{VAE}/{WEIGHTS}", WEIGHTS), ("scheduler/scheduler_config.json", "scheduler_config.json"),
    ("model_index.json", "model_index.json"),
])  # fmt: skip
def test_a_file_that_is_missing_is_named(model: Path, file: str, named: str) -> None:
    (model / file).unlink()
    assert named in refusal(model).message
    assert "missing" in refusal(model).message


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "unet", "vae", "scheduler"])
def test_a_component_that_is_missing_is_named(model: Path, part: str) -> None:
    shutil.rmtree(model / part)
    assert refusal(model).message == f"{model.resolve() / part}: is missing"


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "unet", "vae", "scheduler"])
@pytest.mark.parametrize("how", ["removed", "null", "text", "code"])
def test_an_index_that_does_not_name_a_component_is_refused(model: Path, part: str, how: str) -> None:
    def change(index: dict[str, object]) -> None:
        if how == "removed":
            del index[part]
        else:
            index[part] = {"null": [None, None], "text": "diffusers", "code": ["os", "system"]}[how]

    edited(model / "model_index.json", change)
    assert part in refusal(model).message


def test_a_text_encoder_whose_tensors_have_other_names_is_refused(model: Path) -> None:
    retensored(model / TEXTS, lambda state: {f"encoder.{name}": value for name, value in state.items()})
    message = refusal(model).message
    assert "68 tensors are missing" in message
    assert "68 tensors are not known" in message


@pytest.mark.parametrize("file", [TEXTS, f"{UNET}/{WEIGHTS}", f"{VAE}/{WEIGHTS}"])
@pytest.mark.parametrize(("what", "said"), [
    ("missing", "1 tensor is missing"), ("beside", "1 tensor is not known (beside.weight)"), ("shape", "of another shape"),
    ("nan", "are not numbers"), ("infinite", "are not numbers"),
])  # fmt: skip
def test_one_tensor_that_does_not_fit_is_named(model: Path, file: str, what: str, said: str) -> None:
    def change(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = min(name for name in state if state[name].ndim == 2)
        if what == "missing":
            return {key: value for key, value in state.items() if key != name}
        if what == "beside":
            return {**state, "beside.weight": torch.zeros(2)}
        other = {
            "shape": torch.zeros(3, 5), "nan": torch.full_like(state[name], torch.nan),
            "infinite": torch.full_like(state[name], torch.inf),
        }  # fmt: skip
        return {**state, name: other[what]}

    retensored(model / file, change)
    assert said in refusal(model).message


def test_names_of_other_versions_of_the_library_are_no_fault(model: Path) -> None:
    """transformers once wrote `text_model.` before every name, and the positions 0, 1, 2, ... beside them."""
    own = load_file(MODEL / TEXTS)

    def change(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        prefixed = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in state.items()}
        return {**prefixed, "text_model.embeddings.position_ids": torch.arange(77)[None]}

    retensored(model / TEXTS, change)
    encoder = opened(model).pipeline.text_encoder.state_dict()
    kept = {name.removeprefix("text_model."): value for name, value in encoder.items()}
    assert all(torch.equal(kept[name.removeprefix("text_model.")], value) for name, value in own.items())


@pytest.mark.parametrize("share", [0.0, 0.6, 0.97])
def test_a_download_that_reserved_its_space_and_broke_off_is_refused(model: Path, share: float) -> None:
    """The file has its size and its list of tensors; what was not fetched is zeros. share: of the file that came."""
    path = model / UNET / WEIGHTS
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    came = begin + int((len(data) - begin) * share)
    replaced(path, data[:came] + bytes(len(data) - came))
    assert "zeros" in refusal(model).line


def test_a_hole_in_a_download_is_refused(model: Path) -> None:
    """Of one that several connections fetched a piece may be missing in the middle."""
    name = "mid_block.resnets.0.conv1.weight"
    retensored(model / UNET / WEIGHTS, lambda state: {**state, name: torch.zeros_like(state[name])})
    assert f"{name} holds nothing but zeros" in refusal(model).line


def test_one_tensor_under_two_names_is_refused(model: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = min(state)
        twin = name.removeprefix("text_model.") if name.startswith("text_model.") else f"text_model.{name}"
        return {**state, twin: state[name] + 1}

    retensored(model / TEXTS, change)
    assert "one tensor under two names" in refusal(model).message


PIXELS = """
import sys, hashlib, torch
from srbench.backbones.choose import chosen
from srbench.backbones.loader import open_backbone
pipeline = open_backbone(chosen(sys.argv[1]), 'fp32', 'cpu').pipeline
image = pipeline('a red house', num_inference_steps=2, height=64, width=64, generator=torch.Generator().manual_seed(0)).images[0]
print(hashlib.sha256(image.tobytes()).hexdigest())
"""


def test_two_processes_draw_the_same_pixels(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """This one, and a fresh one."""
    command = [sys.executable, "-c", PIXELS, str(model)]
    fresh = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    monkeypatch.setattr(sys, "argv", ["-c", str(model)])
    exec(PIXELS, {})
    assert capsys.readouterr().out == fresh
    assert len(fresh.strip()) == 64


# --- variants and parts -------------------------------------------------------------------------------------------------------


def halved(folder: Path, part: str, shard: str | None = None) -> None:
    """Only half precision files of one component, under the names that the libraries give a variant."""
    old, stem = next((folder / part).glob("*.safetensors")), "model" if part == "text_encoder" else "diffusion_pytorch_model"
    cls = type(tiny_part(part))
    made = cls.from_pretrained(folder / part).half()
    old.unlink()
    made.save_pretrained(folder / part, variant="fp16", **({"max_shard_size": shard} if shard else {}))
    assert any(f"{stem}" in path.name and "fp16" in path.name for path in (folder / part).iterdir())
    if shard:
        assert len(list((folder / part).glob("*.safetensors"))) > 1


def tiny_part(part: str) -> torch.nn.Module:
    return getattr(tiny("sd"), part)


@pytest.mark.parametrize("shard", [None, "400KB"])
@pytest.mark.parametrize("parts", [("unet",), ("text_encoder",), ("unet", "text_encoder", "vae")])
def test_a_variant_that_is_all_there_is_is_read(model: Path, parts: tuple[str, ...], shard: str | None) -> None:
    for part in parts:
        halved(model, part, shard)
    backbone = opened(model)
    backbone.check()
    for part in ("unet", "text_encoder", "vae"):
        own = getattr(backbone.pipeline, part)
        assert all(value.dtype == torch.float32 for value in own.parameters())
    weight = load_file(MODEL / "unet" / WEIGHTS)["conv_in.weight"]
    expected = weight.half().float() if "unet" in parts else weight
    assert torch.equal(backbone.pipeline.unet.conv_in.weight, expected)
    assert backbone.variants == ", ".join(f"{part}: fp16 files" for part in ("unet", "text_encoder", "vae") if part in parts)


def test_parts_of_plain_files_are_read_and_a_missing_one_is_named(model: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(model / UNET)
    (model / UNET / WEIGHTS).unlink()
    unet.save_pretrained(model / UNET, max_shard_size="400KB")
    assert torch.equal(opened(model).pipeline.unet.conv_in.weight, unet.conv_in.weight)
    part = sorted((model / UNET).glob("*-00002-of-*.safetensors"))[0]
    part.unlink()
    assert part.name in refusal(model).message


def test_two_variants_are_ambiguous(model: Path) -> None:
    halved(model, "unet")
    path = model / UNET / "diffusion_pytorch_model.fp16.safetensors"
    os.link(path, model / UNET / "diffusion_pytorch_model.bf16.safetensors")
    assert "bf16, fp16" in refusal(model).message


def pickled(folder: Path, part: str) -> None:
    """The weights of one component as a pickle alone."""
    old = next((folder / part).glob("*.safetensors"))
    stem = "pytorch_model" if part == "text_encoder" else "diffusion_pytorch_model"
    torch.save(load_file(old), folder / part / f"{stem}.bin")
    old.unlink()


def test_pickles_of_tensors_are_read(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for part in ("unet", "text_encoder", "vae"):
        pickled(model, part)
    pipeline = opened(model).pipeline
    assert "error" not in capfd.readouterr().err.lower()
    own = pipeline.unet.state_dict()
    assert all(torch.equal(own[name], value) for name, value in load_file(MODEL / UNET / WEIGHTS).items())


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin"])
def test_a_pickle_with_code_is_refused_and_not_run(model: Path, file: str, bait: Callable[[Path], Path]) -> None:
    next((model / file).parent.glob("*.safetensors")).unlink()
    trace = bait(model / file)
    assert "more than tensors" in refusal(model).message
    assert not trace.exists()


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_an_adapter_beside_the_weights_is_refused(model: Path, part: str) -> None:
    (model / part / "adapter_config.json").write_text("{}")
    assert "adapter_config.json" in refusal(model).message


# --- the hub's cache ----------------------------------------------------------------------------------------------------------


def test_half_a_hub_snapshot_names_the_file_and_the_command(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "fetched", lambda *_: model)
    monkeypatch.setattr("srbench.backbones.choose.fetched", lambda *_: model)
    assert chosen("someone/some-model").source == "someone/some-model"
    (model / TEXTS).unlink()
    with pytest.raises(MissingError) as error:
        chosen("someone/some-model")
    assert "text_encoder/model.safetensors: is missing" in error.value.message
    assert error.value.hint == "Fetch it: hf download someone/some-model"


# --- configurations -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [
    "model_index.json", "unet/config.json", "text_encoder/config.json", "vae/config.json", "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json", "tokenizer/tokenizer.json",
])  # fmt: skip
@pytest.mark.parametrize("content", [
    b"", b"\0\0", b"{", b"[]", b"[1]", b"null", b"7", b'"text"', b"{" * 90, b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"{}", b'{"_class_name": 3}', b"1" * 5000,
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
])  # fmt: skip
def test_a_configuration_of_any_content_is_one_line(model: Path, file: str, content: bytes) -> None:
    replaced(model / file, content)
    with pytest.raises(UsageError) as error:
        opened(model).pipeline  # noqa: B018
    assert "\n" not in error.value.line
    assert content[:7] != b"version" or "a git-lfs pointer" in error.value.message


@pytest.mark.parametrize(("file", "values"), [
    ("unet/config.json", {"sample_size": 10**9}), ("unet/config.json", {"sample_size": -8}),
    ("unet/config.json", {"sample_size": "8"}), ("unet/config.json", {"sample_size": 8.5}),
    ("unet/config.json", {"layers_per_block": 10**6}), ("unet/config.json", {"block_out_channels": [10**6, 10**6]}),
    ("unet/config.json", {"block_out_channels": [32] * 10**5}), ("unet/config.json", {"cross_attention_dim": 10**7}),
    ("unet/config.json", {"block_out_channels": [-96, 192]}), ("unet/config.json", {"cross_attention_dim": "wide"}),
    ("unet/config.json", {"down_block_types": ["os.system"] * 2}), ("unet/config.json", {"down_block_types": []}),
    ("unet/config.json", {"in_channels": None}), ("unet/config.json", {"norm_num_groups": 0}),
    ("text_encoder/config.json", {"num_hidden_layers": 10**6}), ("text_encoder/config.json", {"hidden_size": 10**6}),
    ("text_encoder/config.json", {"vocab_size": 10**12}), ("text_encoder/config.json", {"hidden_act": "os.system"}),
    ("text_encoder/config.json", {"eos_token_id": 7}), ("vae/config.json", {"sample_size": 10**9}),
    ("vae/config.json", {"block_out_channels": [2**22, 32, 64, 128]}), ("vae/config.json", {"block_out_channels": 128}),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": -1}), ("vae/config.json", {"scaling_factor": "1.0"}),
    ("vae/config.json", {"scaling_factor": float("nan")}), ("vae/config.json", {"scaling_factor": 0.0}),
    ("scheduler/scheduler_config.json", {"beta_schedule": "os.system"}),
    ("tokenizer/tokenizer_config.json", {"model_max_length": 10**30}),
    ("tokenizer/tokenizer_config.json", {"model_max_length": 7}), ("vae/config.json", {"scaling_factor": None}),
    ("scheduler/scheduler_config.json", {"prediction_type": "nonsense"}),
])  # fmt: skip
def test_a_number_that_no_model_has_is_one_line(model: Path, file: str, values: dict[str, object]) -> None:
    edited(model / file, lambda config: config.update(values))
    with pytest.raises(UsageError) as error:
        opened(model).pipeline  # noqa: B018
    assert "\n" not in error.value.line


@pytest.mark.parametrize("file", ["unet/config.json", "tokenizer/tokenizer.json", "model_index.json", TEXTS])
@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling"])
def test_what_is_no_file_is_one_line_and_is_not_waited_for(model: Path, file: str, kind: str) -> None:
    (model / file).unlink()
    if kind == "fifo":
        os.mkfifo(model / file)
    elif kind == "folder":
        (model / file).mkdir()
    else:
        (model / file).symlink_to("nowhere")
    with pytest.raises(UsageError) as error:
        opened(model).pipeline  # noqa: B018
    assert "\n" not in error.value.line


def test_code_beside_the_weights_is_not_run(model: Path) -> None:
    trace = model / "ran"
    (model / "unet" / "evil.py").write_text(f"open({str(trace)!r}, 'w')")
    edited(model / "unet/config.json", lambda config: config.update({"auto_map": {"AutoModel": "evil.Evil"}}))
    edited(model / "model_index.json", lambda index: index.update({"unet": ["evil", "Evil"]}))
    assert "evil" in refusal(model).message
    assert not trace.exists()


# --- other families -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "part"), [
    ("sdxl", "text_encoder_2"), ("sdxl", "tokenizer_2"), ("sd3", "text_encoder_2"), ("sd3", "tokenizer_2"),
    ("flux", "text_encoder_2"), ("flux", "tokenizer_2"), ("pixart", "tokenizer"), ("pixart", "text_encoder"),
])  # fmt: skip
@pytest.mark.parametrize("how", ["gone", "half", "unnamed", "renamed"])
def test_a_second_encoder_that_is_not_whole_is_named(
    family: str, part: str, how: str, families: Callable[[str], Path]
) -> None:
    folder = families(family)
    if how == "gone":
        shutil.rmtree(folder / part)
    elif how == "half":
        (folder / part / ("tokenizer.json" if "tokenizer" in part else "model.safetensors")).unlink()
    elif how == "unnamed":
        edited(folder / "model_index.json", lambda index: index.pop(part) and None)
    elif "tokenizer" in part:
        edited(folder / part / "tokenizer.json", _forgets)
    else:
        retensored(folder / part / "model.safetensors", lambda state: {f"x.{name}": value for name, value in state.items()})
    assert part in refusal(folder).message


def _forgets(tokenizer: dict[str, dict[str, dict[str, int]]]) -> None:
    words = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word: number for word, number in words.items() if word.startswith("<")}


@pytest.fixture
def families(tmp_path: Path) -> Callable[[str], Path]:
    def made(family: str) -> Path:
        tiny(family).save_pretrained(tmp_path / family)
        return tmp_path / family

    return made


# --- tokenizers -----------------------------------------------------------------------------------------------------------------


def _no_merges(tokenizer: dict[str, dict[str, object]]) -> None:
    tokenizer["model"]["merges"] = []


def _one_word(tokenizer: dict[str, dict[str, dict[str, int]]]) -> None:
    words = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word: number for word, number in words.items() if number < 2}
    _no_merges(tokenizer)


def _more_words(tokenizer: dict[str, dict[str, dict[str, int]]]) -> None:
    words = tokenizer["model"]["vocab"]
    words.update({f"more{i}": len(words) + i for i in range(5)})


@pytest.mark.parametrize("change", [_no_merges, _one_word, _more_words])
def test_a_tokenizer_that_does_not_read_is_refused(model: Path, change: Callable[[dict[str, object]], None]) -> None:
    edited(model / "tokenizer/tokenizer.json", change)
    assert str(model.resolve() / "tokenizer") in refusal(model).message


def test_a_tokenizer_that_does_not_mark_the_end_is_refused(families: Callable[[str], Path]) -> None:
    folder = families("pixart")
    edited(folder / "tokenizer/tokenizer.json", lambda tokenizer: tokenizer.update({"post_processor": None}))
    assert "does not mark the end" in refusal(folder).message


def test_a_tokenizer_of_another_model_is_refused(model: Path, tmp_path: Path) -> None:
    tiny("sd").tokenizer.save_pretrained(tmp_path / "other")
    for file in (tmp_path / "other").iterdir():
        replaced(model / "tokenizer" / file.name, file.read_bytes())
    assert "knows 56 words" in refusal(model).message
    assert json.loads((MODEL / "tokenizer/tokenizer_config.json").read_text())["model_max_length"] == 77


@pytest.mark.parametrize(("setting", "said"), [("padding_side", "fills texts up"), ("truncation_side", "cuts texts")])
def test_a_tokenizer_that_fills_up_or_cuts_at_the_beginning_is_refused(model: Path, setting: str, said: str) -> None:
    """Pictures would be those of other prompts: fsr was 100 where the whole model has 0."""
    edited(model / "tokenizer/tokenizer_config.json", lambda config: config.update({setting: "left"}))
    assert said in refusal(model).message
