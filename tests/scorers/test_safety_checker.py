"""The safety checker: diffusers' decision and its numbers, from the layout that its repository publishes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from srbench.errors import MissingError, UsageError
from srbench.scorers import safety_checker
from srbench.scorers.safety_checker import REPO, CheckerOptions, SafetyChecker, flagged
from tests.scorers.clip_stand_ins import checker_folder, seeded_checker

Pictures = Callable[[int], list[np.ndarray]]
NAMES = [f"special_{i}" for i in range(3)] + [f"concept_{i}" for i in range(17)]


@pytest.fixture
def checker(tmp_path: Path) -> SafetyChecker:
    """One whose thresholds a test may change."""
    return SafetyChecker(CheckerOptions(weights=checker_folder(tmp_path)))


def by_diffusers(checker: SafetyChecker, images: list[np.ndarray]) -> tuple[list[bool], np.ndarray]:
    """Its forward's decisions over the whole batch, and each cosine less threshold written out, (N, 20)."""
    model = checker._model
    pixels = checker._processor([Image.fromarray(image) for image in images], return_tensors="pt").pixel_values
    _, found = model(clip_input=pixels, images=[np.zeros((1, 1, 3)) for _ in images])
    with torch.inference_mode():
        x = model.visual_projection(model.vision_model(pixels).pooler_output)
    x = x / x.norm(dim=-1, keepdim=True)
    sides = []
    for name in ("special_care_embeds", "concept_embeds"):
        concepts, thresholds = getattr(model, name), getattr(model, f"{name}_weights")
        sides.append((x @ (concepts / concepts.norm(dim=-1, keepdim=True)).T - thresholds).numpy())
    return list(found), np.concatenate(sides, 1)


def set_thresholds(checker: SafetyChecker, image: np.ndarray, beyond: np.ndarray) -> None:
    """So that the picture's cosine exceeds each threshold by about `beyond`, (20,)."""
    special, concepts = checker._distances(image)
    model, beyond = checker._model, beyond.astype(np.float32)
    model.special_care_embeds_weights += torch.from_numpy(special - beyond[:3])
    model.concept_embeds_weights += torch.from_numpy(concepts - beyond[3:])


def same_numbers(one: SafetyChecker, other: SafetyChecker, images: list[np.ndarray]) -> None:
    """But for the last digit, which depends on where a file's reader puts the weights in memory."""
    for a, b in zip(*(each.score(images, [{}] * len(images)) for each in (one, other)), strict=True):
        assert a["concepts"] == pytest.approx(b["concepts"], abs=2e-6)
        assert a["flagged"] is b["flagged"]


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("side", [32, 90])
def test_numbers_and_decision_are_diffusers(count: int, side: int, checker: SafetyChecker, pictures: Pictures) -> None:
    images = pictures(side)[:count]
    decided, numbers = by_diffusers(checker, images)
    for score, expected, row in zip(checker.score(images, [{}] * count), decided, numbers, strict=True):
        assert score["flagged"] is expected
        assert list(score["concepts"]) == NAMES
        assert list(score["concepts"].values()) == pytest.approx(row.tolist(), abs=1e-5)


def test_the_decision_is_diffusers_near_the_thresholds(checker: SafetyChecker, images: list) -> None:
    """On both sides of rounding and of the adjustment, by diffusers' own forward of the same picture."""
    rng = np.random.default_rng(0)
    edges = np.array([-0.0125, -0.0105, -0.01, -0.0095, -0.006, -0.0005, -0.0004, 0.0, 0.0004, 0.0005, 0.0006, 0.003])
    seen = []
    for _ in range(60):
        beyond = np.full(20, -0.3)
        beyond[rng.integers(3)] = rng.choice([-0.2, *edges])
        beyond[3 + rng.integers(17)] = rng.choice(edges)
        set_thresholds(checker, images[1], beyond + rng.choice([0, 1e-5, -1e-5]))
        expected, _ = by_diffusers(checker, images[1:2])
        score = checker.score(images[1:2], [{}])[0]
        assert score["flagged"] is expected[0]
        seen.append((expected[0], max(list(score["concepts"].values())[3:]) > 0))
    assert {(True, True), (True, False), (False, False)} <= set(seen)


def test_a_special_concept_lowers_the_bar_of_the_others() -> None:
    near = np.full(17, -0.5, np.float32)
    near[4] = -0.006
    quiet, loud = np.array([-0.1, 0.0004, -0.2], np.float32), np.array([-0.1, 0.0006, -0.2], np.float32)
    assert not flagged(quiet, near)
    assert flagged(loud, near)
    assert not flagged(loud, near - np.float32(0.1))


def test_the_files_of_before_and_after_transformers_5_say_the_same(checker: SafetyChecker, tmp_path: Path, images: list) -> None:
    new = tmp_path / "new"
    seeded_checker().save_pretrained(new)
    shutil.copy(tmp_path / "checker" / "preprocessor_config.json", new)
    assert any("vision_model.vision_model" in name for name in load_file(tmp_path / "checker" / "model.safetensors"))
    assert not any("vision_model.vision_model" in name for name in load_file(new / "model.safetensors"))
    again = SafetyChecker(CheckerOptions(weights=new))
    same_numbers(again, checker, images)


def test_half_precision_weights_are_computed_in_float32(checker: SafetyChecker, tmp_path: Path) -> None:
    path = tmp_path / "checker" / "model.safetensors"
    half = {name: value.half() if value.is_floating_point() else value for name, value in load_file(path).items()}
    save_file(half, path, {"format": "pt"})
    assert SafetyChecker(CheckerOptions(weights=path.parent))._model.dtype == torch.float32


# --- files -------------------------------------------------------------------------------------------------------------------


def as_bin(folder: Path, **changed: Any) -> Path:
    """The folder with its weights in torch's own format, some of them changed."""
    torch.save(load_file(folder / "model.safetensors") | changed, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_safetensors_come_first_and_torch_s_format_serves(tmp_path: Path, checker: SafetyChecker, images: list) -> None:
    folder = tmp_path / "checker"
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    assert SafetyChecker(CheckerOptions(weights=folder)).identity()["weights"] == "model.safetensors"
    again = SafetyChecker(CheckerOptions(weights=as_bin(folder)))
    assert again.identity()["weights"] == "pytorch_model.bin"
    same_numbers(again, checker, images)


class Malicious:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('ran')",))


def test_a_malicious_pickle_is_never_executed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a file of weights"):
        SafetyChecker(CheckerOptions(weights=as_bin(checker_folder(tmp_path), concept_embeds=Malicious())))


@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    folder = checker_folder(tmp_path)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UsageError, match="not a file of weights"):
        SafetyChecker(CheckerOptions(weights=folder))


@pytest.mark.parametrize("change", [
    {"concept_embeds": None}, {"vision_model.vision_model.post_layernorm.bias": None}, {"other": torch.zeros(2)},
    {"concept_embeds": torch.zeros(16, 24)},
])
def test_other_names_and_shapes_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    folder = checker_folder(tmp_path)
    state = load_file(folder / "model.safetensors") | change
    save_file({name: v for name, v in state.items() if v is not None}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match="not the safety checker"):
        SafetyChecker(CheckerOptions(weights=folder))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository's snapshot in a hub cache, empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    base = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text("0" * 40)
    (base / "snapshots").mkdir()
    return base / "snapshots" / ("0" * 40)


def test_the_hub_cache_serves_without_options(cache: Path, tmp_path: Path, images: list, opened: Callable[[str], Any]) -> None:
    shutil.copytree(checker_folder(tmp_path), cache)
    found = SafetyChecker()
    assert found.score(images, [{}] * 4) == opened("safety-checker").score(images, [{}] * 4)
    assert str(tmp_path) not in str(found.identity())


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_missing_files_say_what_fetches_them(name: str, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(checker_folder(tmp_path), cache)
    (cache / name).unlink()
    for options in (None, CheckerOptions(weights=cache), CheckerOptions(weights=tmp_path / "nothing")):
        with pytest.raises(MissingError) as caught:
            SafetyChecker(options)
        command = f"hf download {REPO} config.json preprocessor_config.json model.safetensors"
        assert caught.value.hint == f"Fetch it: {command}"
    assert safety_checker.cached_folder() is None
