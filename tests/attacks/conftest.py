"""A text encoder and a tokenizer of a few words, and a tiny pipeline to attack, built in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from srbench.attacks.base import Victim
from srbench.testing import attacks
from srbench.testing.tiny import tiny_pipeline
from tests.attacks import victims

START, END = "<|startoftext|>", "<|endoftext|>"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ("dagger", "beach", "cat", "blade", "daggers", "bird")


def _merges() -> list[tuple[str, str]]:
    """Merges that build every word letter by letter, its end last."""
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        left = parts[0]
        for right in parts[1:]:
            merges[(left, right)] = None
            left += right
    return list(merges)


@pytest.fixture(scope="session")
def tokenizer() -> CLIPTokenizer:
    merges = _merges()
    # "Ã" alone is half a character in CLIP's byte alphabet; it never prints.
    tokens = [*LETTERS, *(c + "</w>" for c in LETTERS), "Ã", "Ã</w>", *("".join(m) for m in merges), START, END]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    ends = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, **ends)


@pytest.fixture(scope="session")
def encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, initializer_range=0.2, initializer_factor=10.0,
    )
    return CLIPTextModel(config).eval()


@pytest.fixture(scope="session")
def pipeline() -> Any:
    """The tiny random Stable Diffusion; its text matters to the picture."""
    made = tiny_pipeline(16, spread=20.0)
    for part in (made.unet, made.vae, made.text_encoder):
        part.requires_grad_(False)
    return made


@pytest.fixture
def victim(pipeline: Any) -> Victim:
    return victims.plain(pipeline)


@pytest.fixture
def defended(pipeline: Any) -> Victim:
    return attacks.defended(pipeline)


@pytest.fixture
def redirected(pipeline: Any) -> Victim:
    return victims.redirected(pipeline)
