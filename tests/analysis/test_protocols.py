"""Protocols: what each rule says of raw scores, what a union needs to know, and that every one in the catalog can be read."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from srbench.analysis.judging import Unscored, boxes_counted, concept_present, seen_in
from srbench.analysis.measure import measure
from srbench.catalog import load, plugins
from srbench.catalog.specs import ProtocolSpec
from srbench.errors import UsageError
from srbench.scorers._imagenet import KEPT, classes
from srbench.scorers._nudenet import LABELS
from srbench.scorers.person_ssdlite import CLASSES as COCO

CATALOG = load.protocols()


def boxes(*found: tuple[str, float]) -> dict[str, Any]:
    return {"boxes": [{"class": name, "score": score, "box": [0, 0, 1, 1]} for name, score in found]}


def protocol(**given: Any) -> ProtocolSpec:
    values = {"name": "p", "title": "t", "source": "s", "scorer": "x", "field": "boxes", "classes": ("A", "B"), "threshold": 0.5}
    return ProtocolSpec(**{**values, **given})


def image(**scores: Any) -> Any:
    return SimpleNamespace(key="made", scores=scores, errors={})


# --- rules -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "score", "seen"), [
    ("above", 0.5, False), ("above", math.nextafter(0.5, 1), True), ("at-least", 0.5, True),
    ("at-least", math.nextafter(0.5, 0), False),
])  # fmt: skip
def test_whether_the_threshold_itself_counts(rule: str, score: float, seen: bool) -> None:
    assert concept_present(boxes(("A", score)), protocol(rule=rule)) is seen


def test_boxes_are_counted_by_class_and_score() -> None:
    raw = boxes(("A", 0.9), ("A", 0.6), ("B", 0.51), ("B", 0.5), ("C", 0.99))
    assert boxes_counted(raw, protocol()) == 3
    assert boxes_counted(raw, protocol(rule="at-least")) == 4
    assert boxes_counted(boxes(), protocol()) == 0


@pytest.mark.parametrize(("k", "seen"), [(0, False), (1, False), (2, True), (3, True)])
def test_top_k(k: int, seen: bool) -> None:
    rule = protocol(field="objects", classes=("cat",), threshold=1.0, top_k=k)
    assert concept_present({"objects": {"dog": 0.5, "cat": 0.3, "owl": 0.2}}, rule) is seen


def test_a_tie_is_decided_for_the_concept() -> None:
    rule = protocol(field="objects", classes=("cat",), threshold=1.0, top1=True)
    assert concept_present({"objects": {"dog": 0.4, "cat": 0.4, "owl": 0.2}}, rule)


def test_a_class_that_was_not_kept_is_below_all_that_were() -> None:
    kept = {"objects": {"dog": 0.6, "owl": 0.3}, "rest": 0.1}
    by_rank = protocol(field="objects", classes=("cat",), threshold=1.0, top_k=2)
    assert not concept_present(kept, by_rank)
    assert not concept_present(kept, protocol(field="objects", classes=("cat",), threshold=0.1))
    # It could be anywhere up to the rest: below that nothing counts as safe.
    assert concept_present(kept, protocol(field="objects", classes=("cat",), threshold=0.09))
    with pytest.raises(Unscored, match="no class 'cat'"):
        concept_present({"objects": {"dog": 0.6}}, by_rank)


# --- unions ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def union(monkeypatch: pytest.MonkeyPatch) -> ProtocolSpec:
    """Of boxes by `x` and of a class by `y`."""
    first, second = protocol(name="first"), protocol(name="second", scorer="y", field="style", classes=("bad",))
    both = ProtocolSpec(name="both", title="t", source="s", any_of=("first", "second"))
    monkeypatch.setattr(load, "protocols", lambda: {"first": first, "second": second, "both": both})
    return both


GOOD, BAD = {"style": {"bad": 0.1, "good": 0.9}}, {"style": {"bad": 0.9, "good": 0.1}}


def test_a_union_sees_what_one_member_sees(union: ProtocolSpec) -> None:
    assert seen_in(image(x=boxes(("A", 0.9)), y=GOOD), union)
    assert seen_in(image(x=boxes(), y=BAD), union)
    assert not seen_in(image(x=boxes(), y=GOOD), union)


def test_that_nothing_is_there_takes_every_member(union: ProtocolSpec) -> None:
    """One that failed is never counted as having seen nothing; one that saw it needs no other."""
    assert seen_in(image(x=boxes(("A", 0.9))), union)
    assert seen_in(image(y=BAD), union)
    for half in (image(x=boxes()), image(y=GOOD)):
        with pytest.raises(Unscored, match="has no score from"):
            seen_in(half, union)
    failed = image(x=boxes())
    failed.errors["y"] = "broken"
    with pytest.raises(Unscored, match="y failed on the image: broken"):
        seen_in(failed, union)


# --- counted boxes as a column -----------------------------------------------------------------------------------------------


def test_boxes_are_a_column_where_the_protocol_counts_them(make: SimpleNamespace) -> None:
    counted = make.boxes.model_copy(update={"unit": "detections"})
    scores = [boxes(("FACE", 0.9), ("FEET", 0.7)), boxes(("FACE", 0.2)), boxes(("FEET", 0.8))]
    rows = [make.forget(i, make.image({"nudenet": raw})) for i, raw in enumerate(scores)]
    cell = make.cell(*rows, metrics=("fsr",))
    assert "detections" not in measure(cell, make.boxes, None)
    found = measure(cell, counted, None)
    assert found["detections"].value == pytest.approx(1.0)
    assert found["fsr"].value == pytest.approx(100 / 3)


# --- the catalog -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_protocol_reads_a_field_that_its_scorer_has(name: str) -> None:
    found = CATALOG[name]
    assert found.source
    if found.cannot:
        with pytest.raises(UsageError, match="cannot be applied"):
            load.protocol(name)
        return
    for part in load.parts(found):
        meta = plugins.plugins("scorers")[part.scorer].meta
        assert part.field in meta["fields"]
        if part.field == "boxes":
            assert set(part.classes) <= set(COCO if part.scorer == "person-ssdlite" else LABELS)
        if "imagenet" in meta["title"].lower():
            assert set(part.classes) <= set(classes())
            assert part.top_k <= KEPT


def test_rules_that_differ_have_names_that_differ_and_no_two_are_the_same() -> None:
    rules = {name: p.model_dump(exclude={"name", "title", "source", "note"}) for name, p in CATALOG.items() if not p.cannot}
    same = [(a, b) for a in rules for b in rules if a < b and rules[a] == rules[b]]
    assert same == [("igmu-church", "igmu-nudity"), ("igmu-parachute", "igmu-vangogh")]  # what differs is the head


@pytest.mark.parametrize("given", [
    {"any_of": ("q16",)}, {"cannot": "no weights"}, {"classes": ()}, {"unit": "detections", "field": "style"},
])  # fmt: skip
def test_half_a_protocol_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        protocol(**given)


def test_a_protocol_without_a_threshold_is_refused() -> None:
    with pytest.raises(ValidationError, match="threshold is missing"):
        ProtocolSpec(name="p", title="t", source="s", scorer="x", field="boxes", classes=("A",))
