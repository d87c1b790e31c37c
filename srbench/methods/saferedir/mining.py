"""Words that the backbone itself draws as a concept, found in pictures of the concept's names.

A user can tell a method some names of a concept; the model knows more. `mined` lets the model draw the names, and asks of every
word of a vocabulary how much better it explains some of the pictures than a sentence without any thing does, by the error of the
noise prediction, as diffusion classifiers do (2303.16203). A word that explains them about as well as the names that were told
joins them. Nothing but the model, the names and the vocabulary is read: no word of a suite, no judge.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from srbench.methods import finetune
from srbench.pocket.world import article

Progress = Callable[[str, int, int, str], None]
CONTEXTS = (
    "{} on a gray background, noto style", "{} in a meadow, fluent style", "{} on a beach, twemoji style",
    "{} in the snow, noto style", "{} in front of a city skyline, fluent style", "{} in the desert, twemoji style",
)  # fmt: skip
"""Sentences that pictures are drawn from and explained by: what they say beside the thing is no word's merit."""
NOTHING = "an empty scene"


@dataclass(frozen=True)
class Search:
    """How words are looked for."""

    pictures: int = 24
    """Drawn of the names, in turns."""
    sketches: int = 6
    """Pictures of the first pass, over the whole vocabulary."""
    kept: int = 160
    """Words that are looked at on all pictures."""
    levels: tuple[float, ...] = (0.45, 0.65)
    """Where between picture and noise the error is measured, as shares of the training timesteps."""
    best: float = 0.25
    """The share of the pictures that a word has to explain: a name's pictures show one member each."""
    share: float = 0.6
    """Of the told names' median gain, which a word has to reach."""
    batch: int = 96
    seed: int = 0


@dataclass(frozen=True)
class Pictures:
    """Noised pictures and what their noise is, each at every level, and the sentence that each was drawn from."""

    x: Tensor  # (P, L, C, h, w)
    noise: Tensor  # (P, L, C, h, w)
    t: tuple[int, ...]  # L
    contexts: tuple[str, ...]  # P


@torch.no_grad()
def drawn(pipeline: Any, names: Sequence[str], steps: int, guidance: float, search: Search) -> Pictures:
    """Pictures of the names in the contexts, with noise."""
    contexts = [CONTEXTS[i % len(CONTEXTS)] for i in range(search.pictures)]
    texts = [context.format(names[i % len(names)]) for i, context in enumerate(contexts)]
    sampler = finetune.Sampler(pipeline, finetune.encode(pipeline, [""]), steps, guidance)
    rng = torch.Generator().manual_seed(search.seed)
    clean = sampler.clean(pipeline.unet, finetune.encode(pipeline, texts), rng)  # (P, C, h, w)
    scheduler = copy.deepcopy(pipeline.scheduler)
    last = scheduler.config.num_train_timesteps
    times = tuple(int(level * last) for level in search.levels)
    noise = torch.randn((len(clean), len(times), *clean.shape[1:]), generator=rng).to(clean)
    x = torch.stack([scheduler.add_noise(clean, noise[:, k], torch.full((len(clean),), t)) for k, t in enumerate(times)], 1)
    return Pictures(x, noise, times, tuple(contexts))


@torch.no_grad()
def errors(pipeline: Any, pictures: Pictures, things: Sequence[str], count: int, batch: int) -> Tensor:
    """Mean squared error of the noise prediction for each thing on the first `count` pictures, (N, P)."""
    out = torch.zeros(len(things), count)
    for place in range(count):
        prompts = finetune.encode(pipeline, [pictures.contexts[place].format(thing) for thing in things])  # (N, T, D)
        for level, t in enumerate(pictures.t):
            x, noise = pictures.x[place, level], pictures.noise[place, level]  # (C, h, w)
            for first in range(0, len(things), batch):
                part = prompts[first : first + batch]
                guess = finetune.predict(pipeline.unet, x.expand(len(part), *x.shape), torch.tensor(t), part)
                out[first : first + len(part), place] += (guess - noise).square().flatten(1).mean(1) / len(pictures.t)
    return out


def gains(pipeline: Any, pictures: Pictures, things: Sequence[str], count: int, search: Search) -> Tensor:
    """How much less the error is than without any thing, mean of the pictures that a thing explains best, (N,)."""
    without, having = (errors(pipeline, pictures, said, count, search.batch) for said in ([NOTHING], things))
    best = max(1, round(search.best * count))
    return (without - having).topk(best, dim=1).values.mean(1)


def vocabulary(pipeline: Any, without: Sequence[str], allowed: Callable[[str], bool]) -> list[str]:
    """The tokenizer's whole words of three letters or more, with article, without the words of the given phrases."""
    known = {word for phrase in without for word in phrase.split()}
    words = {token.removesuffix("</w>") for token in pipeline.tokenizer.get_vocab() if token.endswith("</w>")}
    return [article(word) for word in sorted(words - known) if len(word) > 2 and word.isalpha() and allowed(word)]


def mined(
    pipeline: Any, names: Sequence[str], told: Sequence[str], words: Sequence[str], steps: int, guidance: float,
    search: Search, progress: Progress,
) -> dict[str, float]:
    """Word -> its gain as a share of the told phrases' median, of those that reach `search.share`, best first.

    names: what the pictures are drawn from. told: phrases to compare with; those that explain best set the scale.
    """
    pictures = drawn(pipeline, names, steps, guidance, search)
    progress("mining", 1, 3, "")
    sketched = gains(pipeline, pictures, words, search.sketches, search)
    progress("mining", 2, 3, "")
    kept = [words[int(i)] for i in sketched.topk(min(search.kept, len(words))).indices]
    found, scale = (gains(pipeline, pictures, things, search.pictures, search) for things in (kept, told))
    progress("mining", 3, 3, "")
    shares = {word: float(gain / scale.median()) for word, gain in zip(kept, found, strict=True)}
    enough = {word: share for word, share in shares.items() if share >= search.share}
    return dict(sorted(enough.items(), key=lambda pair: -pair[1]))
