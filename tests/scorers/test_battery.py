"""The battery of `srbench.testing` over every scorer that srbench ships, and what only these promise.

Those whose weights are not in the package run on stand-ins: seeded random weights in the published file's own form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from srbench.catalog import plugins
from srbench.errors import CellError
from srbench.scorers.base import PAIR, SET
from srbench.testing import checks
from srbench.testing.scorers import CHECKS, ScorerCase

NAMES = sorted(plugins.plugins("scorers"))
IDENTITY = {
    "scorer", "version", "library", "library_version", "weights", "weights_sha256", "preprocessing", "resize", "channel_order",
}
META = {"name", "version", "kind", "title", "reads", "fields"}
UNWEIGHTED = {"ssim"}


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, opened: Callable[[str], Any], options_for: Callable[[str], Any], images: list,
         rows: list) -> ScorerCase:
    cls, meta = checks.plugin_of("scorers", request.param)
    made = ScorerCase(cls, meta, options_for(request.param), images, rows)
    made.scorer = opened(request.param)  # opened once for all checks
    return made


def test_the_scorers_that_are_shipped() -> None:
    assert NAMES == [
        "artist129", "clip-b16", "clip-b32", "clip-l14", "clip-object", "clip-style", "csdr-igmu", "efficientnet-lite0",
        "fd-pocket", "fid", "igmu-head", "lpips", "lpips-64", "nudenet320n-path", "nudenet320n-rgb", "person-ssdlite",
        "pocket-clip", "pocket-judge", "pocket-perceptual", "q16", "resnet50-hf", "resnet50-v2", "safety-checker", "ssim",
    ]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_battery(case: ScorerCase, check: checks.Check[ScorerCase]) -> None:
    checks.run([check], case)


@pytest.mark.parametrize("name", NAMES)
def test_metadata_says_everything(name: str) -> None:
    meta = plugins.plugins("scorers")[name].meta
    assert meta.keys() >= META
    assert isinstance(meta["version"], int)
    for rule in meta.get("metrics", {}).values():
        assert rule["better"] in ("higher", "lower")
        assert rule["field"] in meta["fields"] or meta["kind"] == SET


@pytest.mark.parametrize("broken", [
    np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3), np.float32),
    np.zeros((0, 64, 3), np.uint8), np.zeros((1, 64, 64, 3), np.uint8), "a.png",
])
def test_what_is_not_uint8_rgb_is_refused(case: ScorerCase, broken: Any) -> None:
    with pytest.raises(CellError) as caught:
        case.scored([broken], case.rows[:1])
    assert case.meta["name"] in caught.value.message
    assert caught.value.hint


def test_rows_must_match_images(case: ScorerCase) -> None:
    with pytest.raises(ValueError, match="shorter"):
        case.scored(case.images[:2], case.rows[:1])


def test_a_pair_of_two_sizes_is_refused(case: ScorerCase) -> None:
    if case.kind == PAIR:
        with pytest.raises(CellError, match="one size, not 64 x 64 and 64 x 48"):
            case.scorer.score(case.images[:1], [case.images[0][:48]], case.rows[:1])


def test_a_set_beside_itself_is_at_no_distance(case: ScorerCase) -> None:
    if case.kind == SET:
        vectors = case.scorer.features(case.images)
        assert case.scorer.reduce(vectors, vectors)["frechet"] == pytest.approx(0, abs=1e-3)
        with pytest.raises(CellError, match="two images"):
            case.scorer.reduce(vectors[:1], vectors)


def test_identity_names_the_scorer_completely(case: ScorerCase) -> None:
    identity = case.scorer.identity()
    assert identity.keys() >= IDENTITY
    assert (identity["scorer"], identity["version"]) == (case.meta["name"], case.meta["version"])
    assert len(identity["weights_sha256"]) == (0 if case.meta["name"] in UNWEIGHTED else 64)
    assert not identity["weights"].startswith("/")


def test_no_two_scorers_share_an_identity(opened: Callable[[str], Any]) -> None:
    assert len({json.dumps(opened(name).identity(), sort_keys=True) for name in NAMES}) == len(NAMES)
