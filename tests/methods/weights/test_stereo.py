"""STEREO: its target, what each stage reads, its embeddings, and that the second stage begins from the original weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import denoising, finetune, stereo
from srbench.methods.base import BackboneInfo, quiet


def options(**changes: Any) -> stereo.Options:
    quick = {
        "rounds": 2, "search_iterations": 2, "search_lr": 1e-3, "inversion_iterations": 2, "iterations": 3, "lr": 1e-3,
        "steps": 3, "images": 2, "batch": 2, "judged": False, "sentence": "a",
    }  # fmt: skip
    return stereo.Options(**(quick | changes))


def session(info: BackboneInfo, concept: ConceptSpec, **changes: Any) -> stereo.Session:
    given = options(**changes)
    return stereo.Session(info, stereo.prompts_of(info.pipeline, concept, info.family, given), given, quiet)


def test_the_target_leads_to_the_anchor_and_away_from_every_adversary() -> None:
    empty, anchor, bad = (torch.randn(shape).double() for shape in ((2, 4, 2, 2), (2, 4, 2, 2), (3, 2, 4, 2, 2)))
    found = stereo.target(empty, anchor, bad, 2.0)
    expected = empty + 2.0 * ((anchor - empty) - sum((bad[i] - empty for i in range(3)), torch.zeros_like(empty)) / 3)
    assert torch.allclose(found, expected, atol=1e-12)
    assert torch.allclose(stereo.target(empty, anchor, anchor[None], 2.0), empty, atol=1e-12)


def test_the_second_stage_wants_the_frozen_models_predictions(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    own, unet = session(on_toy, box), on_toy.pipeline.unet
    x, t = torch.randn(2, 4, 4, 4), torch.tensor(400)
    which, adversary = torch.tensor([0, 1]), finetune.encode(on_toy.pipeline, ["a jar"])
    found = own.wanted(unet, x, t, which, [adversary])
    with torch.no_grad():
        for i, place in enumerate(which.tolist()):
            sides = (own.empty, own.prompts.anchors[place][None], own.prompts.concepts[place][None], adversary)
            e0, ea, ec, ei = (unet(x[i : i + 1], t, encoder_hidden_states=each).sample[0] for each in sides)
            assert torch.allclose(found[i], e0 + 2.0 * ((ea - e0) - ((ec - e0) + (ei - e0)) / 2), atol=1e-5)


def test_prompts_and_embeddings_are_read_in_turn(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    own = session(on_toy, box, batch=200)
    mark = torch.full_like(own.prompts.concepts[:1], 7.0)
    which, read = own.picked([mark, mark])
    share = float((read == 7.0).all(-1).all(-1).float().mean())
    assert 0.5 < share < 0.8  # two of three
    plain, alone = own.picked([])
    assert torch.equal(alone, own.prompts.concepts[plain])
    assert len(which) == 200


def test_an_embedding_lowers_the_error_on_the_images(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    """Of 400 draws that training did not see, beside the vector that it began from."""
    unet, latents = on_toy.pipeline.unet, torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(1))

    def learned(rate: float) -> torch.Tensor:
        own = session(on_toy, box, inversion_iterations=80, inversion_lr=rate, inversion_batch=8)
        found = own.found(unet, latents, "inversion")
        assert found.shape == own.empty.shape
        assert not found.requires_grad
        return found

    def error(states: torch.Tensor) -> float:
        rng = torch.Generator().manual_seed(2)
        t = torch.randint(1000, (400,), generator=rng)
        noise = torch.randn(400, 4, 4, 4, generator=rng)
        x = denoising.added_noise(on_toy.pipeline.scheduler, latents.repeat(100, 1, 1, 1), noise, t)
        with torch.no_grad():
            return float((unet(x, t, encoder_hidden_states=states.expand(400, -1, -1)).sample - noise).square().mean())

    assert error(learned(0.05)) < error(learned(1e-12))
    assert all(value.grad is None for value in unet.parameters())


def test_embeddings_come_from_the_cache_and_give_the_same_weights(on_toy: BackboneInfo, box: ConceptSpec, tmp_path: Path) -> None:
    cached = replace(on_toy, cache=tmp_path)
    first = stereo.Stereo.erase(cached, box, options(), quiet)
    phases: list[str] = []
    again = stereo.Stereo.erase(cached, box, options(), lambda phase, *_: phases.append(phase))
    assert not any("round" in phase for phase in phases)
    assert all(torch.equal(value, again.tensors["unet"][name]) for name, value in first.tensors["unet"].items())
    assert first.card["embeddings"] == 2
    other = stereo.Stereo.erase(cached, box, options(rounds=1), quiet)
    assert other.card["embeddings_sha256"] != first.card["embeddings_sha256"]


def test_only_cross_attention_changes(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    """The first stage moves everything else on a copy, and nothing of it is left."""
    edit = stereo.Stereo.erase(on_toy, box, options(), quiet)
    assert edit.tensors["unet"]
    assert all(".attn2." in name for name in edit.tensors["unet"])


def test_a_sensitive_concept_is_refused(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="sensitive"):
        stereo.Stereo.erase(on_toy, box.model_copy(update={"sensitive": True}), options(), quiet)
