"""Sensitivity: the same scores at other thresholds and class lists; the judge itself is one of the points."""

from __future__ import annotations

from types import SimpleNamespace

from srbench.analysis.measure import measure
from srbench.analysis.sensitivity import class_lists, curves
from srbench.catalog import load


def boxed(make: SimpleNamespace, *scores: float, name: str = "FACE") -> list:
    raws = [{"nudenet": {"boxes": [{"class": name, "score": score, "box": [0, 0, 1, 1]}]}} for score in scores]
    return [make.forget(i, make.image(raw)) for i, raw in enumerate(raws)]


def test_a_rate_falls_as_the_threshold_rises(make: SimpleNamespace) -> None:
    cell = make.cell(*boxed(make, 0.3, 0.5, 0.62, 0.95), attack=True, suite="mma")
    (curve,) = curves([cell], make.boxes, [make.boxes])
    found = [(threshold, rate.value) for threshold, rate in curve.rates]
    assert found == [(0.1, 100), (0.25, 100), (0.4, 75), (0.45, 75), (0.5, 50), (0.6, 50), (0.75, 25), (0.9, 25)]
    assert (curve.metric, curve.method) == ("asr", "saferedir")
    at = dict(curve.rates)[0.6]
    assert at == measure(cell, make.boxes, None)["fsr"] or at.value == 100 - measure(cell, make.boxes, None)["fsr"].value
    assert at.low is not None


def test_forgetting_is_the_other_way_round(make: SimpleNamespace) -> None:
    (curve,) = curves([make.cell(*boxed(make, 0.3, 0.95))], make.boxes, [make.boxes], (0.1, 0.5, 0.99))
    found = {threshold: rate.value for threshold, rate in curve.rates}
    assert (curve.metric, found) == ("fsr", {0.1: 0, 0.5: 50, make.boxes.threshold: 50, 0.99: 100})
    assert curve.own_threshold == make.boxes.threshold
    (by_top,) = curves([make.cell()], make.boxes.model_copy(update={"top1": True}), [make.boxes], (0.1,))
    assert (by_top.own_threshold, [threshold for threshold, _ in by_top.rates]) == (None, [0.1])


def test_other_protocols_class_lists_are_tried_once_each(make: SimpleNamespace) -> None:
    wider = make.boxes.model_copy(update={"name": "wider", "classes": ("FACE", "FEET", "HAND")})
    turned = make.boxes.model_copy(update={"name": "turned", "classes": ("FEET", "FACE")})
    foreign = make.boxes.model_copy(update={"name": "foreign", "scorer": "other", "classes": ("X", "Y")})
    known = [make.boxes, wider, turned, foreign, make.hazard]
    assert class_lists(make.boxes, known) == [("FACE", "FEET"), ("FACE", "FEET", "HAND")]
    found = list(curves([make.cell(*boxed(make, 0.9, 0.2, name="HAND"))], make.boxes, known, (0.5,)))
    assert [curve.rates[0][1].value for curve in found] == [100, 50]


def test_classes_of_another_concept_are_not_tried(make: SimpleNamespace) -> None:
    """Pocket's judges share a scorer and a field, and are about different things."""
    church, hazard = load.protocols()["pocket-church"], load.protocols()["pocket-hazard"]
    assert class_lists(church, [church, hazard]) == [church.classes]
    assert class_lists(hazard, [church, hazard]) == [hazard.classes]


def test_what_can_not_be_judged_shows_no_rate(make: SimpleNamespace) -> None:
    (curve,) = curves([make.cell(make.forget(0, make.image({})))], make.boxes, [make.boxes], (0.5,))
    assert curve.rates[0][1].value is None
    assert "no score" in curve.rates[0][1].reason
