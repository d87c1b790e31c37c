"""Negative prompt: what the concept is called takes the place of the row's own negative prompt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from srbench.catalog.specs import ConceptSpec
from srbench.methods import base, guidance, phrases

METHOD = {
    "name": "negative-prompt",
    "version": 1,
    "kind": "inference",
    "title": "negative prompt: the concept's names",
    "paper": "",
    "families": ["*"],
    "presets": {"negative-prompt": {}},
    "decides": False,
    "reads_concept": True,
    "prepare": "make",
}


class Options(base.Options):
    """Options of the one preset."""

    text: str | None = Field(None, pattern=r"\S")
    """The negative prompt; None: the concept's names."""


class NegativePrompt(base.Applied):
    """Replaces the negative embedding; needs no hook."""

    def __init__(self, embedding: Tensor) -> None:
        self.embedding = embedding  # (1, T, D)

    def prompts(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """The positive embedding as it is, and the concept's in place of the negative one, each (B, T, D)."""
        return positive, self.embedding.to(negative).expand_as(negative)


@base.method(METHOD)
class NegativePromptMethod:
    """Guides away from the concept's text instead of the empty prompt."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def prepare(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any) -> base.Artifact:
        """Encode the text. Raises as `guidance.embedding` does, and `UsageError` without words for the family."""
        began = time.perf_counter()
        text = options.text or ", ".join(phrases.words_of(concept, backbone.family).names)
        return guidance.held(backbone, {"negative": guidance.embedding(backbone.pipeline, text)}, text, began)

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: base.Artifact, options: Any, call: base.Call) -> Iterator[NegativePrompt]:
        """Installs nothing. Raises `CellError` without guidance."""
        guidance.require_guidance("a negative prompt", call)
        yield NegativePrompt(artifact.payload["negative"])
