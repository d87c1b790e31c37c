"""Scorers are opened whole or not at all: what their libraries would fill in, stretch or leave out is one line with its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from srbench.errors import MissingError, SrbenchError, UsageError
from srbench.scorers import _nudenet
from srbench.scorers._files import Folder
from srbench.scorers.base import package_folder
from srbench.scorers.pocket_clip import PocketClip
from srbench.scorers.pocket_judge import PocketJudge
from tests.backbones.broken import copied, edited, replaced, retensored

Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
JUDGE, CLIP = "judge.safetensors", "open_clip_model.safetensors"


def refusal(cls: type[Any], folder: Path) -> SrbenchError:
    with pytest.raises((UsageError, MissingError)) as error:
        cls(Folder(weights=folder))
    assert "\n" not in error.value.line
    return error.value


def _without_first(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name != _first(state)}


def _first(state: dict[str, torch.Tensor]) -> str:
    return min(name for name, value in state.items() if value.ndim > 1)


CHANGES: dict[str, Change] = {
    "missing": _without_first,
    "renamed": lambda state: {f"x.{name}": value for name, value in state.items()},
    "beside": lambda state: {**state, "more": torch.zeros(3, 3)},
    "shape": lambda state: {**state, _first(state): torch.zeros(2, 2)},
    "nan": lambda state: {**state, _first(state): torch.full_like(state[_first(state)], torch.nan)},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("cls", "folder", "file"), [(PocketJudge, "pocket/judge", JUDGE), (PocketClip, "pocket/clip", CLIP)])
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, cls: type[Any], folder: str, file: str, change: str) -> None:
    place = copied(tmp_path / "scorer", package_folder(folder))
    retensored(place / file, CHANGES[change])
    assert str(place) in refusal(cls, place).message


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"7", b"{" * 5000, b"\0", b"version https://git-lfs", b'{"a":' * 500,
                                     b'{"objects": "x", "styles": [], "backgrounds": {}, "width": 9}'])  # fmt: skip
@pytest.mark.parametrize(("cls", "folder", "file"), [
    (PocketJudge, "pocket/judge", "judge.json"), (PocketJudge, "pocket/judge", JUDGE), (PocketClip, "pocket/clip", CLIP),
    (PocketClip, "pocket/clip", "open_clip_config.json"), (PocketClip, "pocket/clip", "tokenizer.json"),
])  # fmt: skip
def test_files_of_any_content_are_one_line(tmp_path: Path, cls: type[Any], folder: str, file: str, content: bytes) -> None:
    place = copied(tmp_path / "scorer", package_folder(folder))
    replaced(place / file, content)
    refusal(cls, place)


@pytest.mark.parametrize(("key", "value"), [
    ("width", 10**9), ("width", -1), ("width", "24"), ("width", True), ("objects", []), ("objects", ["a"] * 24),
    ("styles", [1, 2]), ("backgrounds", None),
])  # fmt: skip
def test_a_judges_card_with_odd_entries_is_one_line(tmp_path: Path, key: str, value: object) -> None:
    place = copied(tmp_path / "judge", package_folder("pocket/judge"))
    edited(place / "judge.json", lambda card: card.update({key: value}))
    refusal(PocketJudge, place)


def test_a_clip_whose_positions_would_be_stretched_is_refused(tmp_path: Path) -> None:
    place = copied(tmp_path / "clip", package_folder("pocket/clip"))
    edited(place / "open_clip_config.json", lambda config: config["model_cfg"]["text_cfg"].update({"context_length": 154}))
    assert "tensor of (154, 96) is missing" in refusal(PocketClip, place).message


def test_a_clip_of_absurd_size_makes_no_room(tmp_path: Path) -> None:
    place = copied(tmp_path / "clip", package_folder("pocket/clip"))
    size = {"width": 2**17, "layers": 900}
    edited(place / "open_clip_config.json", lambda config: config["model_cfg"]["text_cfg"].update(size))
    assert "describes" in refusal(PocketClip, place).message


@pytest.mark.parametrize("how", ["gone", "empty", "merges"])
def test_a_clip_whose_tokenizer_does_not_read_is_refused(tmp_path: Path, how: str) -> None:
    place = copied(tmp_path / "clip", package_folder("pocket/clip"))
    if how == "gone":
        (place / "tokenizer.json").unlink()
    else:
        edited(place / "tokenizer.json", lambda tokenizer: _forgets(tokenizer, how))
    refusal(PocketClip, place)


def _forgets(tokenizer: dict[str, Any], how: str) -> None:
    tokenizer["model"]["merges"] = []
    if how == "empty":
        words = tokenizer["model"]["vocab"]
        tokenizer["model"]["vocab"] = {word: number for word, number in words.items() if number < 2}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_detector_that_is_cut_off_is_one_line(tmp_path: Path, share: float) -> None:
    whole = _nudenet.weights_path().read_bytes()
    (tmp_path / "320n.onnx").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UsageError) as error:
        _nudenet.open_session(tmp_path / "320n.onnx")
    assert "320n.onnx: not a network that onnxruntime opens" in error.value.message
    assert "\n" not in error.value.line


def test_what_is_here_is_opened(tmp_path: Path) -> None:
    for cls, folder in ((PocketJudge, "pocket/judge"), (PocketClip, "pocket/clip")):
        given = cls(Folder(weights=copied(tmp_path / cls.__name__, package_folder(folder))))
        assert given.identity() == cls().identity()
    state = load_file(package_folder("pocket/judge") / JUDGE)
    save_file(state, tmp_path / "same.safetensors")
    assert json.loads((package_folder("pocket/judge") / "judge.json").read_text())["width"] > 0
