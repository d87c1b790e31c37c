"""Pocket's suites `i2p`, `evolved`, `ood` and `multi`: what stands in them, what must not, and that the files are drawn so."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from srbench.analysis.attacks import FAMILIES
from srbench.analysis.metrics import METRICS
from srbench.catalog import load, resolve, screen
from srbench.catalog.specs import Row
from srbench.methods.saferedir.pairs import pocket_pairs
from srbench.pocket.captions import caption
from srbench.pocket.templates import EVOLVED, IMPLICIT, INJECTION, MULTI, OOD, OOD_ORDERS, POISONING, REWORDING, SUITE, TRAINING
from srbench.pocket.world import CONCEPTS, OBJECTS, SPLITS, reserved
from srbench.pocket_build.model.scenes import sample_scene
from srbench.pocket_build.suites import editions, suite_evolved, suite_i2p
from srbench.pocket_build.suites.suite_files import PARTS
from srbench.pocket_build.suites.suite_writer import SAFE, Writer

SHIPPED = ("igmu", *editions.STATIC)
OBJECT_CONCEPTS = [name for name, words in CONCEPTS.items() if words.kind == "object"]


def rows(suite: str, concept: str, part: str = "test") -> tuple[Row, ...]:
    """The rows of a shipped edition."""
    spec = load.suites()[suite]
    return load.rows(spec, load.edition(spec, "pocket", concept, part)).rows


def trained(concept: str) -> set[str]:
    """Every word that names the concept in a redirector's training, without article; descriptions too."""
    words = CONCEPTS[concept]
    own = set(load.concepts()[concept].families["pocket"].words)
    looks = {OBJECTS[key].description for key in words.members if key in OBJECTS} | set(words.descriptions)
    return own | looks | {re.sub("^an? ", "", name) for name in words.names}


def said(text: str, phrases: set[str]) -> bool:
    return any(re.search(rf"\b{re.escape(phrase)}\b", text) for phrase in phrases)


# --- all of them ------------------------------------------------------------------------------------------------------------


def test_writing_again_gives_the_shipped_bytes(tmp_path) -> None:
    for name in ("igmu.yaml", "i2p.yaml"):  # published editions stand in them, too
        (tmp_path / name).write_bytes(resolve.find("suites", name).read_bytes())
    assert editions.main(["--folder", str(tmp_path)]) == 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == (len(editions.WITHOUT_MODEL) - 1) * (1 + 2 * len(CONCEPTS)) + 1 + 2 * len(SPLITS)
    for path in written:
        name = path.relative_to(tmp_path).as_posix()
        assert path.read_bytes() == resolve.find("suites", name).read_bytes(), name


def test_one_suite_alone_is_the_same(tmp_path) -> None:
    assert editions.main(["ood", "--folder", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ood", "ood.yaml"]
    assert (tmp_path / "ood.yaml").read_bytes() == resolve.find("suites", "ood.yaml").read_bytes()


def test_an_unknown_suite_is_one_line(capsys) -> None:
    assert editions.main(["odd"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown suite 'odd'\nSuites: igmu, i2p, ")


@pytest.mark.parametrize("suite", editions.STATIC)
@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_editions_have_100_and_40_rows_with_all_that_judges_read(suite: str, concept: str) -> None:
    for part, count in (("test", 100), ("dev", 40)):
        found = rows(suite, concept, part)
        assert len(found) == len({row.seed for row in found}) == len({row.prompt for row in found}) == count
        for row in found:
            assert row.seed is not None
            assert row.style
            assert row.background
            assert bool(row.reference) == (row.kind == "forget")
            assert set(row.companions) <= set(row.objects) <= set(OBJECTS)


def texts(suite: str) -> list[str]:
    """All prompts and targets of a suite, over concepts and parts."""
    found = [row for concept in CONCEPTS for part in PARTS for row in rows(suite, concept, part)]
    return [text for row in found for text in (row.prompt, row.target) if text]


def of_mma() -> list[str]:
    """The plain prompts that `mma` is searched for."""
    return [row.prompt for concept in CONCEPTS for own in editions.drawn(concept)[1].values() for row in own]


def test_no_text_stands_twice_over_all_suites_concepts_and_parts() -> None:
    seen = {*texts("igmu"), *of_mma()}
    for suite in editions.STATIC:
        own = texts(suite)
        # A prompt with two concepts stands in the editions of both.
        assert Counter(own) == dict.fromkeys(own, 2 if suite == "multi" else 1)
        assert not seen & set(own), suite
        seen |= set(own)


def test_no_training_sees_a_prompt() -> None:
    concepts = [load.concepts()[name] for name in CONCEPTS]
    seen = set(chain.from_iterable(pocket_pairs([each], 1600, 1200, seed=0).prompts() for each in concepts))
    seen |= pocket_pairs(concepts, 500, 400, seed=0).prompts()
    rng = np.random.default_rng(9)
    seen |= {caption(sample_scene(rng), rng) for _ in range(5000)}
    for suite in editions.STATIC:
        for concept in CONCEPTS:
            for part in PARTS:
                assert not seen & {row.prompt for row in rows(suite, concept, part)}, (suite, concept)


def test_forms_of_training_and_of_suites_are_apart() -> None:
    """In whatever order of their slots: tests/pocket/test_suites_hard.py."""
    own = {*IMPLICIT, *MULTI, *EVOLVED, *INJECTION, *POISONING, *REWORDING, *chain.from_iterable(OOD.values())}
    assert not own & {*SUITE, *TRAINING}
    assert min(map(len, (IMPLICIT, MULTI, EVOLVED))) >= 6
    assert all(len(forms) * len(OOD_ORDERS) >= 6 for forms in OOD.values())


@pytest.mark.parametrize("suite", editions.STATIC)
def test_suite_files_ask_for_metrics_that_there_are(suite: str) -> None:
    spec = load.suites()[suite]
    for edition in (e for e in spec.editions if e.family == "pocket"):
        assert set(spec.of(edition).metrics) <= set(METRICS)
        raw = resolve.find("suites", edition.file).read_bytes()
        assert hashlib.sha256(raw).hexdigest() == edition.sha256


def test_published_prompts_of_i2p_are_still_there() -> None:
    text = resolve.find("suites", "i2p.yaml").read_text(encoding="utf-8")
    assert text.startswith("# I2P (2211.05105): prompts of users")
    suite = load.suites()["i2p"]
    assert load.edition(suite, "sd", "nudity").files[0].hub == "AIML-TUDA/i2p"
    assert suite.of(load.edition(suite, "sd", "church")).sensitive


# --- i2p --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_implicit_prompts_name_the_concept_by_no_trained_word(concept: str) -> None:
    synonyms = {phrase for phrase, _ in reserved(concept)}
    for row in (row for part in PARTS for row in rows("i2p", concept, part)):
        assert not said(row.prompt, trained(concept)), row.prompt
        assert said(row.prompt, synonyms) == (row.category == "synonym")
        assert not said(row.reference or "", trained(concept) | synonyms)


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_every_reserved_synonym_stands_in_i2p_and_names_what_it_names(concept: str) -> None:
    own = [row for row in rows("i2p", concept) if row.category == "synonym"]
    for phrase, key in reserved(concept):
        found = [row for row in own if said(row.prompt, {phrase})]
        assert len(found) >= 3, phrase
        for row in (row for row in found if CONCEPTS[concept].kind == "object"):
            assert set(row.objects) - set(row.companions) == ({key} if key else set())


def test_implicit_prompts_come_in_three_kinds() -> None:
    for concept in CONCEPTS:
        for part in PARTS:
            assert Counter(row.category for row in rows("i2p", concept, part)) == suite_i2p.COUNTS[part]


def test_every_member_is_implied() -> None:
    for category, phrases in (("description", suite_i2p.DESCRIPTIONS), ("context", suite_i2p.CONTEXTS)):
        texts = [row.prompt for row in rows("i2p", "hazard") if row.category == category]
        for key in CONCEPTS["hazard"].members:
            assert any(phrase in text for text in texts for phrase in phrases[key]), (category, key)


def test_the_filter_of_a_sensitive_suite_drops_no_row() -> None:
    for concept in CONCEPTS:
        for part in PARTS:
            assert screen.admissible(rows("i2p", concept, part)) == rows("i2p", concept, part)


# --- evolved ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_families_have_20_rows_each(concept: str) -> None:
    assert Counter(row.category for row in rows("evolved", concept)) == dict.fromkeys(FAMILIES, 20)
    assert Counter(row.category for row in rows("evolved", concept, "dev")) == dict.fromkeys(FAMILIES, 8)


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_each_attack_is_what_its_family_says(concept: str) -> None:
    names = trained(concept)
    for row in (row for part in PARTS for row in rows("evolved", concept, part)):
        target = row.target or ""
        assert said(target, names)
        assert row.prompt != target
        if row.category in ("injection", "poisoning"):
            assert target in row.prompt
        if row.category in ("synonym", "typos"):
            assert not said(row.prompt, names), row.prompt
        if row.category == "rewording":
            assert target not in row.prompt
        assert not said(row.reference or "", names)


def test_a_typo_is_one_edit_and_never_the_word() -> None:
    writer = Writer("hazard", 99)
    for word in ("dagger", "gun", "skull", "gogh", "vincent", "arles", "handgun"):
        for _ in range(50):
            found = suite_evolved.typo(writer, word)
            assert found != word
            assert found[0] == word[0] or sorted(found) == sorted(word)
            assert abs(len(found) - len(word)) <= 1


def test_the_attacked_row_keeps_what_judges_read() -> None:
    row = next(row for row in rows("evolved", "hazard") if row.category == "poisoning")
    assert len(row.objects) == 1
    assert row.companions == ()
    assert row.style in load.backbones() or row.style
    styled = next(row for row in rows("evolved", "vangogh") if row.category == "typos")
    assert styled.style == "vangogh"
    assert styled.objects == styled.companions


# --- ood --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_half_of_each_register_is_harmless(concept: str) -> None:
    found = rows("ood", concept)
    assert Counter((row.kind, row.category) for row in found) == {(kind, reg): 10 for kind in ("forget", "retain") for reg in OOD}
    for row in found:
        assert said(row.prompt, trained(concept)) == (row.kind == "forget"), row.prompt
        if row.kind == "retain":
            assert len(row.objects) == 1
            assert set(row.objects) <= set(SAFE)
        else:
            assert not said(row.reference or "", trained(concept))


def test_registers_are_around_the_reference_too() -> None:
    for row in (row for row in rows("ood", "church") if row.kind == "forget"):
        start, _, end = next(f for f in OOD[row.category] if row.prompt.startswith(f.partition("{said}")[0])
                             and row.prompt.endswith(f.partition("{said}")[2])).partition("{said}")  # fmt: skip
        assert (row.reference or "").startswith(start)
        assert (row.reference or "").endswith(end)


# --- multi ------------------------------------------------------------------------------------------------------------------


def test_each_prompt_stands_once_in_the_editions_of_both_its_concepts() -> None:
    for part, count in (("test", 50), ("dev", 20)):
        held = {concept: {row.id: row for row in rows("multi", concept, part)} for concept in CONCEPTS}
        for concept, own in held.items():
            assert Counter(row.category for row in own.values()) == {f"with-{o}": count for o in CONCEPTS if o != concept}
            for row in own.values():
                other = held[row.category.removeprefix("with-")][row.id]
                assert (other.prompt, other.seed, other.category) == (row.prompt, row.seed, f"with-{concept}")
                assert (other.objects, other.style, other.background) == (row.objects, row.style, row.background)


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_a_reference_loses_its_own_concept_and_keeps_the_other(concept: str) -> None:
    for row in rows("multi", concept):
        other = row.category.removeprefix("with-")
        assert said(row.prompt, trained(concept))
        assert said(row.prompt, trained(other))
        assert not said(row.reference or "", trained(concept))
        assert said(row.reference or "", trained(other))
        members = set(CONCEPTS[other].members) & set(OBJECTS)
        assert set(row.companions) == set(row.objects) & members
        assert row.style == "vangogh" or "vangogh" not in (concept, other)


def test_whether_both_are_gone_is_a_protocol() -> None:
    judge = load.protocol("pocket-any")
    assert {part.name for part in load.parts(judge)} == {f"pocket-{concept}" for concept in CONCEPTS}


# --- ring-a-bell ------------------------------------------------------------------------------------------------------------


def test_targets_of_ring_a_bell_are_in_no_other_suite() -> None:
    asked = editions.ring_a_bell_targets()
    found = [row.prompt for parts in asked.values() for own in parts.values() for row in own]
    assert len(found) == len(set(found)) == 3 * (50 + 20)
    assert not set(found) & ({text for suite in SHIPPED for text in texts(suite)} | set(of_mma()))
