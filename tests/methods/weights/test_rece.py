"""RECE: the embedding it searches for is the paper's minimum, it goes on from UCE, and its result stands alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from srbench.backbones.checkpoint import Checkpoint, Passport, laid_over
from srbench.catalog import plugins
from srbench.catalog.specs import ConceptSpec
from srbench.engine.prepare import options_of
from srbench.errors import CellError, UsageError
from srbench.methods import finetune, rece, uce
from srbench.methods.base import BackboneInfo, Edit, quiet

PASSPORT = Passport("sha", "safetensors", "srbench", 1, 1, 1, 0.1)


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrices(seed: int) -> dict[str, torch.Tensor]:
    return {"k": random(seed, 5, 8), "v": random(seed + 1, 7, 8)}


def base_edit(on: BackboneInfo, concept: ConceptSpec) -> Edit:
    declared: Any = rece.METHOD["base"]
    return uce.Uce.erase(on, concept, uce.Options(**(plugins.preset(declared["preset"])[1] | declared["options"])), quiet)


def erase(on: BackboneInfo, concept: ConceptSpec, **changes: Any) -> Edit:
    """As the engine does it: UCE's weights laid over, the original ones handed along."""
    under = base_edit(on, concept)
    own = on.pipeline.unet.state_dict()
    original = {"unet": {name: own[name].clone() for name in under.tensors["unet"]}}
    with laid_over(on.pipeline, Checkpoint("uce-old", under.tensors, PASSPORT)):
        return rece.Rece.erase(replace(on, original=original), concept, rece.Options(**changes), quiet)


@pytest.mark.parametrize("lam", [0.1, 1e-3])
def test_search_is_the_least_squares_minimum(lam: float) -> None:
    """c' minimises sum |W' c' - W c|^2 + lam |c'|^2; numpy solves the stacked system."""
    edited, original, c = matrices(10), matrices(20), random(1, 3, 8)
    sides = np.concatenate([edited["k"].numpy(), edited["v"].numpy(), lam**0.5 * np.eye(8)])  # (5 + 7 + 8, 8)
    wanted = np.concatenate([original["k"].numpy() @ c.T.numpy(), original["v"].numpy() @ c.T.numpy(), np.zeros((8, 3))])
    expected = np.linalg.lstsq(sides, wanted, rcond=None)[0].T
    assert np.abs(rece.rediscovered(edited, original, c, lam).numpy() - expected).max() < 1e-6


def test_search_finds_the_concept_itself_where_nothing_was_erased() -> None:
    c = random(1, 3, 8)
    assert torch.allclose(rece.rediscovered(matrices(10), matrices(10), c, 1e-9), c, atol=1e-6)


def test_search_undoes_an_edit_that_can_be_undone() -> None:
    original, turn, c = matrices(10), torch.linalg.qr(random(3, 8, 8)).Q, random(1, 3, 8)
    found = rece.rediscovered({name: weight @ turn for name, weight in original.items()}, original, c, 1e-9)
    assert torch.allclose(found, c @ turn, atol=1e-6)  # W Q c' = W c for c' = Q^T c


def test_official_recipe() -> None:
    """scripts/nudity.sh with train.py's defaults, on UCE with erase 1 and preserve 1."""
    chosen, declared = rece.Options(**plugins.preset("rece")[1]), rece.METHOD["base"]
    assert (chosen.lam, chosen.epochs, chosen.edit_lam, chosen.erase_scale, chosen.preserve_scale) == (0.1, 3, 0.1, 1.0, 0.1)
    assert (chosen.tokens, chosen.guide, chosen.retain_empty, chosen.preserve) == ("all", " ", True, "none")
    assert declared == {"preset": "uce-old", "options": {}}
    under = uce.Options(**plugins.preset("uce-old")[1])
    assert (under.erase_scale, uce.Plan({}, [""]).preserve_scale(under.preserve_scale)) == (1.0, 1.0)


@pytest.mark.parametrize("kind", ["object", "style"])
def test_objects_and_styles_have_the_official_scripts_defaults_on_stable_diffusion(kind: str) -> None:
    """train_object.py and train_artists.py: regular_scale 1e-3, one epoch; other concepts train.py's."""
    chosen, _ = options_of("rece", (), "sd", kind)
    assert (chosen.lam, chosen.epochs, chosen.edit_lam) == (1e-3, 1, 0.1)
    content, _ = options_of("rece", (), "sd", "content")
    assert (content.lam, content.epochs) == (0.1, 3)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_rounds_are_the_official_ones(on_toy: BackboneInfo, box: ConceptSpec, epochs: int) -> None:
    """The chain UCE, (c', edit) x epochs, written out a second time: every row of every text, matrix by matrix, float64."""
    toy = on_toy.pipeline
    own = {name: value.double().numpy() for name, value in toy.unet.state_dict().items()}
    now = {name: value.double().numpy() for name, value in base_edit(on_toy, box).tensors["unet"].items()}
    with torch.no_grad():
        rows = {text: toy.encode_prompt(text, "cpu", 1, False)[0][0].double().numpy() for text in ("a box", "a crate", " ")}
    guide = kept = rows[" "]  # (T, D): the empty prompt, as a guide and as what is kept
    eye = np.eye(guide.shape[1])
    for _ in range(epochs):
        inverse = np.linalg.inv(0.1 * eye + sum(w.T @ w for w in now.values()))
        cross = sum(now[name].T @ own[name] for name in now)
        found = [(inverse @ cross @ rows[text].T).T for text in ("a box", "a crate")]  # (T, D) each
        right = 0.1 * eye + sum(c.T @ c for c in found) + 0.1 * kept.T @ kept
        left = {name: 0.1 * w + sum((guide @ w.T).T @ c for c in found) + 0.1 * w @ kept.T @ kept for name, w in now.items()}
        now = {name: value @ np.linalg.inv(right) for name, value in left.items()}
    tensors = erase(on_toy, box, epochs=epochs).tensors["unet"]
    assert tensors.keys() == now.keys()
    for name, value in tensors.items():
        assert np.abs(value.numpy() - now[name]).max() < 1e-5 * np.abs(now[name]).max()


def test_result_stands_alone(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    """It holds every key and value matrix, as values and not as a difference to UCE's."""
    under, final = base_edit(on_toy, box).tensors["unet"], erase(on_toy, box).tensors["unet"]
    assert final.keys() == under.keys() == finetune.keys_and_values(on_toy.pipeline.unet).keys()
    assert all(not torch.equal(final[name], under[name]) for name in final)


def test_result_holds_what_only_the_base_changed(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    """A matrix that the base made zero stays zero in every round, and is part of the result all the same."""
    own = on_toy.pipeline.unet.state_dict()
    name = next(name for name in own if name.endswith("attn2.to_k.weight"))
    original = {"unet": {name: own[name].clone()}}
    own[name].zero_()
    tensors = rece.Rece.erase(replace(on_toy, original=original), box, rece.Options(), quiet).tensors["unet"]
    assert name in tensors
    assert not tensors[name].any()


def test_round_takes_the_found_embedding_away(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    """What the found embedding makes of the keys and values moves from the concept to the guide."""
    toy, chosen = on_toy.pipeline, rece.Options(epochs=1, erase_scale=10.0)
    original = finetune.keys_and_values(toy.unet)
    under = {name: value.double() for name, value in base_edit(on_toy, box).tensors["unet"].items()}
    final = erase(on_toy, box, epochs=1, erase_scale=10.0).tensors["unet"]
    found = uce.directions(toy, uce.plan(box, "tiny", chosen), chosen.tokens)
    again = rece.rediscovered(under, original, found.erased, chosen.lam)

    def far(weights: dict[str, torch.Tensor]) -> float:
        return sum(float((weights[name].double() @ again.T - under[name] @ found.guides.T).norm()) for name in under)

    assert far(final) < 0.5 * far(under)


def test_needs_its_base(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="begins from UCE's weights"):
        rece.Rece.erase(on_toy, box, rece.Options(), quiet)


def test_rounds_that_change_nothing_are_refused(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    """Though the base alone differs from the backbone."""
    with pytest.raises(CellError, match="nothing changed"):
        erase(on_toy, box, edit_lam=1e15)


def test_works_without_anchors(on_toy: BackboneInfo, without_anchors: ConceptSpec) -> None:
    assert erase(on_toy, without_anchors).tensors["unet"]
