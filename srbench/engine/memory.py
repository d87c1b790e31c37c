"""The most memory that a piece of work had at one time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


class Peak:
    """`megabytes` is None where the system does not tell."""

    megabytes: float | None = None


@contextmanager
def peak(device: torch.device) -> Iterator[Peak]:
    """Measures the body: on CUDA what torch had allocated, on a CPU the resident memory of the whole process (Linux only)."""
    found = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found.megabytes = torch.cuda.max_memory_allocated(device) / 1e6
        return
    begun = _reset()
    yield found
    found.megabytes = _high_water() if begun else None


def _reset() -> bool:
    """Forget the process's old high-water mark (`5` in clear_refs, proc(5)); says whether that could be done."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _high_water() -> float | None:
    lines = (PROCESS / "status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), None)
