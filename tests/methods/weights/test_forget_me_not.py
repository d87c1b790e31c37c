"""Forget-Me-Not: its loss against numbers, that it goes down, and the embedding that stands in for the words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import denoising, forget_me_not, probabilities, texts
from srbench.methods.base import BackboneInfo, quiet


def options(**changes: Any) -> forget_me_not.Options:
    quick = {"iterations": 2, "steps": 3, "images": 4, "batch": 2, "judged": False, "inversion_iterations": 2, "lr": 1e-3}
    return forget_me_not.Options(**(quick | changes))


def test_loss_is_one_norm_over_all_layers(toy: Any) -> None:
    draws, prompts = denoising.Denoising(toy, 3, 5.0), denoising.encoded(toy, ["a box", "a crate"])
    tokens = torch.stack([texts.word_tokens(toy.tokenizer, text, text, True) for text in ("a box", "a crate")])
    x, t = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([100, 800])
    with torch.no_grad(), probabilities.recorded(toy.unet) as recorders:
        toy.unet(x, t, encoder_hidden_states=prompts.embeds)
        layers = [each.double() for each in probabilities.last(recorders)]
    expected = sum(float(each[b][:, :, tokens[b]].square().sum()) for each in layers for b in range(2)) ** 0.5
    assert float(forget_me_not.loss(draws, toy.unet, x, t, prompts, tokens)) == pytest.approx(expected, rel=1e-6)


def test_attention_to_the_words_falls(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    card = forget_me_not.ForgetMeNot.erase(on_toy, box, options(iterations=30, lr=3e-3, ends=False), quiet).card
    assert card["loss_curve"][-1][1] < 0.8 * card["loss_curve"][0][1]


def test_an_embedding_stands_in_for_the_words_alone(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    toy = on_toy.pipeline
    states = denoising.encoded(toy, ["a box"]).embeds
    words = texts.word_tokens(toy.tokenizer, "a box", "a box", False)[None]
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    found = forget_me_not.inverted(on_toy, box, latents, states, words, options(), quiet)
    assert torch.equal(found[~words], states[~words])
    assert (found[words] == found[words][0]).all()
    assert (found[words] != states[words]).any()


def test_the_preset_with_an_embedding_learns_one(on_toy: BackboneInfo, box: ConceptSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    loss = forget_me_not.loss

    def spied(draws: Any, unet: Any, x: Any, t: Any, prompts: Conditioning, tokens: Any) -> torch.Tensor:
        seen.append(prompts.embeds)
        return loss(draws, unet, x, t, prompts, tokens)

    monkeypatch.setattr(forget_me_not, "loss", spied)
    forget_me_not.ForgetMeNot.erase(on_toy, box, options(), quiet)
    plain = denoising.encoded(on_toy.pipeline, ["a box", "a crate"]).embeds
    assert all(any(torch.allclose(row, text) for text in plain) for batch in seen for row in batch)
    seen.clear()
    forget_me_not.ForgetMeNot.erase(on_toy, box, options(words="inversion"), quiet)
    assert not any(torch.allclose(row, text) for batch in seen for row in batch for text in plain)


def test_no_embedding_is_learned_of_a_sensitive_concept(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="is sensitive"):
        forget_me_not.ForgetMeNot.erase(on_toy, box.model_copy(update={"sensitive": True}), options(words="inversion"), quiet)


def test_without_a_judge_one_line_says_what_to_give(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="needs a judge of 'box'"):
        forget_me_not.ForgetMeNot.erase(on_toy, box, options(judged=True), quiet)
