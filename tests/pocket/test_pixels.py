"""Pixels of the shipped model: equal at one padded batch shape in any company, within one level across batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from srbench.analysis.judging import concept_present
from srbench.backbones.loader import Backbone, open_backbone
from srbench.catalog import load
from srbench.engine.batches import generate
from srbench.engine.plan import plan
from srbench.engine.request import Planned, RunRequest
from srbench.scorers.pocket_judge import PocketJudge

METHODS = ("none", "saferedir", pytest.param("saferedir-upstream", marks=pytest.mark.slow))
"""Every method goes through the same two tests on a tiny model: tests/methods/test_battery.py."""
ROWS = 2
"""Rows per kind: two of forget, unseen and retain each."""
PADDED = 4
"""Images a call."""


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return open_backbone(load.backbones()["pocket"], "fp32", "cpu")


def planned(backbone: Backbone, method: str) -> list[Planned]:
    request = RunRequest(
        backbone="pocket", methods=(method,), on=("none",), suites=("igmu",), concepts=("hazard",), part="dev", limit=ROWS,
        seed=0, batch_size=PADDED, dtype="fp32", settings=(), protocol=None, scorers=(), out=Path("unused"),
    )
    return [row.image for row in plan(request, backbone)[0].rows]


def drawn(backbone: Backbone, images: Sequence[Planned], batch_size: int) -> dict[str, np.ndarray]:
    def failed(which: Sequence[Planned], error: Exception) -> None:
        raise error

    batches = generate(backbone, images, batch_size, "run", failed, pytest.fail)
    return {made.planned.key: made.pixels for batch in batches for made in batch}


@pytest.fixture(scope="module")
def whole(backbone: Backbone) -> Callable[[str], dict[str, np.ndarray]]:
    """All of a method's pictures in their order, by key; drawn once."""
    return cache(lambda method: drawn(backbone, planned(backbone, method), PADDED))


@pytest.mark.parametrize("method", METHODS)
def test_any_company_gives_equal_pixels(backbone: Backbone, whole: Callable[[str], dict[str, np.ndarray]], method: str) -> None:
    images = planned(backbone, method)
    for some in (images[:1], [images[-1], images[0]], images[::-1]):
        for key, pixels in drawn(backbone, some, PADDED).items():
            assert np.array_equal(pixels, whole(method)[key])


@pytest.mark.parametrize("method", METHODS)
def test_batch_sizes_differ_by_one_level_and_no_decision(
    backbone: Backbone, whole: Callable[[str], dict[str, np.ndarray]], method: str
) -> None:
    images, judge, protocol = planned(backbone, method), PocketJudge(), load.protocols()["pocket-hazard"]
    reference = whole(method)
    for size in (1, 16):
        for key, pixels in drawn(backbone, images, size).items():
            assert np.abs(pixels.astype(int) - reference[key].astype(int)).max() <= 1
            first, second = judge.score([pixels, reference[key]], [{}, {}])
            assert concept_present(first, protocol) == concept_present(second, protocol)
            for field in ("objects", "style", "background"):
                assert max(first[field], key=first[field].get) == max(second[field], key=second[field].get)
