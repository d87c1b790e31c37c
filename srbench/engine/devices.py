"""Devices, dtype and compilation of a run. Only the dtype is part of a key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from srbench.errors import UsageError, did_you_mean
from srbench.results.store import EACH

DTYPES = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda")
COMPILE = ("auto", "on", "off")
COMPILE_FROM_IMAGES = 200
"""`--compile auto` compiles from this number of missing images on: an estimate of where compilation pays off."""


@dataclass(frozen=True)
class Runtime:
    """How a run is carried out. No part of it is in a key; run files record it."""

    devices: tuple[str, ...] = ()
    """One actor each; without at least two of them the run samples by itself."""
    compile: str = "off"
    """`auto`, `on` or `off`."""
    reference: bool = False
    """Deterministic kernels, no TF32."""
    fit_batch: bool = False
    """Whether the batch size may be lowered to fit the device's free memory."""
    durable: str = EACH
    """When images are synced to the disk: one of `results.store.DURABLE`."""
    ray: str = ""
    """The cluster's address, `auto` or `local`; empty where the run samples by itself."""
    ray_gpus: float = 0.0
    """Cards of an actor of a cluster."""
    ray_cpus: float = 0.0
    """And cores."""
    trace_steps: int = 0
    """Rows of a cell whose steps are kept as strips, at most, where their verdict is another one than that of `none`."""

    def compiles(self, device: str, images: int) -> bool:
        """Whether the denoiser is compiled for this number of images."""
        return self.compile == "on" or (self.compile == "auto" and is_cuda(device) and images >= COMPILE_FROM_IMAGES)


PLAIN = Runtime()


def is_cuda(device: str) -> bool:
    """Whether a device is a CUDA one, with or without its number."""
    return device.split(":")[0] == "cuda"


def device_of(name: str) -> str:
    """`cpu` or `cuda`. Raises `UsageError` for another name, or for CUDA where there is none."""
    import torch

    if name not in DEVICES:
        raise UsageError(f"unknown device '{name}'", did_you_mean(name, DEVICES))
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device", "Use --device cpu, or install a CUDA build of torch.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def dtype_of(name: str, device: str) -> str:
    """The resolved dtype: fp32 on a CPU, on CUDA bf16, or fp16 where the card has no bf16.

    Raises `UsageError` for another name, for fp16 on a CPU, and for bf16 on a card that has none.
    """
    if name not in DTYPES:
        raise UsageError(f"unknown dtype '{name}'", did_you_mean(name, DTYPES))
    if name == "fp16" and not is_cuda(device):
        raise UsageError("--dtype fp16 does not work on a CPU", "Use --dtype fp32, or bf16.")
    if name == "bf16" and is_cuda(device) and not has_bf16():
        raise UsageError("--dtype bf16: this card has no bf16", "Use --dtype fp16, or fp32.")
    if name != "auto":
        return name
    return ("bf16" if has_bf16() else "fp16") if is_cuda(device) else "fp32"


def has_bf16() -> bool:
    """Whether the CUDA card has native bf16; emulated bf16 is slower than fp32."""
    import torch

    return torch.cuda.is_bf16_supported(including_emulation=False)


def devices_of(text: str) -> tuple[str, ...]:
    """`0,1` -> `cuda:0`, `cuda:1`; `cpu` stands for an actor without a card. Raises `UsageError` for a card that is not there."""
    import torch

    count = torch.cuda.device_count()
    devices = []
    for part in (part.strip() for part in text.split(",")):
        if part != "cpu" and re.fullmatch("[0-9]{1,4}", part) is None:
            raise UsageError(f"--gpus {text}: '{part}' is no number of a card", "Example: --gpus 0,1")
        if part != "cpu" and int(part) >= count:
            which = f"there are {count}, numbered from 0" if count else "torch sees no CUDA device"
            raise UsageError(f"--gpus {text}: no card {part}: {which}", "Leave --gpus out, or name cards that are there.")
        devices.append(part if part == "cpu" else f"cuda:{part}")
    cards = [device for device in devices if device != "cpu"]
    if len(set(cards)) < len(cards):
        raise UsageError(f"--gpus {text}: a card is named twice", "Name each once.")
    return tuple(devices)


def cards_here() -> tuple[str, ...]:
    """`cuda:0`, ... of this machine."""
    import torch

    return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """Deterministic kernels and full float32 precision inside the block; restored afterwards.

    torch raises where an operation has no deterministic kernel.
    """
    if not on:
        yield
        return
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    was, precision = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    try:
        torch.use_deterministic_algorithms(True)
        torch.set_float32_matmul_precision("highest")
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.use_deterministic_algorithms(was)
        torch.set_float32_matmul_precision(precision)


def compile_blocks(denoiser: Any) -> bool:
    """Compile the denoiser's repeated blocks in place (diffusers' regional compilation); False where its class names none.

    Names of weights stay, so checkpoints load as before.
    """
    import torch._dynamo

    if not getattr(denoiser, "_repeated_blocks", None):
        return False
    if denoiser in _compiled:
        return True
    # Otherwise a hook that a method installs after the first call would be skipped silently.
    torch._dynamo.config.skip_nnmodule_hook_guards = False
    denoiser.compile_repeated_blocks()
    _compiled.add(denoiser)
    return True


_compiled: WeakSet[Any] = WeakSet()
"""Denoisers that are compiled: an actor is asked for many pieces of work."""
