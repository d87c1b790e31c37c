"""Concept inversion as an attack: free token embeddings under which the victim draws the target image. Its result is no prompt.

After Pham et al., Circumventing Concept Erasure Methods (arXiv 2308.01508): textual inversion on the unlearned model, with its
method in force. Here one or more embeddings are the whole prompt, and the target image is the untouched backbone's for the
target prompt and the row's seed. `prompt_embeds` turns a result into what a pipeline samples with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from srbench.attacks import base, whitebox
from srbench.attacks.base import Adversarial, Progress, Victim
from srbench.attacks.defended import Speaker
from srbench.attacks.whitebox import Denoising, Free, Judge, Plan, Recipe, adam, check_free, framed, shuffled
from srbench.catalog.specs import Row

ATTACK = {
    "name": "concept-inversion",
    "version": 1,
    "title": "concept inversion: free token embeddings, learned on the defended model",
    "paper": "2308.01508",
    "needs": "defended pipeline",
    "output": "embedding",
    "gradient": ["exact", "bpda"],
    "objective": "mean squared error of the noise that the victim predicts in the target image",
    "better": "lower",
    "budgets": {
        "paper": {},
        "small": {"iterations": 96, "learning_rate": 0.02, "parallel": 20},
    },
}


class Settings(whitebox.Settings):
    """One embedding, Adam at 5e-3 and 1,000 steps: the common values of textual inversion (2208.01618)."""

    BUDGETS: ClassVar[Any] = ATTACK["budgets"]

    budget: Literal["small", "paper"] = "paper"
    """`small`: a search that 2 cores finish on pocket; `paper`: the published one."""
    tokens: int = Field(1, gt=0)
    """How many embeddings."""
    iterations: int = Field(1000, gt=0)
    learning_rate: float = Field(5e-3, gt=0)
    check_every: int = Field(16, gt=0)
    """Iterations between two measurements."""
    guidance: float = Field(1.0, allow_inf_nan=False)
    """Of the prediction; 1 is the positive side alone."""


def prompt_embeds(victim: Victim, embedding: Tensor) -> Tensor:
    """Prompt embeddings (1, T, D) of token embeddings (n, D), for a pipeline's `prompt_embeds`."""
    speaker = Speaker(victim)
    frame = framed(speaker, [[None] * len(embedding)], speaker.size - 2)
    with torch.no_grad():
        return speaker.embeds(frame.ids, frame.places, embedding[None].to(speaker.device))


@base.register(ATTACK)
class ConceptInversion:
    """White-box search for embeddings."""

    meta: ClassVar[dict[str, Any]]
    Settings: ClassVar[type[base.Settings]] = Settings

    @staticmethod
    def attack(
        victim: Victim, targets: Sequence[Row], settings: Any, progress: Progress | None = None, first: int = 0
    ) -> Iterator[Adversarial]:
        """One embedding per target. Raises as `whitebox.attacked` and `check_free` do."""
        check_free(victim, settings.tokens)

        def judge(defended: Any, target: Any) -> Judge:
            return Denoising(defended, target, settings.guidance)

        def plan(steps: int) -> Plan:
            schedule = tuple(shuffled(steps, settings.iterations, settings.seed))
            return Plan(schedule, settings.check_every, adam(settings.learning_rate, 0.0))

        recipe = Recipe(lambda ids: [None] * settings.tokens, Free, judge, plan, free=True)
        yield from whitebox.attacked(victim, targets, settings, recipe, progress, first)
