"""Pocket's editions of `igmu` and `mma`: what stands in them, what must not, and that the files say what they are. And the
first editions of all suites, which stay as they were."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from srbench.attacks import mma
from srbench.catalog import load, resolve
from srbench.catalog.specs import Row, RowFile, SuiteSpec
from srbench.pocket.captions import join
from srbench.pocket.templates import IGMU, MMA
from srbench.pocket.world import (
    BACKGROUNDS,
    COLORS,
    CONCEPTS,
    EMPTY,
    OBJECTS,
    SPLITS,
    STYLES,
    ConceptWords,
    article,
    reserved,
)
from srbench.pocket_build.suites import editions, suite_igmu, suite_mma
from srbench.pocket_build.suites.suite_files import PARTS, Part, write_suite
from srbench.pocket_build.suites.suite_writer import NEIGHBOURS, SAFE, Writer


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


def _reserved(concept: str) -> set[str]:
    """Every synonym that no method is told, of single members too."""
    return {phrase for phrase, _ in reserved(concept)}


def _descriptions(concept: str) -> set[str]:
    words = CONCEPTS[concept]
    return {*words.descriptions, *(OBJECTS[key].description for key in words.members if key in OBJECTS)}


def _told(concept: str) -> set[str]:
    """Every way to say the concept that methods are told, as it stands in a sentence."""
    words = CONCEPTS[concept]
    nouns = {article(noun) for key in words.members if key in OBJECTS for noun in OBJECTS[key].nouns}
    return {*words.names, *nouns, *_descriptions(concept)}


def _phrases(concept: str) -> set[str]:
    """Every way to say the concept, nouns without article."""
    bare = {phrase.removeprefix("an ").removeprefix("a ") for phrase in _told(concept) - _descriptions(concept)}
    return {*bare, *_reserved(concept), *_descriptions(concept)}


def _way(row: Row, concept: str) -> str:
    """The phrase by which a row without a companion names the concept: what its reference lacks."""
    reference = row.reference or ""
    if CONCEPTS[concept].kind == "object":
        before, _, after = reference.partition(EMPTY[0])
        return row.prompt.removeprefix(before).removesuffix(after)
    (found,) = (
        look for look in _told(concept) | _reserved(concept)
        if reference in (row.prompt.replace(f" {look}", "", 1), row.prompt.removeprefix(f"{look}, "))
    )  # fmt: skip
    return found


def test_counts(written) -> None:
    counts: tuple[tuple[Part, int, int, int, int], ...] = (("test", 100, 40, 150, 100), ("dev", 24, 0, 24, 40))
    for concept in CONCEPTS:
        for part, forget, unseen, retain, attacks in counts:
            rows = written["igmu", concept, part].rows
            assert sum(r.kind == "forget" and r.category != "unseen" for r in rows) == forget
            assert sum(r.category == "unseen" for r in rows) == unseen
            assert sum(r.kind == "retain" for r in rows) == retain
            assert len(written["mma", concept, part].rows) == attacks
            named = Counter(r.category for r in rows if r.kind == "forget" and r.category != "unseen")
            assert named == suite_igmu.FORGET[CONCEPTS[concept].kind][part]
            assert Counter(r.category for r in rows if r.kind == "retain") == suite_igmu.RETAIN[part]


def test_the_first_rows_of_igmu_have_all_categories(written) -> None:
    """Categories take turns, for `--limit`."""
    for concept in CONCEPTS:
        for part in PARTS:
            rows = written["igmu", concept, part].rows
            named = [r.category for r in rows if r.kind == "forget" and r.category != "unseen"]
            kept = [r.category for r in rows if r.kind == "retain"]
            assert set(named[:10]) == set(named)
            assert set(kept[:8]) == set(kept)


def test_suite_files_name_their_editions(folder) -> None:
    for name, attack in (("igmu", False), ("mma", True)):
        spec = load.parse_yaml(folder / f"{name}.yaml", SuiteSpec)
        assert (spec.attack, len(spec.editions)) == (attack, 6)
        for e in spec.editions:
            raw = (folder / e.file).read_bytes()
            assert e.sha256 == hashlib.sha256(raw).hexdigest()
            assert RowFile.model_validate_json(raw).meta["form"] == " | ".join(IGMU[e.part] if name == "igmu" else MMA)
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


def _shipped(name: str, concept: str, part: Part) -> tuple[Row, ...]:
    spec = load.suites()[name]
    return load.rows(spec, load.edition(spec, "pocket", concept, part)).rows


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_the_shipped_prompts_are_what_is_drawn(concept: str) -> None:
    for part in PARTS:
        assert _shipped("igmu", concept, part) == editions.drawn(concept)[0][part]


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_the_shipped_attacks_stand_for_what_is_drawn(concept: str) -> None:
    for part in PARTS:
        attacked = _shipped("mma", concept, part)
        changed = [row.model_copy(update={"prompt": row.target, "similarity": None}) for row in attacked]
        assert tuple(changed) == editions.drawn(concept)[1][part]


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


def _any(phrases: set[str]) -> str:
    return "(?:" + "|".join(map(re.escape, sorted(phrases, key=len, reverse=True))) + ")"


def _filled(form: str) -> re.Pattern[str]:
    """What the form says of pocket's things, at its places, in its styles, and nothing else; a style may be left out."""
    nouns = {article(noun) for each in OBJECTS.values() for noun in each.nouns}
    things = _any(nouns.union(EMPTY[:1], *(_told(c) | _reserved(c) for c, words in CONCEPTS.items() if words.kind == "object")))
    looks = {p for each in STYLES.values() for p in each.phrases}.union(_told("vangogh"), _reserved("vangogh"))
    slots = {
        "{things}": f"{things}(?: and {things})?", "{lead}": _any(looks),
        "{place}": _any({p.format(color=c) for each in BACKGROUNDS.values() for p in each.phrases for c in COLORS}),
        "{style}": _any({join("x", "", look)[1:] for look in looks} | {""}),
    }
    pattern = re.escape(form)
    for slot, filled in slots.items():
        pattern = pattern.replace(re.escape(slot), filled)
    return re.compile(pattern)


def test_every_prompt_is_in_a_form_of_its_suite_and_part(written) -> None:
    for (name, _, part), file in written.items():
        forms = IGMU[part] if name == "igmu" else MMA
        patterns = [_filled(each) for form in forms for each in {form, form.removeprefix("{lead}, ")}]
        for row in file.rows:
            for text in filter(None, (row.target or row.prompt, row.reference)):
                assert any(pattern.fullmatch(text) for pattern in patterns), text


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_forget_rows_show_the_concept_and_references_do_not(written, concept: str) -> None:
    for suite, part in (("igmu", "test"), ("igmu", "dev"), ("mma", "test"), ("mma", "dev")):
        for row in (r for r in written[suite, concept, part].rows if r.kind == "forget"):
            text = row.target or row.prompt
            assert _shown(text, _phrases(concept))
            assert row.reference is not None
            assert not _shown(row.reference, _phrases(concept))
            assert _shown(text, _reserved(concept)) == (row.category == "unseen")
            assert _shown(text, _descriptions(concept)) == (row.category == "description")


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_retain_rows_never_show_it(written, concept: str) -> None:
    members = set(CONCEPTS[concept].members)
    for part in PARTS:
        for row in (r for r in written["igmu", concept, part].rows if r.kind == "retain"):
            assert not _shown(row.prompt, _phrases(concept))
            assert not members & {*row.objects, row.style}


def test_references_of_object_concepts_keep_the_rest(written) -> None:
    for concept in ("hazard", "church"):
        for row in (r for r in written["igmu", concept, "test"].rows if r.kind == "forget"):
            reference = row.reference or ""
            if row.category == "pair":
                (companion,) = row.companions
                assert _shown(reference, set(OBJECTS[companion].nouns))
                assert EMPTY[0] not in reference
            else:
                assert reference.replace(EMPTY[0], _way(row, concept)) == row.prompt
                assert row.companions == ()


def test_references_of_the_style_leave_out_only_the_style(written) -> None:
    for row in (r for r in written["igmu", "vangogh", "test"].rows if r.kind == "forget"):
        assert _way(row, "vangogh")
        assert row.objects == row.companions != ()


def test_pairs_hold_a_safe_companion_on_either_side(written) -> None:
    for concept in ("hazard", "church"):
        rows = [r for r in written["igmu", concept, "test"].rows if r.category == "pair"]
        assert len(rows) == 18
        assert all(len(r.companions) == 1 and set(r.companions) <= set(SAFE) for r in rows)
        assert len({r.objects[0] == r.companions[0] for r in rows}) == 2, "first and second"
    assert all(len(r.companions) == 2 for r in written["igmu", "vangogh", "test"].rows if r.category == "pair")


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_thirty_ways_to_name_the_concept_and_ten_that_no_method_is_told(written, concept: str) -> None:
    rows = [r for r in written["igmu", concept, "test"].rows if r.kind == "forget"]
    alone = [r for r in rows if r.category != "pair" or CONCEPTS[concept].kind == "style"]
    told = {_way(r, concept) for r in alone if r.category != "unseen"}
    unseen = {_way(r, concept) for r in alone if r.category == "unseen"}
    assert told == _told(concept)
    assert unseen == _reserved(concept)
    assert len(told) >= 30
    assert len(unseen) >= 10
    counts = Counter(_way(r, concept) for r in alone if r.category == "unseen")
    assert max(counts.values()) - min(counts.values()) <= 1, "they take turns"


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_a_row_shows_what_its_words_name(written, concept: str) -> None:
    """The object that a noun, a description or a member's synonym names; none where any member will do."""
    words = CONCEPTS[concept]
    of_members = {
        phrase: key for key in words.members if key in OBJECTS
        for phrase in (*map(article, (*OBJECTS[key].nouns, *OBJECTS[key].reserved)), OBJECTS[key].description)
    }
    only = words.members if len(words.members) == 1 else ()
    for part in PARTS:
        for row in (r for r in written["igmu", concept, part].rows if r.kind == "forget"):
            if words.kind == "style":
                assert row.style in words.members
            elif row.category != "pair":
                named = of_members.get(_way(row, concept))
                assert row.objects == ((named,) if named else only)
            else:
                assert len(set(row.objects) & set(words.members)) == 1


def test_all_members_and_trained_words_are_asked_for_by_the_attack(written) -> None:
    for concept, words in CONCEPTS.items():
        texts = [r.target or "" for part in PARTS for r in written["mma", concept, part].rows]
        for phrase in _told(concept) - _descriptions(concept):
            assert any(_shown(text, (phrase,)) for text in texts), phrase
        assert not any(_shown(text, _reserved(concept) | _descriptions(concept)) for text in texts)
        kind = words.kind
        assert {part: sum(counts.values()) for part, counts in suite_mma.TARGETS[kind].items()} == {"test": 100, "dev": 40}


def test_neighbours_on_the_other_side_of_the_line_are_kept(written) -> None:
    def near(concept: str) -> list[Row]:
        return [r for r in written["igmu", concept, "test"].rows if r.category == "neighbour"]

    assert {k for r in near("hazard") for k in r.objects} == {"knife", "hammer", "key", "teapot"} == set(NEIGHBOURS["hazard"])
    assert {k for r in near("church") for k in r.objects} == {"hospital", "house", "castle", "tent"} == set(NEIGHBOURS["church"])
    assert {r.style for r in near("vangogh")} == {"sketch"}
    knife, hospital = ("kitchen knife", "bread knife"), ("hospital", "clinic")
    for concept, key, nouns in (("hazard", "knife", knife), ("church", "hospital", hospital)):
        kept = [r for r in near(concept) if r.objects == (key,)]
        assert len(kept) >= 7
        assert all(_shown(r.prompt, nouns) and r.kind == "retain" for r in kept)
        assert {noun for noun in nouns for r in kept if _shown(r.prompt, (noun,))} == set(nouns)
        assert any(key in r.objects for r in written["igmu", concept, "dev"].rows if r.kind == "retain")
        assert key not in CONCEPTS[concept].members
        assert set(nouns) & set(load.concepts()[concept].families["pocket"].neighbours) == {nouns[0]}


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


def _bare(phrase: str) -> str:
    return phrase.removeprefix("an ").removeprefix("a ")


def _words(words: ConceptWords) -> list[str]:
    """Names without their article, for lists that take none; `something perilous` has none. Of a style, its names."""
    return [_bare(name) for name in words.names if words.kind == "style" or _bare(name) != name]


@pytest.mark.parametrize("name", list(CONCEPTS))
def test_concept_files_say_what_the_world_says(name: str) -> None:
    concept, world = load.concepts()[name], CONCEPTS[name]
    said = concept.families["pocket"]
    synonyms = tuple(phrase for phrase, _ in reserved(name))
    assert (concept.kind, said.names, said.reserved, said.protocol) == (world.kind, world.names, synonyms, f"pocket-{name}")
    nouns = [noun for key in world.members if key in OBJECTS for noun in OBJECTS[key].nouns]
    more = ["van gogh", "van gogh painting"] if world.kind == "style" else nouns
    assert len(said.words) == len(set(said.words))
    assert set(said.words) == {*_words(world), *more}
    looks = (*(OBJECTS[key].description for key in world.members if key in OBJECTS), *world.descriptions)
    assert said.descriptions == looks
    assert {*said.words, *looks} <= set(said.counterparts) <= {*said.names, *said.words, *looks}
    assert not set(map(_bare, synonyms)) & {*said.words, *map(_bare, said.names), *said.counterparts.values()}
    known = {noun for each in OBJECTS.values() for noun in each.nouns} | {p for each in STYLES.values() for p in each.phrases}
    assert set(said.neighbours) <= known - set(said.words)


@pytest.mark.parametrize("name", list(SPLITS))
def test_files_of_splits_say_what_the_world_says(name: str) -> None:
    concept, (told, held) = load.concepts()[name], SPLITS[name]
    said, whole = concept.families["pocket"], load.concepts()["hazard"].families["pocket"]
    synonyms = CONCEPTS["hazard"].reserved  # those of the class: a member's own are of the whole concept alone
    assert (concept.kind, said.names, said.reserved, said.protocol) == ("object", whole.names, synonyms, "pocket-hazard")
    assert said.words == (*_words(CONCEPTS["hazard"]), *(noun for key in told for noun in OBJECTS[key].nouns))
    assert said.descriptions == tuple(OBJECTS[key].description for key in told)
    own = (*said.words, *said.descriptions, *(name for name in said.names if name in whole.counterparts))
    assert said.counterparts == {word: whole.counterparts[word] for word in own}
    assert said.neighbours == whole.neighbours
    assert all(key in concept.title for key in told)
    of_held = [noun for key in held for noun in (*OBJECTS[key].nouns, *OBJECTS[key].reserved, OBJECTS[key].description)]
    assert not any(noun in concept.model_dump_json() for noun in of_held)


@pytest.mark.parametrize("name", list(CONCEPTS))
def test_counterparts_are_safe(name: str) -> None:
    safe = {n for key in SAFE for n in OBJECTS[key].nouns} if CONCEPTS[name].kind == "object" else {"pencil sketch"}
    assert set(load.concepts()[name].families["pocket"].counterparts.values()) <= safe


# --- first editions ---------------------------------------------------------------------------------------------------------

FIRST = dict(
    line.split("  ")[::-1] for line in (Path(__file__).parent / "first_editions.sha256").read_text(encoding="utf-8").splitlines()
)
"""Path below suites/ -> sha256 of the row file as it was when the suite was first made (`sha256sum` writes such lines)."""


def test_the_first_editions_are_all_there() -> None:
    names = ("adaptive", "evolved", "i2p", "igmu", "mma", "multi", "ood", "ring-a-bell")
    assert {name for name in load.suites() if name.endswith("-v1")} == {f"{name}-v1" for name in names}
    listed = {e.file: e.sha256 for name in names for e in load.suites()[f"{name}-v1"].editions}
    assert listed == FIRST
    assert len(FIRST) == 1 + 7 * len(CONCEPTS) * len(PARTS)


@pytest.mark.parametrize("name", sorted(FIRST))
def test_a_first_edition_is_never_written_anew(name: str) -> None:
    raw = resolve.find("suites", name).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == FIRST[name]
    assert not name.startswith(tuple(f"{suite}/" for suite in editions.NAMES))


def test_a_first_edition_is_judged_as_its_suite_is() -> None:
    """Attack or not, sensitive or not, hidden or not: as the suite that has its name without `-v1`."""
    for name, first in load.suites().items():
        if name.endswith("-v1"):
            now = load.suites()[name.removesuffix("-v1")]
            assert (first.attack, first.sensitive, first.gated) == (now.attack, now.sensitive, now.gated), name
            for edition in first.editions:
                assert edition.family == "pocket"
                assert edition.rows == len(load.rows(first, edition).rows)
                if name != "adaptive-v1":  # adaptive is not shipped as it is now
                    beside = load.edition(now, "pocket", edition.concept, edition.part)
                    assert set(first.of(edition).metrics) == set(now.of(beside).metrics), name
