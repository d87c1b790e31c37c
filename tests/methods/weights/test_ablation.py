"""Concept Ablation: its loss and teacher, the anchors' images, and that it fails aloud."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from srbench.catalog import plugins
from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.errors import CellError, UsageError
from srbench.methods import ablation, finetune
from srbench.methods.base import BackboneInfo, quiet


def options(**changes: Any) -> ablation.Options:
    return ablation.Options(**({"iterations": 2, "steps": 3, "images": 4, "batch": 2} | changes))


def erase(on: BackboneInfo, concept: ConceptSpec, chosen: ablation.Options) -> dict[str, torch.Tensor]:
    return ablation.Ablation.erase(on, concept, chosen, quiet).tensors["unet"]


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def three() -> ConceptSpec:
    """Two words that share an anchor, and one with its own."""
    words = ConceptWords(
        names=("a box",), words=("box", "crate", "case"), counterparts={"box": "cup", "crate": "bowl", "case": "cup"},
        protocol="none",
    )
    return ConceptSpec(name="box", title="boxes", kind="object", sensitive=False, families={"tiny": words})


def gathered(toy: Any, chosen: ablation.Options, concept: ConceptSpec, seed: int = 0) -> ablation.Anchors:
    pairs = finetune.anchored(concept, "tiny")
    return ablation.gather(toy, toy.unet, pairs, chosen, torch.Generator().manual_seed(seed), quiet)


# --- loss ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchor_from", ["edited", "frozen"])
def test_loss_is_the_papers(toy: Any, anchor_from: str) -> None:
    """The teacher reads the anchor, the edited model the phrase, and no gradient goes through the teacher."""
    nets = finetune.copies(toy, "kv", "ablation")
    for value in nets.parameters.values():
        value.data.mul_(1.5)
    x, t = random(0, 2, 4, 4, 4), torch.tensor([100, 700])
    phrases, anchors = finetune.encode(toy, ["a box", "a crate"]), finetune.encode(toy, ["a cup", "a bowl"])
    teacher = getattr(nets, anchor_from)
    with torch.no_grad():
        wanted = teacher(x, t, encoder_hidden_states=anchors).sample
    expected = (nets.edited(x, t, encoder_hidden_states=phrases).sample - wanted).square().mean()
    found = ablation.loss(nets, teacher, x, t, anchors, phrases)
    assert torch.allclose(found, expected, rtol=1e-5)
    values = list(nets.parameters.values())
    for one, other in zip(torch.autograd.grad(found, values), torch.autograd.grad(expected, values), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("anchor_from", ["edited", "frozen"])
def test_loss_goes_down(on_toy: BackboneInfo, box: ConceptSpec, anchor_from: str) -> None:
    """On latents and timesteps that training did not see, against the teacher that it learned from."""
    toy = on_toy.pipeline
    phrases, anchors = finetune.encode(toy, ["a box", "a crate"]), finetune.encode(toy, ["a cup", "a bowl"])

    def measured(new: dict[str, torch.Tensor]) -> float:
        nets = finetune.copies(toy, "kv", "ablation")
        nets.edited.load_state_dict(new, strict=False)  # changed tensors only; the battery checks that every name fits
        teacher, total = getattr(nets, anchor_from), 0.0
        for seed in range(12):
            x, t = random(seed, 2, 4, 4, 4), torch.tensor([80 * seed + 20, 80 * seed + 60])
            total += float(ablation.loss(nets, teacher, x, t, anchors, phrases).detach())
        return total

    learned = erase(on_toy, box, options(lr=3e-3, iterations=60, batch=4, anchor_from=anchor_from))
    assert measured(learned) < 0.6 * measured({})


def test_teacher_follows_the_option(on_toy: BackboneInfo, box: ConceptSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, loss = [], ablation.loss

    def spied(nets: Any, teacher: Any, *rest: Any) -> torch.Tensor:
        asked.append((teacher is nets.edited, teacher is nets.frozen))
        return loss(nets, teacher, *rest)

    monkeypatch.setattr(ablation, "loss", spied)
    erase(on_toy, box, options())
    erase(on_toy, box, options(anchor_from="frozen"))
    assert asked == [(True, False)] * 2 + [(False, True)] * 2


def test_a_phrase_and_its_anchor_stand_in_the_same_context(on_toy: BackboneInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, gather = [], ablation.gather

    def spied(pipeline: Any, unet: Any, pairs: Any, *rest: Any) -> Any:
        asked.append(dict(pairs))
        return gather(pipeline, unet, pairs, *rest)

    monkeypatch.setattr(ablation, "gather", spied)
    card = ablation.Ablation.erase(on_toy, three(), options(contexts="{}; {} red", images=4), quiet).card
    assert asked == [{
        "a box": "a cup", "a box red": "a cup red", "a crate": "a bowl", "a crate red": "a bowl red", "a case": "a cup",
        "a case red": "a cup red",
    }]  # fmt: skip
    assert (card["names"], card["prompts"]) == (3, 6)


# --- images of the anchors -----------------------------------------------------------------------------------------------


def test_images_are_what_the_pipeline_draws_for_the_anchors(toy: Any) -> None:
    found = gathered(toy, options(images=3, guidance=6.0), three(), seed=5)
    assert found.texts == ["a cup", "a bowl"]
    noise = torch.randn((3, 4, 4, 4), generator=torch.Generator().manual_seed(5))
    expected = toy(
        ["a cup", "a bowl", "a cup"], latents=noise, num_inference_steps=3, guidance_scale=6.0, height=8, width=8,
        output_type="latent",
    ).images
    assert torch.allclose(found.latents, expected, atol=1e-4)


def test_batches_are_spread_over_the_anchors(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image i shows anchor i % A across batches of sampling, too."""
    monkeypatch.setattr(ablation, "SAMPLING_BATCH", 3)
    seen: list[torch.Tensor] = []
    clean = finetune.Sampler.clean

    def spied(self: Any, unet: Any, prompts: torch.Tensor, rng: Any) -> torch.Tensor:
        seen.append(prompts)
        return clean(self, unet, prompts, rng)

    monkeypatch.setattr(finetune.Sampler, "clean", spied)
    found = gathered(toy, options(images=7), three())
    assert [len(prompts) for prompts in seen] == [3, 3, 1]
    assert torch.equal(torch.cat(seen), found.anchors[torch.arange(7) % 2])
    assert len(found.latents) == 7


def test_draws_hold_a_phrase_of_their_anchor(toy: Any) -> None:
    found = gathered(toy, options(images=4), three())
    latents, anchors, phrases = found.draw(64, torch.Generator().manual_seed(0))
    known = {text: finetune.encode(toy, [text])[0] for text in ("a cup", "a bowl", "a box", "a crate", "a case")}

    def text(states: torch.Tensor) -> str:
        return min(known, key=lambda name: float((known[name] - states).abs().max()))

    triples = {
        (int((found.latents - x).abs().amax((1, 2, 3)).argmin()) % 2, text(anchor), text(phrase))
        for x, anchor, phrase in zip(latents, anchors, phrases, strict=True)
    }
    assert triples == {(0, "a cup", "a box"), (0, "a cup", "a case"), (1, "a bowl", "a crate")}


def test_noise_is_the_schedulers(on_toy: BackboneInfo, box: ConceptSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """x_t is an anchor's image under the backbone's own schedule."""
    images: list[torch.Tensor] = []
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    gather, loss = ablation.gather, ablation.loss

    def kept(*args: Any) -> ablation.Anchors:
        found = gather(*args)
        images.append(found.latents)
        return found

    def spied(nets: Any, teacher: Any, x: torch.Tensor, t: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append((x, t))
        return loss(nets, teacher, x, t, *rest)

    monkeypatch.setattr(ablation, "gather", kept)
    monkeypatch.setattr(ablation, "loss", spied)
    erase(on_toy, box, options(iterations=8, batch=4))
    kept_share = on_toy.pipeline.scheduler.alphas_cumprod
    for x, t in seen:
        signal, size = kept_share[t].sqrt().view(-1, 1, 1, 1), (1 - kept_share[t]).sqrt().view(-1, 1, 1, 1)
        noise = (x[:, None] - signal[:, None] * images[0][None]) / size[:, None]  # (B, images, C, h, w) if it were that image
        best = noise.square().mean((2, 3, 4)).amin(1)
        assert bool(((best > 0.3) & (best < 2.5)).all())
    times = torch.cat([t for _, t in seen])
    assert times.min() < 300
    assert times.max() > 700


# --- recipe and refusals -------------------------------------------------------------------------------------------------


def test_official_recipe() -> None:
    """facts 4.13: styles and objects; the rate is scaled by the batch."""
    chosen = ablation.Options(**plugins.preset("ablation")[1])
    assert (chosen.parameters, chosen.batch, chosen.iterations, chosen.images) == ("kv", 8, 100, 1000)
    assert chosen.lr == pytest.approx(2e-6 * chosen.batch)
    assert chosen.anchor_from == "edited"


@pytest.mark.parametrize("rule", ["kv", "x", "all"])
def test_trains_its_own_weights(on_toy: BackboneInfo, box: ConceptSpec, rule: str) -> None:
    names, every = set(erase(on_toy, box, options(parameters=rule))), set(on_toy.pipeline.unet.state_dict())
    cross = {name for name in every if ".attn2." in name}
    expected = {"kv": {name for name in cross if "to_k" in name or "to_v" in name}, "x": cross, "all": every}[rule]
    assert names <= expected
    assert len(names) > 0.7 * len(expected)


def test_needs_anchors(on_toy: BackboneInfo, without_anchors: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="no anchor"):
        erase(on_toy, without_anchors, options())


def test_needs_an_image_an_anchor(on_toy: BackboneInfo) -> None:
    with pytest.raises(UsageError, match="1 images for 2 anchors"):
        erase(on_toy, three(), options(images=1))


def test_loss_that_is_not_finite_fails_at_once(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    with pytest.raises(CellError, match="not finite"):
        erase(on_toy, box, options(lr=1e30, iterations=10))


def test_edit_that_changes_nothing_is_refused(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    with pytest.raises(CellError, match="nothing changed"):
        erase(on_toy, box, options(lr=1e-30))


def test_seed_decides(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    first, second = erase(on_toy, box, options(seed=0)), erase(on_toy, box, options(seed=1))
    assert any(not torch.equal(first[name], second[name]) for name in first)
