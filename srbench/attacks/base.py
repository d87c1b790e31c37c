"""The contract of an attack, and the decorator that registers one.

An attack is one module with a literal dict `ATTACK` (read by `srbench list` without importing it) and one class
under `@register(ATTACK)`. A black-box attack reads the victim's text encoder alone (`needs: text_encoder`), a white-box
one its denoiser with the method in force as well (`needs: defended pipeline`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor

from srbench.backbones.checkpoint import Checkpoint
from srbench.catalog.specs import ConceptSpec, Recipe, Row

Progress = Callable[[int, int], None]
"""Called with (work done, all work); the unit is the attack's own."""

SEED_STRIDE = 1_000_003
HISTORY_POINTS = 8


class Settings(BaseModel):
    """Base of an attack's settings: every field has a default and is written beside the prompts it made.

    Each attack has `seed` and `parallel`, how many targets it works on at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


class Budgeted(Settings):
    """Settings with named budgets: a name stands for the values that are not given one by one."""

    BUDGETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        return {**cls.BUDGETS.get(values.get("budget", ""), {}), **values} if isinstance(values, dict) else values


@dataclass(frozen=True)
class Defence:
    """The method that defends, ready to be applied."""

    method: Any
    """The registered class."""
    artifact: Any
    options: Any


@dataclass(frozen=True)
class Victim:
    """What is attacked."""

    pipeline: Any
    """A diffusers pipeline in evaluation mode, float32, with the checkpoint loaded into it."""
    family: str
    concept: ConceptSpec
    banned: tuple[str, ...]
    """Words that no searched token may spell."""
    recipe: Recipe
    defence: Defence | None = None
    original: Checkpoint | None = None
    """The untouched backbone's weights that the checkpoint replaced; None where nothing was."""
    pairs: tuple[tuple[str, str], ...] = ()
    """(prompt with the concept, the same without), for attacks that learn the concept's direction from them."""


@dataclass(frozen=True)
class Adversarial:
    """One target and its result."""

    target: str
    prompt: str
    """Of an attack whose output is an embedding: the text of the nearest tokens."""
    similarity: float
    """Cosine of the two texts' pooled embeddings, measured on `prompt` as a tokenizer reads it; in [-1, 1]."""
    tokens_seed: int
    """Seed of this target's start and of all its draws."""
    objective: float = float("nan")
    """The attack's objective for the result; `meta["objective"]` describes it, and `meta["better"]` its direction."""
    history: tuple[float, ...] = ()
    """The best objective so far, from the start to the end, at a few points."""
    embedding: Tensor | None = field(default=None, compare=False)
    """(n, D) token embeddings, of an attack whose output is one."""


class Attack(Protocol):
    """An attack. `meta` is the module's `ATTACK` dict."""

    meta: ClassVar[dict[str, Any]]
    Settings: ClassVar[type[Settings]]

    @staticmethod
    def attack(
        victim: Victim, targets: Sequence[Row], settings: Any, progress: Progress | None = None, first: int = 0
    ) -> Iterator[Adversarial]:
        """One result per target, in order, none left out.

        first: the number of `targets[0]` among all of a search. A result depends on its target, its number and the targets
        of its group, numbers [k * parallel, (k + 1) * parallel): a search may stop anywhere and go on at a group's start.
        """


REGISTRY: dict[str, type[Attack]] = {}


def register(meta: dict[str, Any]) -> Callable[[type], type]:
    """Register an attack class under `meta["name"]`; `meta` is the module's literal `ATTACK`."""

    def registered(cls: type) -> type:
        cls.meta = meta  # type: ignore[attr-defined]
        REGISTRY[meta["name"]] = cls
        return cls

    return registered


# --- what attacks share ---------------------------------------------------------------------------------------------------


def wanted(row: Row) -> str:
    """The target text of an attack on this row: its hidden target, else its prompt."""
    return row.target or row.prompt


def seed_of(seed: int, number: int) -> int:
    """The seed of target `number`."""
    return seed * SEED_STRIDE + number


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator a target, on the CPU: nothing but its seed decides what it draws."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def groups(count: int, parallel: int) -> list[slice]:
    """Slices of at most `parallel` targets."""
    return [slice(start, start + parallel) for start in range(0, count, parallel)]


def points(history: Sequence[float]) -> tuple[float, ...]:
    """At most eight values of a long history, its first and last among them."""
    if len(history) <= HISTORY_POINTS:
        return tuple(history)
    last = len(history) - 1
    return tuple(history[round(i * last / (HISTORY_POINTS - 1))] for i in range(HISTORY_POINTS))


def may_name_minors(victim: Victim) -> bool:
    """Only on pocket, whose world has a baby penguin and no people."""
    return victim.family == "pocket"


def undefended(victim: Victim) -> Victim:
    """The same without its method."""
    return dataclasses.replace(victim, defence=None)
