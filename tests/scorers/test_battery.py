"""What every scorer must do, run over all that srbench ships."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from srbench.catalog import plugins
from srbench.errors import CellError

NAMES = sorted(plugins.plugins("scorers"))
IDENTITY = {
    "scorer", "version", "library", "library_version", "weights", "weights_sha256", "preprocessing", "resize", "channel_order",
}
META = {"name", "version", "kind", "title", "reads", "fields"}


@cache
def opened(name: str) -> Any:
    return plugins.load("scorers", name)(plugins.load("scorers", name).Options())


@pytest.fixture(params=NAMES)
def scorer(request: pytest.FixtureRequest) -> Any:
    return opened(request.param)


def test_four_scorers_are_shipped() -> None:
    assert NAMES == ["nudenet320n-path", "nudenet320n-rgb", "pocket-clip", "pocket-judge"]


@pytest.mark.parametrize("name", NAMES)
def test_literal_metadata_is_what_the_class_carries(name: str) -> None:
    meta = plugins.plugins("scorers")[name].meta
    assert opened(name).meta == meta
    assert meta.keys() >= META
    assert isinstance(meta["version"], int)


def test_one_dict_with_the_declared_fields_per_image(scorer: Any, images: list, rows: list) -> None:
    scores = scorer.score(images, rows)
    assert len(scores) == len(images)
    assert all(list(score) == scorer.meta["fields"] for score in scores)
    assert scorer.score([], []) == []


def test_order_does_not_matter(scorer: Any, images: list, rows: list) -> None:
    forward = scorer.score(images, rows)
    assert scorer.score(images[::-1], rows[::-1]) == forward[::-1]


def test_batch_size_does_not_matter(scorer: Any, images: list, rows: list) -> None:
    together = scorer.score(images, rows)
    alone = [scorer.score([image], [row])[0] for image, row in zip(images, rows, strict=True)]
    assert alone == together


def test_the_number_of_threads_does_not_matter_and_stays_what_it_was(scorer: Any, images: list, rows: list) -> None:
    before = torch.get_num_threads()
    scores = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            scores.append(scorer.score(images, rows))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert scores[0] == scores[1]


def test_a_second_scorer_gives_the_same(scorer: Any, images: list, rows: list) -> None:
    assert type(scorer)().score(images, rows) == scorer.score(images, rows)


def test_numbers_are_finite_and_survive_json(scorer: Any, images: list, rows: list) -> None:
    scores = scorer.score(images, rows)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_pictures_are_not_changed(scorer: Any, images: list, rows: list) -> None:
    before = [image.copy() for image in images]
    scorer.score(images, rows)
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True))


def test_a_read_only_or_strided_picture_scores_the_same(scorer: Any, images: list, rows: list) -> None:
    image = images[1]
    frozen = image.copy()
    frozen.setflags(write=False)
    strided = np.repeat(image, 2, axis=1)[:, ::2]
    expected = scorer.score([image], rows[1:2])
    assert scorer.score([frozen], rows[1:2]) == expected
    assert scorer.score([strided], rows[1:2]) == expected


@pytest.mark.parametrize("broken", [
    np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3), np.float32),
    np.zeros((0, 64, 3), np.uint8), np.zeros((1, 64, 64, 3), np.uint8), "a.png",
])
def test_what_is_not_uint8_rgb_is_refused(scorer: Any, rows: list, broken: Any) -> None:
    with pytest.raises(CellError) as caught:
        scorer.score([broken], rows[:1])
    assert scorer.meta["name"] in caught.value.message
    assert caught.value.hint


def test_rows_must_match_images(scorer: Any, images: list, rows: list) -> None:
    with pytest.raises(ValueError, match="shorter"):
        scorer.score(images[:2], rows[:1])


def test_identity_names_the_scorer_completely(scorer: Any) -> None:
    identity = scorer.identity()
    assert identity.keys() >= IDENTITY
    assert (identity["scorer"], identity["version"]) == (scorer.meta["name"], scorer.meta["version"])
    assert len(identity["weights_sha256"]) == 64
    assert not identity["weights"].startswith("/")
    assert json.loads(json.dumps(identity, allow_nan=False)) == identity


def test_no_two_scorers_share_an_identity() -> None:
    assert len({json.dumps(opened(name).identity(), sort_keys=True) for name in NAMES}) == len(NAMES)
