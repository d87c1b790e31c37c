"""P4D (Prompting4Debugging): tokens under which the victim's guided noise prediction is the untouched backbone's for the target.

After Chin et al. (arXiv 2309.06135): free embeddings are read as their nearest words, and the gradient there moves the
embeddings. `layout=n` searches a prompt of free tokens alone (P4D-N), `layout=k` puts one after every few of the target's own
(P4D-K). x_t and the reference prediction come from the untouched backbone's sampling of the target prompt, at the row's seed.
Other than the paper's code, the tokens are words by themselves and never one of the concept's, and what is kept is the best
of the prompts met at the measurements, on fixed steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from srbench.attacks import base, whitebox
from srbench.attacks.base import Adversarial, Progress, Victim
from srbench.attacks.defended import Defended, Drawn
from srbench.attacks.whitebox import Judge, Matching, Nearest, Plan, Recipe, check_free, shuffled
from srbench.catalog.specs import Row

ATTACK = {
    "name": "p4d",
    "version": 1,
    "title": "P4D: free tokens that match the untouched backbone's noise prediction",
    "paper": "2309.06135",
    "needs": "defended pipeline",
    "output": "prompt",
    "gradient": ["exact", "bpda"],
    "objective": "mean squared difference of the victim's guided prediction from the untouched backbone's for the target",
    "better": "lower",
    "budgets": {
        "paper": {},
        "small": {"iterations": 64, "check_every": 8, "parallel": 20},
    },
}


class Settings(whitebox.Settings):
    """The defaults are the published ones (facts 5.4)."""

    BUDGETS: ClassVar[Any] = ATTACK["budgets"]

    budget: Literal["small", "paper"] = "paper"
    """`small`: a search that 2 cores finish on pocket; `paper`: the published one."""
    layout: Literal["n", "k"] = "n"
    tokens: int = Field(16, gt=0)
    """Free tokens of P4D-N."""
    after: int = Field(3, gt=0)
    """P4D-K: one free token after so many of the target's."""
    iterations: int = Field(3000, gt=0)
    learning_rate: float = Field(0.1, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    check_every: int = Field(50, gt=0)
    """Iterations between two measurements."""
    guidance: float | None = Field(None, allow_inf_nan=False)
    """Of the victim's prediction; None: the victim's recipe's, which the reference has."""


def layout_of(settings: Settings) -> Callable[[list[int]], list[int | None]]:
    """The layout: a target's token ids -> the prompt's, None for a free token."""

    def alone(ids: list[int]) -> list[int | None]:
        return [None] * settings.tokens

    def between(ids: list[int]) -> list[int | None]:
        parts = [ids[start : start + settings.after] for start in range(0, len(ids), settings.after)]
        return [token for part in parts for token in (*part, *([None] if len(part) == settings.after else []))]

    return alone if settings.layout == "n" else between


def plan_of(settings: Settings, steps: int) -> Plan:
    """A random step in each iteration, and AdamW."""

    def make(leaves: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(leaves, lr=settings.learning_rate, weight_decay=settings.weight_decay)

    return Plan(tuple(shuffled(steps, settings.iterations, settings.seed)), settings.check_every, make)


def matching(victim: Victim, settings: Settings) -> Callable[[Defended, Drawn], Matching]:
    """The judge of a victim, at the settings' guidance or the recipe's own."""
    guidance = victim.recipe.guidance if settings.guidance is None else settings.guidance
    return lambda defended, target: Matching(defended, target, guidance)


def recipe_of(victim: Victim, settings: Settings, judge: Callable[[Defended, Drawn], Judge]) -> Recipe:
    """Everything but the judge is shared with `adaptive-p4d`."""
    if settings.layout == "n":
        check_free(victim, settings.tokens)
    return Recipe(layout_of(settings), Nearest, judge, lambda steps: plan_of(settings, steps))


@base.register(ATTACK)
class P4D:
    """White-box search for a prompt."""

    meta: ClassVar[dict[str, Any]]
    Settings: ClassVar[type[base.Settings]] = Settings

    @staticmethod
    def attack(
        victim: Victim, targets: Sequence[Row], settings: Any, progress: Progress | None = None, first: int = 0
    ) -> Iterator[Adversarial]:
        """One prompt per target. Raises as `whitebox.attacked` and `check_free` do, and `CellError` where a target is too short
        for P4D-K."""
        recipe = recipe_of(victim, settings, matching(victim, settings))
        yield from whitebox.attacked(victim, targets, settings, recipe, progress, first)
