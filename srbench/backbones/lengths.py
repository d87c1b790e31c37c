"""How much of a text a backbone's encoders read: what lies beyond their length is cut by the pipelines without a word."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

CLIP_TOKENS = 77
"""The length of CLIP's text encoders, begin and end included; of T5's longer ones the pipeline decides how much it uses."""
NAMES = ("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4")
BATCH = 1024


def limits(pipeline: Any) -> dict[str, tuple[Any, int]]:
    """Each tokenizer of a pipeline with the tokens that its encoder is given at most."""
    given = inspect.signature(pipeline.__call__).parameters.get("max_sequence_length")
    found = {}
    for name in NAMES:
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is None:
            continue
        own = int(tokenizer.model_max_length)
        # A CLIP beside a T5 keeps its own length, which is the shorter one.
        found[name] = tokenizer, own if own <= CLIP_TOKENS or given is None else min(own, int(given.default))
    return found


def cut(pipeline: Any, texts: Iterable[str]) -> dict[str, tuple[int, frozenset[str]]]:
    """Tokenizer -> (its limit in tokens, the texts that are longer); only tokenizers that have such."""
    every = sorted({text for text in texts if text})
    found = {}
    for name, (tokenizer, limit) in limits(pipeline).items():
        # A token is a byte or more, begin and end apart: shorter texts need no count.
        long = [text for text in every if len(text.encode()) + 2 > limit]
        beyond = frozenset(text for text, ids in zip(long, _ids(tokenizer, long, limit), strict=True) if len(ids) > limit)
        if beyond:
            found[name] = limit, beyond
    return found


def unread(pipeline: Any, texts: Iterable[str]) -> frozenset[str]:
    """Texts that hold something, of which some tokenizer knows nothing: it reads them as no text."""
    every = sorted({text for text in texts if text.strip()})
    found: set[str] = set()
    for tokenizer, limit in limits(pipeline).values():
        nothing = {*tokenizer.all_special_ids}
        found |= {text for text, ids in zip(every, _ids(tokenizer, every, limit), strict=True) if not {*ids} - nothing}
    return frozenset(found)


def _ids(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Token ids of each text, begin and end included, and of longer ones one more than `limit`."""
    found: list[list[int]] = []
    for start in range(0, len(texts), BATCH):
        found += tokenizer(list(texts[start : start + BATCH]), truncation=True, max_length=limit + 1, padding=False).input_ids
    return found
