"""The defended denoiser: it is what the sampler runs, and its gradients are what they are called."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from srbench.attacks.base import Defence, Victim
from srbench.attacks.defended import Defended, Speaker, drawn
from srbench.backbones.checkpoint import Checkpoint, Passport
from srbench.errors import CellError, UsageError
from srbench.methods.saferedir import SafeRedirMethod
from tests.attacks import victims

TEXTS = ["a b", "c d e"]


def latents(count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, 4, 4, 4), generator=torch.Generator().manual_seed(seed))


def test_texts_are_encoded_as_the_pipeline_does(victim: Victim) -> None:
    wanted, _ = victim.pipeline.encode_prompt(TEXTS, "cpu", 1, False)
    torch.testing.assert_close(Speaker(victim).encode(TEXTS), wanted)


def test_words_own_embeddings_in_their_places_change_nothing(victim: Victim) -> None:
    speaker = Speaker(victim)
    ids = speaker.ids(TEXTS)
    places = torch.tensor([[1, 16], [2, 3]])  # 16 is none
    rows = speaker.table[torch.stack([ids[0, [1, 1]], ids[1, [2, 3]]])]
    torch.testing.assert_close(speaker.embeds(ids, places, rows), speaker.encode(TEXTS))
    other = speaker.embeds(ids, places, rows + torch.tensor([[[0.0], [9.0]], [[0.0], [0.0]]]))
    torch.testing.assert_close(other, speaker.encode(TEXTS), msg="what stands at no place is not read")
    assert not speaker.model.get_input_embeddings()._forward_hooks


def test_the_untouched_backbone_draws_what_its_pipeline_draws(victim: Victim) -> None:
    found = drawn(victim, TEXTS, [5, 6]).clean
    noise = torch.stack([torch.randn((4, 4, 4), generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)])
    wanted = victim.pipeline(
        TEXTS, latents=noise, num_inference_steps=4, guidance_scale=5.0, height=8, width=8, output_type="latent"
    ).images
    torch.testing.assert_close(found, wanted)


def test_a_method_acts_as_while_sampling(redirected: Victim) -> None:
    """Every step of a sampled image, predicted anew from its x_t, is the step that the sampler made."""
    defence, pipeline, seen = redirected.defence, redirected.pipeline, []
    assert defence is not None
    handle = pipeline.unet.register_forward_hook(lambda module, args, output: seen.append((args[0].clone(), output[0].clone())))
    from srbench.methods.base import Call

    call = Call(2, 4, True, tuple(TEXTS))
    with torch.no_grad(), SafeRedirMethod.applied(pipeline, defence.artifact, defence.options, call):  # type: ignore[arg-type]
        pipeline(TEXTS, latents=latents(), num_inference_steps=4, guidance_scale=5.0, height=8, width=8, output_type="latent")
    handle.remove()
    subject, embeds = Defended(redirected), Speaker(redirected).encode(TEXTS)
    assert len(seen) == 4
    for step, (x, output) in enumerate(seen):
        e0, ec = output.chunk(2)
        torch.testing.assert_close(subject.predict(x[:2], step, embeds, TEXTS, 5.0), e0 + 5.0 * (ec - e0))


def test_a_method_that_counts_sees_the_steps_own_number(defended: Victim) -> None:
    subject, embeds, x = Defended(defended), Speaker(defended).encode(TEXTS), latents()
    plain = Defended(dataclasses.replace(defended, defence=None))
    for step in (0, 3):
        pushed = embeds.flip(-1) * 0.5 * (step + 1)
        torch.testing.assert_close(subject.predict(x, step, embeds, TEXTS, 5.0), plain.predict(x, step, pushed, TEXTS, 5.0))


def test_two_calls_reach_a_method_that_acts_from_the_next_call_on(redirected: Victim) -> None:
    defence = redirected.defence
    assert defence is not None
    upstream = dataclasses.replace(
        redirected, defence=dataclasses.replace(defence, options=SafeRedirMethod.Options(mode="upstream", threshold=0.0))
    )
    embeds, x = Speaker(upstream).encode(TEXTS), latents()
    plain = Defended(dataclasses.replace(upstream, defence=None)).predict(x, 1, embeds, TEXTS, 5.0)
    torch.testing.assert_close(Defended(upstream, calls=1).predict(x, 1, embeds, TEXTS, 5.0), plain)
    assert (Defended(upstream, calls=2).predict(x, 1, embeds, TEXTS, 5.0) - plain).abs().max() > 1e-3


def _gradient(subject: Defended, x: torch.Tensor, embeds: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, float]:
    leaf = embeds.clone().requires_grad_()
    value = (subject.predict(x, 1, leaf, TEXTS, 5.0) * weight).sum()
    return torch.autograd.grad(value, [leaf])[0], float(value.detach())


@pytest.mark.parametrize("which", ["defended", "redirected"])
def test_the_exact_gradient_is_that_of_finite_differences(which: str, request: pytest.FixtureRequest, pipeline: Any) -> None:
    victim = request.getfixturevalue(which)
    parts = (pipeline.unet, pipeline.text_encoder)
    for part in parts:
        part.double()
    try:
        subject, embeds = Defended(victim), Speaker(victim).encode(TEXTS)
        x, weight = latents().double(), latents(seed=1).double()
        way = torch.randn(embeds.shape, generator=torch.Generator().manual_seed(2)).double()
        found, _ = _gradient(subject, x, embeds, weight)
        # A redirector computes in float32 whatever it is given, so its step is a coarse one.
        size = 1e-3 if which == "redirected" else 1e-5
        up, down = (float((subject.predict(x, 1, embeds + s * size * way, TEXTS, 5.0) * weight).sum()) for s in (1, -1))
        assert float((found * way).sum()) == pytest.approx((up - down) / (2 * size), rel=2e-2)
    finally:
        for part in parts:
            part.float()


def test_bpda_has_the_defended_value_and_the_undefended_gradient(defended: Victim) -> None:
    embeds, x, weight = Speaker(defended).encode(TEXTS), latents(), latents(seed=1)
    exact, value = _gradient(Defended(defended), x, embeds, weight)
    plain, bare = _gradient(Defended(dataclasses.replace(defended, defence=None)), x, embeds, weight)
    found, through = _gradient(Defended(defended, "bpda"), x, embeds, weight)
    assert through == pytest.approx(value, rel=1e-4)
    assert abs(value - bare) > 1e-3
    torch.testing.assert_close(found, plain)
    assert (found - exact).abs().max() > 1e-4


def test_the_target_is_the_untouched_backbones(pipeline: Any) -> None:
    name = "conv_out.bias"
    own = pipeline.unet.state_dict()[name]
    before = own.clone()
    passport = Passport("", "", "", 1, 1, 1, 1.0)
    original = Checkpoint("none", {"unet": {name: before.clone()}}, passport)
    wanted = drawn(victims.plain(pipeline), ["a b"], [1]).clean
    own.add_(1.0)
    try:
        changed = own.clone()
        torch.testing.assert_close(drawn(victims.plain(pipeline, original=original), ["a b"], [1]).clean, wanted)
        assert torch.equal(own, changed), "the checkpoint lies over it again"
        assert not torch.allclose(drawn(victims.plain(pipeline), ["a b"], [1]).clean, wanted)
    finally:
        own.copy_(before)


def test_a_hook_that_does_not_run_is_an_error(pipeline: Any) -> None:
    victim = victims.plain(pipeline, defence=Defence(victims.SilentMethod, None, None))
    with pytest.raises(CellError, match="did not run"):
        Defended(victim).predict(latents(), 0, Speaker(victim).encode(TEXTS), TEXTS, 5.0)


def test_a_scheduler_that_scales_its_input_is_refused(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import EulerDiscreteScheduler

    monkeypatch.setattr(pipeline, "scheduler", EulerDiscreteScheduler())
    with pytest.raises(UsageError, match="EulerDiscreteScheduler"):
        Defended(victims.plain(pipeline))
