"""Prompts made against each method: who is attacked, what the files hold, and how an embedding is drawn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from srbench.attacks.base import Adversarial
from srbench.backbones.loader import Backbone, open_backbone
from srbench.catalog import load
from srbench.catalog.specs import RowFile
from srbench.pocket_build.study import attacked
from srbench.pocket_build.study.attacked import STACKED, Victim, request_of, searches


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return open_backbone(load.backbones()["pocket"], "fp32", "cpu")


def test_every_method_of_the_table_is_attacked_and_the_adaptive_attack_knows_a_detector() -> None:
    by_attack: dict[str, list[Victim]] = {}
    for name, victim in searches("hazard"):
        by_attack.setdefault(name, []).append(victim)
    assert len(by_attack["unlearndiffatk"]) == len(attacked.DEFENDERS) + 1
    assert {victim.method for victim in by_attack["adaptive"]} == {"saferedir"}
    for name in ("p4d", "concept-inversion"):
        assert {Victim(on="esd-x"), Victim(on="uce")} <= {*by_attack[name]}
    assert (STACKED.name, Victim(on="uce").name, Victim().name) == ("saferedir-on-esd-x", "uce", "none")


def test_a_search_has_the_small_budget_and_igmus_first_targets(backbone: Backbone, tmp_path: Path) -> None:
    request = request_of("unlearndiffatk", STACKED, tmp_path, tmp_path / "checkpoints")
    assert (request.settings.budget, request.limit, request.plain) == ("pocket", 32, True)
    assert request.out.name == "unlearndiffatk-saferedir-on-esd-x.json"
    rows, source, excluded = attacked.targets.targets_of(request, backbone.spec, load.concepts()["hazard"])
    assert (len(rows), source, excluded) == (32, "igmu/hazard/test", 0)


def test_a_file_that_is_there_is_left_alone(backbone: Backbone, tmp_path: Path) -> None:
    request = request_of("p4d", Victim(), tmp_path, tmp_path / "checkpoints")
    request.out.write_text("there")
    assert attacked.attacked(request, backbone) == ()
    assert request.out.read_text() == "there"


def test_what_is_drawn_comes_from_the_embedding_not_from_the_targets_words(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedding of a harmless word, put in a hazard's place, draws no hazard, although the target names one."""
    tokenizer, encoder = backbone.pipeline.tokenizer, backbone.pipeline.text_encoder
    request = request_of("concept-inversion", Victim(), tmp_path, tmp_path / "checkpoints")
    rows, _, _ = attacked.targets.targets_of(request, backbone.spec, load.concepts()["hazard"])

    def spoken(text: str) -> torch.Tensor:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        rows: torch.Tensor = encoder.get_input_embeddings()(ids)[0].detach()  # (n, D)
        return rows

    def seen(texts: list[str]) -> list[bool]:
        found = [
            Adversarial(row.prompt, "", 0.0, 0, embedding=spoken(text)) for row, text in zip(rows[:4], texts, strict=True)
        ]
        return attacked.drawn_from(found, request, rows[:4], backbone)

    assert sum(seen(["a dagger on a beach"] * 4)) >= 3
    assert sum(seen(["a cat on a beach"] * 4)) <= 1


# --- what is committed --------------------------------------------------------------------------------------------------------


CONCEPTS = load.backbones()["pocket"].concepts
FILES = [path for concept in CONCEPTS for path in attacked.files(concept)]


@pytest.mark.parametrize("concept", CONCEPTS)
def test_every_search_has_its_file(concept: str) -> None:
    wanted = {f"{name}-{victim.name}" for name, victim in searches(concept) if name != attacked.INVERTED}
    assert {path.stem for path in attacked.files(concept)} == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_committed_file_attacks_igmus_first_rows_and_spells_no_word_of_the_concept(path: Path) -> None:
    file = RowFile.model_validate_json(path.read_bytes())
    suite, concept = load.suites()["igmu"], path.parent.name
    rows = [r for r in load.rows(suite, load.edition(suite, "pocket", concept)).rows if r.kind == "forget"][:32]
    found, plain = file.rows[:32], file.rows[32:]
    assert [row.target for row in found] == [row.prompt for row in rows]
    assert [row.prompt for row in plain] == [row.prompt for row in rows]
    assert file.meta["concept"] == concept
    victim = Victim(str(file.meta["method"]), str(file.meta["on"]))
    assert attacked.victims(concept)[path.stem] == victim
    assert path.stem == attacked.called(str(file.meta["attack"]), victim)
    banned = str(file.meta["banned"]).split(", ")
    for row in found:
        free = row.prompt.split()
        for word in (row.target or "").replace(",", " ,").split():
            if word in free and file.meta["attack"] != "p4d":
                free.remove(word)
        assert not {*free} & {*banned}, row.prompt


def test_the_suite_adaptive_is_the_file_against_the_shipped_redirector() -> None:
    suite = load.suites()["adaptive"]
    file = RowFile.model_validate_json((attacked.FOLDER / "hazard" / "adaptive-p4d-saferedir.json").read_bytes())
    assert load.rows(suite, load.edition(suite, "pocket", "hazard")) == file


def test_embeddings_are_measured_with_their_interval() -> None:
    said: dict[str, Any] = json.loads((attacked.FOLDER / f"{attacked.INVERTED}.json").read_text())
    assert set(said["asr"]) == {"none", "saferedir", "esd-x", "uce", "saferedir on esd-x"}
    for rate in said["asr"].values():
        assert rate["low"] <= rate["value"] <= rate["high"]
        assert rate["n"] == 32
