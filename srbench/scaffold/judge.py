"""The judge of a concept of one's own: a protocol file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from srbench.catalog import plugins
from srbench.catalog.judges import check_classes, check_threshold
from srbench.errors import UsageError, did_you_mean
from srbench.scaffold.sentences import PREPOSITIONS

ZERO_SHOT, POCKET_JUDGE = "zero-shot", "pocket-judge"
NOTHING = {
    ("pocket", False): "empty scene", ("photos", False): "landscape", ("pocket", True): "a picture", ("photos", True): "a photo",
}  # fmt: skip
"""(world of the sentences, whether of a style) -> the label of a picture that shows no word and no neighbour."""
EVEN = 0.5


@dataclass(frozen=True)
class JudgeRequest:
    """Which scorer decides whether the concept is in a picture."""

    scorer: str | None = None
    """None: the pocket judge on pocket, elsewhere zero-shot CLIP."""
    field: str | None = None
    """Of the scorer's numbers; None: its first."""
    classes: tuple[str, ...] = ()
    """Of the field that are the concept; empty where it is one number."""
    threshold: float | None = None
    """None: even odds, for a field of probabilities."""


@dataclass(frozen=True)
class Judged:
    """What a judge's protocol says of a concept, for one family of backbones."""

    name: str
    title: str
    kind: str
    world: str
    words: tuple[str, ...]
    neighbours: tuple[str, ...]
    keys: tuple[str, ...]
    """The pocket judge's classes that the words mean."""


def check(request: JudgeRequest, families: tuple[str, ...]) -> None:
    """Raises `UsageError` for a scorer that is unknown or does not fit, and for classes or a threshold that do not."""
    given = {"--classes": request.classes, "--field": request.field is not None, "--threshold": request.threshold is not None}
    if request.scorer in (None, ZERO_SHOT):
        for option in (name for name, value in given.items() if value):
            raise UsageError(f"{option} is that of a scorer", "Add --judge SCORER, or leave it out.")
        return
    if request.threshold is not None and not math.isfinite(request.threshold):
        raise UsageError(f"--threshold {request.threshold}: not a finite number", "Give a number.")
    meta = plugins.known("scorers", request.scorer).meta
    fields = list(meta.get("fields", ()))
    if meta.get("families") == ["pocket"] and set(families) != {"pocket"}:
        raise UsageError(f"{request.scorer} reads pocket's pictures alone", "Choose another --judge, or --backbone pocket.")
    if meta.get("kind", "image") != "image" or not fields:
        raise UsageError(f"{request.scorer} compares pictures, and can be no judge", "Choose a scorer of single pictures.")
    if request.field is not None and request.field not in fields:
        raise UsageError(f"{request.scorer} has no field '{request.field}'", did_you_mean(request.field, fields))
    field = request.field or fields[0]
    if request.threshold is not None:
        check_threshold(request.scorer, field, request.threshold)
    if request.scorer == POCKET_JUDGE and not request.classes:
        if request.field is not None:
            raise UsageError("--field: which of its classes are the concept?", "Add --classes A,B, or leave --field out.")
        return  # its classes follow from the words
    check_classes(request.scorer, field, request.classes)
    if field == "boxes" and not request.classes:
        raise UsageError(f"which of the boxes of {request.scorer} are the concept?", "Add --classes A,B.")
    if not request.classes and request.threshold is None:
        hint = "Add --threshold NUMBER; or --classes A,B, where it holds a number for each class."
        raise UsageError(f"above which number of '{field}' of {request.scorer} is the concept seen?", hint)


def protocol(request: JudgeRequest, judged: Judged) -> dict[str, Any]:
    """The protocol's file as data."""
    scorer = request.scorer or (POCKET_JUDGE if judged.world == "pocket" else ZERO_SHOT)
    head = {"name": judged.name, "title": f"{judged.title}: in the picture"}
    if scorer == ZERO_SHOT:
        return head | _zero_shot(judged)
    threshold = EVEN if request.threshold is None else request.threshold
    if scorer == POCKET_JUDGE and not request.classes:
        field, source = "style" if judged.kind == "style" else "objects", "classes of srbench/pocket/world.py; even odds"
        return head | {"scorer": scorer, "field": field, "classes": list(judged.keys), "threshold": threshold, "source": source}
    field = request.field or plugins.known("scorers", scorer).meta["fields"][0]
    source = "chosen by the user with srbench new concept; not validated"
    classes = {"classes": list(request.classes)} if request.classes else {}
    return head | {"scorer": scorer, "field": field, **classes, "threshold": threshold, "source": source}


def _zero_shot(judged: Judged) -> dict[str, Any]:
    style = judged.kind == "style"
    words, neighbours = ([_label(word, judged) for word in each] for each in (judged.words, judged.neighbours))
    labels = list(dict.fromkeys((*words, *neighbours, NOTHING[judged.world, style])))
    own_clip = {"weights": "package:pocket/clip"} if judged.world == "pocket" else {}
    template = {"template": "{}"} if style else {"template": "a {}"} if own_clip else {}
    return {
        "scorer": "clip-style" if style else "clip-object",
        "settings": {"labels": ",".join(labels), **template, **own_clip},
        "field": "style" if style else "objects", "classes": words, "top1": True,
        "note": f"Zero-shot CLIP: which of {len(labels)} labels fits a picture best. Nobody has validated it: look at pictures.",
        "source": "the concept is seen where one of its words is the best label (2103.00020, section 3.1)",
    }  # fmt: skip


def _label(word: str, judged: Judged) -> str:
    if judged.kind != "style" or judged.world == "pocket":
        return word
    return f"a painting {word}" if word.startswith(PREPOSITIONS) else f"a painting in the style of {word}"
