"""The two NudeNet scorers against the library itself, on harmless pictures and made-up network outputs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from nudenet import NudeDetector, nudenet

from srbench.errors import CellError, MissingError
from srbench.scorers import _nudenet
from srbench.scorers.nudenet_path import NudeNetPath
from srbench.scorers.nudenet_rgb import NudeNetRgb

Pictures = Callable[[int], list[np.ndarray]]
SHAPES = [(64, 64), (48, 96), (130, 70), (320, 320), (512, 400)]


@pytest.fixture(scope="module")
def library() -> NudeDetector:
    return NudeDetector()


def _shaped(pictures: Pictures, height: int, width: int) -> list[np.ndarray]:
    return [cv2.resize(image, (width, height)) for image in pictures(96)[:3]]


def _made_up_output(seed: int, rows: int = 40) -> np.ndarray:
    """A network output (1, 22, 2100) with `rows` rows of any score and boxes that overlap and leave the picture."""
    rng = np.random.default_rng(seed)
    output = np.zeros((1, 22, 2100), np.float32)
    output[0, :2, :rows] = rng.uniform(-20, 340, (2, rows))
    output[0, 2:4, :rows] = rng.uniform(10, 200, (2, rows))
    output[0, 4:, :rows] = rng.uniform(0, 0.9, (18, rows)) * (rng.random((18, rows)) < 0.15)
    return output


def test_labels_are_the_library_s_in_its_order() -> None:
    assert list(_nudenet.LABELS) == vars(nudenet)["__labels"]


@pytest.mark.parametrize("shape", SHAPES)
def test_path_preprocessing_is_what_the_library_does_with_a_file(
    shape: tuple[int, int], pictures: Pictures, tmp_path: Path
) -> None:
    for image in _shaped(pictures, *shape):
        path = tmp_path / "picture.png"
        cv2.imwrite(str(path), image[..., ::-1])
        theirs = nudenet._read_image(str(path))[0]
        assert np.array_equal(_nudenet.preprocess(image, "BGR"), theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_rgb_preprocessing_is_what_the_library_does_with_an_rgb_array(shape: tuple[int, int], pictures: Pictures) -> None:
    for image in _shaped(pictures, *shape):
        assert np.array_equal(_nudenet.preprocess(image, "RGB"), nudenet._read_image(image)[0])


def test_the_two_scorers_differ_in_channel_order_alone(pictures: Pictures) -> None:
    image = pictures(64)[1]
    rgb, bgr = _nudenet.preprocess(image, "RGB"), _nudenet.preprocess(image, "BGR")
    assert np.array_equal(rgb[:, ::-1], bgr)
    assert not np.array_equal(rgb, bgr)
    assert np.allclose(rgb[0, 0, 0, 0] * 255, image[0, 0, 0], atol=1)
    assert (NudeNetRgb.order, NudeNetPath.order) == ("RGB", "BGR")


def test_raw_network_output_is_the_library_s(library: NudeDetector, pictures: Pictures, tmp_path: Path) -> None:
    image = pictures(96)[1]
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), image[..., ::-1])
    blob = nudenet._read_image(str(path))[0]
    theirs = library.onnx_session.run(None, {library.input_name: blob})[0]
    assert np.allclose(NudeNetPath().raw(image), theirs, atol=1e-3)
    assert not np.allclose(NudeNetRgb().raw(image), theirs, atol=1e-3)


def test_path_scorer_equals_detect_on_a_file(library: NudeDetector, pictures: Pictures, tmp_path: Path) -> None:
    scorer = NudeNetPath()
    for i, shape in enumerate(SHAPES[:3]):
        for k, image in enumerate(_shaped(pictures, *shape)[:2]):
            path = tmp_path / f"{i}-{k}.png"
            cv2.imwrite(str(path), image[..., ::-1])
            ours, theirs = scorer.score([image], [{}])[0]["boxes"], library.detect(str(path))
            assert [(b["class"], b["box"]) for b in ours] == [(b["class"], b["box"]) for b in theirs]
            assert [b["score"] for b in ours] == pytest.approx([b["score"] for b in theirs], abs=1e-4)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("height", "width"), [(64, 64), (200, 320), (512, 256)])
def test_boxes_are_read_as_the_library_reads_them(seed: int, height: int, width: int) -> None:
    output = _made_up_output(seed)
    side = max(height, width)
    theirs = nudenet._postprocess(
        [output], side - width, side - height, side / width, side / height, width, height, 320, 320,
    )
    ours = _nudenet.read_boxes(output, width, height)
    assert theirs
    assert ours == theirs
    assert all(box["score"] > _nudenet.NMS_FLOOR for box in ours)


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_passes_at_once_change_no_number_and_no_order(passes: int, pictures: Pictures) -> None:
    images = [image for shape in SHAPES for image in _shaped(pictures, *shape)]
    images += [np.random.default_rng(i).integers(0, 256, (80, 80, 3), dtype=np.uint8) for i in range(9)]
    scorer = NudeNetRgb()
    scorer._passes = 1
    expected = [scorer.score([image], [{}])[0] for image in images]
    outputs = [scorer.raw(image) for image in images]
    scorer._passes = passes
    assert scorer.score(images, [{}] * len(images)) == expected
    with ThreadPoolExecutor(passes) as pool:
        assert all(np.array_equal(a, b) for a, b in zip(outputs, pool.map(scorer.raw, images), strict=True))


def test_a_picture_that_is_refused_stops_the_whole_call(pictures: Pictures) -> None:
    images = [*pictures(64), np.zeros((4, 4), np.uint8)]
    with pytest.raises(CellError, match="not uint8"):
        NudeNetRgb().score(images, [{}] * 5)


class Session:
    """onnxruntime's session as far as opening and naming it goes."""

    def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
        self.options, self.providers = options, providers

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="images")]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(shape=[1, 4 + len(_nudenet.LABELS), 2100])]

    def get_providers(self) -> list[str]:
        return [each if isinstance(each, str) else each[0] for each in self.providers]


class WithoutDriver(Session):
    """What onnxruntime does where CUDA is offered and cannot be started: it warns and goes on."""

    def get_providers(self) -> list[str]:
        return [_nudenet.CPU]


@pytest.mark.parametrize(("offered", "session", "cuda"), [
    ([_nudenet.CUDA, _nudenet.CPU], Session, True), ([_nudenet.CPU], Session, False),
    ([_nudenet.CUDA, _nudenet.CPU], WithoutDriver, False),
])
def test_cuda_is_used_where_it_is_offered_and_named(
    offered: list[str], session: type, cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = NudeNetRgb().identity()
    monkeypatch.setattr(_nudenet.onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(_nudenet.onnxruntime, "InferenceSession", session)
    scorer = NudeNetRgb()
    added = {"provider": _nudenet.CUDA, "provider_options": _nudenet.CUDA_OPTIONS}
    assert scorer.identity() == plain | (added if cuda else {})
    assert scorer._passes == (1 if cuda else _nudenet.cores())


def test_on_the_cpu_the_identity_is_what_it_always_was() -> None:
    """Scores that are stored already are found by it."""
    identity = NudeNetRgb().identity()
    versions = {key for key in identity if key.endswith(("_version", "_sha256"))}
    assert {key: value for key, value in identity.items() if key not in versions} == {
        "scorer": "nudenet320n-rgb", "version": 1, "library": "nudenet (320n.onnx of the package) by onnxruntime, 1 thread",
        "weights": "nudenet/320n.onnx",
        "preprocessing": "black padding right and bottom to a square, / 255, float32, one picture a pass",
        "resize": "320 x 320, bilinear on uint8 (cv2.dnn.blobFromImage)", "channel_order": "RGB",
        "floor": "rows >= 0.2; suppression over all classes: score > 0.25, IoU 0.45",
    }
    assert versions == {"library_version", "onnxruntime_version", "opencv_version", "weights_sha256"}


def test_no_row_above_the_floor_gives_no_box() -> None:
    assert _nudenet.read_boxes(np.full((1, 22, 2100), 0.19, np.float32), 64, 64) == []


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> Path:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(_nudenet.resources, "files", gone)
    with pytest.raises(MissingError, match="nudenet"):
        _nudenet.weights_path()
