"""DoCo: the surgery on gradients, the discriminator and its loss, and that each learns its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import denoising, doco, finetune
from srbench.methods.base import BackboneInfo, quiet


def options(**changes: Any) -> doco.Options:
    quick = {"iterations": 3, "warmup": 1, "steps": 3, "images": 4, "batch": 2, "lr": 1e-3}
    return doco.Options(**(quick | changes))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_surgery_leaves_nothing_against_what_is_preserved(scale: float) -> None:
    """Whatever the gradients' lengths, and over all parameters together."""
    r = [torch.randn(3, 2, generator=rng(1)).double(), torch.randn(4, generator=rng(2)).double()]
    g = [scale * (torch.randn(each.shape, generator=rng(3 + i)).double() - each) for i, each in enumerate(r)]
    assert sum(float((a * b).sum()) for a, b in zip(g, r, strict=True)) < 0
    left = doco.surgery(g, r)
    assert sum(float((a * b).sum()) for a, b in zip(left, r, strict=True)) == pytest.approx(0, abs=1e-9)
    length = sum(float(each.square().sum()) for each in r)
    along = sum(float((a * b).sum()) for a, b in zip(g, r, strict=True))
    assert all(torch.allclose(new, a - along / length * b) for new, a, b in zip(left, g, r, strict=True))


def test_gradients_that_agree_stay() -> None:
    g, r = [torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 0.0])]
    assert torch.equal(doco.surgery(g, r)[0], g[0])
    assert torch.equal(doco.surgery(g, [torch.zeros(2)])[0], g[0])


@pytest.mark.parametrize(("side", "strided"), [(4, 1), (8, 2), (64, 3)])
def test_the_discriminator_leaves_patches(side: int, strided: int) -> None:
    state = torch.get_rng_state()
    network = doco.discriminator(4, side, rng())
    assert torch.equal(state, torch.get_rng_state())
    scores = network(torch.randn(2, 4, side, side))
    assert scores.shape == (2, 1, side // 2**strided, side // 2**strided)
    again = doco.discriminator(4, side, rng())
    assert all(torch.equal(*pair) for pair in zip(network.parameters(), again.parameters(), strict=True))


def test_judgement_is_the_cross_entropy_of_every_patch() -> None:
    network, latents = doco.discriminator(4, 8, rng()).double(), torch.randn(3, 4, 8, 8, generator=rng(1)).double()
    likely = network(latents).sigmoid()
    assert float(doco.judged(network, latents, True)) == pytest.approx(float(-likely.log().mean()), abs=1e-9)
    assert float(doco.judged(network, latents, False)) == pytest.approx(float(-(1 - likely).log().mean()), abs=1e-9)


def test_predicted_clean_latents_of_the_right_noise_are_the_image(toy: Any) -> None:
    clean, noise, t = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4), torch.tensor([200, 800])
    x = denoising.added_noise(toy.scheduler, clean, noise, t)
    assert torch.allclose(doco.clean_of(toy.scheduler, x, noise, t), clean, atol=1e-4)


def test_predictions_are_the_phrases_and_the_frozen_anchors(toy: Any) -> None:
    nets = finetune.copies(toy, "kv", "doco")
    for value in nets.parameters.values():
        value.data.mul_(1.5)
    draws, scheduler = denoising.Denoising(toy, 3, 5.0), toy.scheduler
    clean, noise, t = torch.randn(1, 4, 4, 4, generator=rng(1)), torch.randn(1, 4, 4, 4, generator=rng(2)), torch.tensor([400])
    anchor, phrase = finetune.encode(toy, ["a cup"]), finetune.encode(toy, ["a box"])
    x = denoising.added_noise(scheduler, clean, noise, t)
    fake, real, keeping = doco.predictions(draws, nets, (x, t, noise, anchor, phrase))
    share = float(scheduler.alphas_cumprod[400])
    with torch.no_grad():
        said, stays = (nets.edited(x, t, encoder_hidden_states=prompt).sample for prompt in (phrase, anchor))
        wanted = toy.unet(x, t, encoder_hidden_states=anchor).sample
    assert torch.allclose(fake, (x - (1 - share) ** 0.5 * said) / share**0.5, atol=1e-4)
    assert torch.allclose(real, (x - (1 - share) ** 0.5 * wanted) / share**0.5, atol=1e-4)
    assert float(keeping) == pytest.approx(float((stays.double() - noise.double()).square().mean()), rel=1e-5)


def test_in_the_warm_up_the_discriminator_alone_learns(
    on_toy: BackboneInfo, box: ConceptSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []
    step = doco.learning.step
    monkeypatch.setattr(doco.learning, "step", lambda chosen, own, grads: moved.append(len(own)) or step(chosen, own, grads))
    doco.DoCo.erase(on_toy, box, options(iterations=3, warmup=2), quiet)
    critic = len(list(doco.discriminator(4, 4, rng()).parameters()))
    assert [count == critic for count in moved] == [True, True, True, False]


def test_only_keys_and_values_change(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    tensors = doco.DoCo.erase(on_toy, box, options(), quiet).tensors["unet"]
    assert all("attn2.to_k" in name or "attn2.to_v" in name for name in tensors)


def test_a_warm_up_that_leaves_nothing_is_refused(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="train the discriminator alone"):
        doco.DoCo.erase(on_toy, box, options(iterations=3, warmup=3), quiet)


def test_needs_anchors(on_toy: BackboneInfo, without_anchors: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="no anchor"):
        doco.DoCo.erase(on_toy, without_anchors, options(), quiet)


def test_needs_an_image_an_anchor(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="1 images for 2 anchors"):
        doco.DoCo.erase(on_toy, box, options(images=1), quiet)
