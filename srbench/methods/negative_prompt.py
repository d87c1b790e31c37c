"""Negative prompt: the concept's phrases replace the row's own negative prompt."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from srbench.backbones.pipelines import Conditioning
from srbench.catalog.specs import ConceptSpec
from srbench.methods import base, guidance

METHOD = {
    "name": "negative-prompt",
    "version": 2,
    "kind": "inference",
    "title": "negative prompt: the concept's phrases",
    "equation": ["e = e_n + g (e_c - e_n), e_n the prediction under the concept's phrases"],
    "paper": "",
    "families": ["*"],
    "presets": {"negative-prompt": {}},
    "published": ["negative-prompt"],
    "decides": False,
    "reads_concept": True,
    "prepare": "make",
}


class Options(base.Options):
    """Options of the one preset."""

    text: str | None = Field(None, pattern=r"\S")
    """The negative prompt; None: all that methods are told of the concept, as far as one text holds it."""


class NegativePrompt(base.Applied):
    """Replaces the negative side; needs no hook."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        """By field of `Conditioning`, of one image."""

    def conditioning(self, positive: Conditioning, negative: Conditioning) -> tuple[Conditioning, Conditioning]:
        """The positive side as it is, and the concept's text on the negative one."""
        old = {name: getattr(negative, name) for name in self.tensors}
        return positive, Conditioning(**{name: self.tensors[name].to(value).expand_as(value) for name, value in old.items()})


@base.method(METHOD)
class NegativePromptMethod:
    """Guides away from the concept's text instead of the empty prompt."""

    meta: ClassVar[dict[str, Any]]
    Options: ClassVar[type[base.Options]] = Options

    @staticmethod
    def prepare(backbone: base.BackboneInfo, concept: ConceptSpec, options: Any) -> base.Artifact:
        """Encode the text. Raises as `guidance.embedding` does, and `UsageError` without words for the family."""
        began = time.perf_counter()
        text, card = guidance.told(backbone.pipeline, concept, backbone.family, options.text)
        encoded = guidance.conditioning(backbone.pipeline, text)
        values = {field.name: getattr(encoded, field.name) for field in fields(encoded)}
        tensors = {name: value for name, value in values.items() if value is not None}
        return guidance.artifact_of(backbone, tensors, text, began, card=card)

    @staticmethod
    @contextmanager
    def applied(pipeline: Any, artifact: base.Artifact, options: Any, call: base.Call) -> Iterator[NegativePrompt]:
        """Installs nothing. Raises `CellError` without guidance."""
        guidance.require_guidance("a negative prompt", call)
        yield NegativePrompt(artifact.payload)
