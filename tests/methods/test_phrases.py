"""What methods read of a concept: every trained way to say it, an anchor for each, and never a reserved synonym."""

from __future__ import annotations

import pytest

from srbench.catalog import load
from srbench.catalog.specs import ConceptSpec
from srbench.errors import UsageError
from srbench.methods import finetune
from srbench.methods.phrases import anchors, in_contexts, listed_contexts, listed_texts, neighbours, phrases, split_texts
from srbench.methods.saferedir.pairs import PocketWriter
from srbench.pocket import world
from srbench.pocket.world import CONCEPTS, OBJECTS, STYLES, article

NAMES = sorted(CONCEPTS)


@pytest.mark.parametrize("name", NAMES)
def test_phrases_name_every_member_and_no_reserved_synonym(name: str) -> None:
    concept = load.concepts()[name]
    said = phrases(concept, "pocket")
    words = CONCEPTS[name]
    assert len(set(said)) == len(said)
    synonyms = {phrase for phrase, _ in world.reserved(name)}
    assert len(synonyms) >= 10
    assert synonyms == set(concept.families["pocket"].reserved)
    assert not {_bare(phrase) for phrase in said} & {_bare(phrase) for phrase in synonyms}
    assert len(said) >= 28
    assert set(words.names) <= set(said)
    if words.kind == "object":
        assert {article(noun) for key in words.members for noun in OBJECTS[key].nouns} <= set(said)
    assert {*words.descriptions, *(OBJECTS[key].description for key in words.members if key in OBJECTS)} <= set(said)


@pytest.mark.parametrize("name", [*CONCEPTS, *world.SPLITS])
def test_a_redirector_is_told_what_the_other_methods_are_told(name: str) -> None:
    """Its sentences say every phrase that UCE, RECE, ESD, ablation, SLD, SAFREE and the negative prompt read, and no other."""
    concept = load.concepts()[name]
    writer = PocketWriter(concept, 0)
    told = set(phrases(concept, "pocket"))
    assert set(writer.phrases) <= told
    sentences = [writer.pair()[0].unsafe for _ in range(4000)]
    unsaid = {phrase for phrase in told if not any(phrase in sentence for sentence in sentences)}
    assert not unsaid


@pytest.mark.parametrize("name", NAMES)
def test_every_phrase_has_an_anchor_of_its_own_or_its_word_s(name: str) -> None:
    found = finetune.anchored(load.concepts()[name], "pocket")
    assert list(found) == phrases(load.concepts()[name], "pocket")
    if name == "hazard":
        assert found["a pointed blade with a dark handle"] == found["a dagger"] == "a hammer"
    if name == "vangogh":
        assert found["with swirling brush strokes"] == "pencil sketch"


def test_a_name_may_have_an_anchor_of_its_own() -> None:
    church = load.concepts()["church"]
    words = church.families["pocket"]
    named = words.model_copy(update={"names": ("a holy hall",), "counterparts": {**words.counterparts, "a holy hall": "castle"}})
    assert finetune.anchored(church.model_copy(update={"families": {"pocket": named}}), "pocket")["a holy hall"] == "a castle"


def _bare(phrase: str) -> str:
    return phrase.removeprefix("an ").removeprefix("a ")


def of_pocket() -> list[ConceptSpec]:
    return [each for each in load.concepts().values() if "pocket" in each.families]


@pytest.mark.parametrize("name", NAMES)
def test_every_word_has_an_anchor_outside_of_every_concept(name: str) -> None:
    found = anchors(load.concepts()[name], "pocket")
    unsafe = {phrase for each in of_pocket() for phrase in phrases(each, "pocket")}
    assert found
    assert not set(found.values()) & unsafe


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_are_known_to_the_backbone_and_belong_to_no_concept(name: str) -> None:
    known = {article(noun) for key, thing in OBJECTS.items() for noun in thing.nouns}
    known |= {phrase for style in STYLES.values() for phrase in style.phrases}
    found = neighbours(load.concepts()[name], "pocket")
    assert found
    assert set(found) <= known
    assert not set(found) & {phrase for each in of_pocket() for phrase in phrases(each, "pocket")}


def test_a_word_without_an_anchor_is_named() -> None:
    church = load.concepts()["church"]
    words = church.families["pocket"].model_copy(update={"counterparts": {"church": "house"}})
    lacking = church.model_copy(update={"families": {"pocket": words}})
    with pytest.raises(UsageError, match="no counterpart of its word 'place of worship'"):
        anchors(lacking, "pocket")


def test_a_family_without_words_is_named() -> None:
    with pytest.raises(UsageError, match="has no words for sd"):
        phrases(load.concepts()["hazard"], "sd")


def test_the_list_of_pocket_s_world_is_the_world() -> None:
    """Objects with their article, styles and backgrounds as captions say them; one colour stands for all."""
    texts = split_texts(listed_texts("@pocket-world"))
    nouns = [world.article(noun) for item in world.OBJECTS.values() for noun in item.nouns]
    others = [phrase for item in (*world.STYLES.values(), *world.BACKGROUNDS.values()) for phrase in item.phrases]
    assert texts == [*nouns, *(phrase.replace("{color}", "blue") for phrase in others)]


def test_a_list_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"no list '@moon'; there are: .*@pocket-world"):
        listed_texts("@moon")


def test_a_phrase_stands_in_each_context() -> None:
    assert in_contexts("a box", None) == ["a box"]
    assert in_contexts("a box", "{}; a picture of {}, noto style ;;") == ["a box", "a picture of a box, noto style"]


@pytest.mark.parametrize("wrong", ["a picture", "{} and {}", "{}; a picture of it"])
def test_a_context_holds_its_phrase_once(wrong: str) -> None:
    with pytest.raises(ValueError, match="where a phrase stands"):
        listed_contexts(wrong)


@pytest.mark.parametrize("name", NAMES)
def test_no_row_of_a_suite_is_a_phrase_in_pocket_s_contexts(name: str) -> None:
    """What is trained on is not what is measured."""
    concept = load.concepts()[name]
    contexts = listed_contexts(f"@pocket-{concept.kind}s")
    trained = {text for phrase in phrases(concept, "pocket") for text in in_contexts(phrase, contexts)}
    assert len(trained) == 10 * len(phrases(concept, "pocket"))
    for suite in load.suites().values():
        for edition in (each for each in suite.editions if each.file and (each.family, each.concept) == ("pocket", name)):
            assert not trained & {row.prompt for row in load.rows(suite, edition).rows}
