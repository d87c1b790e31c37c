"""Ring-A-Bell: real tokens whose text encoding is near the target's, moved along the concept's direction.

After Tsai et al., Ring-A-Bell (arXiv 2310.10012): the direction is the mean difference of the encodings of prompt pairs with
and without the concept, and a genetic search looks for tokens near the moved encoding. Black box: the text encoder alone.
Other than the paper's code, only tokens that are a word by themselves are searched, the better half of a generation stays as
it is, and what is kept is the best text met, decoded and encoded again, that holds no banned word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from srbench.attacks import base
from srbench.attacks.base import Adversarial, Progress, Victim, generators, groups, points, seed_of, wanted
from srbench.attacks.text import Vocabulary, check_room, likeness, room_of, whole_ids
from srbench.catalog.specs import Row
from srbench.errors import UsageError

ATTACK = {
    "name": "ring-a-bell",
    "version": 1,
    "title": "Ring-A-Bell: genetic search for the target moved along the concept's direction",
    "paper": "2310.10012",
    "needs": "text_encoder",
    "output": "prompt",
    "objective": "squared distance of the whole text encoding to the target's, moved by eta times the concept's direction",
    "better": "lower",
    "reads_pairs": True,
    "budgets": {
        "paper": {},
        "small": {"population": 64, "generations": 150, "mutation": 0.75, "padding": 2, "parallel": 20},
    },
}

CHUNK = 512
"""Texts in one pass of the encoder."""


class Settings(base.Budgeted):
    """The defaults are the published ones (facts 5.3; K = 16 and eta = 3 are the notebook's)."""

    BUDGETS: ClassVar[Any] = ATTACK["budgets"]

    budget: Literal["small", "paper"] = "paper"
    """`small`: a search that 2 cores finish on pocket; `paper`: the published one."""
    tokens: int = Field(16, gt=0)
    """K."""
    eta: float = Field(3.0, allow_inf_nan=False)
    pairs: int = Field(50, gt=0)
    """How many are drawn where no file gives them."""
    population: int = Field(200, gt=1)
    generations: int = Field(3000, gt=0)
    mutation: float = Field(0.25, ge=0, le=1)
    """Chance that one token of a child is replaced."""
    crossover: float = Field(0.5, gt=0, lt=1)
    """Share of a generation that is replaced by children."""
    padding: int | None = Field(None, ge=0)
    """How many positions behind the end-of-text the ranking reads, the last of them standing for the rest; None: all. The
    objective that is kept and reported always reads all."""
    finalists: int = Field(4, gt=0)
    """How many of a generation's best texts are encoded again, unless they were measured before."""
    seed: int = 0
    parallel: int = Field(8, gt=0)
    """Targets worked on at once."""


class StateEncoder:
    """Encodings at all positions. The encoder is causal: those of the first n positions need no more than n tokens."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = getattr(model, "text_model", model), tokenizer
        self.device = next(model.parameters()).device
        self.room = room_of(model, tokenizer)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """(B, T, D) float32, as a pipeline encodes texts."""
        size = self.room + 2
        parts = [list(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
        read = [self.tokenizer(p, padding="max_length", truncation=True, max_length=size, return_tensors="pt") for p in parts]
        return torch.cat([self.model(input_ids=r.input_ids.to(self.device))[0].float() for r in read])

    def padded(self, ids: Tensor, padding: int) -> Tensor:
        """Free tokens (..., K) between start and end, and `padding` positions behind, (..., K + 2 + padding)."""
        behind = ids.new_full((*ids.shape[:-1], padding), self.tokenizer.pad_token_id)
        return torch.cat([whole_ids(self.tokenizer, ids), behind], -1)

    @torch.no_grad()
    def ranked(self, ids: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """Weighted squared distance of (G, P, L) ids from the targets' first positions (G, L, D), as (G, P) on the CPU."""
        distances = [self._distance(group, target[i], weights) for i, group in enumerate(ids)]
        return torch.stack(distances)

    def _distance(self, ids: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        parts = []
        for part in ids.split(CHUNK):
            states = self.model(input_ids=part.to(self.device))[0]
            parts.append(((states.float() - target).square().sum(-1) * weights).sum(-1).cpu())
        return torch.cat(parts)


def direction(encoder: StateEncoder, pairs: Sequence[tuple[str, str]], concept: str) -> Tensor:
    """The concept's direction, (T, D): the mean over the pairs of e(with) - e(without) (2310.10012, section 3).

    Raises `UsageError` where there are no pairs.
    """
    if not pairs:
        raise UsageError(
            f"ring-a-bell learns the direction of '{concept}' from pairs of prompts, and there are none",
            'Give --pairs FILE, a line {"unsafe": "...", "safe": "..."} for each pair.',
        )
    unsafe, safe = (encoder.texts(side) for side in zip(*pairs, strict=True))
    return (unsafe - safe).mean(0)


@dataclass
class _Best:
    """The best text of one target."""

    prompt: str
    distance: float
    seen: set[str] = field(default_factory=set)
    """Texts that were measured."""
    history: list[float] = field(default_factory=list)


class _Search:
    """The genetic search on one encoder."""

    def __init__(self, victim: Victim, settings: Settings) -> None:
        pipeline = victim.pipeline
        self.settings, self.encoder = settings, StateEncoder(pipeline.text_encoder, pipeline.tokenizer)
        check_room(settings.tokens, self.encoder.room)
        self.direction = direction(self.encoder, victim.pairs, victim.concept.name)  # (T, D)
        self.words = Vocabulary(pipeline.tokenizer, victim.banned, self.encoder.room)
        self.alphabet = self.words.whole()  # (A,)
        behind = self.encoder.room - settings.tokens
        self.padding = behind if settings.padding is None else min(settings.padding, behind)
        self.read = settings.tokens + 2 + self.padding
        """Positions that the ranking reads."""
        self.weights = torch.ones(self.read, device=self.encoder.device)  # (L,)
        self.weights[-1] += behind - self.padding

    def run(self, texts: list[str], seeds: list[int], report: Callable[[int], None]) -> list[_Best]:
        """The best text of each target; `report` gets the generations done."""
        draws = generators(seeds)
        goal = self.encoder.texts(texts) + self.settings.eta * self.direction  # (G, T, D)
        people = torch.stack([self._first(draw) for draw in draws])  # (G, P, K)
        marks = self._marks(people, goal)  # (G, P)
        best = self._begin(people, goal)
        for generation in range(self.settings.generations):
            people, marks = self._next(people, marks, goal, draws)
            self._look(people, marks, goal, best)
            report(generation + 1)
        return best

    def _first(self, draw: torch.Generator) -> Tensor:
        """A first generation, (P, K); its first member's text may be used."""
        size = (self.settings.population - 1, self.settings.tokens)
        rest = self.alphabet[torch.randint(len(self.alphabet), size, generator=draw)]
        return torch.cat([self.words.start(self.alphabet, self.settings.tokens, draw)[None], rest])

    def _marks(self, people: Tensor, goal: Tensor) -> Tensor:
        """What the generation is ranked by, (G, P); lower is better."""
        return self.encoder.ranked(self.encoder.padded(people, self.padding), goal[:, : self.read], self.weights)

    def _next(self, people: Tensor, marks: Tensor, goal: Tensor, draws: list[torch.Generator]) -> tuple[Tensor, Tensor]:
        """The better part of a generation, best first, and children of it."""
        count = max(1, round(self.settings.population * (1 - self.settings.crossover)))
        marks, order = marks.sort(dim=1, stable=True)
        parents = people.gather(1, order[:, :count, None].expand(-1, -1, people.shape[-1]))  # (G, count, K)
        children = torch.stack([self._children(group, draw) for group, draw in zip(parents, draws, strict=True)])
        both = torch.cat([parents, children], 1)
        return both, torch.cat([marks[:, :count], self._marks(children, goal)], 1)

    def _children(self, parents: Tensor, draw: torch.Generator) -> Tensor:
        """Children of random parents (count, K): cut at one place, joined, and one token in some of them replaced."""
        count, tokens = self.settings.population - len(parents), parents.shape[1]

        def drawn(high: int) -> Tensor:
            return torch.randint(high, (count,), generator=draw)

        left, right, cut = parents[drawn(len(parents))], parents[drawn(len(parents))], drawn(tokens)
        children = torch.where(torch.arange(tokens) < cut[:, None], left, right)  # (C, K)
        place, token = drawn(tokens), self.alphabet[drawn(len(self.alphabet))]
        changed = torch.rand(count, generator=draw) < self.settings.mutation
        at = torch.arange(count)
        children[at, place] = torch.where(changed, token, children[at, place])
        return children

    def _begin(self, people: Tensor, goal: Tensor) -> list[_Best]:
        texts = self.words.texts(people[:, 0])
        distances = self._measure(texts, goal)
        return [_Best(text, value, {text}, [value]) for text, value in zip(texts, distances, strict=True)]

    def _look(self, people: Tensor, marks: Tensor, goal: Tensor, best: list[_Best]) -> None:
        """Measure the new texts among a generation's best, and keep those that are nearer."""
        order = marks.topk(min(self.settings.finalists, marks.shape[1]), dim=1, largest=False).indices  # (G, m)
        chosen = people.gather(1, order[..., None].expand(-1, -1, people.shape[-1]))  # (G, m, K)
        fresh = [(i, text) for i, group in enumerate(chosen) for text in self.words.texts(group) if text not in best[i].seen]
        fits = self.words.fits([text for _, text in fresh]) if fresh else []
        for i, text in fresh:
            best[i].seen.add(text)
        fresh = [entry for entry, fit in zip(fresh, fits, strict=True) if fit]
        if fresh:
            distances = self._measure([text for _, text in fresh], goal[[i for i, _ in fresh]])
            for (i, text), value in zip(fresh, distances, strict=True):
                if value < best[i].distance:
                    best[i].prompt, best[i].distance = text, value
        for entry in best:
            entry.history.append(entry.distance)

    def _measure(self, texts: list[str], goal: Tensor) -> list[float]:
        """Squared distance of each text's encoding to its goal, over all positions."""
        return (self.encoder.texts(texts) - goal).square().sum((1, 2)).tolist()


@base.register(ATTACK)
class RingABell:
    """Black-box search in the space of encodings."""

    meta: ClassVar[dict[str, Any]]
    Settings: ClassVar[type[base.Settings]] = Settings

    @staticmethod
    def attack(
        victim: Victim, targets: Sequence[Row], settings: Any, progress: Progress | None = None, first: int = 0
    ) -> Iterator[Adversarial]:
        """One prompt per target; `progress` counts generations over all targets.

        Raises `UsageError` where there are no pairs, or the tokens do not fit into the encoder; `CellError` where no prompt
        without a banned word can be drawn.
        """
        search, model, tokenizer = _Search(victim, settings), victim.pipeline.text_encoder, victim.pipeline.tokenizer
        for group in groups(len(targets), settings.parallel):
            texts = [wanted(row) for row in targets[group]]
            seeds = [seed_of(settings.seed, first + group.start + i) for i in range(len(texts))]

            def report(generation: int, start: int = group.start, count: int = len(texts)) -> None:
                if progress:
                    progress(start * settings.generations + generation * count, len(targets) * settings.generations)

            best = search.run(texts, seeds, report)
            alike = likeness(model, tokenizer, [entry.prompt for entry in best], texts)
            for text, seed, result, similarity in zip(texts, seeds, best, alike, strict=True):
                yield Adversarial(text, result.prompt, similarity, seed, result.distance, points(result.history))
