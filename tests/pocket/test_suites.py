"""Pocket's suite editions: what stands in them, what must not, and that the files say what they are."""

from __future__ import annotations

import hashlib
import re

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from srbench.attacks import mma
from srbench.catalog import load, resolve
from srbench.catalog.specs import Row, RowFile, SuiteSpec
from srbench.pocket.templates import SUITE
from srbench.pocket.world import BACKGROUNDS, COLORS, CONCEPTS, OBJECTS, SPLITS, STYLES, article
from srbench.pocket_build.suites import editions, suite_igmu
from srbench.pocket_build.suites.suite_files import write_suite
from srbench.pocket_build.suites.suite_writer import SAFE, Writer

PARTS = ("test", "dev")
HELD = ("igmu", "mma")


def _tokenizer() -> CLIPTokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(c + "</w>" for c in letters), ",</w>", "<|startoftext|>", "<|endoftext|>"]
    ends = {"bos_token": "<|startoftext|>"} | dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=77, **ends)


def _encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    torch.manual_seed(1)
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )).eval()


SETTINGS = mma.Settings(tokens=8, steps=1, topk=4, batch=2, finalists=1, parallel=70)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("suites")
    tokenizer = _tokenizer()
    editions.write(target, _encoder(tokenizer), tokenizer, text_encoder_sha="a" * 64, settings=SETTINGS)
    return target


@pytest.fixture(scope="module")
def written(folder) -> dict[tuple[str, str, str], RowFile]:
    """(suite, concept, part) -> row file."""
    files = {}
    for name in ("igmu", "mma"):
        for e in load.parse_yaml(folder / f"{name}.yaml", SuiteSpec).editions:
            files[name, e.concept, e.part] = RowFile.model_validate_json((folder / e.file).read_bytes())
    return files


def _shown(text: str, phrases: tuple[str, ...] | set[str]) -> bool:
    return any(re.search(rf"\b{re.escape(p)}\b", text) for p in phrases)


def _phrases(concept: str) -> set[str]:
    """Every way to say the concept, reserved synonyms and descriptions too."""
    words = CONCEPTS[concept]
    nouns = {n for key in words.members if key in OBJECTS for n in OBJECTS[key].nouns}
    looks = {d for key in words.members if key in OBJECTS for d in [OBJECTS[key].description]}
    return {*words.names, *words.reserved, *words.descriptions, *nouns, *looks}


def test_counts(written) -> None:
    for concept in CONCEPTS:
        for part, forget, unseen, retain, attacks in (("test", 100, 40, 150, 100), ("dev", 16, 8, 16, 40)):
            rows = written["igmu", concept, part].rows
            assert sum(r.kind == "forget" and r.category != "unseen" for r in rows) == forget
            assert sum(r.category == "unseen" for r in rows) == unseen
            assert sum(r.kind == "retain" for r in rows) == retain
            assert len(written["mma", concept, part].rows) == attacks


def test_suite_files_name_their_editions(folder) -> None:
    for name, attack in (("igmu", False), ("mma", True)):
        spec = load.parse_yaml(folder / f"{name}.yaml", SuiteSpec)
        assert (spec.attack, len(spec.editions)) == (attack, 6)
        for e in spec.editions:
            raw = (folder / e.file).read_bytes()
            assert e.sha256 == hashlib.sha256(raw).hexdigest()
            assert raw.count(b'{"id"') == e.rows == len(re.findall(rb'^\{"id".*\},?$', raw, re.MULTILINE)), "one row a line"


def test_writing_again_keeps_other_families(folder, tmp_path) -> None:
    path = tmp_path / "igmu.yaml"
    spec = load.parse_yaml(folder / "igmu.yaml", SuiteSpec)
    other = spec.editions[0].model_copy(update={"family": "sd3"})
    head = {"name": "igmu", "title": "t", "source": "s", "licence": "MIT", "metrics": ["fsr"]}
    write_suite(path, [*spec.editions, other], head)
    write_suite(path, list(spec.editions), head)
    assert load.parse_yaml(path, SuiteSpec).editions == (*spec.editions, other)


@pytest.mark.parametrize("name", ["igmu", "mma", "i2p"])
def test_writing_what_is_written_changes_no_byte(name: str, tmp_path) -> None:
    """Comments and the published entries stay, and so does the head of a file that others began."""
    shipped = resolve.find("suites", f"{name}.yaml")
    path = tmp_path / f"{name}.yaml"
    path.write_bytes(shipped.read_bytes())
    own = [e for e in load.parse_yaml(shipped, SuiteSpec).editions if e.family == "pocket"]
    assert own
    editions._write_suite(tmp_path, name, own)
    assert path.read_bytes() == shipped.read_bytes()


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_the_shipped_prompts_are_what_is_drawn(concept: str) -> None:
    igmu, targets = editions.drawn(concept)
    for part in PARTS:
        held = {name: load.rows(load.suites()[name], load.edition(load.suites()[name], "pocket", concept, part)) for name in HELD}
        assert held["igmu"].rows == igmu[part]
        attacked = held["mma"].rows
        changed = [row.model_copy(update={"prompt": row.target, "similarity": None}) for row in attacked]
        assert tuple(changed) == targets[part]


def test_the_same_twice(written) -> None:
    writer = Writer("church")
    assert suite_igmu.rows(writer, "test") == written["igmu", "church", "test"].rows


def test_no_text_twice_and_parts_are_disjoint(written) -> None:
    for concept in CONCEPTS:
        prompts = [r.prompt for part in PARTS for r in written["igmu", concept, part].rows]
        targets = [r.target for part in PARTS for r in written["mma", concept, part].rows]
        assert len({*prompts, *targets}) == len(prompts) + len(targets)


def test_seeds_are_distinct(written) -> None:
    for file in written.values():
        assert len({r.seed for r in file.rows}) == len(file.rows)


def test_every_prompt_is_in_the_suites_form(written) -> None:
    places = {p.format(color=c) for b in BACKGROUNDS.values() for p in b.phrases for c in COLORS}
    looks = {p for s in STYLES.values() for p in s.phrases} | set(CONCEPTS["vangogh"].reserved)
    styles = {("," if not p.startswith(("in ", "by ", "as ", "like ")) else "") + " " + p for p in looks} | {""}
    tails = {(place + style): (place, style) for place in places for style in styles}
    for file in written.values():
        for row in file.rows:
            for text in filter(None, (row.target or row.prompt, row.reference)):
                tail = max((t for t in tails if text.endswith(" " + t)), key=len)
                things = text.removesuffix(tail).strip()
                assert SUITE[0].format(things=things, place=tails[tail][0], style=tails[tail][1]) == text
                assert all(_is_thing(thing) for thing in things.split(" and ")), text


def _is_thing(text: str) -> bool:
    nouns = {article(n) for o in OBJECTS.values() for n in o.nouns}
    names = {n for c in CONCEPTS.values() if c.kind == "object" for n in (*c.names, *c.reserved)}
    return text in nouns | names | {"an empty scene"}


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_forget_rows_show_the_concept_and_references_do_not(written, concept: str) -> None:
    words = CONCEPTS[concept]
    for suite, part in (("igmu", "test"), ("igmu", "dev"), ("mma", "test"), ("mma", "dev")):
        for row in (r for r in written[suite, concept, part].rows if r.kind == "forget"):
            text = row.target or row.prompt
            assert _shown(text, _phrases(concept))
            assert row.reference is not None
            assert not _shown(row.reference, _phrases(concept))
            assert _shown(text, words.reserved) == (row.category == "unseen")
            assert not _shown(text, set(words.descriptions) | {OBJECTS[k].description for k in words.members if k in OBJECTS})


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_retain_rows_never_show_it(written, concept: str) -> None:
    members = set(CONCEPTS[concept].members)
    for part in PARTS:
        for row in (r for r in written["igmu", concept, part].rows if r.kind == "retain"):
            assert not _shown(row.prompt, _phrases(concept))
            assert not members & {*row.objects, row.style}


def test_references_of_object_concepts_keep_the_rest(written) -> None:
    row = next(r for r in written["igmu", "hazard", "test"].rows if r.category == "pair")
    (companion,) = row.companions
    assert _shown(row.reference or "", set(OBJECTS[companion].nouns))
    alone = next(r for r in written["igmu", "hazard", "test"].rows if r.category == "noun")
    assert (alone.reference or "").startswith("an empty scene ")
    assert alone.prompt.split(" ")[-2:] == (alone.reference or "").split(" ")[-2:]


def test_references_of_the_style_leave_out_only_the_style(written) -> None:
    for row in (r for r in written["igmu", "vangogh", "test"].rows if r.kind == "forget"):
        assert row.prompt.startswith(row.reference + " ")
        assert row.objects == row.companions != ()


def test_pairs_hold_a_safe_companion_on_either_side(written) -> None:
    for concept in ("hazard", "church"):
        rows = [r for r in written["igmu", concept, "test"].rows if r.category == "pair"]
        assert len(rows) == 15
        assert all(len(r.companions) == 1 and set(r.companions) <= set(SAFE) for r in rows)
        assert len({r.objects[0] == r.companions[0] for r in rows}) == 2, "first and second"


def test_all_members_and_trained_words_are_asked_for(written) -> None:
    rows = [r for r in written["igmu", "hazard", "test"].rows if r.kind == "forget"]
    for key in CONCEPTS["hazard"].members:
        for noun in OBJECTS[key].nouns:
            assert any(_shown(r.prompt, (noun,)) for r in rows), noun
    for phrase in (*CONCEPTS["hazard"].names, *CONCEPTS["hazard"].reserved):
        assert any(_shown(r.prompt, (phrase,)) for r in rows), phrase


def test_neighbours(written) -> None:
    def near(concept: str) -> list[Row]:
        return [r for r in written["igmu", concept, "test"].rows if r.category == "neighbour"]

    assert {k for r in near("hazard") for k in r.objects} == {"hammer", "key", "teapot"}
    assert {k for r in near("church") for k in r.objects} == {"house", "castle", "tent"}
    assert {r.style for r in near("vangogh")} == {"sketch"}


def test_adversarial_rows_and_their_settings(written) -> None:
    for concept in CONCEPTS:
        for part in PARTS:
            file = written["mma", concept, part]
            banned = str(file.meta["banned"]).split(", ")
            assert banned == mma.banned_words(load.concepts()[concept], "pocket")
            assert file.meta["text_encoder_sha256"] == "a" * 64
            assert {"attack", "attack_version", "tokens", "steps", "topk", "batch", "seed"} <= file.meta.keys()
            for row in file.rows:
                assert row.category == "adversarial"
                assert row.target != row.prompt
                assert not mma.holds_banned(row.prompt, banned)
                assert row.similarity is not None
                assert -1 <= row.similarity <= 1


@pytest.mark.parametrize("name", list(CONCEPTS))
def test_concept_files_say_what_the_world_says(name: str) -> None:
    concept, world = load.concepts()[name], CONCEPTS[name]
    said = concept.families["pocket"]
    assert (concept.kind, said.names, said.reserved, said.protocol) == (world.kind, world.names, world.reserved, f"pocket-{name}")
    nouns = {n for key in world.members if key in OBJECTS for n in OBJECTS[key].nouns}
    assert nouns <= set(said.words)
    assert set(said.counterparts) == set(said.words)
    assert not {r.removeprefix("a ") for r in world.reserved} & set(said.words)


@pytest.mark.parametrize("name", list(SPLITS))
def test_files_of_splits_say_what_the_world_says(name: str) -> None:
    concept, (told, held) = load.concepts()[name], SPLITS[name]
    said, whole = concept.families["pocket"], load.concepts()["hazard"].families["pocket"]
    assert (concept.kind, said.names, said.reserved, said.protocol) == ("object", whole.names, whole.reserved, "pocket-hazard")
    assert said.words == ("hazard", "dangerous object", *(noun for key in told for noun in OBJECTS[key].nouns))
    assert said.counterparts == {word: whole.counterparts[word] for word in said.words}
    assert all(key in concept.title for key in told)
    assert not any(noun in concept.model_dump_json() for key in held for noun in OBJECTS[key].nouns)


@pytest.mark.parametrize("name", list(CONCEPTS))
def test_counterparts_are_safe(name: str) -> None:
    safe = {n for key in SAFE for n in OBJECTS[key].nouns} if CONCEPTS[name].kind == "object" else {"pencil sketch"}
    assert set(load.concepts()[name].families["pocket"].counterparts.values()) <= safe
