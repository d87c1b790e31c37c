"""Shared by the white-box attacks: free tokens in a prompt, their losses, and the loop that moves them.

The loop measures its best on probes, steps and noise that stay the same for a target, and on the prompt as a tokenizer reads
it: the best so far never gets worse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from srbench.attacks import base
from srbench.attacks.base import Adversarial, Progress, Victim, generators, groups, may_name_minors, points, seed_of, wanted
from srbench.attacks.defended import Defended, Drawn, Gradient, Speaker, drawn
from srbench.attacks.text import Vocabulary, check_room, likeness
from srbench.catalog.specs import Row
from srbench.errors import CellError

PROBE_SEED = 7
"""Added to a target's seed, times the stride, for the noise of its probes."""
RESTART_SEED = 11
"""A further start's number times this, added to a target's seed times the stride, for the start and its draws."""


class Settings(base.Budgeted):
    """Settings of all white-box attacks."""

    gradient: Gradient = "exact"
    calls: int = Field(1, ge=1, le=2)
    """Of the denoiser for one prediction. 2 for a method that acts from the next call on, as `saferedir-upstream` does."""
    probes: int = Field(4, gt=0)
    """Steps, evenly spaced, at which the objective is measured."""
    restarts: int = Field(1, gt=0)
    """Independent searches from other random tokens; the best of all by the objective is kept."""
    noises: int = Field(1, gt=0)
    """Draws of noise over which the gradient of an iteration is the mean."""
    seed: int = 0
    parallel: int = Field(8, gt=0)
    """Targets worked on at once."""


# --- prompts with free tokens -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """Prompts in which some tokens are free: B targets, up to n free tokens, T positions."""

    ids: Tensor  # (B, T), the free ones arbitrary
    places: Tensor  # (B, n); T where a target has fewer

    def filled(self, free: Tensor) -> Tensor:
        """Ids (B, T) with the free tokens (B, n) in their places."""
        beyond = torch.cat([self.ids, self.ids[:, :1]], 1).scatter(1, self.places, free)
        return beyond[:, : self.ids.shape[1]]


def framed(speaker: Speaker, bodies: Sequence[list[int | None]], room: int) -> Frame:
    """Frames of token lists, None for a free one; cut where they do not fit, padded as the tokenizer pads.

    Raises `CellError` where a target has no place for a free token.
    """
    tokenizer, size = speaker.tokenizer, speaker.size
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ids, places = [], []
    for body in bodies:
        whole = [start, *body[:room], end]
        ids.append([end if token is None else token for token in whole] + [pad] * (size - len(whole)))
        places.append([place for place, token in enumerate(whole) if token is None])
    most = max(map(len, places))
    if not all(places):
        raise CellError("a target has no place for a free token", "It is too short; take another layout.")
    return Frame(torch.tensor(ids), torch.tensor([row + [size] * (most - len(row)) for row in places]))


class Space(Protocol):
    """Free tokens while they are searched."""

    leaf: Tensor
    """What has a gradient."""

    def rows(self) -> Tensor:
        """Token embeddings (B, n, D) that depend on `leaf`."""

    def tokens(self) -> Tensor:
        """The nearest tokens, (B, n), on the CPU."""

    def settle(self) -> None:
        """Bring `leaf` back to its allowed values after a step."""


class Simplex:
    """Relaxed one-hot tokens (2310.11868): weights over the words, each token's on the probability simplex."""

    def __init__(self, speaker: Speaker, alphabet: Tensor, start: Tensor) -> None:
        """alphabet: (A,); start: indices into it, (B, n)."""
        self.alphabet, self.words = alphabet, speaker.table[alphabet.to(speaker.device)].float()  # (A, D)
        one_hot = F.one_hot(start, len(alphabet)).float()  # (B, n, A)
        self.leaf = one_hot.to(speaker.device).requires_grad_()

    def rows(self) -> Tensor:
        return self.leaf @ self.words

    def tokens(self) -> Tensor:
        return self.alphabet[self.leaf.detach().argmax(-1).cpu()]

    @torch.no_grad()
    def settle(self) -> None:
        self.leaf.copy_(on_simplex(self.leaf))


def on_simplex(x: Tensor) -> Tensor:
    """The nearest point of the probability simplex to each row of x (..., A): Euclidean projection by sorting."""
    ordered = x.sort(dim=-1, descending=True).values
    excess = ordered.cumsum(-1) - 1  # (..., A)
    rank = torch.arange(1, x.shape[-1] + 1, device=x.device)
    count = (ordered * rank > excess).sum(-1, keepdim=True)  # how many stay above zero, at least one
    return (x - excess.gather(-1, count - 1) / count).clamp(min=0)


class Nearest:
    """Free embeddings, read as their nearest words: the gradient at the words moves the embeddings (2302.03668, P4D)."""

    def __init__(self, speaker: Speaker, alphabet: Tensor, start: Tensor) -> None:
        """alphabet: (A,); start: indices into it, (B, n)."""
        self.alphabet, self.words = alphabet, speaker.table[alphabet.to(speaker.device)].float()  # (A, D)
        self.units = F.normalize(self.words, dim=-1)
        self.leaf = self.words[start.to(speaker.device)].clone().requires_grad_()  # (B, n, D)

    def _nearest(self) -> Tensor:
        return (F.normalize(self.leaf.detach(), dim=-1) @ self.units.T).argmax(-1)  # (B, n)

    def rows(self) -> Tensor:
        # The value is the word's; the derivative with respect to the leaf is one.
        return self.leaf + (self.words[self._nearest()] - self.leaf).detach()

    def tokens(self) -> Tensor:
        return self.alphabet[self._nearest().cpu()]

    def settle(self) -> None:
        """Nothing to do."""


class Free(Nearest):
    """Free embeddings as they are."""

    def rows(self) -> Tensor:
        return self.leaf


# --- losses -------------------------------------------------------------------------------------------------------------------


class Judge(Protocol):
    """Losses of a group of targets, lower is better."""

    steps: int

    def loss(self, embeds: Tensor, texts: Sequence[str], step: int, noise: Tensor) -> Tensor:
        """(B,), differentiable in the prompt embeddings (B, T, D); noise: standard normal, (B, C, h, w)."""


class Denoising:
    """How well the victim takes noise off the target image under a prompt: mean |eps - eps'(x_t, prompt)|^2 (2310.11868,
    its diffusion-classifier loss)."""

    def __init__(self, defended: Defended, target: Drawn, guidance: float) -> None:
        self.defended, self.target, self.guidance = defended, target, guidance
        self.steps = len(defended.t)

    def loss(self, embeds: Tensor, texts: Sequence[str], step: int, noise: Tensor) -> Tensor:
        clean = self.target.clean
        noise = noise.to(clean)
        x = self.defended.noised(clean, noise, step)
        predicted = self.defended.predict(x, step, embeds, texts, self.guidance)
        return (predicted - self.defended.truth(clean, noise, step)).square().flatten(1).mean(1)


class Matching:
    """How far the victim's guided prediction is from the untouched backbone's, on the way to the target image (2309.06135)."""

    def __init__(self, defended: Defended, target: Drawn, guidance: float) -> None:
        self.defended, self.target, self.guidance = defended, target, guidance
        self.steps = len(defended.t)

    def loss(self, embeds: Tensor, texts: Sequence[str], step: int, noise: Tensor) -> Tensor:
        predicted = self.defended.predict(self.target.x[step], step, embeds, texts, self.guidance)
        return (predicted - self.target.guided[step]).square().flatten(1).mean(1)


# --- the loop -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """The schedule of the loop."""

    schedule: tuple[int, ...]
    """The step of each iteration."""
    every: int
    """Iterations between two measurements."""
    make: Callable[[list[Tensor]], torch.optim.Optimizer]


@dataclass
class Best:
    """The best of one target so far."""

    prompt: str
    objective: float
    history: list[float]
    embedding: Tensor | None = None


@dataclass
class Group:
    """A group of targets in the loop."""

    speaker: Speaker
    frame: Frame
    space: Space
    judge: Judge
    shape: tuple[int, ...]
    """(C, h, w) of the latents."""
    draws: list[torch.Generator]
    probes: list[tuple[int, Tensor]]
    """Steps and noise (B, C, h, w) at which the objective is measured."""
    noises: int = 1
    """Draws of noise for the gradient of an iteration."""

    def prompts(self) -> list[str]:
        """The prompts as people would type them."""
        tokenizer = self.speaker.tokenizer
        ids = self.frame.filled(self.space.tokens()).tolist()
        bodies = [row[1 : row.index(tokenizer.eos_token_id, 1)] for row in ids]
        texts = tokenizer.batch_decode(bodies, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return [text.strip() for text in texts]

    def noise(self) -> Tensor:
        """A draw for each target, (B, C, h, w)."""
        return torch.stack([torch.randn(self.shape, generator=draw) for draw in self.draws])

    def embeds(self) -> Tensor:
        """Prompt embeddings (B, T, D) with the current free tokens."""
        return self.speaker.embeds(self.frame.ids, self.frame.places, self.space.rows())

    def loss(self, step: int) -> Tensor:
        """The loss of each target (B,) at a step, the mean over the draws of noise."""
        embeds, prompts = self.embeds(), self.prompts()
        return torch.stack([self.judge.loss(embeds, prompts, step, self.noise()) for _ in range(self.noises)]).mean(0)

    @torch.no_grad()
    def measured(self, embeds: Tensor, texts: Sequence[str]) -> list[float]:
        """The objective of each target: the mean loss over its probes."""
        losses = [self.judge.loss(embeds, texts, step, noise) for step, noise in self.probes]
        return torch.stack(losses).mean(0).tolist()


def climb(group: Group, plan: Plan, free: bool, report: Callable[[int], None]) -> list[Best]:
    """Move the free tokens along the schedule; the best prompt of each target, the start among them.

    free: the embeddings are kept, not the prompts of their nearest tokens. Raises `CellError` where a loss is
    no number.
    """
    best = _look(group, free, None)
    optimiser = plan.make([group.space.leaf])
    for done, step in enumerate(plan.schedule, 1):
        with torch.enable_grad():
            loss = group.loss(step).sum()
            if not bool(loss.isfinite()):
                raise CellError("the attack's loss is not a number", "Lower learning_rate.")
            (group.space.leaf.grad,) = torch.autograd.grad(loss, [group.space.leaf])  # of the leaf alone
        optimiser.step()
        group.space.settle()
        if done % plan.every == 0 or done == len(plan.schedule):
            best = _look(group, free, best)
        report(done)
    return best


@torch.no_grad()
def _look(group: Group, free: bool, best: list[Best] | None) -> list[Best]:
    """Measure the group's prompts or embeddings, and keep what is better."""
    prompts = group.prompts()
    objectives = group.measured(group.embeds() if free else group.speaker.encode(prompts), prompts)
    rows = list(group.space.rows().detach().cpu().clone()) if free else [None] * len(objectives)
    if best is None:
        best = [Best(prompt, value, [], row) for prompt, value, row in zip(prompts, objectives, rows, strict=True)]
    for entry, prompt, value, row in zip(best, prompts, objectives, rows, strict=True):
        if value < entry.objective:
            entry.prompt, entry.objective, entry.embedding = prompt, value, row
        entry.history.append(entry.objective)
    return best


def better(one: Best, other: Best) -> Best:
    """The one with the lower objective, with the history of both: the best so far, one search after the other."""
    history = [*one.history, *(min(one.objective, value) for value in other.history)]
    return replace(min(one, other, key=lambda best: best.objective), history=history)


def spread(steps: int, count: int) -> list[int]:
    """`count` steps of `steps`, evenly spaced, none twice."""
    count = min(count, steps)
    return [(2 * i + 1) * steps // (2 * count) for i in range(count)]


def shuffled(steps: int, count: int, seed: int) -> list[int]:
    """`count` steps of `steps` in random order, all once before one comes again; the same for all targets of a seed."""
    draw = torch.Generator().manual_seed(seed)
    rounds = [torch.randperm(steps, generator=draw) for _ in range(-(-count // steps))]
    return torch.cat(rounds)[:count].tolist()


@dataclass(frozen=True)
class Recipe:
    """What differs between the white-box attacks."""

    layout: Callable[[list[int]], list[int | None]]
    """A target's tokens -> the tokens of its prompt, None for a free one."""
    space: Callable[[Speaker, Tensor, Tensor], Space]
    judge: Callable[[Defended, Drawn], Judge]
    plan: Callable[[int], Plan]
    """Steps of the victim's recipe -> the plan."""
    free: bool = False
    """Whether the result is an embedding."""


def attacked(
    victim: Victim, targets: Sequence[Row], settings: Settings, recipe: Recipe, progress: Progress | None, first: int
) -> Iterator[Adversarial]:
    """Results of a white-box attack, group by group; `progress` counts iterations over all targets.

    Raises `UsageError` for a pipeline or scheduler that white-box attacks do not know.
    """
    speaker, defended = Speaker(victim), Defended(victim, settings.gradient, settings.calls)
    room = speaker.size - 2
    vocabulary = Vocabulary(speaker.tokenizer, victim.banned, room, may_name_minors(victim))
    alphabet, plan = vocabulary.whole(), recipe.plan(len(defended.t))
    total = len(plan.schedule) * settings.restarts
    for part in groups(len(targets), settings.parallel):
        rows = targets[part]
        seeds = [seed_of(settings.seed, first + part.start + i) for i in range(len(rows))]

        def report(before: int, done: int, start: int = part.start, count: int = len(rows)) -> None:
            if progress:
                progress(start * total + (before + done) * count, len(targets) * total)

        target = drawn(victim, [wanted(row) for row in rows], [settings.seed if row.seed is None else row.seed for row in rows])
        best: list[Best] = []
        for start in range(settings.restarts):
            group = _group(victim, speaker, defended, vocabulary, alphabet, rows, seeds, start, settings, recipe, target)
            found = climb(group, plan, recipe.free, partial(report, start * len(plan.schedule)))
            best = list(map(better, best, found)) if best else found
        texts = [wanted(row) for row in rows]
        alike = likeness(speaker.model, speaker.tokenizer, [entry.prompt for entry in best], texts)
        for text, seed, result, similarity in zip(texts, seeds, best, alike, strict=True):
            yield Adversarial(text, result.prompt, similarity, seed, result.objective, points(result.history), result.embedding)


def _group(
    victim: Victim, speaker: Speaker, defended: Defended, vocabulary: Vocabulary, alphabet: Tensor, rows: Sequence[Row],
    seeds: list[int], start: int, settings: Settings, recipe: Recipe, target: Drawn,
) -> Group:
    """A group at its `start`-th start; the probes of all starts are the same, so that their objectives can be compared."""
    bodies = [recipe.layout(ids) for ids in vocabulary.inner([wanted(row) for row in rows])]
    frame = framed(speaker, bodies, vocabulary.room)
    draws = generators(seeds if start == 0 else [seed_of(RESTART_SEED * start, seed) for seed in seeds])
    count = frame.places.shape[1]
    words = torch.stack([torch.randint(len(alphabet), (count,), generator=draw) for draw in draws])  # (B, n)
    judge, shape = recipe.judge(defended, target), tuple(target.clean.shape[1:])
    probe_draws = generators([seed_of(PROBE_SEED, seed) for seed in seeds])
    probes = [
        (step, torch.stack([torch.randn(shape, generator=draw) for draw in probe_draws]))
        for step in spread(judge.steps, settings.probes)
    ]
    space = recipe.space(speaker, alphabet, words)
    return Group(speaker, frame, space, judge, shape, draws, probes, settings.noises)


def adam(learning_rate: float, weight_decay: float) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    """Adam with an L2 term."""
    return lambda leaves: torch.optim.Adam(leaves, lr=learning_rate, weight_decay=weight_decay)


def prefixed(tokens: int) -> Callable[[list[int]], list[int | None]]:
    """Free tokens before the target's own."""
    return lambda ids: [*([None] * tokens), *ids]


def check_free(victim: Victim, tokens: int) -> None:
    """Raise `UsageError` where `tokens` free tokens do not fit into the victim's text encoder."""
    check_room(tokens, victim.pipeline.tokenizer.model_max_length - 2)
