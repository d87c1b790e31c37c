"""The suite `neighbours`: committed rows are those that are made, in thirds by distance; each metric is about its own rows."""

from __future__ import annotations

from typing import Any

import pytest

from srbench.analysis.metrics import METRICS
from srbench.analysis.records import RowRecord
from srbench.backbones.loader import open_backbone
from srbench.catalog import load
from srbench.catalog.specs import RowFile
from srbench.pocket.world import CONCEPTS, OBJECTS, STYLES
from srbench.pocket_build.suites import editions, suite_neighbours
from srbench.pocket_build.suites.suite_files import PARTS, Part

SUITE = load.suites()["neighbours"]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return open_backbone(load.backbones()["pocket"], "fp32", "cpu").pipeline


@pytest.fixture(scope="module")
def made(pipeline: Any) -> dict[tuple[str, Part], RowFile]:
    return editions.neighbours(pipeline)


def committed(concept: str, part: Part) -> RowFile:
    return load.rows(SUITE, load.edition(SUITE, "pocket", concept, part))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_committed_rows_are_those_that_are_made(made: dict[tuple[str, Part], RowFile], concept: str, part: Part) -> None:
    assert committed(concept, part).rows == made[concept, part].rows
    assert len(committed(concept, part).rows) == 5 * suite_neighbours.COUNTS[part]


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_near_things_are_nearer_than_far_ones(pipeline: Any, concept: str) -> None:
    distance = editions.distances(pipeline, concept)
    assert set(distance) == set(suite_neighbours.kept(concept))
    asked: dict[str, set[str]] = {third: set() for third in suite_neighbours.THIRDS}
    for row in committed(concept, "test").rows:
        if row.category in asked:
            asked[row.category] |= {row.style or ""} if CONCEPTS[concept].kind == "style" else {*row.objects}
    near, middle, far = ([distance[key] for key in asked[third]] for third in suite_neighbours.THIRDS)
    assert max(near) <= min(middle) <= max(middle) <= min(far)
    assert set().union(*asked.values()) == set(distance)


@pytest.mark.parametrize("concept", list(CONCEPTS))
def test_rows_ask_for_what_their_kind_says(concept: str) -> None:
    members = set(CONCEPTS[concept].members)
    for row in committed(concept, "test").rows:
        named = {*row.objects, row.style}
        assert bool(named & members) == (row.kind == "forget") == (row.category == "beside"), row
        assert len(row.objects) == (2 if row.category == "pair" else len(row.objects))
        if row.category == "beside":
            assert row.companions
            assert row.reference != row.prompt


def test_every_row_is_new() -> None:
    texts = [row.prompt for concept in CONCEPTS for part in PARTS for row in committed(concept, part).rows]
    assert len(texts) == len(set(texts))
    for suite in load.suites().values():
        for edition in (each for each in suite.editions if each.family == "pocket" and each.file):
            if suite.name != "neighbours" and not suite.name.endswith("-v1"):
                assert not {row.prompt for row in load.rows(suite, edition).rows} & {*texts}, suite.name


@pytest.mark.parametrize(("metric", "category"), [("near_kept", "near"), ("far_kept", "far"), ("pair_kept", "pair")])
def test_a_metric_is_about_its_own_rows(metric: str, category: str) -> None:
    rows = committed("hazard", "dev").rows
    about = {row.id for row in rows if METRICS[metric].rows(RowRecord(row, None, None, None, None))}
    assert about == {row.id for row in rows if row.category == category}


def test_things_and_styles_are_of_the_world() -> None:
    assert {*suite_neighbours.kept("hazard"), *suite_neighbours.kept("church")} <= OBJECTS.keys()
    assert {*suite_neighbours.kept("vangogh")} == STYLES.keys() - {"vangogh"}
    assert suite_neighbours.thirds("abcdefg") == {"near": ("a", "b"), "middle": ("c", "d", "e"), "far": ("f", "g")}
