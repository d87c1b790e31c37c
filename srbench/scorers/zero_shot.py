"""Which of a list of labels an image shows, by CLIP without training (2103.00020, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from srbench.errors import UsageError
from srbench.scorers import base
from srbench.scorers._clip import SCALE, Clip, ClipOptions, source
from srbench.scorers._files import one_thread


class ZeroShotOptions(ClipOptions):
    """The labels, the sentence that each stands in, and the CLIP that compares."""

    labels: str = ""
    """Between commas; two at least. Probabilities are shares among these."""
    template: str = "{}"
    """Each label takes the place of `{}`."""


def labels_of(options: ZeroShotOptions, scorer: str) -> tuple[str, ...]:
    """The labels in their order. Raises `UsageError` for fewer than two, for a repeated one, or a template without `{}`."""
    labels = tuple(label.strip() for label in options.labels.split(",") if label.strip())
    hint = f"Example: --set {scorer}.labels='one label,another label'"
    if len(labels) < 2:
        raise UsageError(f"{scorer} chooses among labels, and has {len(labels)}", hint)
    if len(set(labels)) < len(labels):
        raise UsageError(f"{scorer}: a label is given twice", hint)
    if options.template.count("{}") != 1:
        raise UsageError(f"{scorer}: the template must hold {{}} once", f"Example: --set {scorer}.template='a photo of a {{}}'")
    return labels


class ZeroShot:
    """Probability by label: softmax of 100 x cosine of the image and each label's sentence."""

    meta: ClassVar[Mapping[str, Any]]
    Options: ClassVar[type[base.Options]] = ZeroShotOptions

    def __init__(self, options: ZeroShotOptions | None = None) -> None:
        chosen = options or self.Options()
        assert isinstance(chosen, ZeroShotOptions)
        name = self.meta["name"]
        self._template, self._labels = chosen.template, labels_of(chosen, name)
        self._clip = Clip(source(chosen.model, chosen.tag, chosen.weights, name), name)
        self._clip.need_texts()
        self._texts = torch.stack([self._clip.text(self._template.replace("{}", label)) for label in self._labels])  # (n, D)

    @classmethod
    def known_classes(cls, options: ZeroShotOptions) -> dict[str, tuple[str, ...]]:
        """The labels."""
        return {cls.meta["fields"][0]: labels_of(options, cls.meta["name"])}

    def identity(self) -> dict[str, Any]:
        return {
            "scorer": self.meta["name"],
            "version": self.meta["version"],
            **self._clip.identity(),
            "labels": list(self._labels),
            "template": self._template,
        }

    @torch.inference_mode()
    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One dict per image: the field's probabilities by label. Raises `CellError` for other than uint8 RGB."""
        field, scores = self.meta["fields"][0], []
        with one_thread():
            for image, _ in zip(images, rows, strict=True):
                values = torch.softmax(SCALE * self._texts @ self._clip.unit(image), 0).tolist()  # (n,)
                scores.append({field: {label: round(value, 6) for label, value in zip(self._labels, values, strict=True)}})
        return scores
