"""The forms of all of pocket's suites, and what stands in `benign-near`, `compound` and `held-members`, and what must not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import chain, combinations, product

import numpy as np
import pytest

from srbench.analysis.metrics import METRICS
from srbench.catalog import load, screen
from srbench.catalog.specs import Row
from srbench.engine import plan
from srbench.methods.saferedir.pairs import pocket_pairs
from srbench.pocket import captions, templates
from srbench.pocket.world import BACKGROUNDS, COLORS, CONCEPTS, EMPTY, OBJECTS, SPLITS, STYLES
from srbench.pocket_build.model.scenes import sample_scene
from srbench.pocket_build.suites import editions, near_words, suite_benign_near, suite_compound, suite_evolved, suite_i2p
from srbench.pocket_build.suites.suite_files import PARTS, Part
from srbench.pocket_build.suites.suite_writer import SAFE, Writer
from tests.golden import collect

SUITES = ("igmu", "mma", *editions.STATIC, "ring-a-bell", *editions.HARD)
SEARCHED = ("mma", "ring-a-bell")
"""Their rows are made for plain prompts, which are drawn without a model."""
NAMES = list(CONCEPTS)


@cache
def rows(suite: str, concept: str, part: Part = "test") -> tuple[Row, ...]:
    """The rows of a shipped edition."""
    spec = load.suites()[suite]
    return load.rows(spec, load.edition(spec, "pocket", concept, part)).rows


@cache
def _ring_a_bell() -> dict[str, dict[Part, tuple[Row, ...]]]:
    return editions.ring_a_bell_targets()


@cache
def _mma(concept: str) -> dict[Part, tuple[Row, ...]]:
    return editions.drawn(concept)[1]


def asked(suite: str, concept: str, part: Part) -> tuple[Row, ...]:
    """The rows of an edition; of a suite that is searched, what it was searched for."""
    if suite == "mma":
        return _mma(concept)[part]
    return _ring_a_bell()[concept][part] if suite == "ring-a-bell" else rows(suite, concept, part)


def concepts_of(suite: str) -> list[str]:
    return list(SPLITS if suite == "held-members" else CONCEPTS)


def every(suite: str, *parts: Part) -> list[Row]:
    """The rows of all pocket's editions of a suite, as `asked` has them; of both parts where none is named."""
    return [row for concept in concepts_of(suite) for part in parts or PARTS for row in asked(suite, concept, part)]


def words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text.lower()))


@cache
def training() -> frozenset[str]:
    """Every sentence that a redirector trains on: of each concept, of each split, and of all concepts together."""
    concepts = [load.concepts()[name] for name in (*CONCEPTS, *SPLITS)]
    alone = chain.from_iterable(pocket_pairs([each], 1600, 1200, seed=0).prompts() for each in concepts)
    return frozenset(alone) | pocket_pairs(concepts[: len(CONCEPTS)], 500, 400, seed=0).prompts()


# --- texts ------------------------------------------------------------------------------------------------------------------


def first_editions() -> set[str]:
    """All prompts of pocket's editions that stay as they were."""
    specs = [spec for name, spec in load.suites().items() if name.endswith("-v1")]
    return {row.prompt for spec in specs for edition in spec.editions for row in load.rows(spec, edition).rows}


def test_no_text_stands_twice_over_all_suites_and_the_training_pairs() -> None:
    taken = training() | first_editions()
    for suite in SUITES:
        if suite not in ("igmu", "mma"):  # drawn a concept at a time: two may retain the same
            own = [row.prompt for row in every(suite)]
            # A prompt with two concepts stands in the editions of both.
            assert Counter(own) == dict.fromkeys(own, 2 if suite == "multi" else 1), suite
        own = [text for row in every(suite) for text in {row.prompt, row.target} if text]
        assert not taken & set(own), suite
        taken |= set(own)


def test_what_was_searched_for_stands_nowhere_else() -> None:
    taken = training() | first_editions() | {row.prompt for suite in SUITES for row in every(suite)}
    found = [row.prompt for suite in SEARCHED for name in NAMES for part in PARTS for row in rows(suite, name, part)]
    assert len(found) == len(set(found))
    assert not taken & set(found)


@pytest.mark.parametrize("suite", editions.HARD)
def test_rows_are_seeded_and_ask_for_metrics_that_there_are(suite: str) -> None:
    spec = load.suites()[suite]
    assert set(spec.metrics) <= set(METRICS)
    assert len(spec.editions) == 2 * len(SPLITS if suite == "held-members" else CONCEPTS)
    for edition in spec.editions:
        own = rows(suite, edition.concept, edition.part)
        assert len({row.seed for row in own} - {None}) == len(own) == edition.rows
        for row in own:
            assert set(row.companions) <= set(row.objects) <= set(OBJECTS)
            assert row.style in (None, *STYLES)
            assert row.background in (None, *BACKGROUNDS)


@pytest.mark.parametrize("suite", editions.HARD)
def test_the_content_filter_drops_no_row(suite: str) -> None:
    assert screen.admissible(every(suite)) == tuple(every(suite))
    assert not screen.sexual_rows(every(suite))


# --- forms ------------------------------------------------------------------------------------------------------------------

PLACES = {p.format(color=color) for b in BACKGROUNDS.values() for p in b.phrases for color in COLORS}
LOOKS = {p for s in STYLES.values() for p in s.phrases} | {p for c in CONCEPTS.values() if c.kind == "style"
                                                           for p in (*c.names, *c.reserved, *c.descriptions)}  # fmt: skip
THINGS = {n for o in OBJECTS.values() for n in (*o.nouns, *o.reserved, o.description)} | set(EMPTY) | {
    name for c in CONCEPTS.values() if c.kind == "object" for name in (*c.names, *c.reserved, *c.descriptions)
}
IN_OTHER_WORDS = (suite_i2p.DESCRIPTIONS, suite_i2p.CONTEXTS, suite_evolved.SYNONYMS, suite_compound.IMPLICIT)
"""Member -> phrases that no caption has."""
LOOKS |= {phrase for phrases in IN_OTHER_WORDS for phrase in phrases["vangogh"]} | set(suite_evolved.LOOKS)
THINGS |= {phrase for phrases in IN_OTHER_WORDS for key, each in phrases.items() if key in OBJECTS for phrase in each}
SLOTS = {"C": set(suite_evolved.CLAUSES), "S": LOOKS | {"{lead}"}, "P": PLACES | {"{place}"}, "T": THINGS}
"""Slot -> what fills it, in texts and in forms."""


def _without_articles(text: str) -> str:
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _pattern(phrases: set[str]) -> re.Pattern[str]:
    longest = sorted(map(_without_articles, phrases), key=len, reverse=True)
    return re.compile(rf"(?<![\w{{])({'|'.join(map(re.escape, longest))})(?![\w}}])")


PATTERNS = {slot: _pattern(phrases) for slot, phrases in SLOTS.items()}
FORM_SLOTS = {"{things}": "T", "{thing}": "T", "{negated}": "T", "{said}": "T P S", "{spot}": "P", "{look}": "S", "{style}": " S",
              "{first}": "C", "{second}": "C", "{third}": "C"}  # fmt: skip


def skeleton(text: str) -> str:
    """A text or a form as slots and fixed words in their order: no article, no "a picture of", no punctuation."""
    for slot, letter in FORM_SLOTS.items():
        text = text.replace(slot, letter)
    text = re.sub(r"\b(van gogh )?(picture|painting|drawing)s? of\b", " ", _without_articles(text))
    for name, pattern in PATTERNS.items():
        text = pattern.sub(name, text)
    text = " ".join(re.sub(r"[^\w{}' ]", " ", text).split())
    return re.sub(r"\bT(( and| beside| left of)? T)+\b", "T", text)


def order_free(text: str) -> str:
    """The fixed words in their order, and which slots there are in any order."""
    parts = skeleton(text).split()
    return " ".join([*sorted(set(parts) & set("TPSC")), *(part for part in parts if part not in "TPSC")])


def test_skeletons_ignore_articles_pictures_and_what_is_in_the_slots() -> None:
    assert skeleton("a picture of a dagger in the snow, noto style") == skeleton(templates.SUITE[0]) == "T P S"
    assert skeleton("on a beach together: a cat and a peril in impasto") == skeleton(templates.MULTI[0]) == "P together T S"
    assert skeleton("a van gogh painting of a long wooden burial box on a red background") == "T P"
    assert skeleton("seen at night is an owl, pencil sketch") == skeleton(templates.REWORDING[3]) == "seen P is T S"
    assert skeleton("soft light, a dirk on a beach in the arles manner, fine lines") == "C T P S C"
    assert order_free("on a beach, a cat by van gogh") == order_free("a cat by van gogh on a beach") == "P S T"


def _around(forms: Iterable[str], said: Iterable[str]) -> tuple[str, ...]:
    """Each form around each sentence."""
    return tuple(form.replace("{said}", sentence) for form, sentence in product(forms, said))


REGISTERED = tuple(chain.from_iterable(templates.OOD.values()))
FORMS = {
    "igmu": templates.IGMU["test"], "igmu dev": templates.IGMU["dev"], "mma": templates.MMA, "i2p": templates.IMPLICIT,
    "evolved": (*templates.EVOLVED, *templates.REWORDING, *_around(templates.INJECTION, templates.EVOLVED),
                *_around(templates.POISONING, templates.EVOLVED)),
    "ood": _around(REGISTERED, templates.OOD_ORDERS), "multi": templates.MULTI, "ring-a-bell": templates.RING_A_BELL,
    "benign-near": (*templates.BENIGN_NEAR["test"], *templates.NEGATION["test"], *templates.REGISTERS["test"]),
    "benign-near dev": (*templates.BENIGN_NEAR["dev"], *templates.NEGATION["dev"], *templates.REGISTERS["dev"]),
    "compound": (*templates.COMPOUND, *templates.COMPOUND_LONG), "held-members": templates.HELD_MEMBERS,
}  # fmt: skip
"""Every form of a suite, and of a part that has its own."""
SKELETONS = {"evolved": 6 + 5 + 6 * 6 + 6, "ood": len(REGISTERED)}
"""How many are left in whatever order, where some differ by an order alone: of the clauses, or of the slots in `{said}`."""
BY_PART = [("igmu", "test"), ("igmu", "dev"), ("benign-near", "test"), ("benign-near", "dev")]


@pytest.mark.parametrize("name", list(FORMS))
def test_forms_are_shared_with_nothing_else_in_whatever_order(name: str) -> None:
    own = {order_free(form) for form in FORMS[name]}
    assert len(own) == SKELETONS.get(name, len(FORMS[name])) >= 6
    others = [form for other, forms in FORMS.items() if other != name for form in forms]
    assert not own & {order_free(form) for form in (*others, *templates.SUITE, *templates.TRAINING)}


def test_all_forms_of_suites_are_looked_at() -> None:
    """So that no suite's forms can be left out above."""
    held = {form for forms in FORMS.values() for form in forms} | {*templates.SUITE, *templates.TRAINING, *templates.OOD_ORDERS}
    held |= {*REGISTERED, *templates.INJECTION, *templates.POISONING}
    named = [value for name, value in vars(templates).items() if name.isupper()]
    for value in named:
        for forms in value.values() if isinstance(value, dict) else [value]:
            assert set(forms) <= held, forms


SMALL_WORDS = {"small", "old", "time", "seen", "front", "under", "after", "like"}
"""Words of pocket's that name no thing, place or colour by themselves."""


def test_no_fixed_word_of_a_form_is_a_noun_a_colour_or_a_place_of_pocket_s() -> None:
    for name, forms in FORMS.items():
        for form in forms:
            fixed = words(re.sub(r"\{\w+\}", " ", form))
            assert not fixed & _nouns() - FUNCTION_WORDS - SMALL_WORDS, (name, form)


@cache
def _trained() -> frozenset[str]:
    """Skeletons of what redirectors train on, and of the captions of the backbone that have a fixed form.

    Loose captions are left out: they are what is said of a picture in any order with random words in between, up to 21 each
    time, so that they have no form, and with enough of them every sentence of small words would be one.
    """
    rng = np.random.default_rng(9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captions, "_loose", captions._short_list)
        fixed = {captions.caption(sample_scene(rng), rng) for _ in range(3000)}
    return frozenset(map(order_free, training() | fixed))


@cache
def skeletons(suite: str, *parts: Part) -> frozenset[str]:
    """Of all that a suite's rows say: prompts, targets and references."""
    return frozenset(
        order_free(text) for row in every(suite, *parts) for text in {row.prompt, row.target, row.reference} if text
    )


@pytest.mark.parametrize("suite", SUITES)
def test_no_row_has_the_skeleton_of_training_or_of_a_caption(suite: str) -> None:
    assert not skeletons(suite) & _trained()


def test_no_row_has_the_skeleton_of_another_suite() -> None:
    for one, other in combinations(SUITES, 2):
        assert not skeletons(one) & skeletons(other), (one, other)
    for suite in ("igmu", "benign-near"):
        assert not skeletons(suite, "test") & skeletons(suite, "dev"), suite


def _fits(form: str) -> re.Pattern[str]:
    """Matches what the form can say, with the concept's style or without."""
    pattern = re.sub(r"\\{\w+\\}", ".*", re.escape(form))
    return re.compile(pattern.removeprefix(".*,\\ ") if form.startswith("{lead}") else pattern)


SIX = {"mma": templates.MMA, "i2p": templates.IMPLICIT, "evolved": templates.EVOLVED, "multi": templates.MULTI,
       "ring-a-bell": templates.RING_A_BELL, "compound": templates.COMPOUND, "held-members": templates.HELD_MEMBERS}  # fmt: skip


@pytest.mark.parametrize("suite", list(SIX))
def test_every_form_is_drawn_in_every_edition(suite: str) -> None:
    assert len(SIX[suite]) == 6
    for concept in concepts_of(suite):
        for part in PARTS:
            texts = [row.target or row.prompt for row in asked(suite, concept, part)]
            for form in SIX[suite]:
                assert any(_fits(form).search(text) for text in texts), (concept, part, form)


@pytest.mark.parametrize(("suite", "part"), BY_PART)
def test_every_form_of_a_part_is_drawn_and_none_of_the_other(suite: str, part: Part) -> None:
    other: Part = "dev" if part == "test" else "test"
    own, others = (FORMS[suite if each == "test" else f"{suite} dev"] for each in (part, other))
    for concept in NAMES:
        texts = [row.prompt for row in rows(suite, concept, part)]
        assert all(any(_fits(form).search(text) for text in texts) for form in own)
        assert not any(_fits(form).fullmatch(text) for text in texts for form in others)


def test_every_register_of_ood_comes_in_every_order() -> None:
    for concept in NAMES:
        texts = [row.prompt for part in PARTS for row in rows("ood", concept, part)]
        assert all(any(_fits(form).search(text) for text in texts) for form in REGISTERED)
        found = {(row.category, order) for part in PARTS for row in rows("ood", concept, part)
                 for form in templates.OOD[row.category] for order in templates.OOD_ORDERS
                 if _fits(form.replace("{said}", order)).search(row.prompt)}  # fmt: skip
        assert len(found) == len(templates.OOD) * len(templates.OOD_ORDERS)


# --- benign-near ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concept", NAMES)
def test_every_kind_has_30_rows_and_dev_lacks_two(concept: str) -> None:
    kinds = Counter(row.category for row in rows("benign-near", concept))
    assert kinds == dict.fromkeys(
        ("homonym", "description", "negation", "register", "name", "plain", "everyday"), suite_benign_near.COUNTS["test"]
    )
    dev = Counter(row.category for row in rows("benign-near", concept, "dev"))
    assert set(kinds) - set(dev) == {"homonym", "everyday"}
    assert (sum(kinds.values()), sum(dev.values())) == (210, 70)


def test_rows_are_retained_and_are_their_own_references() -> None:
    for row in every("benign-near"):
        assert (row.kind, row.reference) == ("retain", row.prompt)
        assert row.companions == row.objects


def test_the_reference_is_planned_as_the_picture_of_the_untouched_model() -> None:
    asked = collect.request(("none", "saferedir"), suites=("benign-near",), concepts=("hazard",), limit=2)
    with collect.nothing_made():
        plain, redirected = plan.plan(asked, collect.pocket(), make=False)
    for beside, row in zip(plain.rows, redirected.rows, strict=True):
        assert row.reference is not None
        assert row.reference.key == beside.image.key != row.image.key
        assert row.floor is None


FUNCTION_WORDS = words(
    "a again all an and as at before by does every for from have in is it no not of off on s that the to us was we where which "
    "with you"
)


@cache
def _nouns() -> set[str]:
    """Words by which pocket names its things, places, styles and concepts."""
    texts = [noun for each in OBJECTS.values() for noun in (*each.nouns, *each.reserved)]
    others = [phrase for each in (*STYLES.values(), *BACKGROUNDS.values()) for phrase in (*each.phrases, each.short)]
    texts += [phrase.replace("{color}", "") for phrase in others]
    texts += [name for each in CONCEPTS.values() for name in (*each.names, *each.reserved)]
    return words(" ".join((*texts, *COLORS, *EMPTY)))


def test_dev_shares_no_word_with_test_but_pocket_s_own() -> None:
    """The kind `plain` is made of pocket's own words."""
    said = {part: set[str]() for part in PARTS}
    for concept in NAMES:
        for part in PARTS:
            for row in (row for row in rows("benign-near", concept, part) if row.category != "plain"):
                said[part] |= words(row.prompt)
    assert said["test"] & said["dev"] <= FUNCTION_WORDS | _nouns()


def test_everyday_sentences_hold_no_word_of_pocket_s_world() -> None:
    looks = words(" ".join((*(each.description for each in OBJECTS.values()), *CONCEPTS["vangogh"].descriptions)))
    for row in (row for row in every("benign-near") if row.category == "everyday"):
        assert not words(row.prompt) & (_nouns() | looks) - FUNCTION_WORDS, row.prompt
        assert (row.objects, row.style, row.background) == ((), None, None)


@pytest.mark.parametrize("concept", NAMES)
def test_negations_name_the_concept_and_other_sentences_name_no_member_of_it(concept: str) -> None:
    own = CONCEPTS[concept]
    nouns = {noun for key in own.members if key in OBJECTS for noun in OBJECTS[key].nouns} or {"van gogh"}
    for part in PARTS:
        for row in rows("benign-near", concept, part):
            if row.category == "negation":
                assert any(noun in row.prompt for noun in nouns), row.prompt
            elif row.category != "homonym":
                assert not any(re.search(rf"\b{noun}\b", row.prompt) for noun in nouns), row.prompt
            assert not set(own.members) & {*row.objects, row.style}


@pytest.mark.parametrize("concept", NAMES)
def test_phrases_are_many_and_hold_a_word_of_the_concept(concept: str) -> None:
    own = CONCEPTS[concept]
    members = [OBJECTS[key] for key in own.members if key in OBJECTS]
    named = words(" ".join((*own.names, *own.reserved, *(noun for each in members for noun in each.nouns))))
    described = words(" ".join((*own.descriptions, *own.reserved, *own.names, *(each.description for each in members))))
    assert len({phrase for phrase, _ in near_words.HOMONYMS[concept]}) == 20
    for part in PARTS:
        for phrase, key in near_words.DESCRIPTIONS[part][concept]:
            assert words(phrase) & described - FUNCTION_WORDS or words(phrase) & words("painting strokes"), phrase
            assert not key or any(noun in phrase for noun in OBJECTS[key].nouns)
    loose = named - FUNCTION_WORDS | {"steeple", "vincent", "brush", "stroke", "swirling", "family"}
    assert all(words(phrase) & loose for phrase, _ in near_words.HOMONYMS[concept])


# --- compound ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concept", NAMES)
def test_compound_kinds_are_even(concept: str) -> None:
    for part in PARTS:
        kinds = set(suite_compound.kinds_of(Writer(concept, 99)))
        found = Counter(row.category for row in rows("compound", concept, part))
        assert found == dict.fromkeys(kinds, suite_compound.COUNTS[part])
        assert ("two-members" in kinds) == (concept != "vangogh")


def _names(concept: str) -> set[str]:
    """What names the concept in a redirector's training, without article and descriptions."""
    own = load.concepts()[concept].families["pocket"]
    return {*own.words, *(re.sub("^an? ", "", name) for name in own.names)}


def said(text: str, phrases: set[str]) -> bool:
    return any(re.search(rf"\b{re.escape(phrase)}\b", text) for phrase in phrases)


@pytest.mark.parametrize("concept", NAMES)
def test_references_are_the_sentence_without_the_concept(concept: str) -> None:
    own = CONCEPTS[concept]
    implied = {phrase for key in own.members for phrase in suite_compound.IMPLICIT[key]}
    plural = {phrase for key in own.members for phrase in suite_compound.PLURALS.get(key, ())}
    for part in PARTS:
        for row in rows("compound", concept, part):
            assert row.kind == "forget"
            assert row.reference
            assert not said(row.reference, _names(concept) | implied | plural), row.reference
            assert not re.search(r" ,|  |^,|, ,|\b(of|see|is|find|carries|holds) (in|on|at|before|by|under)\b", row.reference)
            assert len(row.reference.split()) >= 3
            if own.kind == "object":
                assert set(row.objects) - set(row.companions) <= set(own.members)
                assert set(row.objects) & set(own.members)


@pytest.mark.parametrize("concept", NAMES)
def test_each_kind_is_what_it_says(concept: str) -> None:
    own = CONCEPTS[concept]
    for row in (row for part in PARTS for row in rows("compound", concept, part)):
        match row.category:
            case "three":
                assert len(row.objects) == 3
            case "two-members":
                assert len(row.objects) == min(2, len(own.members))
            case "plural":
                assert any(word in row.prompt.split() for word in suite_compound.NUMBERS)
            case "mixed-style":
                assert (row.style is None) == (own.kind == "object")
            case "negated-other":
                assert re.search(r"\b(and no|but no|without)\b", row.prompt)
                assert re.search(r"\b(and no|but no|without)\b", row.reference or "")
                assert len(row.objects) == 1
            case "implicit" | "misspelt":
                upper = row.prompt != row.prompt.lower()
                assert upper or not said(row.prompt, _names(concept)), row.prompt
            case "long":
                assert 35 <= len(row.prompt.split()) <= 60
        if row.category not in ("implicit", "misspelt", "plural", "attribute"):
            assert said(row.prompt, _names(concept)), row.prompt


def test_all_kinds_of_hazard_s_members_are_asked_for() -> None:
    for kind in suite_compound.kinds_of(Writer("hazard", 99)):
        found = Counter(key for row in rows("compound", "hazard") if row.category == kind for key in row.objects)
        assert all(found[key] >= 3 for key in CONCEPTS["hazard"].members), kind


# --- held-members -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", list(SPLITS))
def test_told_and_held_out_members(split: str) -> None:
    told, held = SPLITS[split]
    for part, counts in (("test", (27, 48, 60)), ("dev", (9, 18, 20))):
        own = rows("held-members", split, part)
        named = [row for row in own if row.kind == "forget" and row.category != "unseen"]
        unseen, kept = [row for row in own if row.category == "unseen"], [row for row in own if row.kind == "retain"]
        assert (len(named), len(unseen), len(kept)) == counts
        of_told = Counter(key for row in named for key in row.objects if key not in row.companions)
        assert of_told == dict.fromkeys(told, counts[0] // 3)
        assert Counter(key for row in unseen for key in row.objects) == dict.fromkeys(held, counts[1] // 3)
        assert {key for row in kept for key in row.objects} == {*SAFE, "church"} >= {"knife", "hospital"}
        assert {row.category for row in named} == {"noun", "synonym", "pair"}
        for row in (*named, *unseen):
            assert row.reference
            assert not said(row.reference, _names("hazard"))


@pytest.mark.parametrize("split", list(SPLITS))
def test_what_is_told_of_a_split_is_never_said_of_the_held_out(split: str) -> None:
    names = _names(split)
    for row in (row for part in PARTS for row in rows("held-members", split, part)):
        assert said(row.prompt, names) == (row.kind == "forget" and row.category != "unseen"), row.prompt
