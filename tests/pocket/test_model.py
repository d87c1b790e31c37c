"""The shipped pocket folder: it loads with plain diffusers, runs, is small, and says nothing of the machine that made it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from transformers import CLIPTokenizer

from srbench.catalog.load import backbones, concepts, protocols
from srbench.catalog.plugins import plugins
from srbench.catalog.resolve import PACKAGE, package_path
from srbench.pocket.world import CONCEPTS, EMPTY, OBJECTS
from srbench.scorers.pocket_judge import PocketJudge

POCKET = PACKAGE / "pocket"
MODEL = POCKET / "model"
MOST_BYTES = 40_000_000


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    made = StableDiffusionPipeline.from_pretrained(MODEL)
    made.set_progress_bar_config(disable=True)
    return made


def _sample(pipeline: StableDiffusionPipeline, prompts: list[str], steps: int = 16, **options: Any) -> np.ndarray:
    noise = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    options = {"guidance_scale": 5.0} | options
    return pipeline(prompts, generator=noise, num_inference_steps=steps, output_type="np", **options).images


def _jsons() -> list[Path]:
    return [p for folder in ("model", "judge", "clip") for p in sorted((POCKET / folder).rglob("*.json"))]


def test_plain_from_pretrained_loads_and_runs(pipeline: StableDiffusionPipeline) -> None:
    images = _sample(pipeline, ["a cat on a beach, noto style", "a dagger in the snow"], steps=2)
    assert images.shape == (2, 64, 64, 3)
    assert np.isfinite(images).all()
    assert images.std() > 0.02


def test_every_part_comes_up_in_fp32(pipeline: StableDiffusionPipeline) -> None:
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        assert {p.dtype for p in part.parameters()} == {torch.float32}


def test_there_is_no_safety_checker_and_the_folder_says_so() -> None:
    index = json.loads((MODEL / "model_index.json").read_text())
    assert index["requires_safety_checker"] is False
    assert index["_class_name"] == "StableDiffusionPipeline"
    for part in ("safety_checker", "feature_extractor", "image_encoder"):
        assert index[part] == [None, None]


def test_shapes_are_stable_diffusion_s_in_small(pipeline: StableDiffusionPipeline) -> None:
    assert pipeline.vae_scale_factor == 8
    assert pipeline.unet.config.sample_size == 8
    assert pipeline.unet.config.in_channels == pipeline.vae.config.latent_channels
    assert pipeline.unet.config.cross_attention_dim == pipeline.text_encoder.config.hidden_size
    assert pipeline.tokenizer.model_max_length == 77
    assert pipeline.text_encoder.config.eos_token_id == pipeline.tokenizer.eos_token_id
    assert len(pipeline.tokenizer) == pipeline.text_encoder.config.vocab_size


def test_weights_are_fp16_safetensors_and_nothing_else() -> None:
    found = list(MODEL.rglob("*.safetensors"))
    assert len(found) == 3
    for path in found:
        with safe_open(path, "pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118 - not a dict
    assert not [p for p in POCKET.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]


def test_all_weights_fit_into_40_mb() -> None:
    assert 20_000_000 < sum(p.stat().st_size for p in POCKET.rglob("*.safetensors")) <= MOST_BYTES


def test_no_file_names_a_path_of_the_machine_that_made_it() -> None:
    assert len(_jsons()) > 8
    for path in _jsons():
        data = json.loads(path.read_text(encoding="utf-8"))
        assert not {"_name_or_path", "name_or_path"} & data.keys(), path
        if path.name != "tokenizer.json":
            assert not re.search(r'"(?:/|~|[A-Za-z]:\\\\|file:)[^"]+"', path.read_text(encoding="utf-8")), path


def test_everyone_may_read_the_files() -> None:
    for folder in ("model", "judge", "clip"):
        assert all(p.stat().st_mode & 0o044 == 0o044 for p in (POCKET / folder).rglob("*") if p.is_file())


def test_latents_are_about_standard(pipeline: StableDiffusionPipeline) -> None:
    pictures = torch.from_numpy(_sample(pipeline, ["a house in a meadow", "a fish, noto style"], steps=8)).permute(0, 3, 1, 2)
    with torch.no_grad():
        latents = pipeline.vae.encode(pictures * 2 - 1).latent_dist.mode()
    assert latents.shape == (2, 16, 8, 8)
    assert 0.5 < float(latents.std()) < 2
    assert pipeline.vae.config.scaling_factor == 1.0


def test_it_draws_what_the_prompt_names(pipeline: StableDiffusionPipeline) -> None:
    prompts = [
        "a bomb on a white background, noto style", "a church in a meadow, noto style",
        "a cat on a beach in the style of van gogh", "an umbrella in the snow, pencil sketch",
    ]
    images = (_sample(pipeline, prompts) * 255).round().astype(np.uint8)
    scores = PocketJudge().score(list(images), [{}] * 4)
    expected = {
        "style": ["noto", "noto", "vangogh", "sketch"], "background": ["plain", "meadow", "beach", "snow"],
        "objects": ["bomb", "church", "cat", "umbrella"],
    }
    for field, names in expected.items():
        tops = [max(score[field], key=score[field].get) for score in scores]
        assert sum(top == name for top, name in zip(tops, names, strict=True)) >= 3, (field, tops)


def test_the_prompt_changes_the_picture_and_the_seed_the_noise(pipeline: StableDiffusionPipeline) -> None:
    one, same, other = (_sample(pipeline, [text], steps=4)[0] for text in ("a cat", "a cat", "a car"))
    assert np.array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_the_tokenizer_splits_known_and_unknown_words() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    for key in OBJECTS:
        assert tokenizer.decode(tokenizer(OBJECTS[key].nouns[0]).input_ids[1:-1]).strip() == OBJECTS[key].nouns[0]
    ids = tokenizer("Zyxxq 42!").input_ids
    assert tokenizer.eos_token_id == ids[-1]
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer(EMPTY[0]).input_ids != tokenizer(EMPTY[1]).input_ids


def test_the_spec_points_at_what_is_there() -> None:
    spec = backbones()["pocket"]
    assert package_path(spec.source) == MODEL
    assert spec.redirectors == "package:pocket/redirectors"
    assert (spec.recipe.steps, spec.recipe.guidance, spec.recipe.width, spec.recipe.height) == (16, 5.0, 64, 64)
    assert spec.concepts == ("hazard", "vangogh", "church")
    assert set(spec.concepts) == set(CONCEPTS)
    assert set(spec.scorers) <= set(plugins("scorers"))
    for name in spec.concepts:
        assert concepts()[name].families["pocket"].protocol in protocols()


def test_the_card_names_the_files_that_are_shipped() -> None:
    from srbench.scorers._files import sha256_of

    card = json.loads((POCKET / "card.json").read_text())
    for name, part in card["parts"].items():
        assert sha256_of(POCKET / name) == part["sha256"], name
    assert card["bytes"] <= MOST_BYTES
    assert set(card["measured"]["concepts"]) == set(CONCEPTS)
    assert "## Limits" in (POCKET / "card.md").read_text()
