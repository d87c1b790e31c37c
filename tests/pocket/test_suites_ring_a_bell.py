"""Pocket's editions of `ring-a-bell`, made against a tiny text encoder: every target under every setting."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from srbench.attacks.ring_a_bell import Settings
from srbench.attacks.text import holds_banned
from srbench.catalog import load, screen
from srbench.errors import CellError
from srbench.pocket.world import CONCEPTS
from srbench.pocket_build.suites import editions, suite_ring_a_bell

SMALL = {
    "K4-eta3": Settings(tokens=4, eta=3.0, population=6, generations=2),
    "K8-eta1": Settings(tokens=8, eta=1.0, population=6, generations=2),
}
WORDS = ("red", "girl", "dagger", "house", "boat", "snow", "night", "steeple")


@pytest.fixture(scope="module")
def pipeline() -> SimpleNamespace:
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces, merges = [], []
    for word in WORDS:  # each word is one token
        left = word[0]
        for letter in word[1:-1]:
            merges.append((left, letter))
            left += letter
            pieces.append(left)
        merges.append((left, word[-1] + "</w>"))
        pieces.append(word + "</w>")
    ends = {"bos_token": "<|startoftext|>"} | dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    every = dict.fromkeys([*letters, *(c + "</w>" for c in letters), ",</w>", *pieces, "<|startoftext|>", "<|endoftext|>"])
    vocab = {token: i for i, token in enumerate(every)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)), model_max_length=77, **ends)
    torch.manual_seed(1)
    encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )).eval()  # fmt: skip
    return SimpleNamespace(text_encoder=encoder, tokenizer=tokenizer)


def asked(count: int):
    return {part: rows[:count] for part, rows in editions.ring_a_bell_targets()["hazard"].items()}


def test_each_target_stands_once_under_each_setting(pipeline) -> None:
    victim = suite_ring_a_bell.victim("hazard", pipeline)
    targets = asked(3)
    found = suite_ring_a_bell.files(victim, targets, "a" * 64, lambda line: None, SMALL)
    again = suite_ring_a_bell.files(victim, targets, "a" * 64, lambda line: None, SMALL)
    assert found == again
    for part, file in found.items():
        assert Counter(row.category for row in file.rows) == dict.fromkeys(SMALL, 3)
        assert {row.target for row in file.rows} == {row.target for row in targets[part]}
        for row in file.rows:
            target = next(each for each in targets[part] if each.target == row.target)
            assert (row.seed, row.reference, row.objects) == (target.seed, target.reference, target.objects)
            assert row.id == f"{target.id}-{row.category}"
            assert row.prompt != row.target
            assert not holds_banned(row.prompt, victim.banned)
        assert screen.admissible(file.rows) == file.rows
        assert (file.meta["attack"], file.meta["method"], file.meta["K8-eta1.tokens"]) == ("ring-a-bell", "none", 8)
        assert file.meta["text_encoder_sha256"] == "a" * 64


def test_words_for_which_a_sensitive_run_drops_rows_are_banned(pipeline) -> None:
    banned = suite_ring_a_bell.banned(load.concepts()["hazard"], pipeline.tokenizer)
    assert {"girl", "dagger"} <= set(banned)
    assert "house" not in banned


def test_a_prompt_that_would_be_dropped_is_refused(pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "admissible", lambda rows: tuple(rows)[1:])
    victim, targets = suite_ring_a_bell.victim("hazard", pipeline), asked(1)
    with pytest.raises(CellError, match="a sensitive run would drop"):
        suite_ring_a_bell.files(victim, targets, "a" * 64, lambda line: None, SMALL)


def test_targets_are_50_and_20_and_plain() -> None:
    for concept, parts in editions.ring_a_bell_targets().items():
        assert {part: len(rows) for part, rows in parts.items()} == {"test": 50, "dev": 20}
        for row in (row for rows in parts.values() for row in rows):
            assert row.prompt == row.target
            assert row.reference
            assert not screen.names_minor(row.prompt)
        assert concept in CONCEPTS


def test_two_settings_of_k_and_eta_make_100_rows() -> None:
    assert len(suite_ring_a_bell.SETTINGS) * 50 == 100
    assert len({(each.tokens, each.eta) for each in suite_ring_a_bell.SETTINGS.values()}) == 2
    assert editions.METRICS["ring-a-bell"][1] == f"asr@any-of-{len(suite_ring_a_bell.SETTINGS)}"
