"""Judges are checked before anything is sampled: their numbers, their scorer, its field."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from srbench.analysis.judging import Unscored, concept_present
from srbench.catalog import load
from srbench.catalog.judges import check_judges
from srbench.catalog.specs import ProtocolSpec
from srbench.errors import UsageError


def judge(**changes: object) -> ProtocolSpec:
    values = {
        "name": "mine", "title": "t", "scorer": "pocket-judge", "field": "objects", "classes": ("church",), "threshold": 0.5,
        "source": "s",
    }  # fmt: skip
    return ProtocolSpec.model_validate({name: value for name, value in (values | changes).items() if value is not None})


def test_every_shipped_judge_passes() -> None:
    check_judges(each for each in load.protocols().values() if not each.cannot)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), float("-inf")])
def test_a_threshold_is_a_finite_number(threshold: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        judge(threshold=threshold)


def test_an_unknown_scorer_is_refused_with_the_closest() -> None:
    with pytest.raises(UsageError, match="protocol mine: unknown scorer 'pocket-juge'") as error:
        check_judges([judge(scorer="pocket-juge")])
    assert "pocket-judge" in error.value.hint


def test_a_field_that_the_scorer_does_not_declare_is_refused_with_the_closest() -> None:
    with pytest.raises(UsageError, match="protocol mine: scorer 'pocket-judge' has no field 'object'") as error:
        check_judges([judge(field="object")])
    assert "objects" in error.value.hint


@pytest.mark.parametrize(("red", "rule", "seen"), [(101.0, "above", True), (100.0, "above", False), (100.0, "at-least", True)])
def test_a_field_that_is_one_number_judges_without_classes(red: float, rule: str, seen: bool) -> None:
    mine = judge(scorer="redness", field="red", classes=None, threshold=100, rule=rule)
    assert concept_present({"red": red}, mine) is seen


@pytest.mark.parametrize("raw", [{}, {"red": None}, {"red": float("nan")}, {"red": True}, {"red": {"a": 1.0}}, {"red": [1.0]}])
def test_without_one_number_nothing_is_judged(raw: dict[str, object]) -> None:
    with pytest.raises(Unscored):
        concept_present(raw, judge(scorer="redness", field="red", classes=None))


BOXES = {"scorer": "nudenet320n-rgb", "field": "boxes", "classes": ("FEET_EXPOSED",)}


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"threshold": 5}, "no picture exceeds a threshold of 5: 'objects' of scorer 'pocket-judge' holds probabilities"),
        ({"threshold": 1}, "no picture exceeds a threshold of 1"),
        ({"threshold": 1.01, "rule": "at-least"}, "no picture exceeds a threshold of 1.01"),
        ({"threshold": 5, "top1": True}, "no picture exceeds a threshold of 5"),
        ({"threshold": 0}, "every picture reaches a threshold of 0"),
        ({"threshold": -1, "top1": True}, "every picture reaches a threshold of -1"),
        ({"scorer": "artist129", "field": "style", "classes": ("anybody",), "threshold": 50}, "exceeds a threshold of 50"),
        ({"scorer": "resnet50-v2", "field": "rest", "classes": None, "threshold": 2}, "exceeds a threshold of 2"),
        ({**BOXES, "threshold": 60}, "no picture exceeds a threshold of 60: 'boxes' of scorer 'nudenet320n-rgb'"),
        ({**BOXES, "threshold": -0.5}, "every picture reaches a threshold of -0.5"),
        ({"scorer": "person-ssdlite", "field": "boxes", "classes": ("person",), "threshold": 1}, "exceeds a threshold of 1"),
    ],
)
def test_a_threshold_that_no_picture_or_every_one_reaches_is_refused(changes: dict[str, object], wrong: str) -> None:
    with pytest.raises(UsageError) as error:
        check_judges([judge(**changes)])
    assert wrong in error.value.message
    assert error.value.message.startswith("protocol mine: ")
    assert error.value.hint == "Give a number between 0 and 1, such as 0.5."


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 1, "rule": "at-least"}, {"threshold": 1, "top1": True}, {**BOXES, "threshold": 0},
        {"scorer": "safety-checker", "field": "concepts", "classes": ("concept_0",), "threshold": -1},
        {"scorer": "clip-b32", "field": "prompt", "classes": None, "threshold": 25},
    ],
)  # fmt: skip
def test_a_threshold_that_says_something_passes(changes: dict[str, object]) -> None:
    check_judges([judge(**changes)])


def test_a_place_among_the_highest_that_some_named_class_always_has_is_refused() -> None:
    with pytest.raises(UsageError, match="always among the 2 highest: 'label' of scorer 'igmu-head' has 2 classes"):
        check_judges([judge(scorer="igmu-head", field="label", classes=("1",), top_k=2)])
    with pytest.raises(UsageError, match="always among the 1 highest"):
        check_judges([judge(scorer="igmu-head", field="label", classes=("0", "1"), top1=True)])
    check_judges([judge(scorer="igmu-head", field="label", classes=("1",), top_k=1)])


@pytest.mark.parametrize("changes", [{"top1": True}, {"top_k": 3}])
def test_boxes_have_no_highest_class(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="boxes have no highest class"):
        judge(field="boxes", **changes)


@pytest.mark.parametrize("changes", [{"field": "boxes"}, {"top1": True}, {"top_k": 3}])
def test_what_is_about_classes_needs_them(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="name the classes that count"):
        judge(classes=None, **changes)


# --- classes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"classes": ("church", "curch")}, "scorer 'pocket-judge' has no class 'curch' in 'objects'"),
        ({"field": "style"}, "has no class 'church' in 'style'"),
        ({"classes": None}, "'objects' of scorer 'pocket-judge' holds a number for each class"),
        ({"scorer": "resnet50-v2", "classes": ("chruch",)}, "has no class 'chruch'"),
        ({"scorer": "resnet50-v2", "field": "rest"}, "'rest' of scorer 'resnet50-v2' is one number and has no classes"),
        ({"scorer": "nudenet320n-rgb", "field": "boxes"}, "has no class 'church' in 'boxes'"),
        ({"scorer": "person-ssdlite", "field": "boxes"}, "has no class 'church' in 'boxes'"),
        ({"scorer": "clip-object", "settings": {"labels": "church tower,house"}}, "has no class 'church' in 'objects'"),
        ({"scorer": "q16", "field": "q16"}, "has no class 'church' in 'q16'"),
        ({"scorer": "igmu-head", "field": "label"}, "has no class 'church' in 'label'"),
        ({"scorer": "safety-checker", "field": "concepts"}, "has no class 'church' in 'concepts'"),
    ],
)
def test_a_class_that_the_scorer_does_not_have_is_refused_without_its_weights(changes: dict[str, object], wrong: str) -> None:
    with pytest.raises(UsageError) as error:
        check_judges([judge(**changes)])
    assert wrong in error.value.message
    assert len(error.value.hint) < 400, "a thousand classes are not listed"


def test_labels_of_the_command_line_count() -> None:
    mine = judge(scorer="clip-object")
    check_judges([mine], ["clip-object.labels=church,house"])
    with pytest.raises(UsageError, match="has no class 'church'"):
        check_judges([mine], ["clip-object.labels=tower,house"])


def test_a_scorer_that_does_not_say_its_classes_is_asked_when_it_scores() -> None:
    check_judges([judge(scorer="artist129", field="style", classes=("anybody",))])
