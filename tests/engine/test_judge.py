"""A concept's judge for weight methods: what it says, what its identity depends on, and that it is part of a checkpoint's key."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from srbench.backbones.choose import chosen
from srbench.backbones.loader import open_backbone
from srbench.catalog import load
from srbench.catalog.joint import joint
from srbench.engine.checkpoints import job_of
from srbench.engine.judge import ConceptJudge
from srbench.hashing import digest
from srbench.methods.inversion import read_images


def test_it_sees_the_concept_where_it_is() -> None:
    """On the images of pocket's concepts that travel with it."""
    scenes = open_backbone(chosen("pocket"), "fp32", "cpu").scenes
    assert scenes is not None
    shown = {name: read_images(scenes / name, 64, 64)[:6] for name in ("hazard", "church")}
    for name in shown:
        judge = ConceptJudge.of(load.concepts()[name], "pocket")
        seen = {of: np.mean(judge(pixels)) for of, pixels in shown.items()}
        assert seen[name] >= 0.8
        assert min(seen.values()) <= 0.2
    both = ConceptJudge.of(joint([load.concepts()["hazard"], load.concepts()["church"]], "pocket"), "pocket")
    assert min(np.mean(both(pixels)) for pixels in shown.values()) >= 0.8


def test_identity_is_of_its_rules() -> None:
    judge = ConceptJudge.of(load.concepts()["hazard"], "pocket")
    (protocol,) = judge.protocols
    assert ConceptJudge((protocol.model_copy(update={"title": "other"}),)).identity == judge.identity
    assert ConceptJudge((protocol.model_copy(update={"threshold": 0.9}),)).identity != judge.identity


def test_a_judge_is_part_of_the_key_where_it_is_asked() -> None:
    backbone, concept = open_backbone(chosen("pocket"), "fp32", "cpu"), load.concepts()["hazard"]
    asked, not_asked = (job_of("duo", backbone, concept, settings) for settings in ((), ("duo.judged=false",)))
    assert asked.judge is not None
    assert not_asked.judge is None
    assert "judge" not in not_asked.identity("sha")
    assert "judge" not in job_of("esd-x", backbone, concept, ()).identity("sha")
    (protocol,) = ConceptJudge.of(concept, "pocket").protocols
    stricter = replace(asked, judge=ConceptJudge((protocol.model_copy(update={"threshold": 0.9}),)))
    assert digest(asked.identity("sha")) != digest(stricter.identity("sha"))
