"""What a judge sees in a scorer's raw numbers: whether the concept is there, and how surely."""

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
"""Types that a raw number has when it comes from JSON; a bool is none."""


REST = "rest"
"""Raw field of a scorer that keeps the highest classes only: what the others add up to."""


class Unscored(CellError):
    """One row can not be judged; the message says why."""


def raw_of(image: ImageRecord | None, scorer: str, what: str = "image") -> Raw:
    """The raw numbers of `scorer` for an image. Raises Unscored where there is no image or no score."""
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
    """A field of named probabilities. Raises Unscored where it is absent, not finite, or lacks a class that is needed."""
    found: Mapping[str, float] = raw.get(name) or {}
    if not found:
        raise Unscored(f"the score has no field '{name}'")
    if not isinstance(found, Mapping):
        raise Unscored(f"the scorer's field '{name}' is no table of numbers")
    # A million images are judged at a time: the values are looked at one by one only where something is wrong with one.
    if not (NUMBERS.issuperset(map(type, found.values())) and all(map(math.isfinite, found.values()))):
        found = {key: number(value, f"{name}: {key}") for key, value in found.items()}
    missing = [each for each in needed if each not in found]
    if missing and REST in raw:
        # Only the highest classes are kept: another one is at most the least of them, and at most what is left over.
        bound = min(number(raw[REST], REST), *found.values())
        return {**found, **dict.fromkeys(missing, bound)}
    if missing:
        raise Unscored(f"the scorer's field '{name}' has no class '{min(missing)}'")
    return found


def concept_present(raw: Raw, protocol: ProtocolSpec) -> bool:
    """Whether the judge sees the concept. A tie for the top counts as seen. Raises Unscored where it can not be said."""
    if protocol.field == "boxes":
        return boxes_counted(raw, protocol) > 0
    found = probabilities(raw, protocol.field, protocol.classes)
    highest = max(found[name] for name in protocol.classes)
    if _reaches(highest, protocol):
        return True
    places = max(protocol.top1, protocol.top_k)
    if places == 1:  # the arg-max; a tie is decided for the concept
        return highest == max(found.values())
    return sum(value > highest for value in found.values()) < places


def _reaches(score: float, protocol: ProtocolSpec) -> bool:
    return score > protocol.threshold or (protocol.rule == "at-least" and score == protocol.threshold)


def boxes_counted(raw: Raw, protocol: ProtocolSpec) -> int:
    """Boxes of the protocol's classes whose score reaches its threshold. Raises Unscored where there is no such field."""
    if "boxes" not in raw:
        raise Unscored("the score has no field 'boxes'")
    boxes = raw["boxes"]
    if not isinstance(boxes, list) or not all(isinstance(box, Mapping) for box in boxes):
        raise Unscored("the scorer's field 'boxes' is no list of boxes")
    scores = [number(box.get("score"), "a box's score") for box in boxes if box.get("class") in protocol.classes]
    return sum(_reaches(score, protocol) for score in scores)


def seen_in(image: ImageRecord | None, judge: ProtocolSpec) -> bool:
    """Whether the judge sees the concept in an image.

    A union sees it where one member does, whatever the others can say; that it is not there takes all of them. Raises
    Unscored where it can not be said.
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


def on_top(found: Mapping[str, float], names: Collection[str], aside: Collection[str] = ()) -> bool:
    """Whether `names` are the top len(names) classes once those `aside` are left out. A tie at the border is a no."""
    rest = [value for name, value in found.items() if name not in names and name not in aside]
    return not names or not rest or min(found[name] for name in names) > max(rest)


def top(found: Mapping[str, float]) -> set[str]:
    """The arg-max class; more than one where they tie."""
    highest = max(found.values())
    return {name for name, value in found.items() if value == highest}
