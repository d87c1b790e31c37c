"""Base of the ImageNet classifiers: the names of the 1000 classes, and the likeliest of them as fields."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from torch import Tensor

from srbench.errors import UsageError
from srbench.scorers._classifier import DIGITS, Classifier

KEPT = 50


@cache
def classes() -> tuple[str, ...]:
    """In the order of ILSVRC-2012, under torchvision's names, which are unique."""
    from torchvision.models import ResNet50_Weights  # takes seconds to import; not needed to locate weights

    return tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])


def likeliest(probabilities: Tensor) -> dict[str, Any]:
    """`objects`: probability by name of the `KEPT` likeliest classes, best first; `rest`: that of all others together."""
    ordered = probabilities.sort(descending=True, stable=True)  # (1000,)
    names = [classes()[i] for i in ordered.indices[:KEPT].tolist()]
    best = [round(p, DIGITS) for p in ordered.values[:KEPT].tolist()]
    return {"objects": dict(zip(names, best, strict=True)), "rest": round(float(ordered.values[KEPT:].sum()), DIGITS)}


def check_labels(labels: Sequence[str], origin: str) -> None:
    """`labels` must be the 1000 classes in their order. Raises `UsageError`.

    Lists of ImageNet's classes give synonyms with commas, of which torchvision keeps the first and, where two classes share
    it, adds a word: "crane" and "crane bird".
    """
    hint = "Give a classifier of the 1000 classes of ImageNet, with their names in its configuration."
    if len(labels) != len(classes()):
        raise UsageError(f"{origin}: knows {len(labels)} classes, not ImageNet's {len(classes())}", hint)
    for i, (label, name) in enumerate(zip(labels, classes(), strict=True)):
        first = label.split(",")[0].strip().lower()
        if not first or not name.lower().startswith(first):
            raise UsageError(f"{origin}: class {i} is '{label}', in ImageNet '{name}'", hint)


class ImageNet(Classifier):
    """A classifier whose output is in the order of `classes()`."""

    def fields(self, probabilities: Tensor) -> dict[str, Any]:
        return likeliest(probabilities)

    @staticmethod
    def known_classes(options: Any) -> dict[str, tuple[str, ...]]:
        """ImageNet's, whatever the weights."""
        return {"objects": classes(), "rest": ()}

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "kept": KEPT, "classes": "torchvision's names of ILSVRC-2012's 1000"}
