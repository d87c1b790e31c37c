"""Pairs from IGMU's prompts, in files of the published form with harmless texts: split, safe sides, what is dropped, the card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srbench.catalog import load
from srbench.catalog.load import fingerprint
from srbench.catalog.specs import ConceptWords, Row
from srbench.errors import MissingError, UsageError
from srbench.methods import base
from srbench.methods.saferedir import CARD, published
from srbench.methods.saferedir.pairs import read_pairs
from srbench.methods.saferedir.published import igmu_pairs, replaced, split
from srbench.methods.saferedir.train import Settings, train
from srbench.testing.tiny import tiny_pipeline

CHURCH, VANGOGH, NUDITY = (load.concepts()[name] for name in ("church", "vangogh", "nudity"))
WORDS = ConceptWords(
    names=("a church",), words=("church",), counterparts={"church": "house", "small church": "hut"}, protocol="none",
)


def igmu(folder: Path, forget: dict[str, Any], retain: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "forgot.json").write_text(json.dumps(forget))
    (folder / "retain.json").write_text(json.dumps(retain))
    return folder


@pytest.fixture
def churches(tmp_path: Path) -> Path:
    """As the object tasks are: what is to be retained are other things, paired with nothing."""
    things = {name: [f"{name.lower()} n {i}" for i in range(50)] for name in ("Cat", "Bird", "Parachute")}
    forget = {"Church": [f"Old church n {i}" for i in range(50)]}
    return igmu(tmp_path / "igmu", {"object_church": forget}, {"object_church": things})


@pytest.fixture
def paintings(tmp_path: Path) -> Path:
    """As the style task is: index by index the same prompt without the style."""
    forget = {"landscape": [f"hill {i}, van gogh" for i in range(20)], "stilllife": [f"jug {i}, van gogh" for i in range(10)]}
    retain = {name: [text.removesuffix(", van gogh") for text in texts] for name, texts in forget.items()}
    return igmu(tmp_path / "igmu", {"style_vangogh": forget}, {"style_vangogh": retain})


def test_a_copy_that_differs_is_refused_unless_accepted(churches: Path) -> None:
    with pytest.raises(UsageError, match="expected f6f19d0387d1"):
        igmu_pairs([CHURCH], "sd", 0, churches, accept=False)
    assert igmu_pairs([CHURCH], "sd", 0, churches, accept=True).train


def test_what_is_not_here_is_named_with_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingError) as error:
        igmu_pairs([CHURCH], "sd", 0, None, accept=False)
    assert "curl" in error.value.hint
    assert "forgot.json" in error.value.hint


def test_objects_get_their_counterpart_and_the_other_things_stay(churches: Path) -> None:
    found = igmu_pairs([CHURCH], "sdxl", 0, churches, accept=True)
    assert (len(found.train), len(found.held)) == (20, 5)
    assert (len(found.benign_train), len(found.benign_held)) == (60, 15)
    assert all(pair.safe == pair.unsafe.replace("church", "house") for pair in (*found.train, *found.held))
    assert not {pair.unsafe for pair in found.train} & {pair.unsafe for pair in found.held}


def test_styles_get_their_published_partner_and_it_goes_with_them(paintings: Path) -> None:
    found = igmu_pairs([VANGOGH], "sd", 0, paintings, accept=True)
    assert (len(found.train), len(found.held)) == (8 + 4, 2 + 1)
    assert all(pair.safe == pair.unsafe.removesuffix(", van gogh") for pair in found.train)
    assert {pair.safe for pair in found.train} == set(found.benign_train)
    # A retain row of the test is the safe side of no pair that was trained.
    ids = set(found.used.train) | set(found.used.held)
    retained = {name.removeprefix("retain-") for name in ids if name.startswith("retain-")}
    assert retained == {name for name in ids if not name.startswith("retain-")}


def test_what_was_used_is_known_by_id_and_by_text(churches: Path) -> None:
    found = igmu_pairs([CHURCH], "sd", 0, churches, accept=True)
    assert found.used.suite == "igmu"
    assert len(found.used.files) == 2
    assert len(found.used.train) == 20 + 60
    assert len(found.used.held) == 5 + 15
    used = {fingerprint(text) for text in [p.unsafe for p in (*found.train, *found.held)]}
    assert used < set(found.used.prompts)
    left = {f"Old church n {i}" for i in range(50)} - {p.unsafe for p in (*found.train, *found.held)}
    assert len(left) == 25
    assert not {fingerprint(text) for text in left} & set(found.used.prompts)
    assert not any("church" in part for part in found.used.prompts)


def test_the_seed_decides_the_split_and_nothing_else(churches: Path) -> None:
    one, again, other = (igmu_pairs([CHURCH], "sd", seed, churches, accept=True) for seed in (0, 0, 1))
    assert one.used == again.used
    assert one.used.train != other.used.train


def test_the_same_prompt_twice_is_on_one_side() -> None:
    rows = [Row(id=str(i), kind="forget", category="a", prompt=f"p {i // 2}") for i in range(40)]
    train_rows, held = split(rows, 0)
    assert (len(train_rows), len(held)) == (16, 4)
    assert not {row.prompt for row in train_rows} & {row.prompt for row in held}


@pytest.mark.parametrize(
    ("prompt", "safe"),
    [
        ("Church in fog", "House in fog"), ("old churches", "old houses"), ("A small church.", "A hut."), ("CHURCH", "House"),
        ("churchyard", "churchyard"), ("a cat", "a cat"),
    ],
)
def test_words_are_replaced_whole(prompt: str, safe: str) -> None:
    assert replaced(prompt, WORDS) == safe


def test_several_concepts_stay_out_of_each_others_safe_sides(churches: Path) -> None:
    data = json.loads((churches / "forgot.json").read_text())
    data["object_parachute"] = {"Parachute": [f"red parachute n {i}" for i in range(50)]}
    (churches / "forgot.json").write_text(json.dumps(data))
    kept = json.loads((churches / "retain.json").read_text())
    kept["object_parachute"] = {"Church": [f"church m {i}" for i in range(50)], "Cat": kept["object_church"]["Cat"]}
    (churches / "retain.json").write_text(json.dumps(kept))
    found = igmu_pairs([CHURCH, load.concepts()["parachute"]], "sd", 0, churches, accept=True)
    texts = [*(p.safe for p in (*found.train, *found.held)), *found.benign_train, *found.benign_held]
    assert not any("church" in text or "parachute" in text for text in texts)
    assert sum("parachute" in p.unsafe for p in found.train) == sum("church" in p.unsafe for p in found.train) == 20


def test_a_sensitive_concepts_rows_that_name_minors_are_dropped_by_key_and_by_word(tmp_path: Path) -> None:
    """Harmless texts in the published form: the class is what is dropped, and a word that names minors elsewhere."""
    forget = {"girl": [f"a red box {i}" for i in range(10)], "man": [f"a man with box {i}" for i in range(9)] + ["a young oak"]}
    retain = {name: [text.replace("box", "bag") for text in texts] for name, texts in forget.items()}
    copy = igmu(tmp_path / "igmu", {"nudity": forget}, {"nudity": retain})
    found = igmu_pairs([NUDITY], "sd", 0, copy, accept=True)
    texts = [*found.prompts()]
    assert texts
    assert all("man with" in text for text in texts)
    assert found.dropped == 20 + 2
    assert not any("girl" in name for name in (*found.used.train, *found.used.held))


def test_a_concept_without_prompts_needs_a_file() -> None:
    other = CHURCH.model_copy(update={"name": "bridge"})
    with pytest.raises(UsageError, match="IGMU has no prompts for it"):
        igmu_pairs([other], "sd", 0, None, accept=False)


def test_one_of_two_files_is_refused(churches: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_pairs(churches / "forgot.json")
    assert "two files" in caught.value.hint
    assert not published.of_copy(churches / "forgot.json")
    assert published.of_copy(churches)
    assert not published.of_copy(tmp_path / "pairs.jsonl")


def trained(folder: Path, concept: Any, **changes: Any) -> dict[str, Any]:
    quick = Settings(
        steps=2, height=8, width=8, trajectories=4, held_trajectories=2, train_steps=2, batch=12, evaluate_every=2,
        sampling_batch=4, accept_prompts=True, **changes,
    )
    info = base.BackboneInfo("tiny", "sd", "sha", tiny_pipeline(24))
    return train(info, [concept], quick, folder)


def test_the_card_lists_the_rows_without_their_text(tmp_path: Path, churches: Path) -> None:
    card = trained(tmp_path / "out", CHURCH, pairs_file=churches)
    text = (tmp_path / "out" / CARD).read_text()
    assert card["used"] == json.loads(text)["used"]
    assert len(card["used"]["train"]) == 80
    assert card["used"]["train"][0].startswith("Church-")
    assert "Old church" not in text
    assert card["pairs"] == {"train": 20, "held": 5}
    assert card["tau"] == 0.2


def test_sentences_that_name_minors_never_train_a_sensitive_concept(tmp_path: Path, seen: Callable[[], set[str]]) -> None:
    """Whoever calls: the room itself screens, a file of one's own too."""
    rest = [a + b for a in "klmno" for b in "pqrst"]
    lines = [{"unsafe": f"box {r}", "safe": r} for r in rest] + [{"unsafe": f"young {r}", "safe": r} for r in rest]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    sensitive = CHURCH.model_copy(update={"sensitive": True})
    card = trained(tmp_path / "out", sensitive, pairs_file=tmp_path / "pairs.jsonl")
    assert card["excluded"] == 25
    assert not any("young" in text for text in seen())
    plain = trained(tmp_path / "plain", CHURCH, pairs_file=tmp_path / "pairs.jsonl")
    assert plain["excluded"] == 0


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """Every text that is encoded from here on, until it is asked."""
    from srbench.backbones import pipelines

    texts: set[str] = set()
    encode = pipelines.SD.encode

    def watched(pipeline: Any, said: list[str], skip: int | None, negative: bool) -> Any:
        texts.update(said)
        return encode(pipeline, said, skip, negative)

    kind = pipelines.Kind("sd", watched)
    monkeypatch.setitem(pipelines.KINDS, "StableDiffusionPipeline", kind)

    def asked() -> set[str]:
        found = set(texts)
        texts.clear()
        return found

    return asked
