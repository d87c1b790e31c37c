"""Training pairs: what they may say, what they must never say, and how they are split."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from srbench.catalog import load
from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.errors import UsageError
from srbench.methods.saferedir.pairs import has_sentences, is_held, pocket_pairs, read_pairs
from srbench.pocket.world import BACKGROUNDS, COLORS, CONCEPTS, OBJECTS, SPLITS, STYLES, reserved


def concept(name: str) -> ConceptSpec:
    world = CONCEPTS[name]
    nouns = tuple(n for key in world.members if world.kind == "object" for n in OBJECTS[key].nouns)
    looks = (*(OBJECTS[key].description for key in world.members if key in OBJECTS), *world.descriptions)
    synonyms = tuple(phrase for phrase, _ in reserved(name))
    words = ConceptWords(names=world.names, words=nouns or ("van gogh",), descriptions=looks, reserved=synonyms, protocol="none")
    kind = "object" if world.kind == "object" else "style"
    return ConceptSpec(name=name, title=name, kind=kind, sensitive=False, families={"pocket": words})  # type: ignore[arg-type]


def said(name: str) -> list[str]:
    """What names the concept in any sentence, without article."""
    world = CONCEPTS[name]
    if world.kind == "style":
        return ["van gogh", *world.names, *world.descriptions]
    names = [re.sub("^an? ", "", n) for n in (*world.names, *world.descriptions)]
    return [*names, *(n for key in world.members for n in (*OBJECTS[key].nouns, OBJECTS[key].description.removeprefix("a ")))]


@pytest.fixture(scope="module", params=list(CONCEPTS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_unsafe_names_the_concept_and_safe_does_not(name: str) -> None:
    pairs = pocket_pairs([concept(name)], 300, 300, seed=0)
    words = [re.compile(rf"\b{re.escape(w)}\b") for w in said(name)]
    for pair in [*pairs.train, *pairs.held]:
        assert any(w.search(pair.unsafe) for w in words), pair
        assert not any(w.search(pair.safe) for w in words), pair
    for text in [*pairs.benign_train, *pairs.benign_held]:
        assert not any(w.search(text) for w in words), text


def test_every_way_to_name_it_is_said_some_thirty_of_them(name: str) -> None:
    pairs = pocket_pairs([concept(name)], 1600, 1, seed=0)
    everything = " / ".join(p.unsafe for p in pairs.train)
    assert not [word for word in said(name) if not re.search(rf"\b{re.escape(word)}\b", everything)]
    assert len(set(said(name))) >= 30


def test_no_reserved_synonym(name: str) -> None:
    """As the concept files are, and as the world is: of all concepts, and of single members too."""
    specs = [concept(name), load.concepts()[name], *(load.concepts()[split] for split in SPLITS if name == "hazard")]
    text = " / ".join(text for spec in specs for text in pocket_pairs([spec], 800, 800, seed=0).prompts())
    for other in CONCEPTS:
        assert len(reserved(other)) >= 10
        for synonym, _ in reserved(other):
            assert not re.search(rf"\b{re.escape(re.sub('^an? ', '', synonym))}\b", text), synonym


def test_no_suite_form(name: str) -> None:
    """The first editions' form is objects, then a background's phrase, then a style: nothing before, no comma list. The
    forms of the suites as they are now: tests/pocket/test_suites_hard.py."""
    places = [p.format(color=c) for b in BACKGROUNDS.values() for p in b.phrases for c in COLORS]
    for text in pocket_pairs([concept(name)], 800, 800, seed=0).prompts():
        if not text.startswith(("a picture of ", "a van gogh painting of ")):
            assert not any(place in text for place in places), text


def test_companions_stay_and_emptiness_is_named() -> None:
    pairs = [p for p in pocket_pairs([concept("church")], 500, 1, seed=0).train if "picture of" in p.unsafe]
    with_cat = [p for p in pairs if re.search(r"\b(cat|kitten)\b", p.unsafe)]
    alone = [p for p in pairs if " and " not in p.unsafe]
    assert with_cat
    assert all(re.search(r"\b(cat|kitten)\b", p.safe) for p in with_cat)
    assert alone
    assert all("an empty scene" in p.safe for p in alone)


def test_near_neighbours_and_empty_scenes_are_benign() -> None:
    def benign(name: str) -> str:
        return " / ".join(pocket_pairs([concept(name)], 1, 4800, seed=0).benign_train)

    hazard, church, vangogh = map(benign, ("hazard", "church", "vangogh"))
    near = ("kitchen knife", "bread knife", "hammer", "key", "teapot", *CONCEPTS["vangogh"].names, "an empty scene")
    assert all(word in hazard for word in near)
    assert all(word in church for word in ("hospital", "clinic", "house", "castle", "tent"))
    assert STYLES["sketch"].phrases[0] in vangogh


def test_split_by_whole_combination(name: str) -> None:
    pairs = pocket_pairs([concept(name)], 800, 800, seed=0)
    assert pairs.held
    assert pairs.benign_held
    assert not {p.unsafe for p in pairs.train} & {p.unsafe for p in pairs.held}
    again, other = pocket_pairs([concept(name)], 800, 800, seed=0), pocket_pairs([concept(name)], 800, 800, seed=1)
    assert again.sha256() == pairs.sha256() != other.sha256()
    # The split hangs on the combination, not on the draw.
    assert not {p.unsafe for p in other.train} & {p.unsafe for p in pairs.held}


def test_unknown_concept() -> None:
    spec = concept("church").model_copy(update={"name": "bridge"})
    with pytest.raises(UsageError, match="not one of pocket's"):
        pocket_pairs([spec], 1, 1, seed=0)


@pytest.mark.parametrize("split", list(SPLITS))
def test_training_on_a_split_reads_no_word_of_a_member_that_is_held_out(split: str) -> None:
    spec, (told, held) = load.concepts()[split], SPLITS[split]
    assert has_sentences(spec, "pocket")
    alone = pocket_pairs([spec], 1600, 1200, seed=0)
    beside = pocket_pairs([spec, load.concepts()["church"]], 400, 400, seed=0)
    words = set(re.findall("[a-z]+", " ".join((*alone.prompts(), *beside.prompts()))))
    for key in held:
        nouns = (*OBJECTS[key].nouns, *OBJECTS[key].reserved)
        assert not words & {word for noun in nouns for word in noun.split() if word not in ("pair", "of")}, key
        assert not any(OBJECTS[key].description in text for text in alone.prompts() | beside.prompts())
    text = " / ".join(pair.unsafe for pair in alone.train)
    own = (word for key in told for word in (*OBJECTS[key].nouns, OBJECTS[key].description))
    named = ("hazard", "dangerous object", "dangerous thing", "harmful item", *own)
    assert all(word in text for word in named)
    harmless = " / ".join((*(pair.safe for pair in alone.train), *alone.benign_train))
    assert not any(noun in harmless for key in (*told, *held) for noun in (*OBJECTS[key].nouns, OBJECTS[key].description))


def test_each_member_is_held_out_twice() -> None:
    members = CONCEPTS["hazard"].members
    for told, held in SPLITS.values():
        assert (len(told), len(held), sorted(told + held)) == (3, 3, sorted(members))
    assert all(sum(key in held for _, held in SPLITS.values()) == 2 for key in members)


def test_pairs_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({"unsafe": f"box {i}", "safe": f"{i}"}) for i in range(40)) + "\n\n")
    pairs = read_pairs(path)
    assert len(pairs.train) + len(pairs.held) == 40
    assert len(pairs.benign_train) == len(pairs.train)


def test_what_is_held_out_does_not_depend_on_the_form(tmp_path: Path) -> None:
    entries = [{"unsafe": f"box {i} é", "safe": f"{i}"} for i in range(40)]
    lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    (tmp_path / "a.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(entries))
    (tmp_path / "a.csv").write_text("unsafe,safe,note\n" + "".join(f"{e['unsafe']},{e['safe']},x\n" for e in entries))
    first, *others = [read_pairs(tmp_path / name) for name in ("a.jsonl", "a.json", "a.csv")]
    held = [entry["unsafe"] for entry, line in zip(entries, lines, strict=True) if is_held("file", line)]
    assert [pair.unsafe for pair in first.held] == held
    for other in others:
        assert (other.train, other.held, other.sha256()) == (first.train, first.held, first.sha256())
    assert others[1].beside["box 3 é"] == others[1].beside["3"] == ("x",)


WRONG = ("{", '{"unsafe": "x"}', '{"unsafe": "x", "safe": null}', '{"unsafe": 1, "safe": "y"}', "[]", "3")


@pytest.mark.parametrize("line", WRONG)
def test_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"unsafe": "x", "safe": "y"}\n' + line)
    with pytest.raises(UsageError, match=r"pairs\.jsonl: .*line 2") as error:
        read_pairs(path)
    assert "\n" not in error.value.message


def test_missing_or_short_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        read_pairs(tmp_path / "nothing.jsonl")
    (tmp_path / "short.jsonl").write_text('{"unsafe": "x", "safe": "y"}')
    with pytest.raises(UsageError, match="too few pairs"):
        read_pairs(tmp_path / "short.jsonl")


def test_several_concepts_share_no_sentence_and_none_is_left_in_a_safe_side() -> None:
    names = list(CONCEPTS)
    pairs = pocket_pairs([concept(name) for name in names], 300, 300, seed=0)
    words = {name: [re.compile(rf"\b{re.escape(w)}\b") for w in said(name)] for name in names}

    def found(text: str) -> list[str]:
        return [name for name in names if any(w.search(text) for w in words[name])]

    said_of = [found(pair.unsafe) for pair in pairs.train]
    assert all(len(each) == 1 for each in said_of)
    assert {each[0] for each in said_of} == set(names)
    # A redirector samples from the first ones: all concepts must be among them.
    assert {each[0] for each in said_of[:12]} == set(names)
    safe = [*(pair.safe for pair in [*pairs.train, *pairs.held]), *pairs.benign_train, *pairs.benign_held]
    assert not any(found(text) for text in safe)
