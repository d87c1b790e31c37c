"""`--sweep`: one cell for each value, nothing twice, and every mistake said before anything is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from srbench.engine.plan import plan_sweep
from srbench.engine.run import execute
from srbench.engine.sweep import parsed
from srbench.errors import UsageError
from srbench.results.store import Store
from tests.worlds import ShiftMethod


def planned(world: Any, sweep: str, **changes: Any) -> list[Any]:
    request = world.request(**changes)
    return plan_sweep(request, sweep, world.backbone(), make=True)


def test_every_value_is_a_variant_and_the_others_come_once(world: Any) -> None:
    cells = planned(world, "push.strength=0.5,1,2")
    found = [(cell.method, cell.variant) for cell in cells]
    assert found == [("none", ""), ("push", "strength=0.5"), ("push", ""), ("push", "strength=2.0")]
    keys = [{planned.key for planned in cell.images()} for cell in cells]
    own = [key - set.union(*(other for other in keys if other is not key)) for key in keys[1:]]
    assert all(len(each) == 8 for each in own), "the forget, retain and unseen rows; references are shared"


def test_values_that_mean_the_same_are_one_cell(world: Any) -> None:
    assert len(planned(world, "push.strength=2,2.0", methods=("push",))) == 1


def test_a_sweep_goes_with_other_settings(world: Any) -> None:
    cells = planned(world, "push.strength=2,3", methods=("push",), settings=("brightness.scale=1.0",))
    assert [cell.variant for cell in cells] == ["strength=2.0", "strength=3.0"]


def test_a_swept_run_holds_all_variants(world: Any) -> None:
    request, backbone = world.request(), world.backbone()
    store = Store(world.out / "store", world.lines.append)
    done = execute(request, backbone, plan_sweep(request, "push.strength=0.5,2", backbone), store, world)
    assert done.exit_code == 0
    (path,) = world.out.glob("runs/*/run.json")
    cells = [cell["result"] for cell in json.loads(path.read_text())["cells"]]
    assert [cell["variant"] for cell in cells] == ["", "strength=0.5", "strength=2.0"]
    assert len({cell["run"] for cell in cells}) == 1
    assert all(cell["metrics"]["fsr"]["value"] is not None for cell in cells)


def test_a_weight_method_s_option_makes_a_checkpoint_for_each_value(world: Any) -> None:
    cells = planned(world, "shift.size=1,2,3", methods=("none",), on=("none", "shift"))
    assert [(cell.on, cell.variant) for cell in cells] == [
        ("none", ""), ("shift", "shift.size=1.0"), ("shift", "shift.size=2.0"), ("shift", "shift.size=3.0")
    ]  # fmt: skip
    assert len({cell.checkpoint.sha256 for cell in cells[1:]}) == 3
    assert len(ShiftMethod.made) == 3


def test_a_method_on_swept_checkpoints_gains_over_its_own_one(world: Any) -> None:
    request, backbone = world.request(on=("shift",)), world.backbone()
    cells = plan_sweep(request, "shift.size=1,3", backbone)
    done = execute(request, backbone, cells, Store(world.out / "store", world.lines.append), world)
    fsr = {(cell.method, cell.variant): cell.metrics["fsr"].value for cell in done.cells}
    gains = {cell.variant: cell.metrics["fsr_gain"].value for cell in done.cells if cell.method == "push"}
    assert gains == {variant: fsr["push", variant] - fsr["none", variant] for variant in gains}
    assert set(gains) == {"shift.size=1.0", "shift.size=3.0"}


@pytest.mark.parametrize(("text", "message"), [
    ("push", "expected METHOD.OPTION=V1,V2"),
    ("push.strength", "expected METHOD.OPTION=V1,V2"),
    ("push.strength=", "an empty value"),
    ("push.strength=1,,2", "an empty value"),
    ("push.strength=1", "expected two or more different values"),
    ("push.strength=1,2,1", "expected two or more different values"),
    ("pusj.strength=1,2", "'pusj' is no method"),
    ("brightness.scale=1,2", "'brightness' is no method"),
])  # fmt: skip
def test_another_form_is_refused(world: Any, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        parsed(text)


@pytest.mark.parametrize(("sweep", "changes", "message"), [
    ("push.strenght=1,2", {}, "push has no option 'strenght'"),
    ("push.strength=1,soon", {}, "--sweep push.strength=soon: expected a number"),
    ("push.strength=1,2", {"methods": ("none",)}, "'push' is not part of this run"),
    ("push.strength=1,2", {"settings": ("push.strength=3",)}, "--sweep and --set both give push.strength"),
])  # fmt: skip
def test_a_bad_sweep_is_refused_before_anything_is_made(world: Any, sweep: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(world, sweep, **changes)
    assert message in caught.value.message
    assert not ShiftMethod.made


def test_a_bad_value_at_the_end_makes_no_checkpoint_of_the_first(world: Any) -> None:
    with pytest.raises(UsageError, match="size=much"):
        planned(world, "shift.size=1,much", methods=("none",), on=("shift",))
    assert not ShiftMethod.made
