"""Varied training sentences: what is said stays said, harmless ones stay harmless, and no suite's row or phrase is among them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srbench.catalog import load
from srbench.methods.phrases import phrases
from srbench.methods.saferedir import variety
from srbench.methods.saferedir.pairs import PairSet, pocket_pairs
from srbench.pocket.world import CONCEPTS, OBJECTS, SPLITS, reserved
from srbench.pocket_build.suites import near_words

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module", params=list(CONCEPTS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def varied(name: str) -> PairSet:
    return pocket_pairs([load.concepts()[name]], 1200, 1200, seed=0, varied=True)


def nouns(name: str) -> list[str]:
    """Single words that name a member wherever they stand; not those that other phrases of the concept hold as a spare word."""
    told = [phrase.split()[-1] for phrase in phrases(load.concepts()[name], "pocket") if len(phrase.split()) == 2]
    return [word for word in told if word not in ("thing", "object", "item", "pair")]


@given(seeds)
def test_a_loose_form_holds_each_slot_once_and_is_filled_without_a_rest(seed: int) -> None:
    form = variety.loose_form(np.random.default_rng(seed))
    assert (form.count("{things}"), form.count("{lead}")) == (1, 1)
    for look in ("noto style", ""):
        text = variety.filled(form, "a cat", "at night", look)
        assert "a cat" in text
        assert look in text
        assert not re.search(r"[{}]|, ,|  |^[, ]|[, ]$", text), text


@given(seeds, st.sampled_from(["a dagger", "something perilous", "by van gogh", "a pair of swords", "an old church", "abc"]))
def test_a_changed_phrase_keeps_all_words_but_one(seed: int, phrase: str) -> None:
    changed = variety.changed(np.random.default_rng(seed), phrase)
    lost = set(re.findall("[a-z]+", phrase)) - set(re.findall("[a-z]+", changed)) - {"a", "an"}
    assert len(lost) <= 1, (phrase, changed)
    assert changed[0] != " "


@given(seeds)
def test_a_silent_sentence_says_nothing_but_a_place_and_a_style(seed: int) -> None:
    text = variety.silent(np.random.default_rng(seed), "at night", "noto style")
    rest = text.replace("at night", "").replace("noto style", "")
    words = re.findall(r"[^\s,]+", rest)
    assert words
    assert set(words) <= {*variety.RARE, *variety.FILLERS}
    assert text.count("at night") <= 1


def test_a_fifth_of_the_harmless_sentences_say_nothing(name: str, varied: PairSet) -> None:
    known = {word for item in OBJECTS.values() for text in (*item.nouns, item.description) for word in text.split()}
    known |= {word for text in (*near_words_of(name), "empty scene nothing") for word in text.split()}
    said = [bool(known & set(re.findall("[a-z]+", text))) for text in varied.benign_train]
    assert 0.1 < 1 - np.mean(said) < 0.35


def near_words_of(name: str) -> tuple[str, ...]:
    return tuple(phrases(load.concepts()[name], "pocket"))


def test_plurals() -> None:
    assert variety.plural("dagger") == "daggers"
    assert variety.plural("pair of swords") == "pairs of swords"
    assert variety.plural("small church") == "small churches"
    assert variety.plural("priory") == "priories"
    assert variety.plural("abbey") == "abbeys"
    assert variety.plural("house of god") == "houses of god"


def test_an_author_s_name_is_no_spare_word() -> None:
    spare = variety.spare_of_styles(("in the style of van gogh", "by van gogh", "by vincent", "in thick swirls"))
    assert spare == ("style", "swirls", "thick")


def test_a_member_s_noun_is_no_spare_word() -> None:
    spare = variety.spare_of_nouns(("a dagger", "a short sword", "a pair of swords", "a hazard"), ("a pointed blade",))
    assert spare == ("blade", "pointed", "short")


def test_harmless_sentences_name_a_member_only_as_what_is_absent(name: str, varied: PairSet) -> None:
    absent = "|".join(variety.BESIDE)
    named = re.compile(rf"\b({'|'.join(map(re.escape, nouns(name)))})\b")
    harmless = [*varied.benign_train, *varied.benign_held, *(pair.safe for pair in (*varied.train, *varied.held))]
    for text in harmless:
        if named.search(text):
            assert re.search(rf"\b({absent})\b", text), text
    assert sum(bool(re.search(rf"\b({absent})\b", text)) for text in varied.benign_train) > 50


def test_the_safe_side_keeps_all_other_words(name: str, varied: PairSet) -> None:
    for pair in varied.train[:400]:
        if not pair.unsafe.startswith("a van gogh painting"):
            extra = set(re.findall("[a-z]+", pair.safe)) - set(re.findall("[a-z]+", pair.unsafe))
            assert extra <= {"an", "empty", "scene"}, (pair, extra)


def test_no_reserved_synonym_and_no_phrase_of_the_harmless_suite(name: str, varied: PairSet) -> None:
    text = " / ".join(varied.prompts())
    for synonym, _ in reserved(name):
        assert not re.search(rf"\b{re.escape(re.sub('^an? ', '', synonym))}\b", text), synonym
    near = [phrase for phrase, _ in (*near_words.HOMONYMS[name], *near_words.DESCRIPTIONS["test"][name])]
    assert not [phrase for phrase in near if re.search(rf"\b{re.escape(phrase)}\b", text)]


def test_no_row_of_a_suite(varied: PairSet) -> None:
    own = varied.prompts()
    for suite in load.suites().values():
        editions = (each for each in suite.editions if each.family == "pocket" and each.file)
        for edition in () if suite.name.endswith("-v1") else editions:
            rows = load.rows(suite, edition).rows
            assert not own & {text for row in rows for text in (row.prompt, row.target)}, suite.name


def test_half_of_the_rare_words_are_never_read(varied: PairSet) -> None:
    unread = set(variety.RARE_FILLERS) - set(variety.RARE) - set(variety.FILLERS)
    assert 0.4 < len(unread) / len(variety.RARE_FILLERS) < 0.6
    mine = set(re.findall("[a-z]+", " ".join(text for pair in varied.train for text in (pair.unsafe, pair.safe))))
    told = {word for concept in CONCEPTS for phrase in phrases(load.concepts()[concept], "pocket") for word in phrase.split()}
    world = {word for item in OBJECTS.values() for word in " ".join((*item.nouns, item.description)).split()}
    own = {word for text in (*variety.NUMBERS, *variety.BESIDE) for word in text.split()}
    assert not mine & (unread - told - world - own)


@pytest.mark.parametrize("split", list(SPLITS))
def test_varied_sentences_of_a_split_read_no_noun_of_a_member_that_is_held_out(split: str) -> None:
    text = " / ".join(pocket_pairs([load.concepts()[split]], 800, 800, seed=0, varied=True).prompts())
    for key in SPLITS[split][1]:
        for noun in (*OBJECTS[key].nouns, *OBJECTS[key].reserved):
            assert not re.search(rf"\b{noun}\b", text), noun


def test_a_joint_redirector_reads_prompts_with_two_concepts_and_learns_to_lose_both() -> None:
    specs = [load.concepts()[name] for name in CONCEPTS]
    thing, look = re.compile(r"\b(dagger|bomb|pistol|skull|coffin)\b"), re.compile(r"\b(gogh|vincent|arles)\b")
    pairs = pocket_pairs(specs, 600, 1, seed=0, varied=True).train
    both = [pair for pair in pairs if thing.search(pair.unsafe) and look.search(pair.unsafe)]
    assert len(both) > 20
    for pair in both:
        assert not thing.search(pair.safe), pair
        assert not look.search(pair.safe), pair
