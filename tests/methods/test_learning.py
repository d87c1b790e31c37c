"""The training loop: its gradients are its own, cleared and masked; and results are kept by content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from srbench.errors import CellError, Unmade
from srbench.methods import learning
from srbench.methods.base import quiet
from srbench.testing.bench import Bench

LONG = "f" * 64


def test_steps_are_adams() -> None:
    """Each on its own gradient: against torch's optimiser, and its gradients cleared."""
    ours, theirs = (torch.tensor([1.0, -2.0], requires_grad=True) for _ in range(2))
    learning.train([ours], lambda done: ours.square().sum(), learning.Recipe(0.1, 5), quiet)
    optimiser = torch.optim.Adam([theirs], lr=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        theirs.square().sum().backward()
        optimiser.step()
    assert torch.allclose(ours, theirs)
    assert ours.grad is None


def test_nothing_else_gets_a_gradient() -> None:
    own, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    learning.train([own], lambda done: (own * other).sum(), learning.Recipe(0.1, 2), quiet)
    assert other.grad is None
    assert torch.equal(other, torch.ones(2))


def test_masked_entries_do_not_move() -> None:
    own = torch.ones(4, requires_grad=True)
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0])
    learning.train([own], lambda done: own.square().sum(), learning.Recipe(0.1, 3), quiet, mask=[mask])
    assert (own.detach() == 1).tolist() == [False, True, False, True]


def test_the_rate_warms_up_and_starts_again() -> None:
    recipe = learning.Recipe(1.0, 110, schedule="cosine", warmup=10, restarts=2)
    assert [recipe.factor(step) for step in (0, 5, 10, 60)] == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert recipe.factor(35) == pytest.approx(0.5)
    assert recipe.factor(59) < 0.01


def test_gradients_are_clipped_together() -> None:
    grads = learning.clipped([torch.tensor([3.0]), torch.tensor([4.0])], 1.0)
    assert [float(grad) for grad in grads] == pytest.approx([0.6, 0.8])
    assert float(learning.clipped([torch.tensor([0.3])], 1.0)[0]) == pytest.approx(0.3)


def test_a_loss_that_is_no_number_ends_at_once() -> None:
    own = torch.ones(1, requires_grad=True)
    with pytest.raises(CellError, match="iteration 1 is not finite"):
        learning.train([own], lambda done: own.sum() * float("nan"), learning.Recipe(0.1, 3), quiet)


# --- kept by content -----------------------------------------------------------------------------------------------------


class Maker:
    """Counts how often something is made."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> Mapping[str, torch.Tensor]:
        self.made += 1
        return {"x": torch.full((2,), float(self.made))}


def test_what_was_learned_is_not_learned_again(bench: Bench, tmp_path: Path) -> None:
    make, info = Maker(), bench.info(cache=tmp_path / "cache")
    first, second = (learning.kept(info, "thing", LONG, make) for _ in range(2))
    assert make.made == 1
    assert torch.equal(first.tensors["x"], second.tensors["x"])
    learning.kept(info, "thing", "e" * 64, make)
    assert make.made == 2


def test_a_damaged_file_is_replaced(bench: Bench, tmp_path: Path) -> None:
    make, info = Maker(), bench.info(cache=tmp_path)
    learning.kept(info, "thing", LONG, make)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:20])
    assert float(learning.kept(info, "thing", LONG, make).tensors["x"][0]) == 2
    assert float(learning.kept(info, "thing", LONG, make).tensors["x"][0]) == 2
    assert make.made == 2
    file.write_bytes(file.read_bytes()[:-1] + b"?")  # one byte of a number
    assert float(learning.kept(info, "thing", LONG, make).tensors["x"][0]) == 3


def test_a_forecast_makes_nothing(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Unmade, match="not learned yet"):
        learning.kept(bench.info(cache=tmp_path, make=False), "thing", LONG, Maker())


def test_what_may_not_be_kept_is_not_written(bench: Bench, tmp_path: Path) -> None:
    learning.kept(bench.info(cache=tmp_path), "thing", LONG, Maker(), cached=False)
    assert not list(tmp_path.iterdir())


def test_identity_is_of_backbone_checkpoint_and_parts(bench: Bench) -> None:
    info = bench.info()
    others = [replace(info, sha256="other"), replace(info, checkpoint_sha="other")]
    shas = {learning.identity(info, 1), learning.identity(info, 2), *(learning.identity(each, 1) for each in others)}
    assert len(shas) == 4
