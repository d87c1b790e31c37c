"""`q16`: Q16 (2202.06675), two learned prompt vectors on CLIP ViT-L/14 of OpenAI; softmax of 100 x cosine.

Its authors publish the vectors as a pickle of one array (2, 768), appropriate first. Whatever their precision, all is computed
in float32.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from srbench.errors import MissingError, UsageError
from srbench.scorers import base
from srbench.scorers._clip import SCALE, Clip, source
from srbench.scorers._files import one_thread
from srbench.scorers.base import scorer

SCORER = {
    "name": "q16",
    "version": 1,
    "kind": "image",
    "title": "Probability that a picture is inappropriate (Q16 on CLIP ViT-L/14)",
    "reads": [],
    "fields": ["q16"],
    "probabilities": ["q16"],
    "families": [],
}
MODEL, TAG, WIDTH = "ViT-L-14-quickgelu", "openai", 768
LABELS = ("appropriate", "inappropriate")
SOURCE = "ml-research/Q16 on GitHub, prompts.p for ViT-L/14"


class Q16Options(base.Options):
    """Where the prompt vectors and their CLIP are."""

    weights: Path | None = Field(None, exclude=True)
    """The prompts' file: a pickle of a numpy array, or a tensor that torch saved; there is no default."""
    clip: Path | None = Field(None, exclude=True)
    """A file of OpenAI's ViT-L/14, or a folder in open_clip's local-dir format; None: the file in the hub cache."""


# --- a pickle that runs nothing ----------------------------------------------------------------------------------------------


class _Kind:
    """In place of `numpy.dtype`: keeps its code and byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Array:
    """In place of `numpy.ndarray`: keeps shape, kind, order and bytes."""

    shape: tuple[int, ...]
    kind: _Kind
    by_column: bool
    content: bytes

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.kind, self.by_column, self.content = state

    def value(self) -> np.ndarray:
        """The array. Raises `TypeError` or `ValueError` where it does not hold real numbers."""
        real = self.kind.code in ("f2", "f4", "f8") and self.kind.order in ("<", ">", "=", "|")
        if not real or not isinstance(self.content, bytes | bytearray):
            raise ValueError("not an array of real numbers")
        flat = np.frombuffer(self.content, self.kind.order + self.kind.code)
        return flat.reshape(self.shape, order="F" if self.by_column else "C").copy()


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(content: Any, kind: _Kind, shape: tuple[int, ...], order: str, *_: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


def _latin(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError("another encoding")
    return text.encode("latin1")


ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _latin,
}
"""Name in a pickled array -> our replacement; nothing that the file names is itself imported or called."""


class _Reader(pickle.Unpickler):
    """Resolves admitted names, and refuses the rest."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return ADMITTED[module, name]


def read_prompts(path: Path) -> Tensor:
    """Prompt vectors, (2, 768) float32. Raises `UsageError` for anything else, and nothing in the file is executed."""
    hint = f"Give the file of {SOURCE}."
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                prompts = torch.load(path, map_location="cpu", weights_only=True)
            else:
                file.seek(0)
                read = _Reader(file).load()
                prompts = torch.from_numpy(read.value().astype(np.float32)) if isinstance(read, _Array) else None
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise UsageError(f"{path}: not an array of numbers, or more than that ({error})".splitlines()[0], hint) from error
    fits = isinstance(prompts, Tensor) and tuple(prompts.shape) == (len(LABELS), WIDTH) and prompts.is_floating_point()
    if not fits or not bool(prompts.isfinite().all()):
        raise UsageError(f"{path}: not {len(LABELS)} prompt vectors of {WIDTH} numbers", hint)
    return prompts.detach().float()


# --- the scorer --------------------------------------------------------------------------------------------------------------


def prompts_path(user_file: Path | None) -> Path:
    """The prompts' file. Raises `MissingError` where none is given, or where it is not there."""
    if user_file is None or not user_file.expanduser().is_file():
        message = f"q16: {user_file} does not exist" if user_file else "q16: no prompt vectors are given"
        raise MissingError(message, f"Get them from {SOURCE}, and pass --set q16.weights=FILE")
    return user_file.expanduser()


@scorer(SCORER)
class Q16:
    """Probabilities of both prompts by label; its authors take the larger one."""

    Options: ClassVar[type[base.Options]] = Q16Options

    def __init__(self, options: Q16Options | None = None) -> None:
        chosen = options or Q16Options()
        name = str(SCORER["name"])
        self._path = prompts_path(chosen.weights)
        self._prompts = torch.nn.functional.normalize(read_prompts(self._path), dim=-1)  # (2, 768)
        self._clip = Clip(source(MODEL, TAG, chosen.clip, name), name)
        self._clip.need_width(WIDTH)

    @staticmethod
    def known_classes(options: Q16Options) -> dict[str, tuple[str, ...]]:
        """The two labels."""
        return {"q16": LABELS}

    def identity(self) -> dict[str, Any]:
        return self._clip.identity_under(SCORER, "Q16's prompt vectors", self._path)

    @torch.inference_mode()
    def score(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One dict per image: `q16`, probability by label. Raises `CellError` for other than uint8 RGB."""
        scores = []
        with one_thread():
            for image, _ in zip(images, rows, strict=True):
                logits = SCALE * self._prompts @ self._clip.unit(image)  # (2,)
                values = torch.softmax(logits, 0).tolist()
                scores.append({"q16": {label: round(value, 6) for label, value in zip(LABELS, values, strict=True)}})
        return scores
