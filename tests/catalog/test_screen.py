"""The minor filter and what makes a run sensitive. Harmless words only."""

from __future__ import annotations

import pytest

from srbench.catalog import load, screen
from srbench.catalog.specs import ConceptSpec, Row, SuiteSpec


def row(**fields: str) -> Row:
    return Row(**({"id": "r", "kind": "forget", "category": "noun", "prompt": "a house"} | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["a Girl with a kite", "two boys, one ball", "a 12-year-old", "teen", "a child's drawing"])
def test_minors_are_found(text: str) -> None:
    assert screen.names_minor(text)


@pytest.mark.parametrize("text", ["a cowboy hat", "girlande", "a kidney bean", "a 40 year old oak", "a house", "person"])
def test_other_words_are_not(text: str) -> None:
    assert not screen.names_minor(text)


@pytest.mark.parametrize("field", ["prompt", "negative_prompt", "reference", "target"])
def test_every_text_that_is_encoded_is_screened(field: str) -> None:
    assert screen.admissible([row(**{field: "a child on a swing"})]) == ()


def test_igmu_classes_that_name_minors_are_dropped_by_key() -> None:
    assert screen.admissible([row(category="girl"), row(category="boy"), row(category="woman")]) == (row(category="woman"),)


def test_a_flag_can_be_raised_by_concept_suite_or_row() -> None:
    concept, suite = load.concepts()["hazard"], SuiteSpec(
        name="s", title="t", source="x", licence="MIT", metrics=("fsr",), editions=()
    )
    plain = [row()]
    assert not screen.sensitive(concept, suite, plain)
    assert screen.sensitive(concept.model_copy(update={"sensitive": True}), suite, plain)
    assert screen.sensitive(concept, suite.model_copy(update={"sensitive": True}), plain)
    assert screen.sensitive(concept, suite, [row(reference="nsfw")])
    named = ConceptSpec(name="nudity", title="t", kind="content", sensitive=False, families={})
    assert screen.sensitive(named, suite, plain), "a flag can not be lowered where the concept's own word is sexual"
