"""What a run is carried out on: number formats, cards, deterministic kernels, compiled blocks, and the batch that fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from srbench.engine import devices, run, sampling
from srbench.engine.devices import Runtime, compile_blocks, deterministic, devices_of, dtype_of
from srbench.engine.memory import DEFAULT_BATCH, batch_for
from srbench.engine.plan import plan
from srbench.errors import UsageError
from srbench.results.store import Store
from srbench.testing.families import tiny
from srbench.testing.tiny import tiny_pipeline

GB = 10**9


@pytest.mark.parametrize(("bf16", "auto"), [(True, "bf16"), (False, "fp16")])
def test_a_card_without_bf16_gets_fp16(bf16: bool, auto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda: bf16)
    assert dtype_of("auto", "cuda:1") == auto
    assert dtype_of("auto", "cpu") == "fp32"
    if not bf16:
        with pytest.raises(UsageError, match="this card has no bf16"):
            dtype_of("bf16", "cuda")


def test_cards_are_named_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_of("0, 1") == ("cuda:0", "cuda:1")
    assert devices_of("cpu,cpu") == ("cpu", "cpu")
    for text, message in (("2", "no card 2: there are 2"), ("0,0", "named twice"), ("0,", "no number"), ("-1", "no number")):
        with pytest.raises(UsageError, match=message):
            devices_of(text)


def test_without_cuda_there_are_no_cards() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UsageError, match="--gpus 0,1: no card 0: torch sees no CUDA device"):
        devices_of("0,1")


@pytest.mark.parametrize(("free", "side", "dtype", "expected"), [
    (80 * GB, 512, "bf16", DEFAULT_BATCH), (16 * GB, 512, "bf16", 8), (16 * GB, 512, "fp32", 4), (8 * GB, 1024, "fp16", 1),
    (1, 512, "bf16", 1), (80 * GB, 64, "fp32", DEFAULT_BATCH),
])  # fmt: skip
def test_the_batch_is_a_power_of_two_that_fits(free: int, side: int, dtype: str, expected: int) -> None:
    assert batch_for(free, (side, side), dtype) == expected


def test_the_batch_is_never_more_than_asked_for() -> None:
    assert batch_for(80 * GB, (512, 512), "bf16", most=3) == 3


def test_deterministic_kernels_are_for_a_while() -> None:
    def states() -> tuple[Any, ...]:
        cudnn, precision = torch.backends.cudnn, torch.get_float32_matmul_precision()
        return torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.allow_tf32, precision

    def broken() -> None:
        with deterministic(True):
            assert states() == (True, False, False, "highest")
            raise ZeroDivisionError

    before = states()
    with pytest.raises(ZeroDivisionError):
        broken()
    assert states() == before
    with deterministic(False):
        assert states() == before


def test_what_is_compiled_and_when() -> None:
    auto = Runtime(compile="auto")
    assert not auto.compiles("cpu", 10**6)
    assert not auto.compiles("cuda:0", devices.COMPILE_FROM_IMAGES - 1)
    assert auto.compiles("cuda:0", devices.COMPILE_FROM_IMAGES)
    assert not Runtime(compile="off").compiles("cuda", 10**6)


def test_compiled_blocks_keep_their_names_and_see_new_weights_and_hooks() -> None:
    """Checkpoints are laid over in place, and methods install hooks after the first call: both must act."""
    unet = tiny_pipeline().unet
    names = list(unet.state_dict())
    x, prompt = torch.randn(2, 4, 4, 4), torch.randn(2, 12, 16)

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return unet(x, 1, encoder_hidden_states=prompt).sample

    plain = call()
    seen: list[Any] = []
    real = torch.nn.Module.compile
    with pytest.MonkeyPatch.context() as patched:  # inductor takes minutes on a CPU; what is traced is the same
        patched.setattr(torch.nn.Module, "compile", lambda self: seen.append(self) or real(self, backend="eager"))
        assert compile_blocks(unet)
    try:
        assert {type(each).__name__ for each in seen} == {"BasicTransformerBlock"}
        assert list(unet.state_dict()) == names
        assert torch.allclose(call(), plain, atol=1e-6)
        handle = seen[0].attn2.register_forward_hook(lambda module, args, out: out + 1)
        assert not torch.allclose(call(), plain, atol=1e-3), "a hook that came later is left out"
        handle.remove()
        assert torch.allclose(call(), plain, atol=1e-6), "a hook that is gone still acts"
        with torch.no_grad():
            seen[0].attn2.to_v.weight.mul_(-3)
        assert not torch.allclose(call(), plain, atol=1e-3), "the old weights are in the compiled code"
    finally:
        torch._dynamo.reset()


def test_a_denoiser_without_repeated_blocks_is_left_alone() -> None:
    assert not compile_blocks(tiny("pixart").transformer)


def test_a_reference_run_makes_the_same_keys(world: Any, tmp_path: Any) -> None:
    """It is what others are compared with: fp32 and one image a call change no key, and deterministic kernels none either."""
    world.run(batch_size=4)
    world.out = tmp_path / "reference"
    request = world.request(batch_size=1)
    backbone = world.backbone()
    store = world.store()
    done = run.execute(request, backbone, plan(request, backbone), store, world, Runtime(reference=True))
    assert done.exit_code == 0
    assert not torch.are_deterministic_algorithms_enabled()
    first = Store(tmp_path / "results" / "store")
    assert set(store.images) == set(first.images)
    assert all(record["deterministic"] for record in store.images.values())
    assert not any("deterministic" in record for record in first.images.values())
    for key in store.images:
        assert np.abs(store.pixels(key).astype(int) - first.pixels(key).astype(int)).max() <= 1


def test_scorers_do_not_run_under_deterministic_kernels(world: Any) -> None:
    seen = []
    brightness = world.scorers["brightness"]

    def score(self: Any, images: Any, rows: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return brightness.score(self, images, rows)

    world.alter("brightness", score=score)
    request, backbone = world.request(batch_size=1), world.backbone()
    run.execute(request, backbone, plan(request, backbone), world.store(), world, Runtime(reference=True))
    assert seen
    assert not any(seen)


def test_the_batch_is_lowered_to_what_is_free(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "free_bytes", lambda device: 8 * 8 * 12_000 * 3)
    request, backbone = world.request(batch_size=8, methods=("none",)), world.backbone()
    run.execute(request, backbone, plan(request, backbone), world.store(), world, Runtime(fit_batch=True))
    assert {record["batch_size"] for record in world.store().images.values()} == {2}
    assert "batch size 2: what the free memory holds" in world.lines


def test_code_that_cannot_be_compiled_is_one_line(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import InternalTorchDynamoError

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise InternalTorchDynamoError("no compiler\nat all")
        yield

    monkeypatch.setattr(sampling, "generate", broken)
    monkeypatch.setattr(sampling, "compile_blocks", lambda denoiser: True)
    request, backbone = world.request(methods=("none",)), world.backbone()
    with pytest.raises(sampling.SrbenchError, match="cannot be compiled here: no compiler") as caught:
        run.execute(request, backbone, plan(request, backbone), world.store(), world, Runtime(compile="on"))
    assert caught.value.hint == "Add --compile off."
