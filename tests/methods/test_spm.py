"""SPM: its losses, its gate, and the sum of several modules; a plain checkpoint is the gate at 1."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from srbench.backbones.pipelines import Conditioning
from srbench.methods import adapters, denoising, spm
from srbench.methods.base import Active, Artifact, quiet
from srbench.testing.bench import Bench

QUICK: dict[str, Any] = {"iterations": 3, "steps": 3, "batch": 2, "lr": 0.05, "warmup": 0}


def options(**changes: Any) -> spm.Options:
    return spm.Options(**(QUICK | changes))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn_adapters(unet: Any, seed: int) -> dict[str, adapters.Adapter]:
    own = adapters.made(adapters.transformer_layers(unet), 1, 1.0, "kaiming", rng(seed))
    for each in own.values():
        each.up.data = torch.randn(each.up.shape, generator=rng(seed + 1)) * 0.1
    return own


def module(bench: Bench, seed: int, phrase: str = "a box") -> spm.Module:
    tokens = frozenset(spm.content_tokens(bench.pipeline, phrase))
    return spm.Module(drawn_adapters(bench.pipeline.unet, seed), bench.embeddings([phrase]), (tokens,))


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_target_lies_beyond_the_neutral_prompt(eta: float) -> None:
    concept, neutral = torch.randn(2, 4, 4, 4).double(), torch.randn(2, 4, 4, 4).double()
    assert torch.allclose(spm.target(concept, neutral, eta), (1 + eta) * neutral - eta * concept, atol=1e-12)


def test_loss_is_the_papers(bench: Bench) -> None:
    """Every prediction made on its own, the terms summed in float64."""
    unet, own = bench.pipeline.unet, drawn_adapters(bench.pipeline.unet, 3)
    draws, t = denoising.Denoising(bench.pipeline, 3, 3.0), torch.tensor(400)
    x = torch.randn(2, 4, 4, 4, generator=rng())
    said, nothing = (denoising.encoded(bench.pipeline, each) for each in (["a box", "bin"], ["", ""]))
    kept = Conditioning(spm.anchor_embeddings(said.embeds[0], 3, rng(1)))
    found = spm.loss(draws, unet, own, x, t, said, nothing, kept, options(anchor_weight=7.0))

    def one(image: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = unet(image[None], t, encoder_hidden_states=prompt[None]).sample[0].double()
        return result

    erasing, keeping = [], []
    with torch.no_grad():
        frozen = [(one(x[i], said.embeds[i]), one(x[i], nothing.embeds[i])) for i in range(2)]
        stays = [one(x[0], each) for each in kept.embeds]
        with adapters.attached(unet, own):
            for i, (concept, neutral) in enumerate(frozen):
                erasing.append((one(x[i], said.embeds[i]) - (neutral - (concept - neutral))).square())
            keeping = [(one(x[0], each) - before).square() for each, before in zip(kept.embeds, stays, strict=True)]
    expected = torch.stack(erasing).mean() + 7.0 * torch.stack(keeping).mean()
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_latent_anchoring_is_nothing_at_the_start(bench: Bench) -> None:
    unet = bench.pipeline.unet
    own = adapters.made(adapters.transformer_layers(unet), 1, 1.0, "kaiming", rng())
    draws, x = denoising.Denoising(bench.pipeline, 3, 3.0), torch.randn(2, 4, 4, 4, generator=rng())
    prompts = denoising.encoded(bench.pipeline, ["a box", "bin"])
    kept = Conditioning(spm.anchor_embeddings(prompts.embeds[0], 2, rng(1)))
    given = (draws, unet, own, x, torch.tensor(400), prompts, prompts, kept)
    assert float(spm.loss(*given, options(anchor_weight=1e6))) == pytest.approx(0, abs=1e-3)


def test_anchored_embeddings_have_the_concepts_size() -> None:
    concept = torch.randn(5, 6, generator=rng())
    found = spm.anchor_embeddings(concept, 50, rng(1))
    sizes = found.flatten(1).norm(dim=1) / concept.norm()
    assert 0.8 <= float(sizes.min()) < 0.85
    assert 1.15 < float(sizes.max()) <= 1.2


# --- the gate ------------------------------------------------------------------------------------------------------------


def test_gate_is_one_for_the_concept_and_for_what_holds_its_words(bench: Bench) -> None:
    own = module(bench, 0, "box")
    states = dict(zip(("box", "a box ef", "zyw"), bench.embeddings(["box", "a box ef", "zyw"]), strict=True))
    gates = {
        text: spm.gate(state, spm.content_tokens(bench.pipeline, text), own.states, own.tokens) for text, state in states.items()
    }
    assert gates["box"] == pytest.approx(1.0)
    assert gates["a box ef"] == 1.0  # every token of it is there
    cosine = float(torch.nn.functional.cosine_similarity(states["zyw"].flatten(), own.states[0].flatten(), dim=0))
    assert gates["zyw"] == pytest.approx(max(0.0, cosine), abs=1e-5)
    assert gates["zyw"] < 1


def test_a_modules_gate_is_its_nearest_phrases(bench: Bench) -> None:
    phrases = bench.embeddings(["box", "zyw"])
    found = spm.gate(bench.embeddings(["zyw"])[0], set(), phrases, [set(), set()])
    assert found == pytest.approx(1.0)


def test_the_gate_is_multiplied_in_once_and_modules_add_up() -> None:
    """As released it is squared, and each module's A meets the other's B."""
    one, other = (adapters.Adapter(torch.randn(1, 3), torch.randn(2, 1), 1.0) for _ in range(2))
    gates = torch.tensor([[0.5], [0.25]])

    def delta(acting: list[tuple[adapters.Adapter, torch.Tensor]]) -> torch.Tensor:
        return sum((float(strength) * each.delta() for each, strength in acting), torch.zeros(2, 3).double())

    assert torch.allclose(delta(spm.combined([one, other], gates, False)), 0.5 * one.delta() + 0.25 * other.delta())
    assert torch.allclose(delta(spm.combined([one], gates[:1], True)), 0.25 * one.delta())
    mixed = (0.5 * one.up + 0.25 * other.up).double() @ (0.5 * one.down + 0.25 * other.down).double()
    assert torch.allclose(delta(spm.combined([one, other], gates, True)), mixed, atol=1e-6)


def test_images_are_those_of_the_gated_weights(bench: Bench) -> None:
    """The concept's own prompt, whose gate is 1, is drawn as with fused weights; both halves."""
    own = module(bench, 4)
    artifact = Artifact([own], "a" * 64)
    gated, traces = bench.draw(Active(spm.Spm, artifact, options()), ["a box"])
    assert traces[0]["gate"] == [1.0]
    before, after = adapters.fused(bench.pipeline.unet, own.own)
    state = bench.pipeline.unet.state_dict()
    plain = Active(spm.Spm, Artifact([module(bench, 4)], "b" * 64), options())
    zero = {path: adapters.Adapter(each.down, torch.zeros_like(each.up), 1.0) for path, each in own.own.items()}
    nothing = Active(spm.Spm, Artifact([spm.Module(zero, own.states, own.tokens)], "c" * 64), options())
    try:
        for name, value in after.items():
            state[name].copy_(value)
        fused, _ = bench.draw(nothing, ["a box"])
    finally:
        for name, value in before.items():
            state[name].copy_(value)
    assert abs(fused.astype(int) - gated.astype(int)).max() <= 1
    assert (bench.draw(nothing, ["a box"])[0] != bench.draw(plain, ["a box"])[0]).any()


def test_learning_lowers_the_loss(bench: Bench) -> None:
    texts = spm.Texts(["a box"], [""])
    _, losses = spm.learn(bench.info(), texts, options(iterations=30, lr=5e-3, anchor_weight=1.0, batch=4), quiet)
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


def test_a_forecast_learns_nothing(bench: Bench, tmp_path: Any) -> None:
    from srbench.errors import Unmade

    with pytest.raises(Unmade, match="not learned yet"):
        spm.Spm.prepare(bench.info(cache=tmp_path, make=False), bench.concept, options())
