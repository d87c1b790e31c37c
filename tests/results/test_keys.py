"""Keys: every field that changes pixels changes the key, and every field of every spec is classed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from srbench import hashing
from srbench.catalog import specs
from srbench.engine.request import RunRequest
from srbench.results import keys
from srbench.results.keys import ImageSpec

SPECS = [cls for cls in vars(specs).values() if isinstance(cls, type) and issubclass(cls, specs.Spec) and cls is not specs.Spec]
BASE = ImageSpec(
    backbone_sha="b", checkpoint_sha="", method="none", method_version=1, options="{}", artifact_sha="", concept_sha="",
    prompt="a house", negative_prompt="", seed=1, steps=20, guidance=5.0, eta=0.0, guidance_rescale=0.0, clip_skip=None,
    scheduler="{}", width=64, height=64, dtype="fp32",
)


def _names(cls: Any) -> set[str]:
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else cls.model_fields
    return {f if isinstance(f, str) else f.name for f in fields}


@pytest.mark.parametrize("cls", [*SPECS, ImageSpec, RunRequest], ids=lambda cls: cls.__name__)
def test_every_field_is_classed_once(cls: Any) -> None:
    identity = keys.IDENTITY.get(cls.__name__, frozenset())
    runtime = keys.RUNTIME.get(cls.__name__, frozenset())
    assert identity | runtime == _names(cls)
    assert not identity & runtime


@pytest.mark.parametrize("field", sorted(f.name for f in dataclasses.fields(ImageSpec)))
def test_every_identity_field_changes_the_key(field: str) -> None:
    value = getattr(BASE, field)
    other: Any = {str: "other", int: 7, float: 0.7, tuple: ("deepcache",), type(None): 2}[type(value)]
    assert dataclasses.replace(BASE, **{field: other}).key() != BASE.key()


def test_the_key_is_stable() -> None:
    assert BASE.key() == dataclasses.replace(BASE).key()
    assert len(BASE.key()) == 64


def test_non_finite_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        dataclasses.replace(BASE, guidance=float("nan")).key()


def test_scores_of_equal_pixels_under_two_captions_differ() -> None:
    identity = {"name": "clip", "version": 1}
    first = keys.score_key("p", identity, {"prompt": "a house"})
    assert first != keys.score_key("p", identity, {"prompt": "a tent"})
    assert first != keys.score_key("p", {**identity, "weights": "w"}, {"prompt": "a house"})
    assert first != keys.score_key("p", identity, {"prompt": "a house"}, "r")


def test_a_folder_is_named_by_its_content_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "config.json").write_text("{}")
    assert hashing.folder_sha(tmp_path / "one") == hashing.folder_sha(tmp_path / "two")
    (tmp_path / "two" / "unet" / "config.json").write_text("{ }")
    assert hashing.folder_sha(tmp_path / "one") != hashing.folder_sha(tmp_path / "two")


def test_a_field_that_came_later_changes_no_older_key() -> None:
    """Images that were sampled before the field was there are found again."""
    older = {name: value for name, value in dataclasses.asdict(BASE).items() if name not in keys.LATER}
    assert BASE.key() == keys.digest({"key_version": keys.KEY_VERSION, "noise": keys.NOISE, **older})
    assert dataclasses.replace(BASE, true_guidance=3.0).key() != BASE.key()
