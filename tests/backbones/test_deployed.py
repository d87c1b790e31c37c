"""A backbone as it is deployed: rounded weights, samplers, and how they enter keys and tables."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srbench.backbones import deployed
from srbench.backbones.deployed import Changes, bits_of, changes_of, rounded, scheduler_of
from srbench.engine.batches import by_checkpoint
from srbench.engine.plan import plan, plan_sweep
from srbench.engine.run import execute
from srbench.errors import CellError, UsageError
from srbench.results.store import Store
from srbench.testing.tiny import tiny_pipeline

DDIM = json.dumps({"class": "DDIMScheduler", "config": {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear"}})


@given(st.integers(0, 10_000), st.sampled_from([8, 4]), st.sampled_from([(3, 64), (2, 5), (4, 2, 3, 3), (1, 32)]))
def test_rounding_is_to_the_nearest_of_the_steps(seed: int, bits: int, shape: tuple[int, ...]) -> None:
    """Against the definition, group by group; what is rounded once stays."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    found = rounded(weight, bits)
    rows = weight.flatten(1)
    width = 32 if bits == 4 and rows.shape[1] % 32 == 0 else rows.shape[1]
    most = 2 ** (bits - 1) - 1
    for own, new in zip(rows.reshape(-1, width), found.flatten(1).reshape(-1, width), strict=True):
        step = float(own.abs().max()) / most
        assert float((own - new).abs().max()) <= step / 2 * (1 + 1e-4)
        assert torch.allclose(new / step, (new / step).round(), atol=1e-3)
        assert len(new.unique()) <= 2 * most + 1
    assert torch.allclose(rounded(found, bits), found, atol=1e-6)


def test_zeros_stay_and_fewer_bits_lose_more() -> None:
    assert torch.equal(rounded(torch.zeros(2, 64), 4), torch.zeros(2, 64))
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    assert float((rounded(weight, 8) - weight).norm()) < float((rounded(weight, 4) - weight).norm())


def test_denoiser_and_text_encoder_are_rounded_and_come_back_bit_for_bit() -> None:
    pipeline = tiny_pipeline()
    before = {
        name: {key: value.clone() for key, value in part.state_dict().items()}
        for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)
    }  # fmt: skip


    def look() -> None:
        with deployed.with_bits(pipeline, 4):
            moved = {
                name for name, own in before.items() for key, value in getattr(pipeline, name).state_dict().items()
                if not torch.equal(value, own[key])
            }  # fmt: skip
            assert moved == {"unet", "text_encoder"}
            raise KeyError

    with pytest.raises(KeyError):  # an error inside leaves nothing either
        look()
    for name, own in before.items():
        assert all(torch.equal(value, own[key]) for key, value in getattr(pipeline, name).state_dict().items())


def test_two_layers_with_one_weight_come_back() -> None:
    pipeline = tiny_pipeline()
    one, other = [layer for layer in pipeline.unet.modules() if isinstance(layer, torch.nn.Linear)][:2]
    other.weight = one.weight
    own = one.weight.detach().clone()
    with deployed.with_bits(pipeline, 8):
        assert not torch.equal(one.weight, own)
    assert torch.equal(one.weight, own)


def test_the_key_says_how_weights_are_rounded_and_a_foreign_word_is_refused() -> None:
    assert Changes().approximations == ()
    assert [bits_of(Changes(bits=bits).approximations) for bits in (None, 8, 4)] == [None, 8, 4]
    with pytest.raises(CellError, match="cannot draw with"):
        bits_of(("weights: 3 bits",))


@pytest.mark.parametrize("name", list(deployed.SAMPLERS))
def test_a_sampler_keeps_the_noise_schedule(name: Any) -> None:
    said = json.loads(scheduler_of(DDIM, Changes(scheduler=name)))
    assert said["class"] == deployed.SAMPLERS[name]
    assert said["config"]["beta_schedule"] == "scaled_linear"
    again = deployed.built(json.dumps(said))
    assert type(again).__name__ == said["class"]
    assert scheduler_of(DDIM, Changes()) == DDIM


@pytest.mark.parametrize(("settings", "message"), [
    (("backbone.bits=3",), "expected 8 or 4 bits"),
    (("backbone.bits=abc",), "backbone.bits"),
    (("backbone.steps=0",), "backbone.steps"),
    (("backbone.eta=-1",), "backbone.eta"),
    (("backbone.eta=nan",), "backbone.eta"),
    (("backbone.scheduler=heun",), "backbone.scheduler"),
    (("backbone.stepz=4",), "no option 'stepz'"),
    (("backbone.bits=8", "backbone.bits=4"), "two values"),
])  # fmt: skip
def test_bad_values_are_one_line(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        changes_of(settings, "sd")


def test_a_family_with_a_sampler_of_its_own_keeps_it_and_eta_is_ddims() -> None:
    with pytest.raises(UsageError, match="a sampler of their own"):
        changes_of(("backbone.scheduler=ddim",), "flux")
    with pytest.raises(UsageError, match="adds no noise of that kind"):
        scheduler_of(DDIM, Changes(scheduler="euler", eta=1.0))


# --- runs ------------------------------------------------------------------------------------------------------------------


def keys(world: Any, *settings: str) -> set[str]:
    return {planned.key for cell in plan(world.request(settings=settings), world.backbone()) for planned in cell.images()}


def test_every_change_has_images_of_its_own_and_none_has_the_old_ones(world: Any) -> None:
    changes = [(), ("backbone.steps=3",), ("backbone.bits=8",), ("backbone.bits=4",), ("backbone.eta=0.5",)]
    found = [keys(world, *each) for each in changes]
    for i, own in enumerate(found):
        assert own
        assert all(not own & other for other in found[i + 1 :])


def test_rounded_images_differ_and_the_plain_ones_after_them_are_the_plain_ones(world: Any) -> None:
    """Plain and rounded cells in one sweep, as each alone; the method is prepared once for all."""
    request, backbone = world.request(), world.backbone()
    cells = plan_sweep(request, "backbone.bits=8,4", backbone)
    assert sorted({cell.variant for cell in cells}) == ["backbone.bits=4", "backbone.bits=8"]
    both = [image for cell in cells for image in cell.images()]
    assert len(by_checkpoint(both)) == 2
    done = execute(request, backbone, [*plan(request, backbone), *cells], Store(world.out / "store", world.lines.append), world)
    assert done.exit_code == 0
    store = Store(world.out / "store", world.lines.append)
    plain, eight, four = (
        [np.asarray(store.pixels(row.image.key)) for cell in group if cell.method == "none" for row in cell.rows]
        for group in (plan(request, backbone), *([c for c in cells if c.variant == f"backbone.bits={bits}"] for bits in (8, 4)))
    )
    assert any(not np.array_equal(a, b) for a, b in zip(plain, eight, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(eight, four, strict=True))
    fresh = Store(world.out.parent / "again", world.lines.append)
    execute(request, world.backbone(), plan(request, world.backbone()), fresh, world)
    again = [cell for cell in plan(request, backbone) if cell.method == "none"]
    alone = [np.asarray(fresh.pixels(row.image.key)) for cell in again for row in cell.rows]
    assert all(np.array_equal(a, b) for a, b in zip(plain, alone, strict=True))


def test_a_method_is_compared_with_none_as_it_is_deployed(world: Any) -> None:
    """Each variant's rates beside `none` are of that variant's `none`."""
    request, backbone = world.request(), world.backbone()
    cells = plan_sweep(request, "backbone.steps=1,3", backbone)
    done = execute(request, backbone, cells, Store(world.out / "store", world.lines.append), world)
    assert [(cell.method, cell.variant) for cell in done.cells] == [
        ("none", "backbone.steps=1"), ("none", "backbone.steps=3"), ("push", "backbone.steps=1"), ("push", "backbone.steps=3"),
    ]  # fmt: skip
    assert all("fsr_if_drawn" in cell.metrics for cell in done.cells if cell.method == "push")
