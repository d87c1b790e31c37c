"""What every scorer must do, run over all that srbench ships: of images, of pairs with a reference, and of sets.

Those whose weights are not in the package run on stand-ins: seeded random weights in the published file's own form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from srbench.catalog import plugins
from srbench.errors import CellError
from srbench.scorers.base import PAIR, SET, kind_of

NAMES = sorted(plugins.plugins("scorers"))
IDENTITY = {
    "scorer", "version", "library", "library_version", "weights", "weights_sha256", "preprocessing", "resize", "channel_order",
}
META = {"name", "version", "kind", "title", "reads", "fields"}
UNWEIGHTED = {"ssim"}


def scored(scorer: Any, images: Sequence[Any], rows: Sequence[Any]) -> list[dict[str, Any]]:
    """One dict per image. A pair is an image and the one before it (the first: the last); of a set each image has a vector."""
    kind = kind_of(scorer.meta)
    if kind == PAIR:
        return scorer.score(images, [*images[-1:], *images[:-1]], rows)
    if kind == SET:
        return [{"feature": vector.tolist()} for vector, _ in zip(scorer.features(images), rows, strict=True)]
    return scorer.score(images, rows)


def alone(scorer: Any, images: Sequence[Any], rows: Sequence[Any]) -> list[dict[str, Any]]:
    """As `scored`, one call an image."""
    if kind_of(scorer.meta) == PAIR:
        before = [*images[-1:], *images[:-1]]
        return [scorer.score([a], [b], [row])[0] for a, b, row in zip(images, before, rows, strict=True)]
    return [scored(scorer, [image], [row])[0] for image, row in zip(images, rows, strict=True)]


@pytest.fixture(params=NAMES)
def scorer(request: pytest.FixtureRequest, opened: Callable[[str], Any]) -> Any:
    return opened(request.param)


def test_the_scorers_that_are_shipped() -> None:
    assert NAMES == [
        "artist129", "clip-b16", "clip-b32", "clip-l14", "clip-object", "clip-style", "csdr-igmu", "efficientnet-lite0",
        "fd-pocket", "fid", "igmu-head", "lpips", "lpips-64", "nudenet320n-path", "nudenet320n-rgb", "person-ssdlite",
        "pocket-clip", "pocket-judge", "pocket-perceptual", "q16", "resnet50-hf", "resnet50-v2", "safety-checker", "ssim",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_literal_metadata_is_what_the_class_carries(name: str, opened: Callable[[str], Any]) -> None:
    meta = plugins.plugins("scorers")[name].meta
    assert opened(name).meta == meta
    assert meta.keys() >= META
    assert isinstance(meta["version"], int)
    for rule in meta.get("metrics", {}).values():
        assert rule["better"] in ("higher", "lower")
        assert rule["field"] in meta["fields"] or meta["kind"] == SET


def test_one_dict_with_the_declared_fields_per_image(scorer: Any, images: list, rows: list) -> None:
    scores = scored(scorer, images, rows)
    assert len(scores) == len(images)
    assert all(list(score) == scorer.meta["fields"] for score in scores)
    assert scored(scorer, [], []) == []


def test_order_does_not_matter(scorer: Any, images: list, rows: list) -> None:
    if kind_of(scorer.meta) == PAIR:
        beside = [*images[-1:], *images[:-1]]
        assert scorer.score(images[::-1], beside[::-1], rows[::-1]) == scorer.score(images, beside, rows)[::-1]
    else:
        assert scored(scorer, images[::-1], rows[::-1]) == scored(scorer, images, rows)[::-1]


def test_batch_size_does_not_matter(scorer: Any, images: list, rows: list) -> None:
    assert alone(scorer, images, rows) == scored(scorer, images, rows)


def test_the_number_of_threads_does_not_matter_and_stays_what_it_was(scorer: Any, images: list, rows: list) -> None:
    before = torch.get_num_threads()
    scores = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            scores.append(scored(scorer, images, rows))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert scores[0] == scores[1]


def test_a_second_scorer_gives_the_same(scorer: Any, images: list, rows: list, options_for: Callable[[str], Any]) -> None:
    again = type(scorer)(options_for(scorer.meta["name"]))
    assert scored(again, images, rows) == scored(scorer, images, rows)


def test_numbers_are_finite_and_survive_json(scorer: Any, images: list, rows: list) -> None:
    scores = scored(scorer, images, rows)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_pictures_are_not_changed(scorer: Any, images: list, rows: list) -> None:
    before = [image.copy() for image in images]
    scored(scorer, images, rows)
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True))


def test_a_read_only_or_strided_picture_scores_the_same(scorer: Any, images: list, rows: list) -> None:
    image = images[1]
    frozen = image.copy()
    frozen.setflags(write=False)
    strided = np.repeat(image, 2, axis=1)[:, ::2]
    expected = scored(scorer, [image], rows[1:2])
    assert scored(scorer, [frozen], rows[1:2]) == expected
    assert scored(scorer, [strided], rows[1:2]) == expected


@pytest.mark.parametrize("broken", [
    np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3), np.float32),
    np.zeros((0, 64, 3), np.uint8), np.zeros((1, 64, 64, 3), np.uint8), "a.png",
])
def test_what_is_not_uint8_rgb_is_refused(scorer: Any, rows: list, broken: Any) -> None:
    with pytest.raises(CellError) as caught:
        scored(scorer, [broken], rows[:1])
    assert scorer.meta["name"] in caught.value.message
    assert caught.value.hint


def test_rows_must_match_images(scorer: Any, images: list, rows: list) -> None:
    with pytest.raises(ValueError, match="shorter"):
        scored(scorer, images[:2], rows[:1])


def test_a_pair_of_two_sizes_is_refused(scorer: Any, images: list, rows: list) -> None:
    if kind_of(scorer.meta) == PAIR:
        with pytest.raises(CellError, match="one size, not 64 x 64 and 64 x 48"):
            scorer.score(images[:1], [images[0][:48]], rows[:1])


def test_a_set_beside_itself_is_at_no_distance(scorer: Any, images: list) -> None:
    if kind_of(scorer.meta) == SET:
        vectors = scorer.features(images)
        assert vectors.dtype == np.float32
        assert scorer.features([]).shape == (0, vectors.shape[1])
        found = scorer.reduce(vectors, vectors)
        assert {rule["field"] for rule in scorer.meta["metrics"].values()} <= found.keys()
        assert found["frechet"] == pytest.approx(0, abs=1e-3)
        with pytest.raises(CellError, match="two images"):
            scorer.reduce(vectors[:1], vectors)


def test_identity_names_the_scorer_completely(scorer: Any) -> None:
    identity = scorer.identity()
    assert identity.keys() >= IDENTITY
    assert (identity["scorer"], identity["version"]) == (scorer.meta["name"], scorer.meta["version"])
    assert len(identity["weights_sha256"]) == (0 if scorer.meta["name"] in UNWEIGHTED else 64)
    assert not identity["weights"].startswith("/")
    assert json.loads(json.dumps(identity, allow_nan=False)) == identity


def test_no_two_scorers_share_an_identity(opened: Callable[[str], Any]) -> None:
    assert len({json.dumps(opened(name).identity(), sort_keys=True) for name in NAMES}) == len(NAMES)
