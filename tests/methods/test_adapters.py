"""Low-rank adapters: what they add, that nothing of them is left, and that fused weights do the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from srbench.errors import UsageError
from srbench.methods import adapters
from srbench.testing.bench import Bench

T = torch.tensor(300)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_adapters(unet: nn.Module, rank: int = 2, seed: int = 0) -> dict[str, adapters.Adapter]:
    own = adapters.made(adapters.transformer_layers(unet), rank, 1.0, "kaiming", rng(seed))
    for each in own.values():
        each.up.data = torch.randn(each.up.shape, generator=rng(seed + 1)) * 0.1
    return own


@torch.no_grad()
def predicted(bench: Bench) -> torch.Tensor:
    x = torch.randn(2, 4, 4, 4, generator=rng(5))
    found: torch.Tensor = bench.pipeline.unet(x, T, encoder_hidden_states=bench.embeddings(["a box", "cd"])).sample
    return found


@pytest.mark.parametrize("layer", [nn.Linear(6, 5), nn.Conv2d(6, 5, 3, stride=2, padding=1), nn.Conv2d(6, 5, 1)])
def test_an_adapter_is_the_layer_with_w_plus_s_b_a(layer: Any) -> None:
    """Against the layer with the sum in its weight, float64."""
    layer = layer.double()
    own = adapters.made({"layer": layer}, 3, 6.0, "gaussian", rng())["layer"]
    own = adapters.Adapter(own.down.detach().double(), torch.randn(5, 3, generator=rng(1)).double(), own.scale)
    assert own.scale == 2.0
    x = torch.randn(2, *((6,) if isinstance(layer, nn.Linear) else (6, 7, 7)), generator=rng(2)).double()
    with adapters.attached(nn.ModuleDict({"layer": layer}), {"layer": own}):
        found = layer(x)
    expected = 2.0 * (own.up @ own.down.flatten(1)).view_as(layer.weight)
    layer.weight.data += expected
    assert torch.allclose(found, layer(x), atol=1e-10)
    assert torch.allclose(own.delta(), expected, atol=1e-12)


def test_adapters_begin_as_nothing(bench: Bench) -> None:
    """The frozen output, bit for bit."""
    before, own = predicted(bench), adapters.made(adapters.transformer_layers(bench.pipeline.unet), 1, 1.0, "kaiming", rng())
    with adapters.attached(bench.pipeline.unet, own):
        assert torch.equal(predicted(bench), before)


def test_attached_is_fused(bench: Bench) -> None:
    unet, own = bench.pipeline.unet, random_adapters(bench.pipeline.unet)
    with adapters.attached(unet, own):
        hooked = predicted(bench)
    before, after = adapters.fused(unet, own)
    state = unet.state_dict()
    for name, value in after.items():
        state[name].copy_(value)
    try:
        assert torch.allclose(predicted(bench), hooked, atol=1e-4)
    finally:
        for name, value in before.items():
            state[name].copy_(value)
    assert not torch.allclose(predicted(bench), hooked, atol=1e-4)


def test_strength_is_each_images_own(bench: Bench) -> None:
    unet, own, plain = bench.pipeline.unet, random_adapters(bench.pipeline.unet), predicted(bench)
    with adapters.attached(unet, own):
        whole = predicted(bench)
    with adapters.attached(unet, own, lambda x: torch.tensor([0.0, 1.0])):
        found = predicted(bench)
    assert torch.allclose(found[0], plain[0], atol=1e-6)
    assert torch.allclose(found[1], whole[1], atol=1e-6)


def test_two_sets_add_up(bench: Bench) -> None:
    one, other = random_adapters(bench.pipeline.unet, seed=0), random_adapters(bench.pipeline.unet, seed=9)
    both = adapters.deltas(one, other)
    for path in one:
        assert torch.allclose(both[f"{path}.weight"], one[path].delta() + other[path].delta())


def test_nothing_is_left_after_an_error(bench: Bench) -> None:
    before, own = bench.hooks(), random_adapters(bench.pipeline.unet)
    with adapters.attached(bench.pipeline.unet, own):
        assert bench.hooks() != before
    with pytest.raises(KeyboardInterrupt), adapters.attached(bench.pipeline.unet, own):
        raise KeyboardInterrupt
    assert bench.hooks() == before


def test_files_hold_what_was_learned(bench: Bench) -> None:
    own = random_adapters(bench.pipeline.unet)
    again = adapters.unpacked(adapters.packed(own), 1.0)
    assert again.keys() == own.keys()
    for path, each in own.items():
        assert torch.equal(again[path].delta(), each.delta())


def test_layers_are_those_that_are_named(bench: Bench) -> None:
    unet = bench.pipeline.unet
    assert all(".attn1." in path for path in adapters.attention_layers(unet, "self"))
    both = adapters.attention_layers(unet, "all")
    assert {path.split(".attn")[1][0] for path in both} == {"1", "2"}
    assert all(path.endswith((".attn2.to_k", ".attn2.to_v")) for path in adapters.keys_and_values(unet))
    inside = set(adapters.transformer_layers(unet))
    assert {path.rsplit(".", 1)[1] for path in inside} >= {"proj_in", "proj_out", "to_q", "to_k", "to_v"}
    assert not any("resnets" in path for path in inside)


def test_a_network_without_such_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="no layers"):
        adapters.keys_and_values(nn.ModuleDict({"x": nn.Linear(2, 2)}))
