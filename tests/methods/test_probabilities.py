"""Cross-attention's probabilities: the eager processor, that it goes away, maps, masks, and norms."""

from __future__ import annotations

import pytest
import torch

from srbench.errors import UsageError
from srbench.methods import probabilities
from srbench.testing.bench import Bench


@torch.no_grad()
def predicted(bench: Bench) -> torch.Tensor:
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(5))
    found: torch.Tensor = bench.pipeline.unet(x, 300, encoder_hidden_states=bench.embeddings(["a box", "cd"])).sample
    return found


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()


def test_recording_changes_nothing_and_goes_away(bench: Bench) -> None:
    before, processors = predicted(bench), dict(bench.pipeline.unet.attn_processors)
    with probabilities.recorded(bench.pipeline.unet) as recorders:
        assert torch.allclose(predicted(bench), before, atol=1e-5)
    for each in probabilities.last(recorders):
        assert each.shape[0] == 2
        assert each.shape[3] == 16  # tokens
        assert torch.allclose(each.sum(-1), torch.ones(()), atol=1e-5)
    after = bench.pipeline.unet.attn_processors
    assert all(after[name] is each for name, each in processors.items())


def test_processors_are_put_back_after_an_error(bench: Bench) -> None:
    processors = dict(bench.pipeline.unet.attn_processors)
    with pytest.raises(KeyboardInterrupt), probabilities.recorded(bench.pipeline.unet):
        raise KeyboardInterrupt
    assert all(bench.pipeline.unet.attn_processors[name] is each for name, each in processors.items())


def test_a_network_without_cross_attention_is_refused() -> None:
    with pytest.raises(UsageError, match="no cross-attention"), probabilities.recorded(torch.nn.Linear(2, 2)):
        pass


@pytest.mark.parametrize(("positions", "expected"), [(64, (8, 8)), (16, (4, 4)), (1, (1, 1))])
def test_sides_of_a_layer(positions: int, expected: tuple[int, int]) -> None:
    assert probabilities.side_of(positions, 8, 8) == expected


def test_sides_that_are_no_powers_of_two() -> None:
    assert probabilities.side_of(15, 9, 6) == (5, 3)
    with pytest.raises(UsageError, match="14 positions"):
        probabilities.side_of(14, 9, 6)


def test_a_map_is_of_the_finest_layers_and_the_words() -> None:
    fine, finer, coarse = random(2, 3, 16, 5).softmax(-1), random(2, 1, 16, 5).sigmoid(), random(2, 3, 4, 5)
    tokens = torch.tensor([[False, True, True, False, False], [False, False, False, True, False]])
    found = probabilities.word_map([fine, coarse, finer], tokens, 4, 4)
    first = torch.stack([(fine[0, :, :, k].mean(0) + finer[0, 0, :, k]) / 2 for k in (1, 2)]).mean(0)
    second = (fine[1, :, :, 3].mean(0) + finer[1, 0, :, 3]) / 2
    assert torch.allclose(found[0].flatten(), first / first.max(), atol=1e-6)
    assert torch.allclose(found[1].flatten(), second / second.max(), atol=1e-6)


def test_a_mask_keeps_what_is_small() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 1] = True
    assert probabilities.resized(mask, 4, 4, 4).tolist() == [[True, False, False, False]]
    assert torch.equal(probabilities.resized(mask, 16, 4, 4), mask.flatten(1))


def test_attention_at_words_and_places_is_a_norm_a_layer() -> None:
    """Number by number, in float64."""
    layers, tokens = [random(1, 2, 4, 3), random(1, 2, 1, 3)], torch.tensor([[False, True, True]])
    masks = [torch.tensor([[True, False, True, False]]), torch.tensor([[True]])]
    expected = 0.0
    for each, mask in zip(layers, masks, strict=True):
        places = [p for p in range(each.shape[2]) if mask[0, p]]
        expected += sum(float(each[0, h, p, k]) ** 2 for h in range(2) for p in places for k in (1, 2)) ** 0.5
    assert float(probabilities.attended(layers, tokens, masks)) == pytest.approx(expected, abs=1e-6)
    free = sum(float(each[..., 1:].square().sum()) ** 0.5 for each in layers)
    assert float(probabilities.attended(layers, tokens)) == pytest.approx(free, abs=1e-6)


def test_the_gradient_where_nothing_is_attended_to_is_a_number() -> None:
    layer = torch.zeros(1, 1, 4, 3, requires_grad=True)
    probabilities.attended([layer], torch.ones(1, 3, dtype=torch.bool)).backward()
    assert layer.grad is not None
    assert bool(layer.grad.isfinite().all())
