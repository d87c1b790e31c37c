"""The contract of a scorer: images in, raw numbers out, before any threshold.

A scorer is one module with a literal dict `SCORER` and one class under `@scorer(SCORER)`. Its `kind` says what it reads:
an image (`image`), an image and its reference image (`pair`), or each image of a set once, as a vector (`set`). `metrics`
names what becomes a column of its own: {metric: {"field": ..., "better": "higher" or "lower"}}. `probabilities` names the
fields whose numbers lie between 0 and 1: a judge with a threshold outside of them is refused before sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from srbench.catalog import plugins
from srbench.catalog.specs import Row
from srbench.errors import CellError
from srbench.hashing import canonical


class Options(BaseModel):
    """Base of a scorer's options: every field has a default and is part of its identity, but for paths (`exclude=True`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)


IMAGE, PAIR, SET = "image", "pair", "set"


class Named(Protocol):
    """What every scorer is. Made once per run by `SCORER class(options)`; loading weights happens in `__init__`.

    A class may also have a static method `known_classes(options)`, which loads no weights: field -> the classes that it holds a
    number for, an empty tuple where it is one number. A judge that names another class is then refused before sampling.
    """

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[Options]]
    """`Options` of this module where the scorer has none of its own."""

    def identity(self) -> dict[str, Any]:
        """Everything that changes its numbers: library, version, weights sha256, preprocessing, channel order."""


class Scorer(Named, Protocol):
    """Scores images one by one."""

    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Raw numbers per image, JSON-ready.

        images: uint8 RGB, (H, W, 3) each. rows: the fields named in `meta["reads"]`.
        """


class PairScorer(Named, Protocol):
    """Compares images with their reference images."""

    def score(
        self, images: Sequence[np.ndarray], references: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Raw numbers per pair, JSON-ready. images, references: uint8 RGB, (H, W, 3) each."""


class SetScorer(Named, Protocol):
    """Compares a set of images with the set of their reference images."""

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """One vector per image, (N, D) float32; stored by its image's pixel hash. images: uint8 RGB, (H, W, 3) each."""

    @staticmethod
    def reduce(images: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Numbers by field, from the features of both sets, (N, D) and (M, D). Raises `CellError` where they say nothing."""


REGISTRY: dict[str, type[Scorer]] = {}


def kind_of(meta: Mapping[str, Any]) -> str:
    """`image` where the metadata says nothing else."""
    return str(meta.get("kind", IMAGE))


def scorer(meta: dict[str, Any]) -> Callable[[type], type]:
    """Register a scorer class under `meta["name"]`; `meta` is the module's literal `SCORER`."""

    def register(cls: type) -> type:
        cls.meta = meta  # type: ignore[attr-defined]
        cls.Options = getattr(cls, "Options", Options)  # type: ignore[attr-defined]  # as `meta`: the contract's, not `type`'s
        REGISTRY[meta["name"]] = cls
        return cls

    return register


def package_folder(name: str) -> Path:
    """A folder of files inside the installed package, e.g. `pocket/judge`."""
    return Path(__file__).resolve().parent.parent / name


def check_rgb(image: Any, scorer: str) -> np.ndarray:
    """`image` if it is uint8 RGB, (H, W, 3). Raises `CellError`."""
    fits = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
    if not fits:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise CellError(f"{scorer} reads uint8 RGB pictures (height, width, 3), not {found}", "Convert the picture to 8-bit RGB.")
    return image


FEATURE = "feature"
"""The raw field that holds a set scorer's vector."""


def kind_named(scorer: str) -> str:
    """What a scorer reads: `image`, `pair` or `set`."""
    return kind_of(plugins.plugins("scorers")[scorer].meta)


def fields_of(scorer: str, row: Row) -> str:
    """Canonical JSON of the row fields that a scorer declares to read."""
    values = row.model_dump(mode="json")
    return canonical({name: values[name] for name in plugins.plugins("scorers")[scorer].meta["reads"]})
