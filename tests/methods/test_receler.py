"""Receler: its losses against numbers, and an adversary that is one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from srbench.catalog import plugins
from srbench.errors import UsageError
from srbench.methods import receler
from srbench.methods.base import quiet
from srbench.testing.bench import Bench

QUICK: dict[str, Any] = {"iterations": 2, "steps": 3, "batch": 2, "rank": 2, "vectors": 2, "attack_steps": 3}


def options(**changes: Any) -> receler.Options:
    return receler.Options(**(QUICK | changes))


def session(bench: Bench, seed: int | None = 3, **changes: Any) -> receler.Session:
    """A training whose erasers do something; seed None: as they begin."""
    made = receler.Session(bench.pipeline, options(**changes))
    if seed is not None:
        for i, (_, up) in enumerate(made.erasers.values()):
            up.data = torch.randn(up.shape, generator=torch.Generator().manual_seed(seed + i)) * 0.1
    return made


def at(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 4, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(400)


def test_an_eraser_is_two_layers_with_a_gelu_and_begins_as_nothing(bench: Bench) -> None:
    h, down, up = torch.randn(1, 3, 4).double(), torch.randn(2, 4).double(), torch.randn(4, 2).double()
    expected = torch.stack([up @ F.gelu(down @ row) for row in h[0]])
    assert torch.allclose(receler.erased(h, down, up)[0], expected, atol=1e-12)
    fresh, (x, t) = session(bench, seed=None), at()
    states = bench.embeddings(["a box"])
    assert torch.equal(fresh.predict(x, t, states).detach(), fresh.frozen(x, t, states))


def test_what_erasers_do_outside_of_the_concept(bench: Bench) -> None:
    """Number by number: two layers of 4 and 1 places, one image all of which is the concept."""
    fine, coarse = torch.randn(2, 4, 3).double(), torch.randn(2, 1, 3).double()
    maps = torch.tensor([[[1.0, 0.05], [0.2, 0.1]], [[1.0, 1.0], [1.0, 1.0]]])  # places 1 and 3 of the first are outside
    first = (float(fine[0, 1].square().sum()) + float(fine[0, 3].square().sum())) / 2
    expected = (first / 2 + 0.0) / 2  # mean over two images, then over two layers; the coarse one is inside everywhere
    assert float(receler.outside([fine, coarse], maps, 0.1, (2, 2))) == pytest.approx(expected, abs=1e-6)


def test_loss_is_the_papers_without_an_adversary(bench: Bench) -> None:
    made, (x, t) = session(bench, attack_steps=0, local_weight=0.0), at()
    concept, empty = bench.embeddings(["a box"]), bench.embeddings([""])

    def said(prompt: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = bench.pipeline.unet(x, t, encoder_hidden_states=prompt.expand(2, -1, -1)).sample.double()
        return found

    with torch.no_grad():
        wanted = 2 * said(empty) - said(concept)
        with receler.attached(bench.pipeline.unet, made.erasers):
            expected = (said(concept) - wanted).square().mean()
    assert float(made.loss(x, t, "a box", concept)) == pytest.approx(float(expected), rel=1e-5)


def test_the_adversary_lowers_its_own_loss_and_moves_no_eraser(bench: Bench) -> None:
    made, (x, t) = session(bench, attack_steps=30, attack_lr=0.05, attack_decay=0.0), at()
    before = receler.packed(made.erasers)
    wanted, losses = made.frozen(x, t, bench.embeddings(["a box"])), list[float]()
    made.attacked(x, t, "a box", wanted, losses)
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in receler.packed(made.erasers).items())


def test_the_adversarys_prompt_reaches_the_prediction(bench: Bench) -> None:
    """The released code writes it into a copy, where it changes nothing."""
    made, (x, t) = session(bench), at()
    plain = bench.embeddings(["a box"])
    states = made.attacked(x, t, "a box", made.frozen(x, t, plain))
    assert (made.predict(x, t, states) - made.predict(x, t, plain)).abs().max() > 1e-4


def test_released_training_has_no_adversary(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    attacked = receler.Session.attacked
    monkeypatch.setattr(receler.Session, "attacked", lambda self, *given: asked.append("") or attacked(self, *given))
    for preset in ("receler", "receler-upstream"):
        values = plugins.preset(preset)[1]
        receler.learn(bench.info(), ["a box"], receler.Options(**(QUICK | values)), quiet)
        assert len(asked) == 2  # one an iteration of the first preset, none of the second


def test_learning_lowers_the_loss(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def tell(phase: str, done: int, total: int, note: str) -> None:
        seen.append(float(note.removeprefix("loss ")))

    chosen = options(iterations=40, lr=2e-2, attack_steps=0, local_weight=0.0, batch=4)
    receler.learn(bench.info(), ["a box"], chosen, tell)
    assert sum(seen[-8:]) < 0.9 * sum(seen[:8])


def test_a_phrase_that_does_not_fit_with_its_vectors_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="longer than"):
        receler.learn(bench.info(), ["a box"], options(vectors=14), quiet)


def test_files_hold_what_was_learned(bench: Bench) -> None:
    made = session(bench)
    again = receler.unpacked(receler.packed(made.erasers), "cpu")
    assert all(torch.equal(*pair) for path in again for pair in zip(again[path], made.erasers[path], strict=True))
