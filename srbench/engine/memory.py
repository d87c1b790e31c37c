"""Peak memory of a block of code, and the batch size that fits into free memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

PROCESS = Path("/proc/self")
GROUP = Path("/sys/fs/cgroup/memory.max")


class Peak:
    """`megabytes` is None where the system does not report it."""

    megabytes: float | None = None


@contextmanager
def peak(device: torch.device) -> Iterator[Peak]:
    """Measures the body: on CUDA what torch had allocated, on a CPU the resident memory of the whole process (Linux only)."""
    measured = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield measured
        measured.megabytes = torch.cuda.max_memory_allocated(device) / 1e6
        return
    was_reset = False
    with suppress(OSError):  # `5` resets the process's high-water mark, proc(5)
        (PROCESS / "clear_refs").write_text("5")
        was_reset = True
    yield measured
    lines = (PROCESS / "status").read_text().splitlines() if was_reset else []
    measured.megabytes = next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), None)


DEFAULT_BATCH = 16
"""Images per pipeline call, where the device's memory holds them."""
BYTES_PER_PX = {"fp32": 12_000, "bf16": 6_000, "fp16": 6_000}
"""Bytes per pixel that one more image takes while it is sampled and decoded: an estimate from the widest layers of SD 1.x's VAE
and of its U-Net under guidance. Where it is too low, the batch is halved when memory runs out."""
SHARE = 0.8
"""Share of the free memory that batches are planned for."""


def batch_for(free_bytes: int, side_px: tuple[int, int], dtype: str, most: int = DEFAULT_BATCH) -> int:
    """The largest power of two of images of that size (width, height) that the memory holds; at least 1, at most `most`."""
    width, height = side_px
    fit = int(SHARE * free_bytes / (width * height * BYTES_PER_PX[dtype]))
    return min(most, 1 << max(fit, 1).bit_length() - 1)


def largest_px(device: torch.device, dtype: str) -> int | None:
    """Pixels of the largest image that is tried on a CPU; None on CUDA, where running out of memory raises an error.

    On a CPU, the system kills a process that takes too much memory. Four times the estimate, which may be too high, is allowed.
    """
    total = None if device.type == "cuda" else _installed()
    return None if total is None else 4 * total // BYTES_PER_PX[dtype]


def _installed() -> int | None:
    """Bytes of memory of the machine or of this process's control group, the smaller one; None where not reported."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
    try:
        group = GROUP.read_text().strip()
    except OSError:
        return machine
    return min(machine, int(group)) if group.isdecimal() else machine


def free_bytes(device: torch.device) -> int | None:
    """Free bytes of a CUDA device; None for a CPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
