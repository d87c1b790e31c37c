"""The contract of a scorer: images in, one dict of raw numbers per image out, before any threshold.

A scorer is one module with a literal dict `SCORER` and one class under `@scorer(SCORER)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Base of a scorer's options: every field has a default and is part of its identity, but for paths (`exclude=True`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Scorer(Protocol):
    """Scores images. Made once per run by `SCORER class(options)`; loading weights happens in `__init__`."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[Options]]
    """`Options` of this module where the scorer has none of its own."""

    def identity(self) -> dict[str, Any]:
        """Everything that changes its numbers: library, version, weights sha256, preprocessing, channel order."""

    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Raw numbers per image, JSON-ready.

        images: uint8 RGB, (H, W, 3) each. rows: the fields named in `meta["reads"]`.
        """


REGISTRY: dict[str, type[Scorer]] = {}


def scorer(meta: dict[str, Any]) -> Callable[[type], type]:
    """Register a scorer class under `meta["name"]`; `meta` is the module's literal `SCORER`."""

    def register(cls: type) -> type:
        cls.meta = meta  # type: ignore[attr-defined]
        cls.Options = getattr(cls, "Options", Options)  # type: ignore[attr-defined]
        REGISTRY[meta["name"]] = cls
        return cls

    return register


def package_folder(name: str) -> Path:
    """A folder of files inside the installed package, e.g. `pocket/judge`."""
    return Path(__file__).resolve().parent.parent / name
