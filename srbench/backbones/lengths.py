"""How much of a text a backbone's encoders read: what lies beyond their length is cut by the pipelines without a word."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CLIP_TOKENS = 77
"""The length of CLIP's text encoders, begin and end included; of T5's longer ones the pipeline decides how much it uses."""
LONGEST = 2**20
"""In place of the number that transformers gives where a tokenizer says nothing of its length; opening the model refuses it."""
NAMES = ("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4")
BATCH = 1024


@dataclass(frozen=True)
class Reader:
    """What a backbone reads texts with: no weights are needed to say how far."""

    tokenizers: Mapping[str, Any]
    """By the component's name."""
    most: int | None = None
    """Tokens of the longer ones (T5's) that the pipeline uses by default; None where it decides nothing."""


def reader_of(cls: type, parts: Mapping[str, Any]) -> Reader:
    """The reader of a pipeline class with these components; those that are no tokenizers are passed over."""
    given = inspect.signature(cls.__call__).parameters.get("max_sequence_length")
    tokenizers = {name: parts[name] for name in NAMES if parts.get(name) is not None}
    return Reader(tokenizers, None if given is None else int(given.default))


def limits(reader: Reader) -> dict[str, tuple[Any, int]]:
    """Each tokenizer with the tokens that its encoder is given at most."""
    found = {}
    for name, tokenizer in reader.tokenizers.items():
        own = min(int(tokenizer.model_max_length), LONGEST)
        # A CLIP beside a T5 keeps its own length, which is the shorter one.
        found[name] = tokenizer, own if own <= CLIP_TOKENS or reader.most is None else min(own, reader.most)
    return found


def cut(reader: Reader, texts: Iterable[str]) -> dict[str, tuple[int, frozenset[str]]]:
    """Tokenizer -> (its limit in tokens, the texts that are longer); only tokenizers that have such."""
    every = sorted({text for text in texts if text})
    found = {}
    for name, (tokenizer, limit) in limits(reader).items():
        # A token is a byte or more, begin and end apart: shorter texts need no count.
        long = [text for text in every if len(text.encode()) + 2 > limit]
        beyond = frozenset(text for text, ids in zip(long, _ids(tokenizer, long, limit), strict=True) if len(ids) > limit)
        if beyond:
            found[name] = limit, beyond
    return found


def unread(reader: Reader, texts: Iterable[str]) -> frozenset[str]:
    """Texts that hold something, of which some tokenizer knows nothing: it reads them as no text."""
    every = sorted({text for text in texts if text.strip()})
    found: set[str] = set()
    for tokenizer, limit in limits(reader).values():
        nothing = {*tokenizer.all_special_ids}
        found |= {text for text, ids in zip(every, _ids(tokenizer, every, limit), strict=True) if not {*ids} - nothing}
    return frozenset(found)


def _ids(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Token ids of each text, begin and end included, and of longer ones one more than `limit`."""
    found: list[list[int]] = []
    for start in range(0, len(texts), BATCH):
        found += tokenizer(list(texts[start : start + BATCH]), truncation=True, max_length=limit + 1, padding=False).input_ids
    return found
