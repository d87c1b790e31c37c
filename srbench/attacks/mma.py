"""The text attack of MMA-Diffusion: free tokens whose pooled embedding approaches the target prompt's.

Greedy coordinate gradient on one-hot tokens, after Yang et al., MMA-Diffusion (arXiv 2311.17516, section 3.2). What is
compared is the text encoder's pooled output (the last layer's state at the end-of-text token), without a projection.
Other than the paper's code, each step weighs its best swaps by the prompt that a user could type: the tokens decoded to
text and encoded again; a text that holds a banned word is never kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from srbench.attacks import base
from srbench.attacks.base import Adversarial, Progress, Victim, generators, groups, may_name_minors, points, seed_of, wanted
from srbench.attacks.text import PooledEncoder, Vocabulary, check_room, whole_ids
from srbench.attacks.text import banned_words as banned_words
from srbench.attacks.text import holds_banned as holds_banned
from srbench.catalog.specs import Row

ATTACK = {
    "name": "mma",
    "version": 1,
    "title": "MMA-Diffusion text attack",
    "paper": "2311.17516",
    "embedding": "pooled output, unprojected",
    "needs": "text_encoder",
    "output": "prompt",
    "objective": "cosine of the pooled embeddings of prompt and target",
    "better": "higher",
}


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
    return list(search(text_encoder, tokenizer, targets, banned, settings, progress))


def search(
    text_encoder: nn.Module, tokenizer: Any, targets: Sequence[str], banned: Sequence[str], settings: Settings,
    progress: Progress | None = None, first: int = 0, minors: bool = True,
) -> Iterator[Adversarial]:
    """As `attack`, a group of targets after the other; `first` is the number of the first one, minors: may prompts name them."""
    encoder = PooledEncoder(text_encoder.to(settings.device).eval(), tokenizer)
    check_room(settings.tokens, encoder.room)
    searcher = _Search(encoder, tuple(banned), settings, minors)
    for group in groups(len(targets), settings.parallel):

        def report(steps: int, start: int = group.start) -> None:
            if progress:
                progress(start * settings.steps + steps, len(targets) * settings.steps)

        yield from searcher.run(list(targets[group]), first + group.start, report)


@dataclass
class _State:
    """State of the search for T targets."""

    wanted: Tensor  # (T, width)
    ids: Tensor  # (T, n), the free tokens
    prompts: list[str]
    similarity: Tensor  # (T,), of the prompts' texts
    draws: list[torch.Generator]


class _Search:
    """The attack on one encoder."""

    def __init__(self, encoder: PooledEncoder, banned: tuple[str, ...], settings: Settings, minors: bool) -> None:
        self.encoder, self.settings = encoder, settings
        self.words = Vocabulary(encoder.tokenizer, banned, encoder.room, minors)

    def run(self, targets: list[str], first: int, report: Callable[[int], None]) -> Iterator[Adversarial]:
        """Prompts for targets number `first` and on; `report` gets the steps done, summed over them."""
        seeds = [seed_of(self.settings.seed, first + i) for i in range(len(targets))]
        state = self._start(targets, seeds)
        history = [state.similarity.tolist()]
        for step in range(self.settings.steps):
            self._step(state)
            history.append(state.similarity.tolist())
            report((step + 1) * len(targets))
        for i, similarity in enumerate(state.similarity.tolist()):
            way = points([values[i] for values in history])
            yield Adversarial(targets[i], state.prompts[i], similarity, seeds[i], similarity, way)

    def _start(self, targets: list[str], seeds: list[int]) -> _State:
        draws = generators(seeds)
        start = [self.words.start(self.words.allowed, self.settings.tokens, draw) for draw in draws]
        wanted, ids = self.encoder.texts(targets), torch.stack(start)
        prompts = self.words.texts(ids)
        similarity = (self.encoder.texts(prompts) * wanted).sum(-1).cpu()
        return _State(wanted, ids, prompts, similarity, draws)

    def _whole(self, ids: Tensor) -> Tensor:
        return whole_ids(self.encoder.tokenizer, ids)

    def _swaps(self, state: _State) -> Tensor:
        """Random single swaps among the best tokens by gradient, (T, batch, n)."""
        gradient = self.encoder.gradient(self._whole(state.ids), state.wanted).cpu()[:, 1:-1]  # (T, n, V)
        gradient = gradient.masked_fill(self.words.forbidden, -torch.inf)
        topk = min(self.settings.topk, len(self.words.allowed))
        best = gradient.topk(topk, dim=-1).indices  # (T, n, topk)
        swaps = state.ids[:, None].repeat(1, self.settings.batch, 1)  # (T, batch, n)
        for i, draw in enumerate(state.draws):
            place = torch.randint(swaps.shape[-1], (self.settings.batch,), generator=draw)
            rank = torch.randint(topk, (self.settings.batch,), generator=draw)
            swaps[i, torch.arange(self.settings.batch), place] = best[i, place, rank]
        return swaps

    def _step(self, state: _State) -> None:
        """Move each target to its best swap, where that swap's text is nearer."""
        swaps = self._swaps(state)
        similarity = self.encoder.similarity(self._whole(swaps), state.wanted)  # (T, batch)
        order = similarity.topk(min(self.settings.finalists, similarity.shape[1]), dim=1).indices  # (T, m)
        finalists = swaps.gather(1, order[..., None].expand(-1, -1, swaps.shape[-1]))  # (T, m, n)
        texts = self.words.texts(finalists.flatten(0, 1))
        again = self._again(texts, state.wanted)  # (T, m)
        best = again.argmax(1)
        for i in torch.nonzero(again.amax(1) > state.similarity).flatten().tolist():
            state.ids[i], state.similarity[i] = finalists[i, best[i]], again[i, best[i]]
            state.prompts[i] = texts[i * again.shape[1] + int(best[i])]

    def _again(self, texts: list[str], wanted: Tensor) -> Tensor:
        """Similarity of the texts encoded anew, (T, m); -inf where a text may not be used."""
        unit = self.encoder.texts(texts).view(len(wanted), -1, wanted.shape[-1])  # (T, m, width)
        similarity = torch.einsum("tmw,tw->tm", unit, wanted).cpu()
        return similarity.masked_fill(~torch.tensor(self.words.fits(texts)).view_as(similarity), -torch.inf)


@base.register(ATTACK)
class Mma:
    """The registered form."""

    meta: ClassVar[dict[str, Any]]
    Settings: ClassVar[type[base.Settings]] = Settings

    @staticmethod
    def attack(
        victim: Victim, targets: Sequence[Row], settings: Any, progress: Progress | None = None, first: int = 0
    ) -> Iterator[Adversarial]:
        """One prompt per target. Raises as `attack` does."""
        pipeline, texts, minors = victim.pipeline, [wanted(row) for row in targets], may_name_minors(victim)
        return search(pipeline.text_encoder, pipeline.tokenizer, texts, victim.banned, settings, progress, first, minors)
