"""The published suites on a folder in Stable Diffusion 1.x' format, from the command line: a tiny model, harmless texts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from srbench.backbones.choose import chosen
from srbench.backbones.loader import open_backbone
from srbench.backbones.pipelines import prompt_width
from srbench.cli.main import app
from srbench.methods.saferedir import CARD, WEIGHTS
from srbench.methods.saferedir.module import SafeRedir, Sizes
from srbench.results.store import Store
from srbench.testing.families import TOKENS, tiny

JUDGE = "efficientnet-lite0/church"
"""Of the judges of church the one whose weights are a package."""


@dataclass
class Model:
    """The folder, and a redirector that was made for it."""

    folder: Path
    redirector: Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    root = tmp_path_factory.mktemp("sd")
    pipeline = tiny("sd")
    pipeline.save_pretrained(root / "model")
    sizes = Sizes(
        prompt_width=prompt_width(pipeline), tokens=TOKENS, latent_channels=4, latent_widths=(4, 8), latent_feature=6,
        timestep_width=8, timestep_feature=4, token_hidden=16, rank=4, classifier_hidden=8, alpha_hidden=8, mask_hidden=8,
        heads=2, token_delta=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = SafeRedir(sizes)
    module.classifier[3].bias.data.copy_(torch.tensor([0.0, 2.0]))  # finds something in most prompts
    (root / "redirector").mkdir()
    save_file(module.state_dict(), root / "redirector" / WEIGHTS)
    sha = open_backbone(chosen(str(root / "model")), "fp32", "cpu").sha256
    card = {"backbone_sha256": sha, "concepts": ["church", "nudity"], "sizes": sizes.model_dump(mode="json")}
    (root / "redirector" / CARD).write_text(json.dumps(card))
    return Model(root / "model", root / "redirector")


def run(model: Model, out: Path, *more: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, cells and what people are told of none and saferedir on the folder."""
    command = ["run", "--method", "none,saferedir", "--backbone", str(model.folder), "--out", str(out), "--json"]
    command += ["--set", f"saferedir.redirector={model.redirector}", "--accept-prompts", "--batch-size", "4", *more]
    result = CliRunner().invoke(app, command)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)["cells"] if result.stdout else [], result.stderr


def igmu(folder: Path) -> Path:
    """The two files of IGMU, in their form: {task: {class: [prompts]}}."""
    folder.mkdir()
    for name, texts in (("forgot", ["a church by a lake", "an old church"]), ("retain", ["a boat", "a red kite"])):
        (folder / f"{name}.json").write_text(json.dumps({"object_church": {"church": texts}, "style_vangogh": {}}))
    return folder


def test_igmu(model: Model, tmp_path: Path) -> None:
    prompts = igmu(tmp_path / "Benchmarking_prompts")
    asked = ("--suite", "igmu", "--concept", "church", "--prompts", str(prompts), "--protocol", JUDGE)
    code, cells, said = run(model, tmp_path / "out", *asked)
    assert code == 1, "clip-b16 is not here, and nothing that lacks is passed over in silence"
    assert "hf download timm/vit_base_patch16_clip_224.openai" in said
    assert [cell["method"] for cell in cells] == ["none", "saferedir"]
    for cell in cells:
        assert (cell["n_loaded"], cell["n_run"], cell["protocol"]) == (4, 4, JUDGE)
        assert cell["metrics"]["fsr"]["value"] is not None
        assert "prompts=" in cell["variant"]
        assert any("Not the published prompts" in note for note in cell["notes"])
    store = Store(tmp_path / "out" / "store")
    assert len(store.images) == 8
    assert sum(bool(record["trace"]) for record in store.images.values()) == 4
    assert len({record["pixel_sha"] for record in store.images.values()}) > 4, "saferedir changed no picture"
    assert "safety checker off" in said


def test_without_a_judge_at_hand_nothing_is_sampled_but_on_demand(model: Model, tmp_path: Path) -> None:
    prompts = igmu(tmp_path / "prompts")
    asked = ("--suite", "igmu", "--concept", "church", "--prompts", str(prompts), "--limit", "1")
    code, _, said = run(model, tmp_path / "out", *asked)
    assert code == 3, "the concept's own judge is not here"
    assert "resnet50-11ad3fa6.pth" in said
    assert not Store(tmp_path / "out" / "store").images
    assert run(model, tmp_path / "out", *asked, "--no-score")[0] == 0
    assert len(Store(tmp_path / "out" / "store").images) == 4


def i2p(path: Path) -> Path:
    """The columns of I2P's file, with a mark of the byte order, seeds above 2^31, and guidance and size of each row."""
    head = "prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,sd_safety_percentage,lexica_url,"
    head += "sd_seed,sd_guidance_scale,sd_image_width,sd_image_height,sd_model\n"
    rows = [("a grey boat", 4290749014, 7), ("a boat for kids", 5, 7), ('"a boat,\nred"', 6, 255), ("", 7, 7)]
    lines = [f"{text},hate,0,0,0,0,0,https://example.org/a/b,{seed},{guidance},16,16,SD\n" for text, seed, guidance in rows]
    path.write_text(head + "".join(lines), encoding="utf-8-sig")
    return path


def test_i2p(model: Model, tmp_path: Path) -> None:
    prompts = i2p(tmp_path / "unsafe-prompts4703.csv")
    code, cells, said = run(
        model, tmp_path / "out", "--suite", "i2p", "--concept", "church", "--prompts", str(prompts), "--protocol", JUDGE
    )
    assert code == 1
    assert "i2p/church: 4 rows loaded, 1 excluded, 3 to run, sensitive: images are dropped once scored" in said
    assert "rows with a guidance above 30: 1, up to 255" in said
    assert all((cell["n_excluded"], cell["n_run"]) == (1, 3) for cell in cells)
    assert all(cell["metrics"]["fsr"]["value"] is not None for cell in cells)
    store = Store(tmp_path / "out" / "store")
    assert {record["seed"] for record in store.images.values()} == {4290749014, 6, 7}
    assert "a boat for kids" not in {record["prompt"] for record in store.images.values()}
    pictures = list((tmp_path / "out" / "store" / "images").glob("*/*.png"))
    assert pictures == [], "a describing scorer without weights keeps no sensitive image"
    assert "without clip-b16" in said
    assert all(store.dropped(key) for key in store.images)


def test_mma(model: Model, tmp_path: Path) -> None:
    """Gated: no text of it is in the run's file. Its targets are screened, and asr stands in place of fsr."""
    (tmp_path / "mma.csv").write_text(
        "adv_prompt,target_prompt\nzx boat qq,a boat\nlake vv,a lake for children\nkite ww,a kite\n"
    )
    code, cells, said = run(
        model, tmp_path / "out", "--suite", "mma", "--concept", "nudity", "--prompts", str(tmp_path / "mma.csv"), "--seed", "42"
    )
    assert code == 1
    assert "mma/nudity: 3 rows loaded, 1 excluded, 2 to run, sensitive" in said
    assert all(cell["metrics"]["asr"]["value"] is not None for cell in cells), cells
    (saved,) = ((tmp_path / "out").glob("runs/*/run.json"))
    assert "boat" not in saved.read_text()
    assert not list((tmp_path / "out" / "store" / "images").glob("*/*.png"))
    assert {record["seed"] for record in Store(tmp_path / "out" / "store").images.values()} == {42}
