"""The pocket tokenizer: byte-pair encoding in CLIP's form, learned from captions and icon names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from srbench.pocket.captions import caption
from srbench.pocket_build.model.scenes import sample_scene
from srbench.pocket_build.model.sprites import fetch

VOCABULARY = 2400
START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP's splitting rule (openai/CLIP simple_tokenizer.py), which transformers' CLIPTokenizer applies again.
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _texts(icons: Path) -> list[str]:
    rng = np.random.default_rng(5)
    captions = [caption(sample_scene(rng), rng) for _ in range(20000)]
    names = {n.replace("-", " ") for icon_set in fetch(icons).values() for n in icon_set["icons"]}
    # Icon names give the vocabulary words that no caption uses, as a real model's has; attacks need them.
    return captions + sorted(n for n in names if "skin tone" not in n) * 4


def train(icons: Path, target: Path) -> CLIPTokenizer:
    """Learn the merges and save a tokenizer that `CLIPTokenizer.from_pretrained` reads."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(_texts(icons), trainers.BpeTrainer(
        vocab_size=VOCABULARY, end_of_word_suffix="</w>", initial_alphabet=alphabet,
        special_tokens=[START, END], show_progress=False,
    ))
    model = json.loads(bpe.to_str())["model"]
    vocab, merges = model["vocab"], [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in model["merges"]]
    for letter in alphabet:  # CLIP's vocabulary also holds every byte as a word's end
        vocab.setdefault(letter + "</w>", len(vocab))
    tokenizer = CLIPTokenizer(
        vocab=vocab, merges=merges, model_max_length=77,
        bos_token=START, eos_token=END, unk_token=END, pad_token=END,
    )
    tokenizer.save_pretrained(target)
    return CLIPTokenizer.from_pretrained(target)
