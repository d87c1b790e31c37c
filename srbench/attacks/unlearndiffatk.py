"""UnlearnDiffAtk: a few tokens before the target prompt, under which the victim denoises the target image well.

After Zhang et al., To Generate or Not? (arXiv 2310.11868): relaxed one-hot tokens, projected on the probability simplex after
each step of Adam, at one sampled timestep after the other. The target image is drawn by the untouched backbone for the
target prompt and the row's seed. Other than the paper's code, the tokens are words by themselves and never one of the
concept's, and what is kept is the best of the prompts met after each timestep, on fixed probes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from srbench.attacks import base, whitebox
from srbench.attacks.base import Adversarial, Progress, Victim
from srbench.attacks.whitebox import Denoising, Judge, Plan, Recipe, Simplex, adam, check_free, prefixed, shuffled
from srbench.catalog.specs import ConceptSpec, Row

ATTACK = {
    "name": "unlearndiffatk",
    "version": 1,
    "title": "UnlearnDiffAtk: adversarial prefix by the diffusion-classifier loss",
    "paper": "2310.11868",
    "needs": "defended pipeline",
    "output": "prompt",
    "gradient": ["exact", "bpda"],
    "objective": "mean squared error of the noise that the victim predicts in the target image",
    "better": "lower",
    "budgets": {
        "paper": {},
        "small": {"iterations": 8, "timesteps": 8, "learning_rate": 0.1, "parallel": 20},
    },
}

PREFIX = {"style": 3, "object": 3}
"""Tokens by kind of concept; 5 for others (facts 5.5)."""


class Settings(whitebox.Settings):
    """The defaults are the published ones (facts 5.5)."""

    BUDGETS: ClassVar[Any] = ATTACK["budgets"]

    budget: Literal["small", "paper"] = "paper"
    """`small`: a search that 2 cores finish on pocket; `paper`: the published one."""
    tokens: int | None = Field(None, gt=0)
    """k; None: 3 for styles and objects, else 5."""
    iterations: int = Field(40, gt=0)
    """At each timestep."""
    timesteps: int = Field(50, gt=0)
    """How many are sampled, of those of the victim's recipe; all of them once before one comes again."""
    learning_rate: float = Field(0.01, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    guidance: float = Field(1.0, allow_inf_nan=False)
    """Of the prediction; 1 is the positive side alone, as published."""


def tokens_of(settings: Settings, concept: ConceptSpec) -> int:
    """k."""
    return settings.tokens or PREFIX.get(concept.kind, 5)


def plan_of(settings: Settings, steps: int) -> Plan:
    """`iterations` at each of the sampled timesteps, measured after each of them."""
    schedule = [step for step in shuffled(steps, settings.timesteps, settings.seed) for _ in range(settings.iterations)]
    return Plan(tuple(schedule), settings.iterations, adam(settings.learning_rate, settings.weight_decay))


def recipe_of(victim: Victim, settings: Settings, judge: Any) -> Recipe:
    """Everything but the judge is shared with `adaptive`."""
    tokens = tokens_of(settings, victim.concept)
    check_free(victim, tokens)
    return Recipe(prefixed(tokens), Simplex, judge, lambda steps: plan_of(settings, steps))


@base.register(ATTACK)
class UnlearnDiffAtk:
    """White-box search for a prefix."""

    meta: ClassVar[dict[str, Any]]
    Settings: ClassVar[type[base.Settings]] = Settings

    @staticmethod
    def attack(
        victim: Victim, targets: Sequence[Row], settings: Any, progress: Progress | None = None, first: int = 0
    ) -> Iterator[Adversarial]:
        """One prompt per target. Raises as `whitebox.attacked` and `check_free` do."""

        def judge(defended: Any, target: Any) -> Judge:
            return Denoising(defended, target, settings.guidance)

        yield from whitebox.attacked(victim, targets, settings, recipe_of(victim, settings, judge), progress, first)
