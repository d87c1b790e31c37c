"""The contract of a method, and the decorator that registers one.

A method is one module with a literal dict `METHOD` (read by `srbench list` without importing it) and one class
under `@method(METHOD)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from srbench.catalog.specs import ConceptSpec


class Options(BaseModel):
    """Base of a method's options: every field has a default and is part of the image key."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Artifact:
    """What a method prepared once: a payload, the sha256 of what it was made from, and what it cost."""

    payload: Any
    sha256: str
    parameters: int = 0
    prepare_seconds: float = 0.0
    card: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BackboneInfo:
    """What a method may know of a backbone."""

    name: str
    family: str
    sha256: str
    """Of all weight files."""
    pipeline: Any
    """A diffusers pipeline in evaluation mode."""
    redirectors: Path | None = None
    """Folder with one sub-folder a concept: the shipped redirectors."""


@dataclass(frozen=True)
class Call:
    """One pipeline call: how many images, steps, and whether guidance doubles the batch ([negative; positive])."""

    images: int
    steps: int
    guided: bool


class Applied:
    """What is active during one pipeline call. All state in it belongs to that call's images alone."""

    calls: int = 0
    """How often the method's hook ran; the engine compares it with the number of denoiser calls."""
    hooked: bool = False
    """Whether the method acts through a hook at all."""

    def prompts(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """New prompt embeddings, each (B, tokens, width); prompt-level methods override this."""
        return positive, negative

    def trace(self) -> list[dict[str, Any]]:
        """One JSON-ready dict per image, in batch order; empty dicts where there is nothing to say."""
        return []


class Method(Protocol):
    """An inference method. `meta` is the module's `METHOD` dict."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[Options]]

    @staticmethod
    def prepare(backbone: BackboneInfo, concept: ConceptSpec, options: Any) -> Artifact | None:
        """Load or make what the method needs. Raises `MissingError` with the command that makes it."""

    @staticmethod
    def applied(
        pipeline: Any, artifact: Artifact | None, options: Any, call: Call
    ) -> AbstractContextManager[Applied]:
        """Install on `pipeline` for one call and remove every trace afterwards."""


REGISTRY: dict[str, type[Method]] = {}


def method(meta: dict[str, Any]) -> Callable[[type], type]:
    """Register a method class under `meta["name"]`; `meta` is the module's literal `METHOD`."""

    def register(cls: type) -> type:
        cls.meta = meta  # type: ignore[attr-defined]
        REGISTRY[meta["name"]] = cls
        return cls

    return register


def denoiser(pipeline: Any) -> Any:
    """The pipeline's U-Net or transformer."""
    found = getattr(pipeline, "unet", None)
    return pipeline.transformer if found is None else found


@contextmanager
def hooks(*handles: Any) -> Iterator[None]:
    """Remove torch hook handles on exit, whatever happened."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
