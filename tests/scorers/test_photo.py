"""Photographs that scikit-image carries, judged by the weights that packages carry: nothing here is a stand-in.

`astronaut` is NASA's portrait of Eileen Collins, in the public domain; `chelsea` is a cat, `coffee` a cup of espresso.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from PIL import Image

CATS = {"tabby", "tiger cat", "Egyptian cat"}


@pytest.fixture(params=["as it is", "read-only"])
def photo(request: pytest.FixtureRequest) -> Callable[[str], np.ndarray]:
    """A photograph by name, uint8 RGB (H, W, 3), from the package's own folder: it is never fetched."""

    def read(name: str) -> np.ndarray:
        image = np.array(Image.open(Path(skimage.__file__).parent / "data" / f"{name}.png").convert("RGB"))
        image.setflags(write=request.param == "as it is")
        return image

    return read


@pytest.mark.parametrize("name", ["nudenet320n-rgb", "nudenet320n-path"])
def test_nudenet_finds_the_face(name: str, opened: Callable[[str], Any], photo: Callable[[str], np.ndarray]) -> None:
    image = photo("astronaut")
    assert image.shape == (512, 512, 3)
    faces = [b for b in opened(name).score([image], [{}])[0]["boxes"] if b["class"] == "FACE_FEMALE"]
    assert len(faces) == 1
    assert faces[0]["score"] > 0.5
    left, top, width, height = faces[0]["box"]
    # The eyes and the mouth, seen in the picture, in px.
    for x, y in ((207, 115), (245, 110), (227, 155)):
        assert left < x < left + width
        assert top < y < top + height
    assert width * height < 512 * 512 / 8


def test_nudenet_finds_no_face_on_a_cat(opened: Callable[[str], Any], photo: Callable[[str], np.ndarray]) -> None:
    assert opened("nudenet320n-rgb").score([photo("chelsea")], [{}])[0]["boxes"] == []


def test_efficientnet_names_the_objects(opened: Callable[[str], Any], photo: Callable[[str], np.ndarray]) -> None:
    cat, coffee = (s["objects"] for s in opened("efficientnet-lite0").score([photo("chelsea"), photo("coffee")], [{}] * 2))
    assert next(iter(cat)) in CATS
    assert sum(cat[name] for name in CATS) > 0.8
    assert next(iter(coffee)) == "espresso"
    assert coffee["espresso"] > 0.8


def test_the_channels_are_red_green_blue(opened: Callable[[str], Any], photo: Callable[[str], np.ndarray]) -> None:
    """What a classifier sees in false colours is less sure of itself."""
    image = photo("coffee")
    right, wrong = (s["objects"] for s in opened("efficientnet-lite0").score([image, image[..., ::-1]], [{}] * 2))
    assert right["espresso"] > wrong.get("espresso", 0)
