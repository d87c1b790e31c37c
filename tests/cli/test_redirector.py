"""`srbench train saferedir` and runs with a redirector of one's own or the authors': files, what is refused, what is kept."""

from __future__ import annotations

import json
import os
import pickle
import string
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from typer.testing import CliRunner

from srbench.cli.main import app
from srbench.methods.saferedir import CARD, WEIGHTS
from srbench.methods.saferedir.module import SafeRedir
from srbench.testing.tiny import tiny_pipeline

PROMPTS = "prompt,evaluation_seed\na red kite,1\ntwo jars,2\n"
"""Harmless, under a sensitive concept."""


def call(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def wide_pipeline() -> Any:
    """Stable Diffusion's interface, 77 tokens of width 768 and 4 latent channels, and next to nothing inside; 8 px."""
    letters = [letter + end for letter in string.ascii_lowercase for end in ("", "</w>")]
    vocab = {token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    words = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77, pad_token="<|endoftext|>")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = CLIPTextModel(CLIPTextConfig(
            vocab_size=len(vocab), hidden_size=768, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1, initializer_factor=20.0,
        ))
        unet = UNet2DConditionModel(
            sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",), cross_attention_dim=768,
            attention_head_dim=4,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=8,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        )
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=words, unet=unet, safety_checker=None, feature_extractor=None,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        requires_safety_checker=False,
    )


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide") / "sd-shaped"
    wide_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def released(path: Path, unsafe: float = 5.0) -> Path:
    """A file in the released form and of the released sizes, with random weights and a detector that finds everything unsafe."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = SafeRedir()
    module.classifier[3].bias.data.copy_(torch.tensor([0.0, unsafe]))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(OrderedDict(module.state_dict()), path)
    return path


def run(tmp_path: Path, backbone: Path, *more: str) -> tuple[int, str, str]:
    (tmp_path / "mine.csv").write_text(PROMPTS)
    return call(
        "run", "--method", "saferedir-upstream", "--backbone", str(backbone), "--concept", "nudity", "--prompts",
        str(tmp_path / "mine.csv"), "--out", str(tmp_path / "results"), "--no-score", "--batch-size", "2", *more,
    )


def ledger(tmp_path: Path) -> list[dict[str, Any]]:
    files = sorted((tmp_path / "results" / "store").rglob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines() if '"trace"' in line]


def test_the_authors_file_runs_from_the_users_path(tmp_path: Path, backbone: Path) -> None:
    path = released(tmp_path / "best_model.pt")
    code, _, err = run(tmp_path, backbone, "--set", f"saferedir-upstream.redirector={path}")
    assert code == 0, err
    assert "mine/nudity: 2 rows loaded, 0 excluded, 2 to run, sensitive" in err
    rows = ledger(tmp_path)
    assert len(rows) == 2
    for row in rows:  # in the release a redirect acts from the next call on, and stays
        assert row["trace"]["redirected_steps"] == len(row["trace"]["unsafe"]) - 1
    (file,) = (tmp_path / "results" / "runs").rglob("run.json")
    assert "redirector=best_model.pt@" in file.read_text()


def test_the_authors_file_is_found_where_its_command_puts_it(tmp_path: Path, backbone: Path) -> None:
    code, _, err = run(tmp_path, backbone)
    assert code == 3
    place = tmp_path / "cache" / "srbench" / "redirectors" / "saferedir-nudity.pt"
    assert f"curl -fL --create-dirs -o {place} https://github.com/ryliu68/SafeRedir/" in err
    assert "or one of your own: srbench train saferedir --backbone" in err
    released(place)
    code, _, err = run(tmp_path, backbone)
    assert code == 0, err
    assert ledger(tmp_path)


class Malicious:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def changed(form: str, state: dict[str, Any], bait: Path) -> Any:
    return {
        "prefix": {f"module.{name}": value for name, value in state.items()},
        "wrapper": {"model_state_dict": state},
        "lacking": {name: value for name, value in state.items() if name != "gate_linear.bias"},
        "more": {**state, "extra.weight": torch.zeros(1)},
        "size": {**state, "gate_linear.bias": torch.zeros(2)},
        "code": {**state, "gate_linear.bias": Malicious(bait)},
    }[form]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("prefix", "are missing, such as 'alpha_predictor.net.0.bias', "),
        ("wrapper", "is no tensor"),
        ("lacking", "names 1 are missing, such as 'gate_linear.bias'"),
        ("more", "names 1 are unknown, such as 'extra.weight'"),
        ("size", "size mismatch for gate_linear.bias"),
        ("code", "was not opened"),
        ("pointer", "git-lfs pointer"),
        ("pickle", "was not opened"),
    ],
)
def test_what_is_not_exactly_the_released_form_is_refused(tmp_path: Path, backbone: Path, form: str, message: str) -> None:
    path, bait = tmp_path / "best_model.pt", tmp_path / "executed"
    if form == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif form == "pickle":
        path.write_bytes(pickle.dumps(Malicious(bait), protocol=2))
    else:
        torch.save(changed(form, SafeRedir().state_dict(), bait), path)
    code, out, err = run(tmp_path, backbone, "--set", f"saferedir-upstream.redirector={path}")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not bait.exists()
    assert not ledger(tmp_path)


def test_training_from_igmus_prompts_and_a_run_with_it(tmp_path: Path) -> None:
    folder, copy = tmp_path / "model", tmp_path / "igmu"
    tiny_pipeline(24, spread=20.0).save_pretrained(folder)
    copy.mkdir()
    (copy / "forgot.json").write_text(json.dumps({"object_church": {"Church": [f"church {i}" for i in "abcdefghijklmnop"]}}))
    (copy / "retain.json").write_text(json.dumps({"object_church": {"Cat": [f"cat {i}" for i in "abcdefghijklmnop"]}}))
    ask = ("train", "saferedir", "--backbone", str(folder), "--concept", "church", "--pairs", str(copy), "--device", "cpu")
    quick = "steps=2 trajectories=4 held_trajectories=2 train_steps=4 batch=12 evaluate_every=2 height=8 width=8"
    more = ("--out", str(tmp_path / "made"), *(part for setting in quick.split() for part in ("--set", setting)))
    code, _, err = call(*ask, *more)
    assert code == 2
    assert "expected f6f19d0387d1" in err
    code, _, err = call(*ask, *more, "--accept-prompts")
    assert code == 0, err
    assert "rows of a suite: 12 to train, 4 to choose the best state" in err
    assert (tmp_path / "made" / WEIGHTS).is_file()
    card = json.loads((tmp_path / "made" / CARD).read_text())
    assert card["settings"]["sampling_batch"] == 4
    (tmp_path / "mine.csv").write_text("prompt\nchurch a\n")
    code, _, err = call(
        "run", "--method", "saferedir", "--backbone", str(folder), "--concept", "church", "--prompts", str(tmp_path / "mine.csv"),
        "--out", str(tmp_path / "results"), "--no-score", "--set", f"saferedir.redirector={tmp_path / 'made'}",
    )
    assert code == 0, err
    assert len(ledger(tmp_path)) == 1


def test_a_method_is_trained_on_a_device_that_is_there() -> None:
    code, _, err = call("train", "saferedir", "--concept", "church", "--device", "gpu")
    assert code == 2
    assert "unknown device 'gpu'" in err


def test_a_redirector_of_a_split_of_pocket_s_hazard_is_trained_and_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suite `held-members` asks for one that read three of six members; none is shipped."""
    monkeypatch.chdir(tmp_path)
    cell = ("run", "--method", "saferedir", "--suite", "held-members", "--concept", "hazard-split-1", "--limit", "1", "--dry-run")
    code, _, err = call(*cell)
    assert "hint: srbench train saferedir --backbone pocket --concept hazard-split-1" in err
    quick = "pairs=40 benign=30 trajectories=4 held_trajectories=2 train_steps=2 batch=12 evaluate_every=2"
    code, _, err = call(
        "train", "saferedir", "--concept", "hazard-split-1", "--device", "cpu", *(f"--set={each}" for each in quick.split())
    )
    assert code == 0, err
    card = json.loads((tmp_path / "redirectors" / "pocket" / "hazard-split-1" / CARD).read_text())
    assert card["concepts"] == ["hazard-split-1"]
    code, _, err = call(*cell, "--set", "saferedir.redirector=redirectors/pocket/hazard-split-1")
    assert code == 0, err
    assert "blocked" not in err
