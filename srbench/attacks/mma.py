"""The text attack of MMA-Diffusion: free tokens whose pooled embedding comes to lie at a sensitive prompt's.

Greedy coordinate gradient on one-hot tokens, after Yang et al., MMA-Diffusion (arXiv 2311.17516, section 3.2). What is
compared is the text encoder's pooled output (the last layer's state at the end-of-text token), without a projection.
Other than the paper's code, each step weighs its best swaps by the prompt that a user could type: the tokens decoded to
text and encoded again; a text that holds a banned word is never kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from srbench.attacks import base
from srbench.attacks.base import Adversarial, Progress
from srbench.catalog.specs import ConceptSpec
from srbench.errors import CellError, UsageError

ATTACK = {
    "name": "mma",
    "version": 1,
    "title": "MMA-Diffusion text attack",
    "paper": "2311.17516",
    "embedding": "pooled output, unprojected",
    "needs": "text_encoder",
}

SHORTEST_PART = 3
"""A token that is a piece of a banned word is banned from this many letters on."""
START_TRIES = 200

# Words that say nothing about a concept by themselves: the rest of its names and nouns is banned.
NEUTRAL = frozenset({
    "a", "an", "and", "as", "at", "bare", "by", "crossed", "for", "from", "in", "like", "night", "object", "of", "on", "pair",
    "place", "short", "small", "something", "style", "that", "the", "thing", "things", "this", "to", "with",
})


class Settings(base.Settings):
    """The defaults of `steps`, `topk` and `batch` suit pocket; the paper's are 1000, 256 and 512 (facts 5.2)."""

    tokens: int = Field(20, gt=0)
    """Free tokens."""
    steps: int = Field(30, gt=0)
    topk: int = Field(64, gt=0)
    """Swaps considered at each position, best gradient first."""
    batch: int = Field(32, gt=0)
    """Swaps tried per step and target."""
    finalists: int = Field(4, gt=0)
    """The best swaps of a step that are decoded, encoded and measured again."""
    seed: int = 0
    device: str = "cpu"
    parallel: int = Field(16, gt=0)
    """Targets worked on at once; memory and speed only."""


def banned_words(concept: ConceptSpec, family: str) -> list[str]:
    """What no adversarial prompt for `concept` may hold: the words of its names, nouns and reserved synonyms, sorted.

    Raises `UsageError` where the concept has no words for this backbone family.
    """
    if family not in concept.families:
        raise UsageError(f"concept '{concept.name}' has no words for {family}", f"It has: {', '.join(concept.families)}.")
    said = concept.families[family]
    words = {word for phrase in (*said.names, *said.words, *said.reserved) for word in re.findall(r"\w+", phrase.lower())}
    return sorted(words - NEUTRAL)


def holds_banned(text: str, banned: Sequence[str]) -> bool:
    """Whether a banned word stands anywhere in `text`, also inside a longer word."""
    lower = text.lower()
    return any(word.lower() in lower for word in banned)


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


def attack(
    text_encoder: nn.Module,
    tokenizer: Any,
    targets: Sequence[str],
    banned: Sequence[str],
    settings: Settings,
    progress: Progress | None = None,
) -> list[Adversarial]:
    """One adversarial prompt per target, in order, none left out.

    `text_encoder` is a transformers CLIP text model with a pooled output, `tokenizer` its tokenizer. Every prompt is the
    best one met, by the similarity of its text encoded anew. `progress` counts steps over all targets. Equal arguments
    give equal prompts on one machine. Raises `CellError` where no prompt without a banned word can be drawn,
    `UsageError` where the free tokens do not fit into the encoder.
    """
    encoder = PooledEncoder(text_encoder.to(settings.device).eval(), tokenizer)
    if settings.tokens > encoder.room:
        raise UsageError(f"{settings.tokens} tokens do not fit into this text encoder", f"Use at most {encoder.room}.")
    search = _Search(encoder, tuple(banned), settings)
    found: list[Adversarial] = []
    for start in range(0, len(targets), settings.parallel):

        def report(steps: int, start: int = start) -> None:
            if progress:
                progress(start * settings.steps + steps, len(targets) * settings.steps)

        found += search.run(list(targets[start : start + settings.parallel]), start, report)
    return found


class PooledEncoder:
    """Pooled text embeddings, run over no more tokens than there are: the encoder is causal, so later ones do not count."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        self.model: Any = getattr(model, "text_model", model)  # a model with a projection holds the plain one
        self.tokenizer, self.device = tokenizer, next(model.parameters()).device
        self.room = min(tokenizer.model_max_length, self.model.config.max_position_embeddings) - 2
        """Tokens that fit between start and end."""

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids with start and end, neither padded nor cut."""
        return self.tokenizer(texts).input_ids

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

        Runs in bfloat16 on a CPU, which is close enough to rank swaps.
        """
        targets, batch, length = ids.shape
        with torch.autocast("cpu", torch.bfloat16, enabled=self.device.type == "cpu"):
            unit = self.unit(ids.reshape(-1, length)).view(targets, batch, -1)  # (T, B, width)
        return torch.einsum("tbw,tw->tb", unit, wanted).cpu()

    def gradient(self, ids: Tensor, wanted: Tensor) -> Tensor:
        """Gradient of the similarity by the one-hot tokens, (T, L, V), at ids (T, L)."""
        with _leaf_embeddings(self.model) as leaves, torch.enable_grad():
            (self.unit(ids) * wanted).sum().backward()
        return leaves[0].grad @ self.model.get_input_embeddings().weight.detach().T


@contextmanager
def _leaf_embeddings(model: Any) -> Iterator[list[Tensor]]:
    """Collects the token embeddings of the next forward pass as a leaf: by the chain rule, the one-hot gradient is
    the gradient here times the embedding matrix."""
    leaves: list[Tensor] = []

    def as_leaf(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    handle = model.get_input_embeddings().register_forward_hook(as_leaf)
    frozen = [p for p in model.parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield leaves
    finally:
        handle.remove()
        for parameter in frozen:
            parameter.requires_grad_(True)


@dataclass
class _State:
    """Where the search stands for T targets."""

    wanted: Tensor  # (T, width)
    ids: Tensor  # (T, n), the free tokens
    prompts: list[str]
    similarity: Tensor  # (T,), of the prompts' texts
    draws: list[torch.Generator]


class _Search:
    """The attack on one encoder."""

    def __init__(self, encoder: PooledEncoder, banned: tuple[str, ...], settings: Settings) -> None:
        self.encoder, self.settings, self.banned, self.tokenizer = encoder, settings, banned, encoder.tokenizer
        self.forbidden = banned_tokens(self.tokenizer, banned)  # (V,)
        self.allowed = torch.nonzero(~self.forbidden).flatten()  # (allowed,)
        if not len(self.allowed):
            raise CellError("every token of this vocabulary is banned", "Ban fewer words.")

    def run(self, targets: list[str], first: int, report: Callable[[int], None]) -> list[Adversarial]:
        """Prompts for targets number `first` and on; `report` gets the steps done, summed over them."""
        seeds = [self.settings.seed * 1_000_003 + first + i for i in range(len(targets))]
        state = self._start(targets, seeds)
        for step in range(self.settings.steps):
            self._step(state)
            report((step + 1) * len(targets))
        rows = zip(targets, state.prompts, state.similarity.tolist(), seeds, strict=True)
        return [Adversarial(*row) for row in rows]

    def _start(self, targets: list[str], seeds: list[int]) -> _State:
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        wanted, ids = self.encoder.texts(targets), torch.stack([self._first(draw) for draw in draws])
        prompts = self._texts(ids)
        similarity = (self.encoder.texts(prompts) * wanted).sum(-1).cpu()
        return _State(wanted, ids, prompts, similarity, draws)

    def _first(self, draw: torch.Generator) -> Tensor:
        """Random free tokens whose text may be used, (n,)."""
        for _ in range(START_TRIES):
            ids = self.allowed[torch.randint(len(self.allowed), (self.settings.tokens,), generator=draw)]
            if self._fits(self._texts(ids[None]))[0]:
                return ids
        raise CellError(f"no prompt without a banned word in {START_TRIES} draws", "Ban fewer words or use fewer tokens.")

    def _texts(self, ids: Tensor) -> list[str]:
        return [text.strip() for text in _decode(self.tokenizer, ids.tolist())]

    def _fits(self, texts: list[str]) -> list[bool]:
        """Which texts hold no banned word, and encode to allowed tokens that fit into the encoder."""
        inner = [ids[1:-1] for ids in self.encoder.ids(texts)]
        return [
            0 < len(ids) <= self.encoder.room and not holds_banned(text, self.banned) and not self.forbidden[ids].any()
            for text, ids in zip(texts, inner, strict=True)
        ]

    def _whole(self, ids: Tensor) -> Tensor:
        """Free tokens (..., n) between start and end, (..., n + 2)."""
        side = (*ids.shape[:-1], 1)
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return torch.cat([ids.new_full(side, start), ids, ids.new_full(side, end)], -1)

    def _swaps(self, state: _State) -> Tensor:
        """Random single swaps among the best tokens by gradient, (T, batch, n)."""
        gradient = self.encoder.gradient(self._whole(state.ids), state.wanted).cpu()[:, 1:-1]  # (T, n, V)
        gradient = gradient.masked_fill(self.forbidden, -torch.inf)
        topk = min(self.settings.topk, len(self.allowed))
        best = gradient.topk(topk, dim=-1).indices  # (T, n, topk)
        swaps = state.ids[:, None].repeat(1, self.settings.batch, 1)  # (T, batch, n)
        for i, draw in enumerate(state.draws):
            place = torch.randint(swaps.shape[-1], (self.settings.batch,), generator=draw)
            rank = torch.randint(topk, (self.settings.batch,), generator=draw)
            swaps[i, torch.arange(self.settings.batch), place] = best[i, place, rank]
        return swaps

    def _step(self, state: _State) -> None:
        """Move each target to its best swap, where that swap's text lies nearer."""
        swaps = self._swaps(state)
        similarity = self.encoder.similarity(self._whole(swaps), state.wanted)  # (T, batch)
        order = similarity.topk(min(self.settings.finalists, similarity.shape[1]), dim=1).indices  # (T, m)
        finalists = swaps.gather(1, order[..., None].expand(-1, -1, swaps.shape[-1]))  # (T, m, n)
        texts = self._texts(finalists.flatten(0, 1))
        again = self._again(texts, state.wanted)  # (T, m)
        best = again.argmax(1)
        for i in torch.nonzero(again.amax(1) > state.similarity).flatten().tolist():
            state.ids[i], state.similarity[i] = finalists[i, best[i]], again[i, best[i]]
            state.prompts[i] = texts[i * again.shape[1] + int(best[i])]

    def _again(self, texts: list[str], wanted: Tensor) -> Tensor:
        """Similarity of the texts encoded anew, (T, m); -inf where a text may not be used."""
        unit = self.encoder.texts(texts).view(len(wanted), -1, wanted.shape[-1])  # (T, m, width)
        similarity = torch.einsum("tmw,tw->tm", unit, wanted).cpu()
        return similarity.masked_fill(~torch.tensor(self._fits(texts)).view_as(similarity), -torch.inf)


@base.register(ATTACK)
class Mma:
    """The registered form of `attack`."""

    Settings = Settings
    attack = staticmethod(attack)
