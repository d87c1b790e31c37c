"""AdvUnlearn: its losses against numbers, an adversary that lowers its own, and what stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import advunlearn, denoising, texts
from srbench.methods.base import BackboneInfo, quiet
from srbench.testing.families import tiny


def options(**changes: Any) -> advunlearn.Options:
    quick = {"iterations": 3, "steps": 3, "batch": 2, "attack_steps": 2, "warmup": 1, "retain_batch": 2}
    quick |= {"retain_texts": "bag; hat"}
    return advunlearn.Options(**(quick | changes))


def at() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(400)


def session(toy: Any, moved: bool = True, **changes: Any) -> advunlearn.Session:
    made = advunlearn.Session(toy, options(**changes))
    for i, value in enumerate(made.parameters.values() if moved else ()):
        value.data += torch.randn(value.shape, generator=torch.Generator().manual_seed(i)) * 0.05 * value.abs().mean()
    return made


def said(toy: Any, x: torch.Tensor, t: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = toy.unet(x, t, encoder_hidden_states=states.expand(len(x), -1, -1)).sample.double()
    return found


def test_without_an_attack_it_is_esd_on_the_text_encoder(toy: Any) -> None:
    made, (x, t) = session(toy), at()
    concept, empty = denoising.encoded(toy, ["a box"]).embeds, denoising.encoded(toy, [""]).embeds
    states = texts.states(made.edited, texts.padded_ids(toy, ["a box"])).detach()
    expected = (said(toy, x, t, states) - (2 * said(toy, x, t, empty) - said(toy, x, t, concept))).square().mean()
    for loss in (made.erasing(x, t, "a box", concept, False), session(toy, attack_steps=0).erasing(x, t, "a box", concept, True)):
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(made.erasing(x, t, "a box", concept, True)) != pytest.approx(float(expected), rel=1e-4)


def test_retain_loss_is_nothing_at_the_start_and_the_papers_after(toy: Any) -> None:
    x, t = at()
    stays = denoising.encoded(toy, ["bag", "hat"]).embeds
    assert float(session(toy, moved=False).retaining(x, t, ["bag", "hat"], stays)) < 1e-10
    made = session(toy)
    now = texts.states(made.edited, texts.padded_ids(toy, ["bag", "hat"])).detach()
    expected = (said(toy, x, t, now) - said(toy, x, t, stays)).square().mean()
    assert float(made.retaining(x, t, ["bag", "hat"], stays)) == pytest.approx(float(expected), rel=1e-5)


def test_the_adversary_lowers_its_own_loss_and_moves_no_weight(toy: Any) -> None:
    made, (x, t) = session(toy, attack_steps=40, attack_lr=0.05), at()
    before = {name: value.detach().clone() for name, value in made.parameters.items()}
    wanted, losses = made.frozen(x, t, denoising.encoded(toy, ["a box"]).embeds), list[float]()
    made.attacked(x, t, "a box", wanted, losses)
    assert min(losses[-5:]) < 0.9 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in made.parameters.items())


def test_two_equal_steps_of_the_adversary_have_equal_gradients(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Released, they add up."""
    seen: list[torch.Tensor] = []
    step = advunlearn.learning.step

    def spied(chosen: Any, own: Any, grads: Any) -> None:
        seen.append(grads[0].clone())
        step(chosen, own, grads)

    monkeypatch.setattr(advunlearn.learning, "step", spied)
    (x, t), made = at(), session(toy, attack_steps=3, attack_lr=1e-9)
    made.attacked(x, t, "a box", made.frozen(x, t, denoising.encoded(toy, ["a box"]).embeds))
    assert len(seen) == 3
    assert all(torch.allclose(each, seen[0], rtol=1e-2, atol=1e-9) for each in seen)


def test_continued_begins_where_the_last_one_ended(toy: Any) -> None:
    x, t = at()
    made = session(toy, attack_steps=1, attack_lr=1e-3, attack_start="continued")
    wanted = made.frozen(x, t, denoising.encoded(toy, ["a box"]).embeds)
    first = made.attacked(x, t, "a box", wanted).clone()
    assert float((made.attacked(x, t, "a box", wanted) - first).abs().max()) <= 1.1e-3
    other = session(toy, attack_steps=1, attack_lr=1e-3)
    first = other.attacked(x, t, "a box", wanted).clone()
    assert float((other.attacked(x, t, "a box", wanted) - first).abs().max()) > 1.1e-3


def test_attacks_begin_after_the_warm_up(on_toy: BackboneInfo, box: ConceptSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    erasing = advunlearn.Session.erasing

    def spied(self: Any, x: Any, t: Any, phrase: str, concept: Any, attack: bool) -> torch.Tensor:
        asked.append(attack)
        return erasing(self, x, t, phrase, concept, attack)

    monkeypatch.setattr(advunlearn.Session, "erasing", spied)
    advunlearn.AdvUnlearn.erase(on_toy, box, options(iterations=4, warmup=2), quiet)
    assert asked == [False, False, True, True]


def test_embeddings_stay_and_the_unet_too(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    edit = advunlearn.AdvUnlearn.erase(on_toy, box, options(), quiet)
    assert edit.tensors.keys() == {"text_encoder"}
    names = edit.tensors["text_encoder"].keys()
    assert not any("embeddings." in name for name in names)
    assert any("final_layer_norm" in name for name in names)
    assert any(".layers." in name for name in names)


def test_learning_lowers_the_erasing_loss(on_toy: BackboneInfo, box: ConceptSpec) -> None:
    chosen = options(iterations=40, lr=3e-3, attack_steps=0, retain_weight=0.0, batch=4, prompts="names")
    curve = advunlearn.AdvUnlearn.erase(on_toy, box, chosen, quiet).card["loss_curve"]
    assert sum(value for _, value in curve[-4:]) < 0.8 * sum(value for _, value in curve[:4])


def test_kept_prompts_hold_no_phrase_of_the_concept(box: ConceptSpec) -> None:
    kept = texts.kept_texts(box, "tiny", "a crate; a box on a bag; bag", "advunlearn")
    assert kept == ["a jar", "a tin", "bag"]


def test_nothing_to_keep_is_refused(box: ConceptSpec) -> None:
    words = box.families["tiny"].model_copy(update={"neighbours": ()})
    with pytest.raises(UsageError, match="advunlearn has no text to keep"):
        texts.kept_texts(box.model_copy(update={"families": {"tiny": words}}), "tiny", "a box", "advunlearn")


def test_two_text_encoders_are_refused(box: ConceptSpec) -> None:
    info = BackboneInfo("toy", "tiny", "sha", tiny("sdxl"))
    with pytest.raises(UsageError, match="one text encoder"):
        advunlearn.AdvUnlearn.erase(info, box, options(), quiet)
