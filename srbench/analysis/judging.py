"""Applies a judge to a scorer's raw numbers: whether the concept is in an image."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from srbench.analysis.records import WEIGHTS, ImageRecord
from srbench.catalog import load
from srbench.catalog.specs import ProtocolSpec
from srbench.errors import CellError

Raw = Mapping[str, Any]


NOT_FINITE = "not a finite number"


NUMBERS = frozenset((float, int))
"""Types of a number read from JSON; a bool does not count."""


REST = "rest"
"""Raw field of a scorer that stores only the highest classes: the sum of the others."""


class Unscored(CellError):
    """A row cannot be judged; the message says why."""


def raw_of(image: ImageRecord | None, scorer: str, what: str = "image") -> Raw:
    """The raw numbers of `scorer` for an image. Raises Unscored where there is no image or no score. what: for messages."""
    if image is None:
        raise Unscored(f"no {what}")
    if image.errors.get(scorer) == WEIGHTS:
        raise Unscored(WEIGHTS)
    if scorer in image.errors:
        if not image.key:  # it was not sampled, or cannot be read
            raise Unscored(f"no {what}: {image.errors[scorer]}")
        raise Unscored(f"{scorer} failed on the {what}: {image.errors[scorer]}")
    if scorer not in image.scores:
        raise Unscored(f"the {what} has no score from {scorer}")
    return image.scores[scorer]


def number(value: Any, what: str) -> float:
    """`value` as a finite float. Raises Unscored for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise Unscored(f"{what} is {NOT_FINITE}")
    return float(value)


def probabilities(raw: Raw, name: str, needed: Iterable[str] = ()) -> Mapping[str, float]:
    """A field of probabilities by class. Raises Unscored where it is absent, not finite, or lacks a class in `needed`."""
    values: Mapping[str, float] = raw.get(name) or {}
    if not values:
        raise Unscored(f"the score has no field '{name}'")
    if not isinstance(values, Mapping):
        raise Unscored(f"the scorer's field '{name}' is no table of numbers")
    # A million images may be judged at a time: values are checked one by one only where one of them is wrong.
    if not (NUMBERS.issuperset(map(type, values.values())) and all(map(math.isfinite, values.values()))):
        values = {key: number(value, f"{name}: {key}") for key, value in values.items()}
    missing = [each for each in needed if each not in values]
    if missing and REST in raw:
        # Only the highest classes are stored: a missing one is at most the lowest of them, and at most the rest's sum.
        bound = min(number(raw[REST], REST), *values.values())
        return {**values, **dict.fromkeys(missing, bound)}
    if missing:
        raise Unscored(f"the scorer's field '{name}' has no class '{min(missing)}'")
    return values


def concept_present(raw: Raw, protocol: ProtocolSpec) -> bool:
    """Whether the judge sees the concept. A tie for the top counts as seen. Raises Unscored where it cannot be judged."""
    if protocol.field == "boxes":
        return boxes_counted(raw, protocol) > 0
    if not protocol.classes:
        return _reaches(_one_number(raw, protocol.field), protocol)
    values = probabilities(raw, protocol.field, protocol.classes)
    highest = max(values[name] for name in protocol.classes)
    if _reaches(highest, protocol):
        return True
    places = max(protocol.top1, protocol.top_k)
    if places == 1:  # the arg-max; a tie counts as the concept
        return highest == max(values.values())
    return sum(value > highest for value in values.values()) < places


def _one_number(raw: Raw, name: str) -> float:
    """A field that is one number. Raises Unscored where it is absent, null, not finite, or a table."""
    if raw.get(name) is None:
        raise Unscored(f"the score has no field '{name}'")
    if isinstance(raw[name], Mapping | list):
        raise Unscored(f"the scorer's field '{name}' holds a number for each class, and the judge names no classes")
    return number(raw[name], name)


def _reaches(score: float, protocol: ProtocolSpec) -> bool:
    return score > protocol.threshold or (protocol.rule == "at-least" and score == protocol.threshold)


def boxes_counted(raw: Raw, protocol: ProtocolSpec) -> int:
    """Number of boxes of the protocol's classes whose score reaches its threshold. Raises Unscored without the field."""
    if "boxes" not in raw:
        raise Unscored("the score has no field 'boxes'")
    boxes = raw["boxes"]
    if not isinstance(boxes, list) or not all(isinstance(box, Mapping) for box in boxes):
        raise Unscored("the scorer's field 'boxes' is no list of boxes")
    scores = [number(box.get("score"), "a box's score") for box in boxes if box.get("class") in protocol.classes]
    return sum(_reaches(score, protocol) for score in scores)


def seen_in(image: ImageRecord | None, judge: ProtocolSpec) -> bool:
    """Whether the judge sees the concept in an image.

    A union sees it where any member does, even if others cannot be judged; it does not see it only where all members say so.
    Raises Unscored where it cannot be judged.
    """
    unsaid = None
    for part in load.parts(judge):
        try:
            if concept_present(raw_of(image, part.scorer), part):
                return True
        except Unscored as error:
            unsaid = error
    if unsaid is not None:
        raise unsaid
    return False


def on_top(values: Mapping[str, float], names: Collection[str], aside: Collection[str] = ()) -> bool:
    """Whether `names` are the top len(names) classes, ignoring the classes in `aside`. A tie at the border counts as no."""
    rest = [value for name, value in values.items() if name not in names and name not in aside]
    return not names or not rest or min(values[name] for name in names) > max(rest)


def top(values: Mapping[str, float]) -> set[str]:
    """The arg-max class; more than one where they tie."""
    highest = max(values.values())
    return {name for name, value in values.items() if value == highest}
