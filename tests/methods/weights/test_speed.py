"""SPEED: its closed form, its null space, and the edit without either against UCE's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import finetune, speed, uce
from srbench.methods.base import BackboneInfo, quiet


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def options(**changes: Any) -> speed.Options:
    return speed.Options(**({"retain_texts": "jar; tin; a cup; a bowl", "augmented": 2} | changes))


W, C_T, C_A = drawn(5, 8), drawn(3, 8, seed=1), drawn(3, 8, seed=2)
TARGET, ANCHOR = C_T.T @ C_T / 3, C_A.T @ C_T / 3


def test_without_a_null_space_and_invariants_it_is_uces_edit_of_the_values() -> None:
    """Its ridge is UCE's lambda, and means of three pairs are sums with a scale of a third."""
    nothing = torch.zeros(8, 0).double()
    found = W + speed.change(W, TARGET, ANCHOR, torch.eye(8).double(), nothing, 0.7, 0.0)
    directions = uce.Directions(C_T, C_A, torch.zeros(0, 8).double())
    assert torch.allclose(found, W @ uce.mixing(directions, 0.7, 1 / 3, 1.0), atol=1e-10)
    assert torch.allclose(found - W, speed.unconstrained(W, TARGET, ANCHOR, 0.7), atol=1e-10)


def test_what_is_kept_does_not_move_and_what_is_told_does() -> None:
    kept = drawn(3, 8, seed=3)
    null, rank = speed.null_space(kept, 1e-9)
    assert rank == 5
    assert torch.allclose(null @ kept.T, torch.zeros(8, 3).double(), atol=1e-9)
    stays = drawn(8, 2, seed=4)
    moved = speed.change(W, TARGET, ANCHOR, null, stays, 0.3, 0.0)
    assert float((moved @ kept.T).abs().max()) < 1e-9
    assert float((moved @ stays).abs().max()) < 1e-8
    assert float((moved @ C_T.T).abs().max()) > 0.01


def test_it_is_the_minimum_of_its_objective() -> None:
    """||(W + D P) C_t - W C_a||^2 / 3 + s ||D P||^2 with nothing held: no nearby edit in the null space does better."""
    null, _ = speed.null_space(drawn(3, 8, seed=3), 1e-9)
    best = speed.change(W, TARGET, ANCHOR, null, torch.zeros(8, 0).double(), 0.3, 0.0)

    def objective(moved: torch.Tensor) -> float:
        return float(((W + moved) @ C_T.T - W @ C_A.T).square().sum() / 3 + 0.3 * moved.square().sum())

    assert torch.allclose(best @ null, best, atol=1e-9)
    for seed in range(20):
        assert objective(best) < objective(best + 0.01 * drawn(5, 8, seed=50 + seed) @ null)


def test_a_softer_hold_lets_the_invariants_move() -> None:
    null, stays = torch.eye(8).double(), drawn(8, 2, seed=4)
    sizes = [float((speed.change(W, TARGET, ANCHOR, null, stays, 0.3, soft) @ stays).norm()) for soft in (0.0, 0.1, 10.0)]
    assert sizes[0] < 1e-8 < sizes[1] < sizes[2]


def test_the_cut_is_on_the_mean_of_outer_products() -> None:
    kept = torch.diag(torch.tensor([2.0, 0.5, 0.1, 0.0])).double()  # moments 1, .0625, .0025, 0
    assert [speed.null_space(kept, cut)[1] for cut in (1e-9, 0.01, 0.1, 2.0)] == [1, 2, 3, 4]
    everything, rank = speed.null_space(torch.zeros(0, 4).double(), 0.1)
    assert rank == 4
    assert torch.equal(everything, torch.eye(4).double())


def test_the_filter_keeps_what_would_move_more_than_the_mean() -> None:
    moved = torch.eye(3).double()
    states = torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 6.0]]).double()
    assert torch.equal(speed.influenced(moved, states), states[2:])


def test_noise_lies_along_what_the_matrix_sees_least() -> None:
    weight = torch.diag(torch.tensor([3.0, 2.0, 0.01])).double()
    states = drawn(2, 3)
    found = speed.noisy(weight, states, 4, torch.Generator().manual_seed(0))
    assert found.shape == (8, 3)
    away = found - states.repeat_interleave(4, 0)
    assert torch.allclose(away[:, :2], torch.zeros(8, 2).double())
    assert len(set(away[:, 2].tolist())) == 8


def test_phrases_and_anchors_meet_at_their_last_tokens(toy: Any) -> None:
    target, anchor = speed.moments(toy, {"a box": "a cup"}, "last")
    own, other = (finetune.encode(toy, [text])[0].double() for text in ("a box", "a cup"))
    last = [uce.last_token(ids, toy.tokenizer.eos_token_id) for ids in finetune.token_ids(toy, ["a box", "a cup"])]
    c_t, c_a = own[last[0]], other[last[1]]
    assert torch.allclose(target, torch.outer(c_t, c_t))
    assert torch.allclose(anchor, torch.outer(c_a, c_t))


def test_only_values_change_and_the_card_says_how_much_room_there_was(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    edit = speed.Speed.erase(on_toy, box, options(), quiet)
    assert edit.tensors["unet"]
    assert all(name.endswith("attn2.to_v.weight") for name in edit.tensors["unet"])
    ranks, width = edit.card["null_space"], edit.card["width"]
    assert len(ranks) == len(edit.tensors["unet"])
    assert all(0 < rank <= width for rank in ranks)


def test_nothing_to_keep_is_refused(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    words = box.families["tiny"].model_copy(update={"neighbours": ()})
    bare = box.model_copy(update={"families": {"tiny": words}})
    with pytest.raises(UsageError, match="no text to keep"):
        speed.Speed.erase(on_toy, bare, options(retain_texts="a box"), quiet)
