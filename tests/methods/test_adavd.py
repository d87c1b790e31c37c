"""AdaVD: what is taken out of values, at which places, and how strongly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from srbench.errors import UsageError
from srbench.methods import adavd
from srbench.methods.base import Active, Call
from srbench.methods.none import NoMethod
from srbench.testing.bench import Bench


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def options(**changes: Any) -> adavd.Options:
    return adavd.Options(**changes)


def test_one_phrase_is_projected_out_at_every_place_but_the_first() -> None:
    """Against the definition, head by head and place by place."""
    values, concept = drawn(2, 3, 4, 5), drawn(3, 4, 5, seed=1)  # (B, heads, T, d), (heads, T, d)
    found = adavd.without(values, adavd.orthogonal(concept[None]), concept[None], options(gate=False, weight=0.7))
    for b in range(2):
        for head in range(3):
            for place in range(4):
                v, v_t = values[b, head, place], concept[head, place]
                expected = v if place == 0 else v - 0.7 * (v @ v_t) / (v_t @ v_t) * v_t
                assert torch.allclose(found[b, head, place], expected, atol=1e-12)


def test_several_phrases_leave_what_is_orthogonal_to_all_of_them() -> None:
    concepts, values = drawn(3, 2, 4, 6, seed=2), drawn(1, 2, 4, 6, seed=3)
    left = adavd.without(values, adavd.orthogonal(concepts), concepts, options(gate=False))
    assert float((left * concepts).sum(-1)[:, :, 1:].abs().max()) < 1e-9
    basis = torch.linalg.qr(concepts[:, 1, 2].T).Q  # (6, 3): head 1, place 2
    v = values[0, 1, 2]
    assert torch.allclose(left[0, 1, 2], v - basis @ (basis.T @ v), atol=1e-9)


def test_a_phrase_that_says_the_same_adds_nothing() -> None:
    concept = drawn(1, 2, 4, 6)
    units = adavd.orthogonal(torch.cat([concept, 3 * concept]))
    assert torch.equal(units[1], torch.zeros_like(units[1]))
    assert torch.allclose(units.norm(dim=-1)[0], torch.ones(2, 4).double())


@pytest.mark.parametrize(("cosine", "strength"), [(1.0, 2 / (1 + np.exp(-7))), (0.93, 1.0), (0.5, 0.0)])
def test_the_gate_opens_with_the_cosine(cosine: float, strength: float) -> None:
    concept = torch.tensor([1.0, 0.0]).double().expand(1, 3, 2)
    value = torch.tensor([cosine, np.sqrt(1 - cosine**2)]).double().expand(1, 1, 3, 2)
    found = adavd.strengths(value, concept, options())
    assert isinstance(found, torch.Tensor)
    assert found.flatten().tolist() == pytest.approx([strength] * 3, abs=1e-6)
    plain = adavd.without(value, adavd.orthogonal(concept[None]), concept[None], options())
    assert float(plain[0, 0, 1, 0]) == pytest.approx(cosine * (1 - strength), abs=1e-6)


def test_weight_zero_is_the_untouched_model_bit_for_bit(bench: Bench) -> None:
    texts = ["a box", "zyw"]
    nothing, _ = bench.draw(bench.active(adavd.AdaVd, options(weight=0.0)), texts)
    plain, _ = bench.draw(bench.active(NoMethod, NoMethod.Options()), texts)
    assert np.array_equal(nothing, plain)


def test_the_concepts_own_prompt_loses_its_values_and_the_negative_half_none(bench: Bench) -> None:
    """Of the prompt that is the concept nothing is left but the start token; the negative half stays."""
    artifact = adavd.AdaVd.prepare(bench.info(), bench.concept, options(gate=False, prompts="names"))
    seen: dict[str, torch.Tensor] = {}
    unet = bench.pipeline.unet
    path, layer = next(iter(adavd.layers_of(unet).items()))
    states = bench.embeddings(["", "a box"])  # [negative; positive]
    with adavd.AdaVd.applied(bench.pipeline, artifact, options(gate=False), Call(1, 4, True, ("a box",))):
        handle = layer.to_v.register_forward_hook(lambda module, args, output: seen.update(after=output))
        with torch.no_grad():
            unet(torch.randn(2, 4, 4, 4), torch.tensor(10), encoder_hidden_states=states)
        handle.remove()
    with torch.no_grad():
        before = layer.to_v(states)
    assert torch.equal(seen["after"][0], before[0])
    assert torch.equal(seen["after"][1, 0], before[1, 0])
    assert float(seen["after"][1, 1:].abs().max()) < 1e-4 * float(before[1, 1:].abs().max())
    assert f"{path}.units" in artifact.payload


def test_a_second_image_is_the_first_one_again(bench: Bench) -> None:
    active: Active = bench.active(adavd.AdaVd, options())
    first, _ = bench.draw(active, ["a box"])
    again, traces = bench.draw(active, ["a box"])
    assert np.array_equal(first, again)
    assert 0 < traces[0]["taken"] <= 4  # an open gate takes a part out twice


def test_a_u_net_without_cross_attention_is_refused() -> None:
    with pytest.raises(UsageError, match="attn2"):
        adavd.layers_of(torch.nn.Linear(2, 2))
