"""RACE: its adversary comes nearer to the concept within its bounds, and ESD is what is left without it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from srbench.catalog.specs import ConceptSpec
from srbench.methods import esd, finetune, race
from srbench.methods.base import BackboneInfo, quiet


def options(**changes: Any) -> race.Options:
    quick = {"iterations": 3, "steps": 3, "batch": 2, "lr": 1e-3}
    return race.Options(**(quick | changes))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def nets(toy: Any) -> finetune.Copies:
    """A frozen U-Net and one that no longer predicts what it does."""
    made = finetune.copies(toy, "x", "race")
    with torch.no_grad():
        for value in made.parameters.values():
            value.mul_(1.4)
    return made


def test_the_adversary_lowers_its_own_loss_within_its_bounds(nets: finetune.Copies, toy: Any) -> None:
    x, t, prompts = torch.randn(2, 4, 4, 4, generator=rng(1)), torch.tensor(400), finetune.encode(toy, ["a box", "a bin"])
    seen: list[float] = []
    given = options(attack_steps=12, epsilon=0.5, attack_step=0.05)
    moved = race.moved(nets, x, t, prompts, given, rng(), seen)
    assert len(seen) == 12
    assert seen[-1] < seen[0]
    away = (moved - prompts).abs()
    assert 0 < float(away.max()) <= 0.5 + 1e-6
    assert not moved.requires_grad


def test_two_attacks_from_one_seed_are_equal_and_leave_no_gradient(nets: finetune.Copies, toy: Any) -> None:
    x, t, prompts = torch.randn(1, 4, 4, 4, generator=rng(1)), torch.tensor(400), finetune.encode(toy, ["a box"])
    first, again = (race.moved(nets, x, t, prompts, options(), rng()) for _ in range(2))
    assert torch.equal(first, again)
    assert all(value.grad is None for value in nets.parameters.values())


def test_without_an_adversary_it_is_esd(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    plain = esd.Esd.erase(on_toy, box, esd.Options(iterations=3, steps=3, batch=2, lr=1e-3), quiet)
    none = race.Race.erase(on_toy, box, options(attack_steps=0), quiet)
    attacked = race.Race.erase(on_toy, box, options(), quiet)
    for name, value in plain.tensors["unet"].items():
        assert torch.equal(value, none.tensors["unet"][name])
    assert any(not torch.equal(value, attacked.tensors["unet"][name]) for name, value in plain.tensors["unet"].items())


def test_the_target_is_of_the_prompt_that_was_not_moved(nets: finetune.Copies, toy: Any) -> None:
    x, t = torch.randn(1, 4, 4, 4, generator=rng(1)), torch.tensor(400)
    prompt, empty = finetune.encode(toy, ["a box"]), finetune.encode(toy, [""])
    moved = prompt + 0.1
    found = float(esd.loss(nets, x, t, prompt, prompt, empty, 1.0, moved).detach())
    with torch.no_grad():
        said, nothing = (toy.unet(x, t, encoder_hidden_states=each).sample.double() for each in (prompt, empty))
        edited = nets.edited(x, t, encoder_hidden_states=moved).sample.double()
    assert found == pytest.approx(float((edited - (said - 2 * (said - nothing))).square().mean()), rel=1e-5)
