"""SalUn: its mask, its two losses, and that what the mask leaves out stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import denoising, finetune, salun
from srbench.methods.base import BackboneInfo, quiet


def options(**changes: Any) -> salun.Options:
    quick = {"iterations": 3, "steps": 3, "images": 4, "batch": 2, "lr": 1e-3, "judged": False}
    return salun.Options(**(quick | changes))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_mask_is_the_largest_share_of_all_entries_together() -> None:
    gradients = [torch.tensor([[1.0, -8.0], [0.5, 3.0]]), torch.tensor([-4.0, 0.1])]
    found = salun.salient(gradients, 0.5)
    assert torch.equal(found[0], torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    assert torch.equal(found[1], torch.tensor([1.0, 0.0]))
    assert all(bool(mask.all()) for mask in salun.salient(gradients, 1.0))


def test_forgetting_pulls_the_phrase_to_its_anchor_and_moves_no_anchor(toy: Any) -> None:
    nets = finetune.copies(toy, "all", "salun")
    session = salun.Session(toy, nets, options())
    x, t = torch.randn(2, 4, 4, 4, generator=rng(1)), torch.tensor([300, 700])
    concept, anchor = (finetune.encode(toy, [text]).expand(2, -1, -1) for text in ("a box", "a cup"))
    with torch.no_grad():
        said, wanted = (toy.unet(x, t, encoder_hidden_states=each).sample.double() for each in (concept, anchor))
    found = session.forgetting(x, t, concept, anchor)
    assert float(found.detach()) == pytest.approx(float((said - wanted).square().mean()), rel=1e-5)
    assert float(session.forgetting(x, t, anchor, anchor).detach()) == pytest.approx(0, abs=1e-12)


def test_retaining_is_the_denoising_loss(toy: Any) -> None:
    session = salun.Session(toy, finetune.copies(toy, "all", "salun"), options())
    clean, said = torch.randn(2, 4, 4, 4, generator=rng(1)), finetune.encode(toy, ["a cup"]).expand(2, -1, -1)
    found = float(session.retaining(clean, said, rng(5)).detach())
    same = rng(5)
    t = torch.randint(1000, (2,), generator=same)
    noise = torch.randn(2, 4, 4, 4, generator=same)
    with torch.no_grad():
        x = denoising.added_noise(toy.scheduler, clean, noise, t)
        expected = (toy.unet(x, t, encoder_hidden_states=said).sample.double() - noise).square().mean()
    assert found == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_what_the_mask_leaves_out_stays_bit_for_bit(on_toy: BackboneInfo, box: ConceptSpec, keep: float) -> None:
    edit = salun.SalUn.erase(on_toy, box, options(keep=keep), quiet)
    before = dict(on_toy.pipeline.unet.named_parameters())
    moved = sum(int((value != before[name]).sum()) for name, value in edit.tensors["unet"].items())
    whole = sum(value.numel() for value in before.values())
    assert 0 < moved <= round(keep * whole)
    assert edit.card["masked_share"] == pytest.approx(keep, abs=1e-3)


def test_alpha_counts(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    """A weight of 0 and of 1 move the weights differently: the term has a graph."""
    one, other = (salun.SalUn.erase(on_toy, box, options(alpha=alpha, iterations=1), quiet).tensors["unet"] for alpha in (0, 1.0))
    assert any(not torch.equal(one[name], other[name]) for name in one.keys() & other.keys())


def test_a_judge_that_is_wanted_and_missing_is_refused(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="needs a judge"):
        salun.SalUn.erase(on_toy, box, options(judged=True), quiet)
