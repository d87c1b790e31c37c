"""How much of a text a backbone's encoders read: pipelines cut longer texts without a warning."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CLIP_TOKENS = 77
"""The length of CLIP's text encoders, begin and end included; of T5's longer ones the pipeline decides how much it uses."""
LONGEST = 2**20
"""Replaces the number that transformers gives for a tokenizer without a length; such a model is refused when it is opened."""
NAMES = ("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4")
BATCH = 1024


@dataclass(frozen=True)
class Reader:
    """A backbone's tokenizers and how much of a text it reads, known without weights."""

    tokenizers: Mapping[str, Any]
    """By the component's name."""
    most: int | None = None
    """Tokens of the longer ones (T5's) that the pipeline uses by default; None where it decides nothing."""


def reader_of(cls: type, parts: Mapping[str, Any]) -> Reader:
    """The reader of a pipeline class with these components; components other than tokenizers are ignored."""
    parameter = inspect.signature(cls.__call__).parameters.get("max_sequence_length")
    tokenizers = {name: parts[name] for name in NAMES if parts.get(name) is not None}
    return Reader(tokenizers, None if parameter is None else int(parameter.default))


def limits(reader: Reader) -> dict[str, tuple[Any, int]]:
    """Component name -> (tokenizer, most tokens that its encoder reads)."""
    limit_of = {}
    for name, tokenizer in reader.tokenizers.items():
        length = min(int(tokenizer.model_max_length), LONGEST)
        # A CLIP beside a T5 keeps its own length, which is the shorter one.
        limit_of[name] = tokenizer, length if length <= CLIP_TOKENS or reader.most is None else min(length, reader.most)
    return limit_of


def cut(reader: Reader, texts: Iterable[str]) -> dict[str, tuple[int, frozenset[str]]]:
    """Tokenizer -> (its limit in tokens, the texts that are longer); only tokenizers with such texts."""
    every = sorted({text for text in texts if text})
    too_long = {}
    for name, (tokenizer, limit) in limits(reader).items():
        # A token is a byte or more, begin and end apart: shorter texts need no count.
        long = [text for text in every if len(text.encode()) + 2 > limit]
        beyond = frozenset(text for text, ids in zip(long, _ids(tokenizer, long, limit), strict=True) if len(ids) > limit)
        if beyond:
            too_long[name] = limit, beyond
    return too_long


def unread(reader: Reader, texts: Iterable[str]) -> frozenset[str]:
    """Texts, not blank, in which some tokenizer knows no token: to it they are empty."""
    every = sorted({text for text in texts if text.strip()})
    unreadable: set[str] = set()
    for tokenizer, limit in limits(reader).values():
        nothing = {*tokenizer.all_special_ids}
        unreadable |= {text for text, ids in zip(every, _ids(tokenizer, every, limit), strict=True) if not {*ids} - nothing}
    return frozenset(unreadable)


def _ids(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Token ids of each text, begin and end included, and of longer ones one more than `limit`."""
    ids: list[list[int]] = []
    for start in range(0, len(texts), BATCH):
        ids += tokenizer(list(texts[start : start + BATCH]), truncation=True, max_length=limit + 1, padding=False).input_ids
    return ids
