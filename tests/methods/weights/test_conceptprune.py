"""ConceptPrune: the score, what it gathers and from where, and that it fails aloud."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.errors import CellError, UsageError
from srbench.methods import conceptprune, denoising
from srbench.methods.base import BackboneInfo, quiet
from srbench.testing.families import tiny


def options(**changes: Any) -> conceptprune.Options:
    return conceptprune.Options(**({"steps": 4, "first_steps": 2, "ratio": 0.25} | changes))


def erase(on: BackboneInfo, concept: ConceptSpec, chosen: conceptprune.Options) -> dict[str, torch.Tensor]:
    return conceptprune.ConceptPrune.erase(on, concept, chosen, quiet).tensors["unet"]


def test_skilled_weights_are_the_papers() -> None:
    """Row by row, against numbers worked out one at a time."""
    rng = torch.Generator().manual_seed(0)
    weight, target, other = torch.randn(5, 8, generator=rng).double(), torch.rand(8, generator=rng), torch.rand(8, generator=rng)
    found = conceptprune.skilled(weight, target.double(), other.double(), 0.25)
    for i in range(5):
        scores = [abs(float(weight[i, j])) * float(target[j]) for j in range(8)]
        top = sorted(range(8), key=lambda j: -scores[j])[:2]
        expected = [j in top and float(target[j]) > float(other[j]) for j in range(8)]
        assert found[i].tolist() == expected


def test_base_prompts_that_are_the_target_prune_nothing() -> None:
    weight, norms = torch.randn(4, 8), torch.rand(8)
    assert not conceptprune.skilled(weight, norms, norms, 1.0).any()


def test_norms_are_those_of_unit_tokens_of_the_conditional_half(toy: Any) -> None:
    """Against the layer's inputs, kept whole and summed in float64."""
    kept: list[torch.Tensor] = []
    path, layer = next(iter(conceptprune.layers_of(toy.unet).items()))
    draws, prompts = denoising.Denoising(toy, 4, 5.0), denoising.encoded(toy, ["a box", "a crate", "a cup"])
    handle = layer.register_forward_pre_hook(lambda module, args: kept.append(args[0].detach().clone()))
    found = conceptprune.measured(draws, toy.unet, prompts, options(), quiet, "")
    handle.remove()
    assert len(kept) == 2  # first_steps, not all four
    for step, value in enumerate(kept):
        tokens = value[3:].double()  # (3, N, F)
        unit = tokens / tokens.square().sum(-1, keepdim=True).sqrt()
        assert torch.allclose(found[path][step], unit.square().sum((0, 1)).sqrt(), atol=1e-6)


def test_weights_that_are_skilled_at_any_step_become_zero() -> None:
    torch.manual_seed(0)
    unet = nn.ModuleDict({"ff": nn.ModuleDict({"net": nn.ModuleList([nn.Identity(), nn.Identity(), nn.Linear(8, 4)])})})
    outer = nn.ModuleDict({"block": unet})
    weight = outer["block"]["ff"]["net"][2].weight.detach().double()
    target, other = torch.rand(2, 8).double(), torch.rand(2, 8).double()
    path = "block.ff.net.2"
    new = conceptprune.pruned(outer, {path: target}, {path: other}, 0.25)[f"{path}.weight"]
    either = conceptprune.skilled(weight, target[0], other[0], 0.25) | conceptprune.skilled(weight, target[1], other[1], 0.25)
    assert torch.equal(new == 0, either)
    assert torch.equal(new[~either], weight[~either])


def test_only_feed_forward_weights_change_and_only_to_zero(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    tensors, state = erase(on_toy, box, options()), on_toy.pipeline.unet.state_dict()
    assert tensors
    for name, value in tensors.items():
        assert ".ff.net.2.weight" in name
        moved = value != state[name]
        assert moved.any()
        assert not value[moved].any()


def test_no_skilled_weight_is_refused(on_toy: BackboneInfo, box: ConceptSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conceptprune, "_pairs", lambda *given: (["a box"], ["a box"], ["a box"]))
    with pytest.raises(CellError, match="nothing changed"):
        erase(on_toy, box, options())


def test_needs_anchors(on_toy: BackboneInfo, without_anchors: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="no anchor"):
        erase(on_toy, without_anchors, options())


def test_needs_feed_forward_layers() -> None:
    with pytest.raises(UsageError, match="no feed-forward layers"):
        conceptprune.layers_of(nn.ModuleDict({"attn2": nn.Linear(2, 2)}))


def test_sdxl_predicts_something_else_for_the_concept() -> None:
    pipeline = tiny("sdxl")
    words = ConceptWords(names=("box",), words=("box",), counterparts={"box": "cup"}, protocol="none")
    concept = ConceptSpec(name="box", title="boxes", kind="content", sensitive=False, families={"sdxl": words})
    tensors = erase(BackboneInfo("toy", "sdxl", "sha", pipeline), concept, options(ratio=0.5))
    edited = denoising.trainable(pipeline.unet)
    edited.load_state_dict(tensors, strict=False)
    draws, x = denoising.Denoising(pipeline, 3, 5.0), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prompts = denoising.encoded(pipeline, ["box"])
    with torch.no_grad():
        before, after = (draws.predict(unet, x, torch.tensor(500), prompts) for unet in (pipeline.unet, edited))
    assert (before - after).abs().max() > 1e-3
