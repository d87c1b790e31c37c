"""Texts in attacks: banned words and tokens, and text encoders that run over no more tokens than are needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srbench.catalog.screen import names_minor
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, UsageError

SHORTEST_PART = 3
"""A token that is a piece of a banned word is banned from this many letters on."""
START_TRIES = 200
"""Draws to find a start whose text may be used."""

# Words that say nothing about a concept by themselves: the rest of its names and nouns is banned.
NEUTRAL = frozenset({
    "a", "after", "an", "and", "as", "at", "bare", "bell", "building", "by", "charge", "colors", "country", "crossed",
    "field", "for", "from", "hall", "hand", "head", "heavy", "house", "in", "it", "item", "like", "manner", "master",
    "meeting", "mood", "night", "object", "of", "old", "on", "pair", "period", "place", "saw", "seen", "short", "site",
    "small", "something", "stone", "style", "that", "the", "thing", "things", "this", "time", "to", "village", "with",
    "wooden", "work",
})


# --- words ------------------------------------------------------------------------------------------------------------------


def banned_words(concept: ConceptSpec, family: str) -> list[str]:
    """What no adversarial prompt for `concept` may hold: the words of its names, nouns and reserved synonyms, sorted.

    Raises `UsageError` where the concept has no words for this backbone family.
    """
    if family not in concept.families:
        raise UsageError(f"concept '{concept.name}' has no words for {family}", f"It has: {', '.join(concept.families)}.")
    terms = concept.families[family]
    words = {word for phrase in (*terms.names, *terms.words, *terms.reserved) for word in re.findall(r"\w+", phrase.lower())}
    return sorted(words - NEUTRAL)


def holds_banned(text: str, banned: Sequence[str]) -> bool:
    """Whether a banned word stands anywhere in `text`, also inside a longer word."""
    lower = text.lower()
    return any(word.lower() in lower for word in banned)


# --- tokens -----------------------------------------------------------------------------------------------------------------


def banned_tokens(tokenizer: Any, banned: Sequence[str]) -> Tensor:
    """Mask over the vocabulary, (V,) bool: tokens that the attack may not use.

    Those are special tokens, pieces that do not print (parts of a character), and every token that holds a banned word
    or is a piece of one of at least three letters.
    """
    words, special = [word.lower() for word in banned], set(tokenizer.all_special_ids)
    texts = _decode(tokenizer, [[i] for i in range(len(tokenizer))])
    return torch.tensor([i in special or _unfit(text.strip().lower(), words) for i, text in enumerate(texts)])  # (V,)


def _unfit(text: str, words: list[str]) -> bool:
    if not text or "\ufffd" in text or not text.isprintable():
        return True
    return any(word in text or (len(text) >= SHORTEST_PART and text in word) for word in words)


def _decode(tokenizer: Any, ids: list[list[int]]) -> list[str]:
    return tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


class Vocabulary:
    """The tokens that an attack may use, and the texts that they make."""

    def __init__(self, tokenizer: Any, banned: Sequence[str], room: int, minors: bool = False) -> None:
        """room: tokens that fit between start and end. minors: whether texts that happen to name minors fit.

        Raises `CellError` where every token is banned.
        """
        self.tokenizer, self.banned, self.room, self.minors = tokenizer, tuple(banned), room, minors
        self.forbidden = banned_tokens(tokenizer, self.banned)  # (V,)
        self.allowed = torch.nonzero(~self.forbidden).flatten()  # (allowed,)
        if not len(self.allowed):
            raise CellError("every token of this vocabulary is banned", "Ban fewer words.")

    def texts(self, ids: Tensor) -> list[str]:
        """Tokens (B, n) as people would type them."""
        return [text.strip() for text in _decode(self.tokenizer, ids.tolist())]

    def inner(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts between start and end, neither padded nor cut."""
        return [ids[1:-1] for ids in self.tokenizer(texts).input_ids]

    def fits(self, texts: list[str]) -> list[bool]:
        """Which texts hold no banned word, may be run under a sensitive suite, and encode to allowed tokens that fit."""
        return [
            0 < len(ids) <= self.room and not self._holds(text) and not self.forbidden[ids].any()
            for text, ids in zip(texts, self.inner(texts), strict=True)
        ]

    def _holds(self, text: str) -> bool:
        return holds_banned(text, self.banned) or (not self.minors and names_minor(text))

    def whole(self) -> Tensor:
        """Allowed tokens (A,) that are a word by themselves: as text, encoded again, the same single token.

        Sequences of them nearly always encode to themselves; pieces of words merge with what follows. Raises `CellError`
        where there is none.
        """
        texts = self.texts(self.allowed[:, None])
        same = [ids == [token] for ids, token in zip(self.inner(texts), self.allowed.tolist(), strict=True)]
        words = self.allowed[torch.tensor(same)]
        if not len(words):
            raise CellError("no token of this vocabulary may be used as a word of its own", "Ban fewer words.")
        return words

    def start(self, alphabet: Tensor, count: int, draw: torch.Generator) -> Tensor:
        """`count` random tokens of `alphabet` whose text may be used, (count,). Raises `CellError` where no draw gives them."""
        for _ in range(START_TRIES):
            ids = alphabet[torch.randint(len(alphabet), (count,), generator=draw)]
            if self.fits(self.texts(ids[None]))[0]:
                return ids
        raise CellError(f"no prompt without a banned word in {START_TRIES} draws", "Ban fewer words or use fewer tokens.")


def room_of(model: Any, tokenizer: Any) -> int:
    """Tokens that fit between start and end."""
    config = getattr(model, "text_model", model).config
    return min(tokenizer.model_max_length, config.max_position_embeddings) - 2


def check_room(tokens: int, room: int) -> None:
    """Raise `UsageError` where `tokens` free tokens do not fit."""
    if tokens > room:
        raise UsageError(f"{tokens} tokens do not fit into this text encoder", f"Use at most {room}.")


# --- encoders ---------------------------------------------------------------------------------------------------------------


class PooledEncoder:
    """Pooled text embeddings, run over no more tokens than there are: the encoder is causal, so later ones do not count."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        self.model: Any = getattr(model, "text_model", model)  # a model with a projection holds the plain one
        self.tokenizer, self.device = tokenizer, next(model.parameters()).device
        self.room = room_of(model, tokenizer)
        """Tokens that fit between start and end."""

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """Unit embeddings, (B, width), of texts that fit into the encoder."""
        padded = self.tokenizer(texts, padding=True, truncation=True, max_length=self.room + 2, return_tensors="pt")
        return self.unit(padded.input_ids)  # of ids (B, L)

    def unit(self, ids: Tensor) -> Tensor:
        """(B, L) ids to unit embeddings, (B, width) float32."""
        pooled = self.model(input_ids=ids.to(self.device)).pooler_output
        return F.normalize(pooled.float(), dim=-1)

    @torch.no_grad()
    def similarity(self, ids: Tensor, wanted: Tensor) -> Tensor:
        """Cosine of (T, B, L) ids with the targets (T, width), as (T, B) on the CPU.

        In float32: processors without units for bfloat16 take several times as long for that.
        """
        targets, batch, length = ids.shape
        unit = self.unit(ids.reshape(-1, length)).view(targets, batch, -1)  # (T, B, width)
        return torch.einsum("tbw,tw->tb", unit, wanted).cpu()

    def gradient(self, ids: Tensor, wanted: Tensor) -> Tensor:
        """Gradient of the similarity by the one-hot tokens, (T, L, V), at ids (T, L)."""
        with _leaf_embeddings(self.model) as leaves, torch.enable_grad():
            (self.unit(ids) * wanted).sum().backward()
        return leaves[0].grad @ self.model.get_input_embeddings().weight.detach().T


def likeness(model: nn.Module, tokenizer: Any, texts: Sequence[str], others: Sequence[str]) -> list[float]:
    """Cosine of the pooled embeddings of each text and its partner."""
    encoder = PooledEncoder(model, tokenizer)
    return (encoder.texts(list(texts)) * encoder.texts(list(others))).sum(-1).tolist()


def whole_ids(tokenizer: Any, ids: Tensor) -> Tensor:
    """Free tokens (..., n) between start and end, (..., n + 2)."""
    side = (*ids.shape[:-1], 1)
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    return torch.cat([ids.new_full(side, start), ids, ids.new_full(side, end)], -1)


@contextmanager
def heard(model: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the context, the encoder's token embeddings (B, L, D) pass through `change`."""

    def changed(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        return change(output)

    handle = model.get_input_embeddings().register_forward_hook(changed)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _leaf_embeddings(model: Any) -> Iterator[list[Tensor]]:
    """Collects the token embeddings of the next forward pass as a leaf: by the chain rule, the one-hot gradient is
    the gradient here times the embedding matrix."""
    leaves: list[Tensor] = []

    def as_leaf(output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    frozen = [p for p in model.parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        with heard(model, as_leaf):
            yield leaves
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
