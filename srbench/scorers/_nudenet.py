"""NudeNet v3's 320n network in onnxruntime: its preprocessing, and how its boxes are read.

Facts from the package nudenet 3.4.2 (`nudenet/nudenet.py`): pad with black at the right and the bottom to a square,
scale to 320 x 320, divide by 255; keep rows whose best class reaches 0.2; non-maximum suppression over all classes
together with score floor 0.25 and IoU 0.45. The library's own reader hands a file to the network as BGR.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnxruntime

from srbench.backbones.weights import one_line
from srbench.errors import MissingError, UsageError
from srbench.scorers import base
from srbench.scorers._files import check_rgb, need, sha256_of

SIDE_PX = 320
ROW_FLOOR, NMS_FLOOR, NMS_IOU = 0.2, 0.25, 0.45

# In the order of the network's output channels 4..21.
LABELS = (
    "FEMALE_GENITALIA_COVERED", "FACE_FEMALE", "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED", "ANUS_EXPOSED", "FEET_EXPOSED", "BELLY_COVERED", "FEET_COVERED", "ARMPITS_COVERED",
    "ARMPITS_EXPOSED", "FACE_MALE", "BELLY_EXPOSED", "MALE_GENITALIA_EXPOSED", "ANUS_COVERED", "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)

HINT = "Install its package again: pip install --force-reinstall nudenet"
Order = Literal["RGB", "BGR"]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# Fixed, so that a second session gives the same numbers, and full float32, so that they are near the CPU's.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"}


def weights_path() -> Path:
    """The network inside the installed package. Raises `MissingError`."""
    hint = "pip install nudenet"
    try:
        return need(Path(str(resources.files("nudenet"))) / "320n.onnx", hint)
    except ModuleNotFoundError as error:
        raise MissingError("the package nudenet is not installed", hint) from error


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """The network on CUDA where this onnxruntime offers it, else on one CPU thread a pass.

    Its numbers then do not depend on the machine's load. Raises `UsageError` where the file is damaged, or another network.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    wanted: list[Any] = [(CUDA, CUDA_OPTIONS)] if CUDA in onnxruntime.get_available_providers() else []
    with one_line(f"{path}: not a network that onnxruntime opens", HINT):
        session = onnxruntime.InferenceSession(str(path), options, providers=[*wanted, CPU])
    rows = session.get_outputs()[0].shape[1] if len(session.get_outputs()[0].shape) > 1 else None
    if len(session.get_inputs()) != 1 or (isinstance(rows, int) and rows != 4 + len(LABELS)):
        raise UsageError(f"{path}: not the detector of nudenet, which has {len(LABELS)} labels", HINT)
    return session


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def preprocess(image: np.ndarray, order: Order) -> np.ndarray:
    """uint8 RGB (H, W, 3) to the network's input, float32 in [0, 1], (1, 3, 320, 320) with planes in `order`."""
    height, width = image.shape[:2]
    side = max(height, width)
    square = cv2.copyMakeBorder(image, 0, side - height, 0, side - width, cv2.BORDER_CONSTANT)
    return cv2.dnn.blobFromImage(square, 1 / 255, (SIDE_PX, SIDE_PX), swapRB=order == "BGR", crop=False)


def _boxes_px(centres: np.ndarray, width: int, height: int) -> np.ndarray:
    """(n, 4) centre x, y, w, h in network pixels to left, top, w, h inside the image, in its own pixels."""
    side = max(width, height)
    corners = centres.copy()
    corners[:, :2] -= corners[:, 2:] / 2
    corners = corners * np.float32(side) / np.float32(SIDE_PX)
    size = np.array([width, height], np.float32)
    corners[:, :2] = corners[:, :2].clip(0, size)
    corners[:, 2:] = np.minimum(corners[:, 2:], size - corners[:, :2])
    return corners


def read_boxes(output: np.ndarray, width: int, height: int) -> list[dict[str, Any]]:
    """The network's output (1, 22, 2100) as boxes, best first: class, score, box [left, top, width, height] in px."""
    rows = output[0].T  # (2100, 22)
    scores = rows[:, 4:].max(1)
    above_floor = rows[scores >= ROW_FLOOR]
    scores, classes = scores[scores >= ROW_FLOOR], above_floor[:, 4:].argmax(1)
    if not len(above_floor):
        return []
    boxes = _boxes_px(above_floor[:, :4], width, height)
    chosen = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), NMS_FLOOR, NMS_IOU)
    return [
        {"class": LABELS[classes[i]], "score": float(scores[i]), "box": [int(v) for v in boxes[i]]}
        for i in np.asarray(chosen, int).ravel()
    ]


class NudeNet:
    """Every box that the network reports on an image; one image a pass, on the CPU as many passes at once as cores.

    Each pass has a thread to itself, so that an image's numbers depend neither on the others nor on how many cores there are.
    """

    meta: Mapping[str, Any]
    order: Order

    def __init__(self, options: base.Options | None = None) -> None:
        self._weights = weights_path()
        self._session = open_session(self._weights)
        self._input = self._session.get_inputs()[0].name
        # Read from the session: onnxruntime goes on without CUDA where it cannot be started.
        self._cuda = CUDA in self._session.get_providers()
        self._passes = 1 if self._cuda else cores()

    @staticmethod
    def known_classes(options: base.Options) -> dict[str, tuple[str, ...]]:
        """The network's labels."""
        return {"boxes": LABELS}

    def identity(self) -> dict[str, Any]:
        # Named on CUDA alone: scores of earlier versions, which had no choice, keep their keys.
        provider = {"provider": CUDA, "provider_options": CUDA_OPTIONS} if self._cuda else {}
        return {
            **provider,
            "scorer": self.meta["name"],
            "version": self.meta["version"],
            "library": "nudenet (320n.onnx of the package) by onnxruntime, 1 thread",
            "library_version": metadata.version("nudenet"),
            "onnxruntime_version": onnxruntime.__version__,
            "opencv_version": cv2.__version__,
            "weights": "nudenet/320n.onnx",
            "weights_sha256": sha256_of(self._weights),
            "preprocessing": "black padding right and bottom to a square, / 255, float32, one picture a pass",
            "resize": f"{SIDE_PX} x {SIDE_PX}, bilinear on uint8 (cv2.dnn.blobFromImage)",
            "channel_order": self.order,
            "floor": f"rows >= {ROW_FLOOR}; suppression over all classes: score > {NMS_FLOOR}, IoU {NMS_IOU}",
        }

    def raw(self, image: np.ndarray) -> np.ndarray:
        """The network's output for one uint8 RGB image, (1, 22, 2100)."""
        return self._session.run(None, {self._input: preprocess(image, self.order)})[0]

    def _boxes(self, image: np.ndarray) -> dict[str, Any]:
        height, width = image.shape[:2]
        return {"boxes": read_boxes(self.raw(image), width, height)}

    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One dict per image: all boxes above the floor. Raises `CellError` for other than uint8 RGB."""
        checked = [check_rgb(image, self.meta["name"]) for image, _ in zip(images, rows, strict=True)]
        with ThreadPoolExecutor(self._passes) as pool:  # onnxruntime computes without Python's lock
            return list(pool.map(self._boxes, checked))
