"""DUO: its loss against numbers, what it prefers, what it preserves, and the pairs that a judge accepts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, UsageError
from srbench.methods import adapters, denoising, duo, pictures
from srbench.methods.base import BackboneInfo, quiet


def options(**changes: Any) -> duo.Options:
    quick = {"iterations": 2, "steps": 4, "images": 4, "batch": 2, "rank": 2, "judged": False}
    return duo.Options(**(quick | changes))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Given:
    """A judge that says what it is told, in turn."""

    identity = "given"

    def __init__(self, *said: bool) -> None:
        self.said, self.asked = list(said), 0

    def __call__(self, pixels: np.ndarray) -> list[bool]:
        self.asked += len(pixels)
        return [self.said.pop(0) if len(self.said) > 1 else self.said[0] for _ in pixels]


def case(toy: Any, which: str = "all", seed: int = 0) -> tuple[Any, ...]:
    """A loss's arguments, with adapters that do something."""
    draws = denoising.Denoising(toy, 4, 5.0)
    own = adapters.made(adapters.attention_layers(toy.unet, which), 2, 2.0, "gaussian", rng(seed))  # type: ignore[arg-type]  # a name
    for each in own.values():
        each.up.data = torch.randn(each.up.shape, generator=rng(seed + 1)) * 0.1
    plus, minus, noise, start = torch.randn(4, 2, 4, 4, 4, generator=rng(2))
    return draws, toy.unet, own, plus, minus, torch.tensor([100, 500, 300, 700]), noise, start


def test_preference_is_log_two_at_the_start_and_falls_as_the_twin_is_learned() -> None:
    same = torch.tensor([0.3], dtype=torch.float64)
    assert float(duo.preference(same, same, same, same, 500.0)) == pytest.approx(math.log(2), abs=1e-12)
    better = duo.preference(same - 0.001, same, same + 0.001, same, 500.0)
    assert float(better) == pytest.approx(math.log(1 + math.exp(-500 * 0.002)), abs=1e-9)


def test_gradient_lowers_the_twins_error_and_raises_the_others() -> None:
    plus, minus = (torch.tensor([0.3], requires_grad=True) for _ in range(2))
    duo.preference(plus, plus.detach(), minus, minus.detach(), 500.0).sum().backward()
    assert plus.grad is not None and minus.grad is not None  # noqa: PT018  # for the types
    assert float(plus.grad) > 0 > float(minus.grad)


def test_loss_is_the_papers(toy: Any) -> None:
    """Each prediction on its own under the empty prompt, with one noise a pair, summed in float64."""
    draws, unet, own, plus, minus, t, noise, start = case(toy)
    chosen = options(beta=200.0, base_lam=1e4)
    share, empty, expected = toy.scheduler.alphas_cumprod.double(), draws.empty.embeds, 0.0

    def error(clean: torch.Tensor, step: int, i: int) -> float:
        x = share[step].sqrt().float() * clean + (1 - share[step]).sqrt().float() * noise[i]
        said = unet(x[None], torch.tensor(step), encoder_hidden_states=empty).sample[0]
        return float((said.double() - noise[i].double()).square().mean())

    def last() -> torch.Tensor:
        found: torch.Tensor = unet(start, torch.tensor(999), encoder_hidden_states=empty.expand(2, -1, -1)).sample.double()
        return found

    with torch.no_grad():
        frozen = [(error(plus[i], int(t[i]), i), error(minus[i], int(t[2 + i]), i)) for i in range(2)]
        before = last()
        with adapters.attached(unet, own):
            for i, (right, wrong) in enumerate(frozen):
                margin = (error(plus[i], int(t[i]), i) - right) - (error(minus[i], int(t[2 + i]), i) - wrong)
                expected += math.log(1 + math.exp(200.0 * margin)) / 2
            expected += 1e4 * 2 * float((last() - before).square().mean())
    assert float(duo.loss(draws, unet, own, plus, minus, t, noise, start, chosen)) == pytest.approx(expected, rel=1e-4)


def test_nothing_is_to_be_preserved_at_the_start(toy: Any) -> None:
    draws, unet, own, *rest = case(toy)
    for each in own.values():
        each.up.data.zero_()
    given = (draws, unet, own, *rest)
    assert float(duo.loss(*given, options(base_lam=1e12))) == pytest.approx(math.log(2), abs=1e-5)  # type: ignore[arg-type]  # a tuple


def test_one_number_is_free() -> None:
    assert (duo.Options().lr, duo.Options().lam) == pytest.approx((6e-5, 5e6))
    assert (duo.Options(beta=1000).lr, duo.Options(beta=1000).lam) == pytest.approx((3e-5, 1e7))


@pytest.mark.parametrize(("layers", "names"), [("self", {"attn1"}), ("all", {"attn1", "attn2"})])
def test_trains_its_own_layers(on_toy: BackboneInfo, box: ConceptSpec, layers: str, names: set[str]) -> None:
    tensors = duo.Duo.erase(on_toy, box, options(layers=layers), quiet).tensors["unet"]
    assert {name.split(".")[-3 if "to_out" not in name else -4] for name in tensors} == names


def test_a_pair_is_of_an_image_with_and_one_without_the_concept(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    """Refused images are drawn again; where the judge goes on to refuse, the pair is left out."""
    judge = Given(True, False, True, False, True, False)  # 2 of 3 shown, the third at the second try; then silent
    plus, minus = duo.pairs_of(replace(on_toy, judge=judge), box, options(images=3, judged=True), quiet)
    assert len(plus) == len(minus)
    assert judge.asked > 6
    assert not torch.equal(plus, minus)


def test_a_judge_that_accepts_nothing_ends_it(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    judge = Given(False)
    with pytest.raises(CellError, match="none shows the concept"):
        duo.pairs_of(replace(on_toy, judge=judge), box, options(images=2, judged=True), quiet)
    assert judge.asked == 2 * pictures.ROUNDS


def test_without_a_judge_one_line_says_what_to_give(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="needs a judge of 'box'") as caught:
        duo.pairs_of(on_toy, box, options(judged=True), quiet)
    assert "duo.judged=false" in caught.value.hint


def test_needs_anchors(on_toy: BackboneInfo, without_anchors: ConceptSpec) -> None:
    with pytest.raises(UsageError, match="no anchor"):
        duo.Duo.erase(on_toy, without_anchors, options(), quiet)


def test_images_of_a_sensitive_concept_are_not_kept(on_toy: BackboneInfo, box: ConceptSpec, tmp_path: Any) -> None:
    info = replace(on_toy, cache=tmp_path)
    duo.pairs_of(info, box.model_copy(update={"sensitive": True}), options(images=2), quiet)
    assert not list(tmp_path.iterdir())
    duo.pairs_of(info, box, options(images=2), quiet)
    assert len(list(tmp_path.iterdir())) == 1
