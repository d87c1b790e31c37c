"""The white-box attacks: what they measure, that it never gets worse, and what they may write."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch

from srbench.attacks import adaptive, adaptive_p4d, concept_inversion, p4d, unlearndiffatk, whitebox
from srbench.attacks.base import Adversarial, Victim, generators, seed_of
from srbench.attacks.defended import Defended, Speaker, drawn
from srbench.attacks.text import holds_banned
from srbench.attacks.whitebox import Denoising, Free, Matching, Nearest, Simplex, framed, on_simplex, shuffled, spread
from srbench.errors import CellError, UsageError
from srbench.methods.saferedir import Redirect
from srbench.testing.families import tiny
from tests.attacks import victims

TARGETS = victims.TARGETS
PREFIX = {"iterations": 3, "timesteps": 4, "learning_rate": 0.3, "parallel": 2, "probes": 2}
ATTACKS: dict[str, tuple[Any, Any]] = {
    "unlearndiffatk": (unlearndiffatk.UnlearnDiffAtk, unlearndiffatk.Settings(**PREFIX)),
    "p4d-n": (p4d.P4D, p4d.Settings(tokens=4, iterations=12, check_every=3, parallel=2, probes=2)),
    "p4d-k": (p4d.P4D, p4d.Settings(layout="k", after=2, iterations=12, check_every=3, parallel=2, probes=2)),
    "concept-inversion": (
        concept_inversion.ConceptInversion,
        concept_inversion.Settings(tokens=2, iterations=12, check_every=3, learning_rate=0.1, parallel=2, probes=2),
    ),
    "adaptive": (adaptive.Adaptive, adaptive.Settings(**PREFIX)),
    "adaptive-p4d": (
        adaptive_p4d.AdaptiveP4D, adaptive_p4d.Settings(tokens=4, iterations=12, check_every=3, parallel=2, probes=2)
    ),
}
every = pytest.mark.parametrize("name", ATTACKS)


def run(name: str, victim: Victim, targets: Any = TARGETS, first: int = 0, **changes: Any) -> list[Adversarial]:
    cls, settings = ATTACKS[name]
    return list(cls.attack(victim, targets, settings.model_copy(update=changes), None, first))


@pytest.fixture(scope="module")
def once(pipeline: Any) -> dict[str, list[Adversarial]]:
    """Every attack on SafeRedir, done once."""
    return {name: run(name, victims.redirected(pipeline)) for name in ATTACKS}


@every
def test_the_best_so_far_never_gets_worse_and_gets_better(once: Any, name: str) -> None:
    for found in once[name]:
        assert list(found.history) == sorted(found.history, reverse=True)
        assert found.history[-1] == found.objective
    assert any(found.objective < found.history[0] for found in once[name])


@every
def test_one_result_a_target_in_order(once: Any, name: str) -> None:
    assert [found.target for found in once[name]] == [row.prompt for row in TARGETS]
    assert len({found.tokens_seed for found in once[name]}) == len(TARGETS)


@every
def test_equal_seed_equal_results_and_groups_can_be_searched_alone(once: Any, name: str, redirected: Victim) -> None:
    assert run(name, redirected, TARGETS[2:], 2) == once[name][2:], "the second group, as if resumed"
    assert [f.prompt for f in run(name, redirected, seed=1)] != [f.prompt for f in once[name]]


@pytest.mark.parametrize("name", ["unlearndiffatk", "adaptive"])
def test_a_prefix_leaves_the_target_as_it_is(once: Any, name: str) -> None:
    for found in once[name]:
        assert found.prompt.endswith(f" {found.target}")
        added = found.prompt.removesuffix(found.target).split()
        assert len(added) == 3, "an object's prefix"
        assert not holds_banned(" ".join(added), ["q"])


@pytest.mark.parametrize("name", ["p4d-n", "adaptive-p4d"])
def test_p4d_n_is_made_of_free_words_alone(once: Any, name: str) -> None:
    for found in once[name]:
        assert len(found.prompt.split()) == 4
        assert not holds_banned(found.prompt, ["q"])


def test_p4d_k_puts_a_word_after_every_second(once: Any) -> None:
    for found in once["p4d-k"]:
        words, own = found.prompt.split(), found.target.split()
        assert (words[:2], words[3:]) == (own[:2], own[2:])


@pytest.mark.parametrize("name", ["unlearndiffatk", "p4d-n"])
def test_what_is_reported_is_the_prompts_own_objective(once: Any, name: str, redirected: Victim) -> None:
    _, settings = ATTACKS[name]
    subject = Defended(redirected)
    for number, found in enumerate(once[name]):
        target = drawn(redirected, [found.target], [TARGETS[number].seed or 0])
        judge = Denoising(subject, target, 1.0) if name == "unlearndiffatk" else Matching(subject, target, 5.0)
        own = generators([seed_of(whitebox.PROBE_SEED, seed_of(settings.seed, number))])[0]
        probes = [(step, torch.randn((1, 4, 4, 4), generator=own)) for step in spread(4, 2)]
        embeds = Speaker(redirected).encode([found.prompt])
        values = [float(judge.loss(embeds, [found.prompt], step, noise)) for step, noise in probes]
        assert found.objective == pytest.approx(sum(values) / 2, rel=1e-4)


def test_an_embedding_keeps_its_objective_when_it_is_used(once: Any, redirected: Victim) -> None:
    _, settings = ATTACKS["concept-inversion"]
    found = once["concept-inversion"][0]
    assert found.embedding.shape == (2, 16)
    embeds = concept_inversion.prompt_embeds(redirected, found.embedding)
    judge = Denoising(Defended(redirected), drawn(redirected, [found.target], [0]), 1.0)
    own = generators([seed_of(whitebox.PROBE_SEED, seed_of(settings.seed, 0))])[0]
    probes = [(step, torch.randn((1, 4, 4, 4), generator=own)) for step in spread(4, 2)]
    values = [float(judge.loss(embeds, [found.prompt], step, noise)) for step, noise in probes]
    assert found.objective == pytest.approx(sum(values) / 2, rel=1e-4)


@pytest.mark.parametrize("kind", [Denoising, Matching])
def test_adaptive_adds_the_detectors_verdict(redirected: Victim, kind: Any) -> None:
    subject, texts = Defended(redirected), ["a b"]
    target, embeds, noise = drawn(redirected, texts, [0]), Speaker(redirected).encode(texts), torch.zeros(1, 4, 4, 4)
    inner = kind(subject, target, 1.0)
    plain = inner.loss(embeds, texts, 1, noise)
    found = adaptive.Unnoticed(inner, 2.0).loss(embeds, texts, 1, noise)
    assert isinstance(subject.applied, Redirect)
    unsafe = subject.applied.records[-1][0]
    torch.testing.assert_close(found - plain, -2 * torch.log(1 - unsafe))
    assert float(unsafe) > 0.01


def _sure_of(victim: Victim, bias: float) -> Victim:
    """The victim with a detector that is surer of "unsafe" by `bias` in its logit."""
    defence = copy.deepcopy(victim.defence)
    assert defence is not None
    with torch.no_grad():
        defence.artifact.payload.classifier[-1].bias += torch.tensor([0.0, bias])
    return dataclasses.replace(victim, defence=defence)


def test_a_sure_detector_still_has_a_gradient(redirected: Victim) -> None:
    """1 - p is 0 in float32 where the logit is 60; the loss has to point downhill all the same."""
    subject, texts = Defended(_sure_of(redirected, 60.0)), ["a b"]
    target, noise = drawn(redirected, texts, [0]), torch.zeros(1, 4, 4, 4)
    embeds = Speaker(redirected).encode(texts).requires_grad_()
    judge = adaptive.Unnoticed(Denoising(subject, target, 1.0), 1.0)
    loss = judge.loss(embeds, texts, 1, noise)
    assert isinstance(subject.applied, Redirect)
    assert float(subject.applied.records[-1][0]) == 1.0
    assert float(loss.detach()) > 50
    with_detector = torch.autograd.grad(loss, embeds)[0]
    alone = torch.autograd.grad(Denoising(subject, target, 1.0).loss(embeds, texts, 1, noise), embeds)[0]
    assert float((with_detector - alone).norm()) > 1e-3


def test_the_gradient_through_detector_and_redirector_is_the_slope(redirected: Victim) -> None:
    """Against central differences along random directions."""
    subject, texts = Defended(_sure_of(redirected, 3.0)), ["a b"]
    target, noise = drawn(redirected, texts, [0]), torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    judge = adaptive.Unnoticed(Denoising(subject, target, 1.0), 1.0)
    embeds = Speaker(redirected).encode(texts).requires_grad_()
    slope = torch.autograd.grad(judge.loss(embeds, texts, 1, noise).sum(), embeds)[0]
    for seed in range(3):
        along = torch.randn(embeds.shape, generator=torch.Generator().manual_seed(seed))
        ahead, behind = (float(judge.loss(embeds.detach() + step * along, texts, 1, noise)) for step in (1e-2, -1e-2))
        assert float((slope * along).sum()) == pytest.approx((ahead - behind) / 2e-2, rel=0.05, abs=1e-3)


@pytest.mark.parametrize("name", ["unlearndiffatk", "p4d-n", "adaptive"])
def test_restarts_are_never_worse_and_begin_with_the_one_search(redirected: Victim, name: str) -> None:
    one, three = (run(name, redirected, restarts=count) for count in (1, 3))
    for alone, best in zip(one, three, strict=True):
        assert best.objective <= alone.objective
        assert list(best.history) == sorted(best.history, reverse=True)
    assert any(best.objective < alone.objective for alone, best in zip(one, three, strict=True))


def test_an_iteration_s_gradient_is_the_mean_over_its_draws(redirected: Victim) -> None:
    class Drawing:
        """The loss is the mean of the noise; counts what it was asked for."""

        steps, asked = 4, 0

        def loss(self, embeds: torch.Tensor, texts: Any, step: int, noise: torch.Tensor) -> torch.Tensor:
            self.asked += 1
            return noise.flatten(1).mean(1)

    judge = Drawing()
    group = whitebox.Group(
        Speaker(redirected), framed(Speaker(redirected), [[None, 5]], 14),
        whitebox.Simplex(Speaker(redirected), torch.arange(4), torch.zeros(1, 1, dtype=torch.long)), judge, (4, 4, 4),
        generators([3]), [], noises=3,
    )  # fmt: skip
    draw = generators([3])[0]
    expected = torch.stack([torch.randn((4, 4, 4), generator=draw).mean() for _ in range(3)]).mean()
    assert float(group.loss(0)) == pytest.approx(float(expected))
    assert judge.asked == 3


@pytest.mark.parametrize("name", ["adaptive", "adaptive-p4d"])
def test_a_larger_weight_lowers_the_unsafe_probability(redirected: Victim, name: str) -> None:
    def unsafe(weight: float) -> float:
        subject, total = Defended(redirected), 0.0
        for found, row in zip(run(name, redirected, weight=weight), TARGETS, strict=True):
            clean = drawn(redirected, [found.target], [row.seed or 0]).clean
            subject.predict(clean, 1, Speaker(redirected).encode([found.prompt]), [found.prompt], 1.0)
            assert isinstance(subject.applied, Redirect)
            total += float(subject.applied.records[-1][0])
        return total

    assert unsafe(100.0) < unsafe(0.0)


@pytest.mark.parametrize("name", ["adaptive", "adaptive-p4d"])
def test_adaptive_without_saferedir_or_its_gradient_is_refused(victim: Victim, redirected: Victim, name: str) -> None:
    with pytest.raises(UsageError, match="there is none"):
        run(name, victim)
    with pytest.raises(UsageError, match="gradient"):
        run(name, redirected, gradient="bpda")


@pytest.mark.parametrize("name", ["unlearndiffatk", "p4d-n", "concept-inversion"])
@pytest.mark.parametrize("gradient", ["exact", "bpda"])
def test_undefended_and_bpda_are_searched_too(name: str, gradient: str, victim: Victim, defended: Victim) -> None:
    for each in (victim, defended):
        assert all(found.objective <= found.history[0] for found in run(name, each, TARGETS[:1], gradient=gradient))


def test_the_pipeline_is_left_as_it_was(redirected: Victim) -> None:
    parts = [redirected.pipeline.unet, redirected.pipeline.text_encoder]
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in parts]
    run("unlearndiffatk", redirected, TARGETS[:1])
    for part, own in zip(parts, before, strict=True):
        assert all(torch.equal(v, own[k]) for k, v in part.state_dict().items())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in part.modules())


@pytest.mark.parametrize("name", ["unlearndiffatk", "p4d-n", "concept-inversion"])
def test_more_tokens_than_fit_are_refused(name: str, victim: Victim) -> None:
    with pytest.raises(UsageError, match="15 tokens do not fit"):
        run(name, victim, tokens=15)


def test_a_target_without_a_place_is_an_error(victim: Victim) -> None:
    short = [TARGETS[0].model_copy(update={"prompt": "a"})]
    with pytest.raises(CellError, match="no place"):
        run("p4d-k", victim, short)


def test_other_encoders_are_refused(victim: Victim) -> None:
    with pytest.raises(UsageError, match="one CLIP text encoder"):
        run("unlearndiffatk", dataclasses.replace(victim, pipeline=tiny("sdxl")))


def test_a_long_target_is_cut(victim: Victim) -> None:
    long = [TARGETS[0].model_copy(update={"prompt": "a b c d e f g h i j k l m n o p"})]
    (found,) = run("unlearndiffatk", victim, long)
    assert len(found.prompt.split()) == 14


# --- parts ------------------------------------------------------------------------------------------------------------------


def test_the_nearest_point_of_the_simplex() -> None:
    x = torch.tensor([[0.2, 0.3, 0.5], [2.0, 0.0, 0.0], [0.6, 0.6, -5.0], [-1.0, -1.0, -1.0]])
    wanted = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(on_simplex(x), wanted)


@pytest.mark.parametrize("space", [Simplex, Nearest, Free])
def test_a_space_begins_at_its_words(space: Any, victim: Victim) -> None:
    speaker = Speaker(victim)
    alphabet, start = torch.tensor([3, 5, 7, 9]), torch.tensor([[0, 2], [3, 1]])
    made = space(speaker, alphabet, start)
    assert torch.equal(made.tokens(), alphabet[start])
    torch.testing.assert_close(made.rows().detach(), speaker.table[alphabet[start]])
    (gradient,) = torch.autograd.grad(made.rows().sum(), [made.leaf])
    assert gradient.shape == made.leaf.shape


def test_frames_pad_as_the_tokenizer_does(victim: Victim) -> None:
    speaker = Speaker(victim)
    ids = speaker.ids(["a b c"])
    frame = framed(speaker, [[None, *ids[0, 2:4].tolist()]], 14)
    assert torch.equal(frame.filled(ids[:, 1:2]), ids)


def test_steps_are_spread_and_drawn_once_each() -> None:
    assert spread(16, 4) == [2, 6, 10, 14]
    assert spread(2, 4) == [0, 1]
    assert sorted(shuffled(4, 4, 0)) == [0, 1, 2, 3]
    assert shuffled(4, 10, 0) == shuffled(4, 10, 0) != shuffled(4, 10, 1)
