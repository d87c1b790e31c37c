"""The battery of `srbench.testing` over every inference method that srbench brings (design section 14)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from srbench.catalog import plugins
from srbench.methods.inversion import Inversion
from srbench.methods.saferedir import CARD, WEIGHTS
from srbench.methods.saferedir.module import SafeRedir, Sizes
from srbench.testing import checks
from srbench.testing.bench import TOKENS, Bench
from srbench.testing.methods import CHECKS, A, B, C, MethodCase
from srbench.testing.tiny import WIDTH

META = {name: plugins.plugins("methods")[method].meta for name, (method, _) in plugins.presets().items()}
PRESETS = [name for name, meta in META.items() if meta["kind"] == "inference"]
THROUGH_GUIDANCE = {name for name in PRESETS if META[name]["name"] in ("negative-prompt", "sld", "trasce")} | {"safree-official"}
"""Presets that have nothing to act through at guidance 1, and say so."""
QUICK = {
    "iterations": 3, "steps": 3, "batch": 2, "rank": 2, "lr": 0.05, "warmup": 0, "vectors": 2, "attack_steps": 2, "images": 4,
}  # fmt: skip
"""Options of methods that learn what they act with."""
NEAR = {
    "gloce": {"threshold": 0.01, "images": 24, "first": 0, "last": 50, "gate_rank": 4}, "saferedir-text": {"threshold": 0.5},
}  # fmt: skip
"""Options with which a method acts on the tiny pipeline: a concept's states are hardly further out than others, and a random
detector is undecided."""
LEARNING = ("spm", "receler", "gloce")
every_preset = pytest.mark.parametrize("preset", PRESETS)


@pytest.fixture(scope="session")
def redirectors(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Random SafeRedir networks whose detector is undecided, on disk: with a direction a token, and with one for all."""
    return {per_token: redirector(tmp_path_factory.mktemp("redirector"), per_token) for per_token in (True, False)}


def redirector(folder: Path, per_token: bool) -> Path:
    """A random SafeRedir network, stored in the folder."""
    sizes = Sizes(
        prompt_width=WIDTH, tokens=TOKENS, latent_channels=4, latent_widths=(4, 8), latent_feature=6,
        timestep_width=8, timestep_feature=4, token_hidden=16, rank=4, classifier_hidden=8, alpha_hidden=8, mask_hidden=8,
        heads=2, token_delta=per_token,
    )
    torch.manual_seed(1)
    module = SafeRedir(sizes)
    module.classifier[3].bias.data.copy_(torch.tensor([0.0, 0.1]))
    save_file(module.state_dict(), folder / WEIGHTS)
    card = {"backbone_sha256": "sha", "concepts": ["box"], "sizes": sizes.model_dump(mode="json")}
    (folder / CARD).write_text(json.dumps(card))
    return folder


@pytest.fixture
def case(bench: Bench, redirectors: dict[bool, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], MethodCase]:
    """Makes a preset ready on the tiny pipeline; what it would load from a file is made here."""
    vector = bench.embeddings(["a box"])[:, 5]  # (1, D), at the end of the text
    monkeypatch.setattr("srbench.methods.inversion.load", lambda *_: Inversion(vector, "f" * 64))

    def make(preset: str) -> MethodCase:
        cls, meta = checks.plugin_of("methods", preset)
        trained = redirectors[preset != "saferedir-released"]
        files = {"redirector": str(trained)} if "redirector" in cls.Options.model_fields else {}
        own = QUICK if meta["name"] in LEARNING else {}
        quick = {name: value for name, value in own.items() if name in cls.Options.model_fields.keys() - meta["presets"][preset]}
        return MethodCase(cls, meta, preset, files | quick | NEAR.get(preset, {}), bench, meta["presets"][preset])

    return make


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("preset", PRESETS)
def test_battery(case: Callable[[str], MethodCase], preset: str, check: checks.Check[MethodCase]) -> None:
    checks.run([check], case(preset))


@every_preset
def test_who_acts_through_guidance_and_who_acts_at_all(case: Callable[[str], MethodCase], preset: str) -> None:
    """Else a method that refuses everything would pass."""
    made = case(preset)
    assert made.guidances == ((5.0,) if preset in THROUGH_GUIDANCE else (5.0, 1.0))
    assert made.acts == (preset != "none")


@every_preset
def test_what_has_a_hook_has_a_trace(bench: Bench, case: Callable[[str], MethodCase], preset: str) -> None:
    _, traces = bench.draw(case(preset).active(), [A, B, C])
    hooked = preset not in ("none", "negative-prompt")
    assert all(bool(trace) == hooked for trace in traces)


@every_preset
def test_an_artifact_has_parameters(case: Callable[[str], MethodCase], preset: str) -> None:
    artifact = case(preset).active().artifact
    assert artifact is None or artifact.parameters > 0


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_none_is_the_plain_pipeline(bench: Bench, case: Callable[[str], MethodCase], guidance: float) -> None:
    texts = [A, B]
    pixels, traces = bench.draw(case("none").active(), texts, guidance=guidance)
    latents = torch.stack([
        torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(bench.spec(text).seed)) for text in texts
    ])
    plain = bench.pipeline(
        prompt_embeds=bench.embeddings(texts), negative_prompt_embeds=bench.embeddings(["", ""]), latents=latents,
        num_inference_steps=4, guidance_scale=guidance, height=8, width=8, output_type="np",
    ).images
    assert np.array_equal(pixels, (plain * 255).round().astype(np.uint8))
    assert traces == [{}, {}]
