"""MACE: what sentences share, both closed forms against direct sums, the attention's loss, masks, and contradictions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.joint import joint
from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.errors import UsageError
from srbench.methods import adapters, denoising, mace, pictures, probabilities
from srbench.methods.base import BackboneInfo, quiet
from srbench.testing.families import tiny

SHORT = "{}; the {}"


def options(**changes: Any) -> mace.Options:
    quick = {"iterations": 2, "steps": 3, "images": 4, "batch": 2, "judged": False, "contexts": SHORT, "lam": 1.0, "keep": 0.1}
    return mace.Options(**(quick | changes))


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def tin(**changes: Any) -> ConceptSpec:
    """A second concept."""
    values = {"names": ("a tin",), "words": ("tin",), "counterparts": {"tin": "bag"}, "protocol": "none"} | changes
    return ConceptSpec(name="tin", title="tins", kind="object", sensitive=False, families={"tiny": ConceptWords(**values)})


# --- closed forms --------------------------------------------------------------------------------------------------------


def test_shared_words_are_before_the_concept_and_after_it() -> None:
    """[start] a BOX of x [end] [pad] [pad] [pad] against [start] a CUP CUP of x [end] [pad] [pad]."""
    first, second = [0, 5, 7, 8, 9, 1, 1, 1, 1], [0, 5, 6, 6, 8, 9, 1, 1, 1]
    ours, theirs = mace.shared(first, second, 1)
    assert list(zip(ours, theirs, strict=True)) == [(0, 0), (1, 1), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8)]


def test_sentences_that_are_the_same_share_all() -> None:
    same = [0, 5, 7, 1, 1]
    assert mace.shared(same, same, 1) == (list(range(5)), list(range(5)))


def test_refinement_is_the_identity_without_words_of_the_concept(toy: Any) -> None:
    old, new = mace.neighbourhood(toy, [("a cup", "a cup"), ("a bag", "a bag")])
    weights = {"w": random(0, 6, old.shape[1])}
    kept = random(1, 3, old.shape[1])
    assert torch.allclose(mace.refined(weights, old, new, kept, 0.5, 0.1)["w"], weights["w"], atol=1e-8)


def refinement(weight: torch.Tensor, old: Any, new: Any, kept: Any, lam: float, keep: float) -> torch.Tensor:
    """The paper's sums, term by term."""
    left, right = lam * weight, lam * torch.eye(weight.shape[1], dtype=torch.float64)
    for e_o, e_n in zip(old, new, strict=True):
        left, right = left + torch.outer(weight @ e_n, e_o), right + torch.outer(e_o, e_o)
    for e_p in kept:
        left, right = left + keep * torch.outer(weight @ e_p, e_p), right + keep * torch.outer(e_p, e_p)
    return left @ torch.linalg.inv(right)


def test_refinement_is_the_papers() -> None:
    weight, old, new, kept = random(0, 4, 5), random(1, 3, 5), random(2, 3, 5), random(3, 2, 5)
    found = mace.refined({"w": weight}, old, new, kept, 0.3, 0.7)["w"]
    assert torch.allclose(found, refinement(weight, old, new, kept, 0.3, 0.7), atol=1e-6)


def test_fusion_is_the_papers_least_squares() -> None:
    """(S (W + dW_i) e e^T + p S W e_p e_p^T + l W) (...)^-1 for two concepts."""
    weight, kept, words = random(0, 4, 5), random(1, 2, 5), [random(2, 3, 5), random(3, 2, 5)]
    deltas = [{"w": random(4, 4, 5)}, {"w": random(5, 4, 5)}]
    left, right = 0.3 * weight, 0.3 * torch.eye(5, dtype=torch.float64)
    for delta, states in zip(deltas, words, strict=True):
        for e in states:
            left, right = left + torch.outer((weight + delta["w"]) @ e, e), right + torch.outer(e, e)
    for e in kept:
        left, right = left + 0.7 * torch.outer(weight @ e, e), right + 0.7 * torch.outer(e, e)
    found = mace.fused({"w": weight}, deltas, words, kept, 0.3, 0.7)["w"]
    assert torch.allclose(found, left @ torch.linalg.inv(right), atol=1e-6)


def test_fusion_of_one_concept_with_nothing_kept_gives_its_words_their_adapters() -> None:
    weight, words, delta = random(0, 4, 9), random(1, 3, 9), random(2, 4, 9)
    found = mace.fused({"w": weight}, [{"w": delta}], [words], torch.zeros(0, 9).double(), 0.0, 0.0)["w"]
    assert torch.allclose(found @ words.T, (weight + delta) @ words.T, atol=1e-6)


def test_doubling_the_weight_of_what_is_kept_doubles_its_term(on_toy: BackboneInfo, box: ConceptSpec, monkeypatch: Any) -> None:
    """Once in the first stage; as released it is squared."""
    asked, refined = [], mace.refined

    def spied(weights: Any, old: Any, new: Any, kept: Any, lam: float, keep: float) -> Any:
        asked.append(keep)
        return refined(weights, old, new, kept, lam, keep)

    monkeypatch.setattr(mace, "refined", spied)
    for chosen in (options(keep=0.2), options(keep=0.4), options(keep=0.4, released=True)):
        mace.Mace.erase(on_toy, box, chosen, quiet)
    assert asked == pytest.approx([0.2, 0.4, 0.16])


# --- attention -----------------------------------------------------------------------------------------------------------


def images(toy: Any, on_toy: BackboneInfo, box: ConceptSpec) -> mace.Images:
    todo = mace.plan(box, "tiny", options())
    return mace.prepared(on_toy, box, todo, options(), toy.unet, quiet)


def test_loss_is_a_norm_a_layer_at_masks_and_the_concepts_tokens(toy: Any, on_toy: BackboneInfo, box: ConceptSpec) -> None:
    drawn, draws = images(toy, on_toy, box), denoising.Denoising(toy, 3, 5.0)
    part = mace.part_of(drawn, torch.tensor([0, 3]))
    own = adapters.made(adapters.keys_and_values(toy.unet), 1, 1.0, "gaussian", torch.Generator().manual_seed(0))
    x, t = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([100, 300])
    with probabilities.recorded(toy.unet) as recorders, torch.no_grad():
        toy.unet(x, t, encoder_hidden_states=part.prompts.embeds)
        layers = [each.double() for each in probabilities.last(recorders)]
    expected = 0.0
    for each in layers:
        side = int(each.shape[2] ** 0.5)
        block = 4 // side
        total = 0.0
        for b in range(2):
            mask = part.masks[b].view(side, block, side, block).any(3).any(1).flatten()
            total += float(each[b][:, mask][:, :, part.tokens[b]].square().sum())
        expected += total**0.5
    assert float(mace.loss(draws, toy.unet, own, x, t, part)) == pytest.approx(expected, rel=1e-5)


def test_masks_are_where_the_frozen_model_attends_and_of_a_style_all(toy: Any, on_toy: BackboneInfo, box: ConceptSpec) -> None:
    drawn = images(toy, on_toy, box)
    assert drawn.masks.flatten(1).any(1).all()
    style = box.model_copy(update={"kind": "style"})
    todo = mace.plan(style, "tiny", options())
    assert mace.prepared(on_toy, style, todo, options(), toy.unet, quiet).masks.all()


def test_learning_turns_attention_away(toy: Any, on_toy: BackboneInfo, box: ConceptSpec) -> None:
    unet, drawn = denoising.trainable(toy.unet), images(toy, on_toy, box)
    _, losses = mace.learn(on_toy, denoising.Denoising(toy, 3, 5.0), unet, drawn, options(iterations=40, lr=3e-2), quiet)
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])


def test_training_images_are_the_drawn_latents_and_not_as_released(toy: Any, on_toy: BackboneInfo, box: ConceptSpec) -> None:
    todo = mace.plan(box, "tiny", options())
    latents, _ = pictures.of_sentences(on_toy, box, todo.sentences, options(), "mace", quiet)
    assert torch.equal(images(toy, on_toy, box).latents, latents)
    other = mace.prepared(on_toy, box, todo, options(released=True), toy.unet, quiet).latents
    pixels = torch.from_numpy(denoising.pixels_of(toy, latents)).permute(0, 3, 1, 2).float()
    mean, deviation = (torch.tensor(value).view(1, 3, 1, 1) for value in mace.IMAGENET)
    with torch.no_grad():
        expected = toy.vae.encode((pixels / 255 - mean) / deviation).latent_dist.mode() * toy.vae.config.scaling_factor
    assert torch.allclose(other, expected, atol=1e-5)


def test_early_timesteps_are_drawn() -> None:
    weights = mace.density("early")
    assert 0.98 < float(weights[300]) < 1
    assert float(weights[[0, 100, 600]].max()) < 0.01
    assert bool((mace.density("uniform") == 1).all())


# --- several, and refusals -----------------------------------------------------------------------------------------------


def test_a_joint_concept_has_adapters_for_each_part(on_toy: BackboneInfo, box: ConceptSpec, monkeypatch: Any) -> None:
    learned, learn = [], mace.learn
    monkeypatch.setattr(mace, "learn", lambda *given: learned.append(given[3]) or learn(*given))
    both = joint([box, tin()], "tiny")
    assert mace.kept_texts(both, "tiny", options()) == ["a jar"]  # and not its neighbour that the other one forgets
    card = mace.Mace.erase(on_toy, both, options(), quiet).card
    assert len(learned) == 2
    assert card["images"] == [4, 4]
    assert set(card["phrases"]) == {"a box", "a crate", "a tin"}


def test_a_substitute_that_another_part_forgets_is_refused(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    todo = [mace.plan(box, "tiny", options(substitute="a tin")), mace.plan(tin(), "tiny", options())]
    with pytest.raises(UsageError, match="which another concept forgets"):
        mace._check_contradictions(todo)


def test_needs_anchors_or_a_substitute(on_toy: BackboneInfo, without_anchors: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="no anchor"):
        mace.Mace.erase(on_toy, without_anchors, options(), quiet)
    assert mace.Mace.erase(on_toy, without_anchors, options(substitute="a cup"), quiet).tensors["unet"]


def test_only_keys_and_values_change(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    tensors = mace.Mace.erase(on_toy, box, options(), quiet).tensors["unet"]
    assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in tensors)


def test_sdxl_changes_for_the_concept_and_not_for_what_is_kept() -> None:
    """Where the closed form promises it: adapters that learn nothing, and a kept text that weighs more than all else."""
    pipeline = tiny("sdxl")
    for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
        for value in encoder.parameters():  # the tiny one's states are so large that rounding to float32 shows
            value.data.mul_(0.1 if value.ndim > 1 else 1.0)
    words = ConceptWords(names=("box",), words=("box",), counterparts={"box": "cup"}, neighbours=("tin",), protocol="none")
    concept = ConceptSpec(name="box", title="boxes", kind="content", sensitive=False, families={"sdxl": words})
    info = BackboneInfo("toy", "sdxl", "sha", pipeline)
    chosen = options(contexts="{}", lr=1e-12, lam=0.1, keep=1e6)
    tensors = mace.Mace.erase(info, concept, chosen, quiet).tensors["unet"]
    draws, x = denoising.Denoising(pipeline, 3, 5.0), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    edited = denoising.trainable(pipeline.unet)
    edited.load_state_dict(tensors, strict=False)

    def moved(text: str) -> float:
        prompts = denoising.encoded(pipeline, [text])
        with torch.no_grad():
            before, after = (draws.predict(unet, x, torch.tensor(500), prompts) for unet in (pipeline.unet, edited))
        return float((before - after).abs().max())

    kept, gone = moved("tin"), moved("box")
    assert (kept < 1e-4, gone > 10 * kept, gone > 1e-4) == (True, True, True), (kept, gone)


def test_conditioning_rows_stay_together() -> None:
    prompts = Conditioning(torch.arange(12.0).view(3, 2, 2))
    same = torch.eye(3, dtype=torch.bool)
    drawn = mace.Images(torch.zeros(3, 1, 1, 1), prompts, same, same, torch.ones(3, 1, 1) > 0)
    assert torch.equal(mace.part_of(drawn, torch.tensor([2, 0])).prompts.embeds, prompts.embeds[[2, 0]])


def test_a_judge_is_asked_for_each_image(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="needs a judge"):
        mace.Mace.erase(replace(on_toy, judge=None), box, options(judged=True), quiet)
