"""`--on` as an axis: what is stacked on what, checkpoints made once by content, and weights that leave no trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from srbench.backbones.checkpoint import CARD
from srbench.engine.plan import grid, plan
from srbench.engine.run import execute
from srbench.errors import OK, SOME_FAILED, CellError, Unmade, UsageError
from srbench.methods import base


@pytest.fixture
def made(world: Any) -> list[str]:
    """Concepts for which the weight method was run, in order."""
    return world.shift.made


def folders(world: Any) -> list[Path]:
    return sorted((world.out / "store" / "checkpoints").iterdir())


@pytest.mark.parametrize(("methods", "on", "expected"), [
    (("none", "push"), ("none",), [("none", "none"), ("push", "none")]),
    (("push", "none"), ("shift", "none"), [("none", "none"), ("push", "shift"), ("push", "none"), ("none", "shift")]),
    (("shift", "push"), ("none",), [("none", "shift"), ("push", "none")]),
    (("shift", "none"), ("none", ), [("none", "none"), ("none", "shift")]),
    (("twice",), ("shift-more",), [("none", "twice")]),
])
def test_a_weight_method_is_none_on_its_checkpoint(world: Any, methods: Any, on: Any, expected: Any) -> None:
    assert grid(methods, on) == expected


@pytest.mark.parametrize(("methods", "on", "message"), [
    (("shift",), ("twice",), "'shift' changes weights and cannot be stacked on 'twice'"),
    (("none",), ("push",), "'push' acts while sampling and is no checkpoint"),
    (("none",), ("shft",), "unknown checkpoint 'shft'"),
])
def test_what_cannot_be_stacked_is_refused_with_the_reason(world: Any, methods: Any, on: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        plan(world.request(methods=methods, on=on), world.backbone())
    assert caught.value.hint


def test_methods_act_on_changed_weights_and_the_backbone_is_as_before(world: Any, made: list[str]) -> None:
    backbone = world.backbone()
    before = {name: value.clone() for name, value in backbone.pipeline.unet.state_dict().items()}
    request = world.request(on=("none", "shift"))
    done = execute(request, backbone, plan(request, backbone), world.store(), world)
    assert done.exit_code == OK
    assert [(c.method, c.on) for c in done.cells] == [("none", "none"), ("none", "shift"), ("push", "none"), ("push", "shift")]
    assert [c.label for c in done.cells] == ["none", "shift", "push", "push on shift"]
    assert all(torch.equal(value, before[name]) for name, value in backbone.pipeline.unet.state_dict().items())
    shas = {(r["method"], r["prompt"], r["seed"]): set() for r in world.store().images.values()}
    for record in world.store().images.values():
        shas[record["method"], record["prompt"], record["seed"]].add(record["pixel_sha"])
    assert all(len(each) == 2 for (_, prompt, _), each in shas.items() if "box" in prompt)
    assert made == ["box"]


def test_reference_images_are_always_the_untouched_backbones(world: Any) -> None:
    cells = plan(world.request(on=("none", "shift")), world.backbone())
    for cell in cells:
        beside = [p for row in cell.rows for p in (row.reference, row.floor) if p is not None]
        assert beside
        assert all(p.checkpoint is None and p.spec.checkpoint_sha == "" and p.spec.method == "none" for p in beside)


def test_a_second_call_makes_and_samples_nothing(world: Any, made: list[str]) -> None:
    first = world.run(methods=("none", "shift"))
    sampled = world.sampled()
    again = world.run(methods=("none", "shift"))
    assert world.sampled() == sampled > 0
    assert made == ["box"]
    assert [c.metrics["fsr"] for c in again.cells] == [c.metrics["fsr"] for c in first.cells]


def test_an_option_makes_another_checkpoint_and_stands_in_the_variant(world: Any, made: list[str]) -> None:
    plain = plan(world.request(methods=("shift",)), world.backbone())[0]
    other = plan(world.request(methods=("shift",), settings=("shift.size=0.25",)), world.backbone())[0]
    assert (plain.variant, other.variant) == ("", "shift.size=0.25")
    assert plain.checkpoint.sha256 != other.checkpoint.sha256
    assert made == ["box", "box"]
    # The family's fitted value for this kind of concept is the default there, not the preset's.
    assert plain.checkpoint.card["options"] == {"size": 5.0}


def test_a_base_is_laid_under_the_method_that_declares_it(world: Any, made: list[str]) -> None:
    cell = plan(world.request(methods=("twice",)), world.backbone())[0]
    assert cell.checkpoint is not None
    own = world.backbone().pipeline.unet.state_dict()
    for name, value in cell.checkpoint.tensors["unet"].items():
        assert torch.allclose(value, own[name] + 4.0)
    assert cell.checkpoint.card["base"]["options"] == {"size": 3.0}


def test_weights_are_edited_in_fp32_whatever_the_run_samples_in(world: Any, made: list[str]) -> None:
    cell = plan(world.request(methods=("shift",), dtype="bf16"), world.backbone("bf16"))[0]
    assert cell.checkpoint is not None
    assert made == ["box"]
    plain = plan(world.request(methods=("shift",)), world.backbone())[0]
    assert plain.checkpoint is not None
    assert plain.checkpoint.sha256 == cell.checkpoint.sha256
    assert made == ["box"]


def test_an_interrupted_erase_leaves_nothing_that_loads(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from srbench.engine import stored

    monkeypatch.setattr(stored, "examine", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        plan(world.request(methods=("shift",)), world.backbone())
    assert folders(world) == []
    monkeypatch.undo()


def test_a_killed_erase_starts_clean(world: Any, made: list[str]) -> None:
    """What a killed process leaves: files beside, without a card, under a name that nobody looks for."""
    plan(world.request(methods=("shift",)), world.backbone())
    (whole,) = folders(world)
    (whole / CARD).unlink()
    (whole / "unet.safetensors").write_bytes(b"half")
    again = plan(world.request(methods=("shift",)), world.backbone())[0]
    assert again.checkpoint is not None
    assert made == ["box", "box"]


def test_a_checkpoint_changed_after_the_fact_is_refused(world: Any) -> None:
    plan(world.request(methods=("shift",)), world.backbone())
    (folder,) = folders(world)
    own = world.backbone().pipeline.unet.state_dict()
    name = next(name for name in own if name.endswith("attn2.to_out.0.bias"))
    save_file({name: own[name] + 9}, folder / "unet.safetensors")
    with pytest.raises(UsageError, match="missing or changed since it was made"):
        plan(world.request(methods=("shift",)), world.backbone())


def test_a_dry_run_makes_no_checkpoint(world: Any, made: list[str]) -> None:
    cells = plan(world.request(on=("none", "shift")), world.backbone(), make=False)
    blocked = [cell for cell in cells if cell.blocked is not None]
    assert [cell.on for cell in blocked] == ["shift", "shift"]
    assert all(isinstance(cell.blocked, Unmade) for cell in blocked)
    assert made == []


def test_a_folder_is_named_by_what_it_holds_and_belongs_to_one_concept(world: Any, tmp_path: Path) -> None:
    plan(world.request(methods=("shift",)), world.backbone())
    (folder,) = folders(world)
    cell = plan(world.request(methods=("none",), on=(str(folder),)), world.backbone())[0]
    assert cell.checkpoint is not None
    assert cell.on == f"{folder.name}@{cell.checkpoint.sha256[:8]}"
    assert str(tmp_path) not in cell.on
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, "concept": "ball"}))
    with pytest.raises(UsageError, match="was made for concept 'ball', not 'box'"):
        plan(world.request(methods=("none",), on=(str(folder),)), world.backbone())
    (folder / CARD).write_text(json.dumps({**card, "backbone_sha256": "0" * 64}))
    with pytest.raises(UsageError, match="belongs to another backbone"):
        plan(world.request(methods=("none",), on=(str(folder),)), world.backbone())


def test_a_checkpoint_that_changes_nothing_is_an_error(world: Any) -> None:
    done = world.run(methods=("none", "shift"), settings=("shift.size=0",))
    assert done.exit_code == SOME_FAILED
    assert done.cells[0].metrics["fsr"].value is not None
    assert "equals the backbone" in done.cells[1].metrics["fsr"].reason


def test_a_weight_method_that_breaks_down_costs_its_own_cells(world: Any) -> None:
    def broken(*a: Any) -> base.Edit:
        raise CellError("the loss is not a number", "Lower the rate.")

    world.alter("shift", erase=staticmethod(broken))
    done = world.run(methods=("none", "shift"))
    assert done.exit_code == SOME_FAILED
    assert done.cells[0].metrics["fsr"].value is not None
    assert "not a number" in done.cells[1].metrics["fsr"].reason


def test_added_time_is_measured_against_none_on_the_same_checkpoint(world: Any) -> None:
    done = world.run(on=("none", "shift"))
    found = {c.label: c.metrics["added_ms"] for c in done.cells}
    assert found["push on shift"].value is not None
    assert found["shift"].reason == "changes weights only"
    apart = world.run(methods=("none", "push"), on=("shift-more",)).cells
    assert next(c for c in apart if c.label == "push on shift-more").metrics["added_ms"].value is not None


def test_gains_stand_beside_the_checkpoint_alone(world: Any) -> None:
    cells = {c.label: c for c in world.run(on=("none", "shift")).cells}
    stacked, alone = cells["push on shift"], cells["shift"]
    gain = stacked.metrics["fsr_gain"]
    assert gain.value == pytest.approx(stacked.metrics["fsr"].value - alone.metrics["fsr"].value)
    assert gain.low <= gain.value <= gain.high
    assert gain.test == "mcnemar"
    assert gain.p_holm is not None
    assert not any(name.endswith("_gain") for name in (*alone.metrics, *cells["push"].metrics))
    lonely = world.run(methods=("push",), on=("shift",)).cells[0]
    assert lonely.metrics["fsr_gain"].reason == "no run of 'none' on shift"


def test_the_run_file_holds_the_passport(world: Any) -> None:
    done = world.run(methods=("none", "shift"))
    saved = json.loads((world.out / "runs" / done.run / "run.json").read_text())
    plain, over = saved["cells"]
    assert "checkpoint" not in plain
    assert over["checkpoint"]["passport"]["changed"] == over["checkpoint"]["card"]["measured"]["names"]
    assert over["result"]["cost"]["prepare_seconds"] >= 0
