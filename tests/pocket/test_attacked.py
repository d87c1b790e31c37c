"""Prompts made against each method: who is attacked, what the files hold, and how an embedding is drawn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from srbench.attacks import search
from srbench.attacks.base import Adversarial
from srbench.backbones.loader import ENCODER_SHA, Backbone, open_backbone
from srbench.catalog import load, plugins
from srbench.catalog.specs import RowFile, SuiteSpec
from srbench.files import file_sha
from srbench.pocket_build.study import attacked
from srbench.pocket_build.study.attacked import STACKED, Victim, request_of
from srbench.scorers.base import package_folder
from srbench.studies.steps import Outcome


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return open_backbone(load.backbones()["pocket"], "fp32", "cpu")


def test_every_method_of_the_table_is_attacked_and_the_adaptive_attack_knows_a_detector() -> None:
    by_attack: dict[str, set[Victim]] = {}
    for job in (job for step in attacked.study().steps for job in step.jobs if job.concepts == ("hazard",)):
        by_attack.setdefault(job.values["name"], set()).add(attacked.victims("hazard")[job.called])
    assert by_attack["unlearndiffatk"] == {Victim(), *by_attack["p4d"]}
    assert len(by_attack["unlearndiffatk"]) == len(attacked.DEFENDERS) + 1
    assert {victim.method for victim in by_attack["adaptive"]} == {"saferedir"}
    for victims in (by_attack["p4d"], attacked.EMBEDDED):
        assert {Victim(on="esd-x"), Victim(on="uce")} <= {*victims}
    assert (STACKED.name, Victim(on="uce").name, Victim().name) == ("saferedir-on-esd-x", "uce", "none")


def test_a_search_has_the_small_budget_and_igmus_first_targets(backbone: Backbone, tmp_path: Path) -> None:
    request = request_of("unlearndiffatk", STACKED, tmp_path, tmp_path / "checkpoints")
    assert (request.settings.budget, request.limit, request.plain) == ("small", 32, True)
    assert request.out.name == "unlearndiffatk-saferedir-on-esd-x.json"
    rows, source, excluded = attacked.targets.targets_of(request, backbone.spec, load.concepts()["hazard"])
    assert (len(rows), source, excluded) == (32, "igmu/hazard/test", 0)


def test_the_study_searches_as_the_committed_files_say() -> None:
    """Whatever decides what a search finds and is known before the victim is made."""
    for job in (job for step in attacked.study().steps for job in step.jobs):
        (concept,), values = job.concepts, job.values
        meta = RowFile.model_validate_json((attacked.FOLDER / concept / f"{job.called}.json").read_bytes()).meta
        settings = plugins.load("attacks", values["name"]).Settings(**dict(values["settings"]))
        chosen = {name: value for name, value in settings.model_dump().items() if name not in search.EXECUTION}
        chosen |= {"budget": "pocket"}  # as these files, which are older, call the small one
        later = {name: chosen.pop(name) for name in ("restarts", "noises")}
        assert set(later.values()) == {1}, "what the older searches did"
        assert {name: meta[name] for name in chosen} == chosen, job.called
        names = (meta["attack"], meta["method"], meta["on"], meta["concept"], meta["targets"])
        assert names == (values["name"], values["method"], values.get("on", "none"), concept, f"igmu/{concept}/test")
        assert (values["limit"], values["with_targets"]) == (32, True)


def test_what_the_study_found_is_brought_to_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = next(job for step in attacked.study().steps for job in step.jobs)
    (tmp_path / "found.json").write_text("prompts")
    monkeypatch.setattr(attacked, "done_outcomes", lambda *given: {job: Outcome("", tmp_path / "found.json")})
    (path,) = attacked.collect(tmp_path / "results", tmp_path / "attacks")
    assert path == tmp_path / "attacks" / job.concepts[0] / f"{job.called}.json"
    assert path.read_text() == "prompts"


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
    assert {path.stem for path in (attacked.FOLDER / concept).glob("*.json")} == attacked.victims(concept).keys()


def targets_of(file: RowFile) -> SuiteSpec:
    """igmu as it was for the edition of pocket that the file was made against."""
    shipped = file_sha(package_folder("pocket/model/text_encoder") / "model.safetensors")
    return load.suites()["igmu" if file.meta[ENCODER_SHA] == shipped else "igmu-v1"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_committed_file_attacks_igmus_first_rows_and_spells_no_word_of_the_concept(path: Path) -> None:
    file = RowFile.model_validate_json(path.read_bytes())
    suite, concept = targets_of(file), path.parent.name
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


@pytest.mark.parametrize("concept", CONCEPTS)
def test_the_suite_adaptive_is_the_file_against_the_shipped_redirector_or_says_how_it_is_made(concept: str) -> None:
    """It belongs to one redirector: prompts against another one are not it. Those of the first are `adaptive-v1`."""
    suite = load.suites()["adaptive"]
    edition = load.edition(suite, "pocket", concept)
    if edition.file:
        file = RowFile.model_validate_json((attacked.FOLDER / concept / "adaptive-p4d-saferedir.json").read_bytes())
        assert load.rows(suite, edition) == file
    else:
        (made,) = edition.files
        words = f"adaptive-p4d --backbone pocket --concept {concept} --method saferedir --suite igmu --limit 32 --with-targets"
        assert (edition.hidden, edition.rows) == (True, 64)
        assert made.made_by == f"srbench attack {words} --out {made.file}"


def test_embeddings_are_measured_with_their_interval() -> None:
    said: dict[str, Any] = json.loads((attacked.FOLDER / f"{attacked.INVERTED}.json").read_text())
    assert set(said["asr"]) == {"none", "saferedir", "esd-x", "uce", "saferedir on esd-x"}
    for rate in said["asr"].values():
        assert rate["low"] <= rate["value"] <= rate["high"]
        assert rate["n"] == 32
