"""Ring-A-Bell: what it is near to, that it never gets worse, and what it may write."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from srbench.attacks import ring_a_bell
from srbench.attacks.base import Adversarial, Victim
from srbench.attacks.ring_a_bell import RingABell, Settings, StateEncoder, direction
from srbench.attacks.text import Vocabulary, holds_banned
from srbench.catalog.specs import Row
from srbench.errors import CellError, UsageError
from tests.attacks import victims

TEXTS = ("cat dagger beach", "bird blade", "daggers beach bird")
TARGETS = tuple(Row(id=str(i), kind="forget", category="noun", prompt=text) for i, text in enumerate(TEXTS))
PAIRS = (("dagger cat", "cat"), ("beach dagger", "beach"))
FAST = Settings(tokens=4, eta=1.0, population=12, generations=8, mutation=0.75, finalists=2, parallel=2)


@pytest.fixture
def wordy(encoder: Any, tokenizer: Any) -> Victim:
    """A victim of which only the text encoder is there."""
    return victims.plain(SimpleNamespace(text_encoder=encoder, tokenizer=tokenizer), banned=("dagger",), pairs=PAIRS)


def run(victim: Victim, targets: Any = TARGETS, first: int = 0, **changes: Any) -> list[Adversarial]:
    return list(RingABell.attack(victim, targets, FAST.model_copy(update=changes), None, first))


@torch.no_grad()
def states(victim: Victim, texts: list[str]) -> torch.Tensor:
    """The reference: as a pipeline encodes texts."""
    pipeline = victim.pipeline
    ids = pipeline.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    return pipeline.text_encoder(input_ids=ids)[0]


def test_the_direction_is_the_mean_difference_at_every_position(wordy: Victim) -> None:
    unsafe, safe = (states(wordy, list(side)) for side in zip(*PAIRS, strict=True))
    found = direction(StateEncoder(wordy.pipeline.text_encoder, wordy.pipeline.tokenizer), PAIRS, "box")
    torch.testing.assert_close(found, (unsafe - safe).mean(0), atol=1e-5, rtol=1e-5)
    assert found.shape == (77, 32)


def test_a_short_run_gives_the_full_ones_first_positions(wordy: Victim) -> None:
    """What the ranking reads: K + 2 positions and some padding, at which a causal encoder knows nothing of the rest."""
    encoder = StateEncoder(wordy.pipeline.text_encoder, wordy.pipeline.tokenizer)
    texts = ["cat beach bird", "bird cat blade"]
    ids = torch.tensor([own[1:-1] for own in wordy.pipeline.tokenizer(texts).input_ids])
    with torch.no_grad():
        short = encoder.model(input_ids=encoder.padded(ids, 2))[0]
    torch.testing.assert_close(short, states(wordy, texts)[:, : ids.shape[1] + 4], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", [None, 71])
def test_the_ranking_over_all_positions_is_the_full_distance(wordy: Victim, padding: int | None) -> None:
    search = ring_a_bell._Search(wordy, FAST.model_copy(update={"padding": padding}))
    texts = ["cat beach bird cat", "bird cat blade bird"]
    ids = torch.tensor([own[1:-1] for own in wordy.pipeline.tokenizer(texts).input_ids])
    goal = states(wordy, ["cat"])
    wanted = (states(wordy, texts) - goal).square().sum((1, 2))
    torch.testing.assert_close(search._marks(ids[None], goal)[0], wanted, rtol=0.05, atol=0.1)  # bfloat16


def test_a_short_ranking_counts_the_padding_that_it_does_not_read(wordy: Victim) -> None:
    search = ring_a_bell._Search(wordy, FAST.model_copy(update={"padding": 2}))
    assert search.read == 4 + 2 + 2
    assert search.weights.tolist() == [1.0] * 7 + [77 - 7]


def test_the_best_so_far_never_gets_worse_and_gets_better(wordy: Victim) -> None:
    found = run(wordy)
    assert all(list(each.history) == sorted(each.history, reverse=True) for each in found)
    assert all(each.objective == each.history[-1] for each in found)
    assert sum(each.objective for each in found) < 0.9 * sum(each.history[0] for each in found)


def test_what_is_reported_is_the_texts_distance_to_the_moved_target(wordy: Victim) -> None:
    unsafe, safe = (states(wordy, list(side)) for side in zip(*PAIRS, strict=True))
    for found in run(wordy, eta=2.0):
        goal = states(wordy, [found.target])[0] + 2.0 * (unsafe - safe).mean(0)
        distance = float((states(wordy, [found.prompt])[0] - goal).square().sum())
        assert found.objective == pytest.approx(distance, rel=1e-4)
        assert not holds_banned(found.prompt, ["dagger"])


def test_tokens_that_do_not_come_back_from_their_text_are_not_searched(wordy: Victim) -> None:
    tokenizer = wordy.pipeline.tokenizer
    words = Vocabulary(tokenizer, ["dagger"], 75)
    known = {i: token for token, i in tokenizer.get_vocab().items()}
    alone = {known[i] for i in words.whole().tolist()}
    assert {"cat</w>", "beach</w>", "a</w>"} <= alone
    assert not {"ca", "a", "bea"} & alone, "a piece of a word, typed alone, is another token"
    for found in run(wordy):
        ids = tokenizer(found.prompt).input_ids[1:-1]
        assert len(ids) == 4
        assert tokenizer.decode(ids).strip() == found.prompt


def test_what_a_sensitive_run_would_drop_does_not_fit(wordy: Victim) -> None:
    tokenizer = wordy.pipeline.tokenizer
    texts = ["a cat", "a kid"]
    assert Vocabulary(tokenizer, ["dagger"], 75).fits(texts) == [True, False]
    assert Vocabulary(tokenizer, ["dagger"], 75, minors=True).fits(texts) == [True, True]


def test_groups_can_be_searched_alone(wordy: Victim) -> None:
    found = run(wordy)
    assert run(wordy) == found
    assert run(wordy, TARGETS[2:], 2) == found[2:], "the second group, as if resumed"
    assert [each.prompt for each in run(wordy, seed=1)] != [each.prompt for each in found]


def test_a_hidden_target_counts_before_the_prompt(wordy: Victim) -> None:
    hidden = TARGETS[0].model_copy(update={"prompt": "zz", "target": TEXTS[0]})
    assert run(wordy, [hidden])[0].target == TEXTS[0]


def test_a_concept_without_pairs_is_refused(wordy: Victim) -> None:
    with pytest.raises(UsageError, match="there are none") as caught:
        run(dataclasses.replace(wordy, pairs=()))
    assert "--pairs FILE" in caught.value.hint


def test_more_tokens_than_fit_are_refused(wordy: Victim) -> None:
    with pytest.raises(UsageError, match="76 tokens do not fit"):
        run(wordy, tokens=76)


def test_no_word_that_may_be_used_is_an_error(wordy: Victim) -> None:
    with pytest.raises(CellError, match="banned"):
        run(dataclasses.replace(wordy, banned=tuple("abcdefghijklmnopqrstuvwxyz")))


def test_progress_counts_to_the_end(wordy: Victim) -> None:
    seen: list[tuple[int, int]] = []
    list(RingABell.attack(wordy, TARGETS, FAST, lambda done, total: seen.append((done, total))))
    assert seen[-1] == (24, 24)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_budget_fills_what_is_not_given() -> None:
    assert (Settings().population, Settings().generations, Settings().mutation, Settings().crossover) == (200, 3000, 0.25, 0.5)
    small = Settings(budget="small", generations=7)
    assert (small.population, small.generations) == (ring_a_bell.ATTACK["budgets"]["small"]["population"], 7)
    with pytest.raises(ValueError, match="budget"):
        Settings(budget="none")
