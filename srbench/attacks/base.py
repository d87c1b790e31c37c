"""The contract of an attack on a text encoder, and the decorator that registers one.

An attack is one module with a literal dict `ATTACK` (read by `srbench list` without importing it) and one class
under `@register(ATTACK)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict
from torch import nn

Progress = Callable[[int, int], None]
"""Called with (work done, all work); the unit is the attack's own."""


class Settings(BaseModel):
    """Base of an attack's settings: every field has a default and is written beside the prompts it made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Adversarial:
    """One target and the prompt found for it."""

    target: str
    prompt: str
    similarity: float
    """Cosine of the two texts' embeddings, measured on `prompt` as a tokenizer reads it; in [-1, 1]."""
    tokens_seed: int
    """Seed of this target's start and of all its draws."""


class Attack(Protocol):
    """An attack on a text encoder. `meta` is the module's `ATTACK` dict."""

    meta: ClassVar[dict[str, Any]]
    Settings: ClassVar[type[Settings]]

    @staticmethod
    def attack(
        text_encoder: nn.Module,
        tokenizer: Any,
        targets: Sequence[str],
        banned: Sequence[str],
        settings: Any,
        progress: Progress | None = None,
    ) -> list[Adversarial]:
        """One prompt per target, in order, none left out. `banned` words appear in no prompt."""


REGISTRY: dict[str, type[Attack]] = {}


def register(meta: dict[str, Any]) -> Callable[[type], type]:
    """Register an attack class under `meta["name"]`; `meta` is the module's literal `ATTACK`."""

    def registered(cls: type) -> type:
        cls.meta = meta  # type: ignore[attr-defined]
        REGISTRY[meta["name"]] = cls
        return cls

    return registered
