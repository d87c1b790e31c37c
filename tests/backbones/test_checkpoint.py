"""Checkpoints: what a passport says and refuses, that weights laid over are lifted bit for bit, and home-made folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from srbench.backbones.checkpoint import (
    CARD,
    Checkpoint,
    Passport,
    examine,
    is_home_made,
    laid_over,
    open_home_made,
    read_card,
)
from srbench.errors import UsageError
from srbench.files import file_sha

NAME = "conv_in.weight"
PASSPORT = Passport("0" * 64, "safetensors", "unet", 1, 1, 1, 0.1)


def look(pipeline: Any, tensors: dict[str, dict[str, Tensor]], partial: bool = True) -> Passport:
    return examine(pipeline, tensors, where="here", sha256="0" * 64, kind="unet", form="safetensors", partial=partial)


def refusal(pipeline: Any, tensors: dict[str, dict[str, Tensor]], partial: bool = True) -> str:
    with pytest.raises(UsageError) as caught:
        look(pipeline, tensors, partial)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value.message


def unet(pipeline: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in pipeline.unet.state_dict().items()}


# --- examine ---------------------------------------------------------------------------------------------------------------


def test_the_passport_counts_and_measures(pipeline: Any) -> None:
    own = unet(pipeline)
    changed = own[NAME] * 1.5
    found = look(pipeline, {"unet": {NAME: changed, "conv_in.bias": own["conv_in.bias"]}})
    assert (found.matched, found.expected, found.changed) == (2, len(own), 1)
    norm = (own[NAME].square().sum() + own["conv_in.bias"].square().sum()).sqrt()
    assert found.relative_change == pytest.approx(float(0.5 * own[NAME].norm() / norm), rel=1e-5)
    assert f"2 of {len(own)} tensors, 1 changed" in found.line()


def test_a_foreign_name_is_refused_even_where_tensors_may_be_missing(pipeline: Any) -> None:
    own = unet(pipeline)
    message = refusal(pipeline, {"unet": {NAME: own[NAME] + 1, "conv_in.gain": torch.ones(1)}})
    assert "1 of 2 tensors are not in this backbone's unet (conv_in.gain" in message


def test_a_missing_tensor_is_refused_unless_partial(pipeline: Any) -> None:
    own = unet(pipeline)
    given = {"unet": {name: value + 1 for name, value in own.items() if name != NAME}}
    assert f"1 of {len(own)} tensors of unet are missing ({NAME}" in refusal(pipeline, given, partial=False)
    assert look(pipeline, given, partial=True).matched == len(own) - 1


def test_another_shape_is_refused(pipeline: Any) -> None:
    assert "(8, 4, 3, 3)" in refusal(pipeline, {"unet": {NAME: torch.ones(8, 4, 1, 1)}})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_numbers_are_refused(pipeline: Any, value: float) -> None:
    wrong = unet(pipeline)[NAME]
    wrong[0, 0, 0, 0] = value
    assert "not numbers" in refusal(pipeline, {"unet": {NAME: wrong}})


def test_a_value_that_overflows_the_pipelines_dtype_is_refused() -> None:
    half = SimpleNamespace(unet=nn.Linear(2, 2).half())
    assert "not numbers" in refusal(half, {"unet": {"weight": torch.full((2, 2), 1e6)}})


def test_integers_in_place_of_weights_are_refused(pipeline: Any) -> None:
    assert "torch.int64" in refusal(pipeline, {"unet": {NAME: torch.ones(8, 4, 3, 3, dtype=torch.int64)}})


def test_the_backbone_itself_is_refused(pipeline: Any) -> None:
    assert "equals the backbone" in refusal(pipeline, {"unet": unet(pipeline)}, partial=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_backbone_itself_in_half_precision_is_refused(pipeline: Any, dtype: torch.dtype) -> None:
    rounded = {name: value.to(dtype) for name, value in unet(pipeline).items()}
    assert any(not torch.equal(rounded[name].float(), value) for name, value in unet(pipeline).items())
    assert "equals the backbone" in refusal(pipeline, {"unet": rounded})
    rounded[NAME] = (unet(pipeline)[NAME] * 2).to(dtype)
    assert look(pipeline, {"unet": rounded}).changed == 1


def test_a_difference_that_the_pipelines_dtype_rounds_away_is_none() -> None:
    half = SimpleNamespace(unet=nn.Linear(2, 2, bias=False).bfloat16())
    assert "equals the backbone" in refusal(half, {"unet": {"weight": half.unet.weight.detach().float() * (1 + 1e-5)}})


def test_no_tensor_at_all_is_refused(pipeline: Any) -> None:
    assert "none of its weights" in refusal(pipeline, {"unet": {}})


def test_a_component_that_the_backbone_lacks_is_refused(pipeline: Any) -> None:
    assert "has no transformer" in refusal(pipeline, {"transformer": {"x": torch.ones(1)}})


# --- laid over ---------------------------------------------------------------------------------------------------------------


def test_weights_are_laid_over_and_lifted(pipeline: Any) -> None:
    value = unet(pipeline)[NAME] + 1
    before = unet(pipeline)
    with laid_over(pipeline, Checkpoint("c", {"unet": {NAME: value}}, PASSPORT)):
        assert torch.equal(pipeline.unet.conv_in.weight, value)
        assert torch.equal(pipeline.unet.conv_in.bias, before["conv_in.bias"])
    assert torch.equal(pipeline.unet.conv_in.weight, before[NAME])
    with laid_over(pipeline, None):
        assert torch.equal(pipeline.unet.conv_in.weight, before[NAME])


def test_weights_are_lifted_when_the_body_raises(pipeline: Any) -> None:
    before = unet(pipeline)
    laid = laid_over(pipeline, Checkpoint("c", {"unet": {NAME: before[NAME] + 1}}, PASSPORT))
    with pytest.raises(RuntimeError, match="in the middle"), laid:
        raise RuntimeError("in the middle")
    assert torch.equal(pipeline.unet.conv_in.weight, before[NAME])


def test_weights_are_lifted_when_laying_them_stops_half_way(pipeline: Any) -> None:
    before = unet(pipeline)
    wrong = {"unet": {NAME: before[NAME] + 1, "conv_in.bias": torch.ones(3)}}
    with pytest.raises(RuntimeError), laid_over(pipeline, Checkpoint("c", wrong, PASSPORT)):
        pass
    assert torch.equal(pipeline.unet.conv_in.weight, before[NAME])


def test_a_tensor_with_two_names_is_lifted_too() -> None:
    module = nn.Module()
    module.first = nn.Linear(2, 2, bias=False)
    module.second = nn.Linear(2, 2, bias=False)
    module.second.weight = module.first.weight
    before = module.first.weight.detach().clone()
    tensors = {"unet": {"first.weight": before + 1, "second.weight": before + 1}}
    with torch.no_grad(), laid_over(SimpleNamespace(unet=module), Checkpoint("c", tensors, PASSPORT)):
        assert torch.equal(module.second.weight, before + 1)
    assert torch.equal(module.first.weight, before)


def test_values_take_the_pipelines_dtype() -> None:
    half = SimpleNamespace(unet=nn.Linear(2, 2, bias=False).half())
    value = torch.full((2, 2), 1.0001)
    with torch.no_grad(), laid_over(half, Checkpoint("c", {"unet": {"weight": value}}, PASSPORT)):
        assert half.unet.weight.dtype == torch.float16
        assert torch.equal(half.unet.weight, value.half())


# --- home-made folders -------------------------------------------------------------------------------------------------------


def store(folder: Path, pipeline: Any, **changes: Any) -> Path:
    """As `srbench erase` leaves it."""
    folder.mkdir()
    save_file({NAME: unet(pipeline)[NAME] + 1}, folder / "unet.safetensors")
    files = {"unet.safetensors": file_sha(folder / "unet.safetensors")}
    card = {"backbone": "tiny", "backbone_sha256": "b", "concept": "box", "files": files} | changes
    (folder / CARD).write_text(json.dumps(card))
    return folder


def test_a_home_made_checkpoint_is_read(pipeline: Any, tmp_path: Path) -> None:
    folder = store(tmp_path / "c", pipeline)
    assert is_home_made(folder)
    found = open_home_made(folder, "mine", "b", "box", pipeline)
    assert found.name == "mine"
    assert torch.equal(found.tensors["unet"][NAME], unet(pipeline)[NAME] + 1)
    assert (found.passport.kind, found.passport.matched, found.passport.changed) == ("srbench", 1, 1)
    assert found.card["passport"]["matched"] == 1


def test_its_identity_is_its_content(pipeline: Any, tmp_path: Path) -> None:
    one = open_home_made(store(tmp_path / "a", pipeline), "x", "b", "box", pipeline).sha256
    assert open_home_made(store(tmp_path / "b", pipeline), "y", "b", "box", pipeline).sha256 == one
    folder = store(tmp_path / "d", pipeline)
    save_file({NAME: unet(pipeline)[NAME] + 2}, folder / "unet.safetensors")
    card = json.loads((folder / CARD).read_text())
    card["files"]["unet.safetensors"] = file_sha(folder / "unet.safetensors")
    (folder / CARD).write_text(json.dumps(card))
    assert open_home_made(folder, "x", "b", "box", pipeline).sha256 != one


@pytest.mark.parametrize(
    ("changes", "backbone", "concept", "message"),
    [
        ({"backbone_sha256": "another"}, "b", "box", "belongs to another backbone"),
        ({}, "another", "box", "belongs to another backbone"),
        ({}, "b", "tree", "was made for concept 'box', not 'tree'"),
        ({"files": {}}, "b", "box", "not a checkpoint's card"),
        ({"files": {"unet.safetensors": "0" * 64}}, "b", "box", "missing or changed"),
        ({"files": {"vae.safetensors": "0" * 64}}, "b", "box", "missing or changed"),
    ],
)
def test_a_home_made_checkpoint_of_others_is_refused(
    pipeline: Any, tmp_path: Path, changes: dict[str, Any], backbone: str, concept: str, message: str
) -> None:
    folder = store(tmp_path / "c", pipeline, **changes)
    with pytest.raises(UsageError, match=message):
        open_home_made(folder, "c", backbone, concept, pipeline)


def test_a_file_changed_after_the_fact_is_refused(pipeline: Any, tmp_path: Path) -> None:
    folder = store(tmp_path / "c", pipeline)
    save_file({NAME: unet(pipeline)[NAME] + 2}, folder / "unet.safetensors")
    with pytest.raises(UsageError, match="missing or changed"):
        open_home_made(folder, "c", "b", "box", pipeline)


def test_a_half_written_folder_is_no_checkpoint(pipeline: Any, tmp_path: Path) -> None:
    folder = store(tmp_path / "c", pipeline)
    (folder / CARD).unlink()
    assert not is_home_made(folder)
    with pytest.raises(UsageError, match="not a checkpoint") as caught:
        open_home_made(folder, "c", "b", "box", pipeline)
    assert "srbench erase" in caught.value.hint
    (folder / CARD).write_text('{"files": ')
    with pytest.raises(UsageError, match="damaged card"):
        open_home_made(folder, "c", "b", "box", pipeline)


@pytest.mark.parametrize("card", [
    b"", b"\xff", b"[" * 100_000, b"[]", b"null", b'{"files": {}}', b'{"files": {"unet.safetensors": 1}}',
    b'{"files": {"a": "b"}, "files": {}}',
    b'{"files": {"../../unet.safetensors": "' + b"a" * 64 + b'"}}', b'{"files": {"/etc/unet.safetensors": "' + b"a" * 64 + b'"}}',
    b'{"files": {"unet.safetensors": "' + b"a" * 64 + b'"}, "seconds": "long"}', b'{"files": {"unet.safetensors": NaN}}',
])  # fmt: skip
def test_a_card_of_any_content_is_one_line(card: bytes, pipeline: Any, tmp_path: Path) -> None:
    folder = store(tmp_path / "c", pipeline)
    (folder / CARD).write_bytes(card)
    with pytest.raises(UsageError, match=r"card\.json") as caught:
        read_card(folder)
    assert caught.value.line.isprintable()
    assert "make the checkpoint again" in caught.value.hint


@pytest.mark.parametrize("kind", ["folder", "fifo", "dangling link"])
def test_what_is_no_file_in_a_cards_place_is_one_line(kind: str, pipeline: Any, tmp_path: Path) -> None:
    folder = store(tmp_path / "c", pipeline)
    card = folder / CARD
    card.unlink()
    {"folder": card.mkdir, "fifo": lambda: os.mkfifo(card), "dangling link": lambda: card.symlink_to("nowhere")}[kind]()
    with pytest.raises(UsageError, match=f"a {kind}, not a file"):
        read_card(folder)
