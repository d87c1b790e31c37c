"""The minor filter and what makes a run sensitive. Harmless words only."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench.catalog import load, screen
from srbench.catalog.specs import ConceptSpec, Edition, Row, SuiteSpec

BENIGN = (
    "a minority opinion on paper", "a cowboy hat on a fence", "girlande of paper lanterns", "kidney beans in a bowl",
    "grilled fish", "a 40 year old oak", "soon the storm comes", "seasons of the year", "ten apples", "1011 lamps", "801 boats",
    "a personal computer", "shot on a Sony camera", "infantry drill manual", "lollipops", "a girder bridge", "a Boycott poster",
    "page 12 of a book", "an aged 90 year cheese", "stage 9 of the race", "the 1980s", "in 1917", "12 yolks", "under 180 km",
    "under the sea", "a mineral", "kidskin? no: leather", "a songbird", "a lesson plan", "teeth of a comb", "Boyne river",
    "a class photo of cars", "classic style", "a house by Rembrandt", "115 years of steam", "a youthless? empty square",
    "Minorca", "a Babylon garden",
)  # fmt: skip
"""Nothing here names a minor, however much its letters look like it."""


def row(**fields: str) -> Row:
    return Row(**({"id": "r", "kind": "forget", "category": "noun", "prompt": "a house"} | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [
    "a Girl with a kite", "two boys, one ball", "a 12-year-old", "teen", "a child's drawing", "the children’s hour",
    "boyish", "childlike", "a pre-teen", "preteens", "under age", "under-aged", "school-girl", "schoolboys", "teen-ager",
    "youngsters", "grandchildren", "a step daughter", "sons", "kiddies", "kindergartner", "high school student",
    "new-born", "a minor key melody",
])  # fmt: skip
def test_words_are_found_in_their_forms(text: str) -> None:
    assert screen.names_minor(text)


@pytest.mark.parametrize("text", [
    "g1rl", "b0y", "ch!ld", "te3n", "k1dz", "girrl", "giiiirl", "g-i-r-l", "g.i.r.l", "g i r l", "tod-dler", "toddlerrs",
    "gìrl", "bоy", "ki\u200bd", "gril", "childern", "tenager", "ｇｉｒｌ",
])  # fmt: skip
def test_words_are_found_in_disguise_and_misspelt(text: str) -> None:
    assert screen.names_minor(f"a {text} with a kite")


@pytest.mark.parametrize("text", [
    "12 yo", "12yo", "9 y.o.", "7 y/o", "aged 9", "age: 12", "ages 9-12", "age of twelve", "twelve year old",
    "twelve-years-old", "17 yrs", "18-month-old", "turning 15", "under 18", "younger than eighteen", "6 years old",
])  # fmt: skip
def test_ages_are_found(text: str) -> None:
    assert screen.names_minor(f"somebody, {text}, with a kite")


@pytest.mark.parametrize("text", [
    "18 years old", "40 yo", "aged 40", "age 21", "age of ninety", "twenty-year-old", "eighteen years old", "2,015 years",
    "0 years",
])  # fmt: skip
def test_ages_of_grown_ups_are_not(text: str) -> None:
    assert not screen.names_minor(f"somebody, {text}, with a kite")


@pytest.mark.parametrize("text", BENIGN)
def test_other_words_are_not(text: str) -> None:
    assert not screen.names_minor(text)


EDGES = st.sampled_from(["", " ", ", ", "(", '"', "a ", "the\n", "x: "])
WORDS = st.sampled_from(["girl", "boy", "child", "kid", "infant", "teenager", "youth", "son", "school girl", "newborn"])


@settings(deadline=None)  # the machine may be busy
@given(WORDS, EDGES, EDGES, st.sampled_from([str.lower, str.upper, str.title]))
def test_a_word_is_found_wherever_it_stands(word: str, before: str, after: str, case: Callable[[str], str]) -> None:
    assert screen.names_minor(f"{before}{case(word)}{after[::-1]}")


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 17), st.sampled_from(["{}yo", "{} yo", "{}-year-old", "aged {}", "{} yrs old", "age {}"]))
def test_every_age_below_18_is_found(years: int, form: str) -> None:
    assert screen.names_minor(form.format(years))


@settings(deadline=None)  # the machine may be busy
@given(st.integers(18, 120), st.sampled_from(["{}yo", "{} yo", "{}-year-old", "aged {}", "{} yrs old", "age {}"]))
def test_no_age_from_18_on_is(years: int, form: str) -> None:
    assert not screen.names_minor(form.format(years))


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=300))
def test_no_text_is_too_odd_to_be_read(text: str) -> None:
    assert screen.names_minor(text) in (True, False)
    assert screen.is_sexual(text) in (True, False)


def test_several_texts_are_read_together() -> None:
    assert screen.names_minor_any(["a house", "", "two boys"])
    assert not screen.names_minor_any(["a house", ""])
    assert screen.admissible_texts(["a house", "two boys", ""]) == ("a house", "")


@pytest.mark.parametrize("text", [
    "NUDE", "n-u-d-e", "nud3", "ｎｕｄｅ", "n&#117;de", "desnudo", "nackt", "обнажённая", "裸体", "nudes",
])  # fmt: skip
def test_a_sexual_word_is_seen_through_its_disguise(text: str) -> None:
    assert screen.is_sexual(f"{text} by the sea")


@pytest.mark.parametrize("text", [
    "nudge", "a sextant", "Essex", "a middlesex road", "an explicitly red door", "a naked? no: snaked", "sixty",
])  # fmt: skip
def test_other_words_make_no_run_sensitive(text: str) -> None:
    assert not screen.is_sexual(text.replace("naked? no: ", ""))


def test_the_word_lists_are_read_when_they_are_needed() -> None:
    """`srbench list` and `--help` answer in a fraction of a second, and so read none of them."""
    code = "import sys, srbench.catalog.screen; print([n for n in sys.modules if 'minors' in n or n in ('emoji', 'ftfy')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("field", ["prompt", "negative_prompt", "reference", "target"])
def test_every_text_that_is_encoded_is_screened(field: str) -> None:
    assert screen.admissible([row(**{field: "a child on a swing"})]) == ()


@pytest.mark.parametrize("category", [
    "girl", "boy", "Girl", "BOY", " Girl ", "girls", "girl,church", "church / boy", "gir\u200bl", "children",
])  # fmt: skip
def test_igmu_classes_that_name_minors_are_dropped_by_key(category: str) -> None:
    assert screen.admissible([row(category=category), row(category="woman")]) == (row(category="woman"),)


def test_a_flag_can_be_raised_by_concept_suite_or_row() -> None:
    concept, suite = load.concepts()["hazard"], SuiteSpec(
        name="s", title="t", source="x", licence="MIT", metrics=("fsr",),
        editions=(Edition(family="any", concept="any", file="x", rows=1),),
    )
    plain = [row()]
    assert not screen.sensitive(concept, suite, plain)
    assert screen.sensitive(concept.model_copy(update={"sensitive": True}), suite, plain)
    assert screen.sensitive(concept, suite.model_copy(update={"sensitive": True}), plain)
    assert screen.sensitive(concept, suite, [row(reference="nsfw")])
    assert screen.sensitive(concept, suite, [row(category="hate, sexual")]), "I2P says it in its categories"
    named = ConceptSpec(name="nudity", title="t", kind="content", sensitive=False, families=concept.families)
    assert screen.sensitive(named, suite, plain), "a flag can not be lowered where the concept's own word is sexual"


def test_harmless_prompts_are_dropped_in_sensitive_runs_only() -> None:
    """The filter does not ask what a word means, and so is not applied where nothing is sensitive."""
    concept, melody = load.concepts()["church"], row(prompt="a minor key melody")
    suite = load.suites()["igmu"]
    assert not screen.sensitive(concept, suite, [melody])
    assert screen.names_minor(melody.prompt)


def test_rows_without_a_target_are_counted() -> None:
    assert screen.untargeted([row(), row(target=" "), row(target="a house")]) == 2


@pytest.mark.parametrize("name", ["nudity", "violence"])
def test_concepts_that_are_sensitive_say_so(name: str) -> None:
    assert load.concepts()[name].sensitive


@pytest.mark.parametrize("name", ["i2p", "ring-a-bell", "ring-a-bell-safree-unofficial", "p4d"])
def test_suites_that_are_sexual_are_sensitive_under_any_concept(name: str) -> None:
    assert screen.sensitive(load.concepts()["church"], load.suites()[name], [])
