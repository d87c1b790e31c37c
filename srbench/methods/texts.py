"""Shared by methods that read tokens: where a phrase is in a text, texts without the concept, and prompts with free vectors."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods.base import hooks
from srbench.methods.phrases import neighbours, split_texts, words_of

ARTICLES = ("a ", "an ", "the ")
COMMON = (
    "a photo of a chair; a photo of a table; a photo of a cat; a photo of a dog; a photo of a horse; a photo of a bird; "
    "a photo of a car; a photo of a bicycle; a photo of a train; a photo of a boat; a photo of a tree; a photo of a flower; "
    "a photo of a mountain; a photo of a river; a photo of a beach; a photo of a street; a photo of a bridge; "
    "a photo of a house; a photo of a kitchen; a photo of a cup; a photo of a book; a photo of a lamp; a photo of a clock; "
    "a photo of a pizza; "
    "a photo of an apple; a photo of a person; a photo of a hat; a photo of a computer; a photo of a guitar; a photo of a ball"
)
"""What is kept where nothing else is given: objects that every Stable Diffusion draws."""


def bare(phrase: str) -> str:
    """A phrase without its article."""
    return next((phrase.removeprefix(article) for article in ARTICLES if phrase.startswith(article)), phrase)


def without_concept(concept: ConceptSpec, family: str, texts: Iterable[str]) -> list[str]:
    """Those texts, each once, that hold none of the concept's names and words."""
    words = words_of(concept, family)
    names = (*words.names, *words.words)
    return list(dict.fromkeys(text for text in texts if not any(f" {name} " in f" {text} " for name in names)))


def kept_texts(concept: ConceptSpec, family: str, listed: str | None, method: str) -> list[str]:
    """The concept's neighbours and listed texts, or everyday ones, without those that hold the concept.

    Raises `UsageError` where nothing is left.
    """
    kept = without_concept(concept, family, [*neighbours(concept, family), *split_texts(listed or COMMON)])
    if not kept:
        raise UsageError(f"{method} has no text to keep for '{concept.name}'", f"Give some: --set {method}.retain_texts=...")
    return kept


# --- tokens ----------------------------------------------------------------------------------------------------------------


def content_ids(tokenizer: Any, text: str) -> list[int]:
    """A text's token ids without start and end."""
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    return [token for token in tokenizer(text, truncation=True).input_ids if token not in ends]


def places(ids: Sequence[int], part: Sequence[int]) -> list[int]:
    """Where a run of ids is in a text's, the first time; empty where it is not."""
    for start in range(len(ids) - len(part) + 1):
        if part and list(ids[start : start + len(part)]) == list(part):
            return list(range(start, start + len(part)))
    return []


def word_tokens(tokenizer: Any, text: str, phrase: str, ends: bool) -> Tensor:
    """(T,) bool: the phrase's tokens in the text, without its article; ends: also the end of the text and its padding.

    Raises `UsageError` where the phrase is not in the text as the encoder reads it.
    """
    ids = tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids
    found = places(ids, content_ids(tokenizer, bare(phrase)))
    if not found:
        raise UsageError(f"the encoder does not read '{phrase}' in '{text}'", "Give a shorter context.")
    mask = torch.zeros(len(ids), dtype=torch.bool)
    mask[found] = True
    if ends:
        mask[ids.index(tokenizer.eos_token_id, 1) :] = True
    return mask


# --- the encoder -----------------------------------------------------------------------------------------------------------


def trainable_encoder(pipeline: Any, method: str) -> tuple[Any, dict[str, Tensor]]:
    """A float32 copy of the text encoder, and its trained parameters by name: all but the embeddings of tokens and places.

    Raises `UsageError` where the denoiser reads more than this one encoder.
    """
    encoder = one_encoder(pipeline, method)
    edited = copy.deepcopy(encoder).float().eval().requires_grad_(False)
    chosen = {name: value for name, value in edited.named_parameters() if "embeddings." not in f".{name}"}
    for value in chosen.values():
        value.requires_grad_(True)
    return edited, chosen


def one_encoder(pipeline: Any, method: str) -> Any:
    """The pipeline's text encoder. Raises `UsageError` where it is not the only one."""
    if getattr(pipeline, "text_encoder_2", None) is not None or getattr(pipeline, "text_encoder", None) is None:
        raise UsageError(f"{method} knows backbones with one text encoder", "Give a Stable Diffusion 1 or 2 backbone.")
    return pipeline.text_encoder


def padded_ids(pipeline: Any, texts: Sequence[str]) -> Tensor:
    """(N, T) int64, as `encode_prompt` pads them."""
    tokenizer = pipeline.tokenizer
    ids = tokenizer(list(texts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids
    return torch.tensor(ids, device=pipeline.text_encoder.device)


def with_places(pipeline: Any, text: str, count: int, before: bool) -> tuple[Tensor, int]:
    """Ids (1, T) of a text with room for `count` free vectors before it or after it, and where they begin.

    Raises `UsageError` where the encoder cannot read all of it.
    """
    tokenizer = pipeline.tokenizer
    own, room, length = content_ids(tokenizer, text), [tokenizer.bos_token_id] * count, tokenizer.model_max_length
    if len(own) + count + 2 > length:
        raise UsageError(f"'{text}' with {count} more tokens is longer than the {length} that the encoder reads", "Take fewer.")
    body = [*room, *own] if before else [*own, *room]
    ids = [tokenizer.bos_token_id, *body, tokenizer.eos_token_id]
    ids += [tokenizer.pad_token_id] * (length - len(ids))
    return torch.tensor([ids], device=pipeline.text_encoder.device), 1 if before else 1 + len(own)


def states(encoder: Any, ids: Tensor, vectors: Tensor | None = None, start: int = 0) -> Tensor:
    """(N, T, D) of ids (N, T); with vectors (N, K, width) in place of the token embeddings from `start` on."""

    def put(layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
        assert vectors is not None
        return torch.cat([output[:, :start], vectors.to(output), output[:, start + vectors.shape[1] :]], 1)

    handle = None if vectors is None else encoder.get_input_embeddings().register_forward_hook(put)
    with nullcontext() if handle is None else hooks(handle):
        return encoder(ids)[0]


def random_vectors(encoder: Any, count: int, rng: torch.Generator) -> Tensor:
    """(1, count, width): Gaussian, with the deviation of the encoder's token embeddings."""
    table = encoder.get_input_embeddings().weight.detach()
    return (torch.randn((1, count, table.shape[1]), generator=rng) * float(table.float().std())).to(table.device)
