"""Which token is at which row of a prompt embedding, on every family of pipelines, and which token of a safe prompt is the
partner of a token of an unsafe one.

Rows by family: Stable Diffusion's are CLIP's tokens. SDXL's hold the features of two CLIP encoders side by side; both read the
same tokens, so a row is one token, aligned and marked once, over the whole width. SD3's are CLIP's tokens as in SDXL, then T5's:
two stretches, aligned and marked each by its own tokenizer. FLUX's and PixArt's are T5's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from srbench.backbones.pipelines import kind_of

TOKENIZERS = {
    "sd": ("tokenizer",), "sdxl": ("tokenizer",), "sd3": ("tokenizer", "tokenizer_3"), "flux": ("tokenizer_2",),
    "pixart": ("tokenizer",),
}
"""Family -> the tokenizers of the prompt embedding's tokens, one stretch after the other."""
LOWERED = ("pixart",)
"""Families whose pipelines strip texts and read them in small letters (diffusers, `_text_preprocessing`)."""


@dataclass(frozen=True)
class Stretch:
    """The tokens of one tokenizer, at the rows `start` to `start + t` of the prompt embedding."""

    start: int
    ids: Tensor  # (N, t)
    end: int
    """The end-of-text token's id."""


def stretches(pipeline: Any, texts: Sequence[str], rows: int) -> list[Stretch]:
    """The tokens of texts whose prompt embeddings have `rows` rows.

    Rows of an encoder that the pipeline goes without (SD3's T5) are zeros and have no token.
    """
    family = kind_of(pipeline).name
    prepared = [text.lower().strip() for text in texts] if family in LOWERED else list(texts)
    names, parts, start = TOKENIZERS[family], [], 0
    for name in names:
        length = rows - start if name == names[-1] else pipeline.tokenizer_max_length
        tokenizer = getattr(pipeline, name)
        if tokenizer is not None:
            read = tokenizer(prepared, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            parts.append(Stretch(start, read.input_ids, tokenizer.eos_token_id))
        start += length
    return parts


def partners(pipeline: Any, unsafe: Sequence[str], safe: Sequence[str], rows: int) -> tuple[Tensor, Tensor]:
    """For each row of the unsafe prompts' embeddings the row of its partner in the safe ones' (N, T), and whether a token of the
    text stands there, start token to end-of-text (N, T). Rows without token are partners of themselves."""
    partner = torch.arange(rows).repeat(len(unsafe), 1)  # (N, T)
    real = torch.zeros(len(unsafe), rows, dtype=torch.bool)  # (N, T)
    for ours, theirs in zip(stretches(pipeline, unsafe, rows), stretches(pipeline, safe, rows), strict=True):
        here = slice(ours.start, ours.start + ours.ids.shape[1])
        both = zip(ours.ids.tolist(), theirs.ids.tolist(), strict=True)
        partner[:, here] = ours.start + torch.tensor([align(u, s, ours.end) for u, s in both])
        last = (ours.ids == ours.end).int().argmax(1, keepdim=True)  # (N, 1)
        real[:, here] = torch.arange(ours.ids.shape[1])[None] <= last
    return partner, real


def align(unsafe: list[int], safe: list[int], end: int) -> list[int]:
    """For each position of the unsafe ids the position of its partner in the safe ids.

    Equal beginnings are partners, and a causal encoder gives them equal states. Equal endings and the padding are partners
    at the same distance from the end-of-text. Of the words between, the first goes to the first safe word in their place
    and the others to the last; where there is none, to the word before: a causal token's own state knows only
    what came before it, so only such partners can be predicted from it. T5 reads both ways; it is aligned alike.
    """
    last, safe_last = unsafe.index(end), safe.index(end)
    shorter = min(last, safe_last)
    head = next((i for i in range(shorter) if unsafe[i] != safe[i]), shorter)
    tail = next((k for k in range(shorter + 1 - head) if unsafe[last - k] != safe[safe_last - k]), shorter + 1 - head)
    instead = range(head, safe_last + 1 - tail)

    def partner(i: int) -> int:
        if i < head:
            return i
        if i > last - tail:
            return min(i + safe_last - last, len(safe) - 1)
        if not instead:
            return max(head - 1, 0)
        return instead[0] if i == head else instead[-1]

    return [partner(i) for i in range(len(unsafe))]
