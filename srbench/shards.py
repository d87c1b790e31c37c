"""The part of a run's images that one of several processes takes: `--shard i/n`, `--shard auto`. Nothing is coordinated."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from srbench.errors import UsageError
from srbench.files import printable

AUTO = "auto"
MOST = 1_000_000
"""Parts that a run may be cut into."""
ARRAY, ARRAY_COUNT = "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"
ARRAY_MIN, ARRAY_MAX, ARRAY_STEP = "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP"
STEP_COUNT = "SLURM_STEP_NUM_TASKS"
"""Set by `srun` alone: the processes that it started."""
RANKS = (("SLURM_PROCID", "SLURM_NTASKS"), ("RANK", "WORLD_SIZE"))
"""(number of the process from 0, how many there are): SLURM's, then torch's."""
HINT = "Give the part: --shard 1/4 is the first of four."


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, key: str) -> bool:
        """Whether the image (or job) of this key belongs to the part."""
        return part_of(key, self.count) == self.index


def is_mine(shard: Shard | None, key: str) -> bool:
    """Whether a key belongs to this process: to its part, or all where the run is not cut."""
    return shard is None or shard.has(key)


def part_of(key: str, count: int) -> int:
    """The part, from 1 to `count`, that a key belongs to.

    The key's hash decides, not its place in a list: a key stays in its part whatever else is planned, stored or failed. How it is
    computed may not change: a shard that is started again must find its own images.
    """
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % count + 1


def shard_of(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard | None:
    """The part that `--shard` names; None where it is left out. Raises `UsageError` for anything but a part."""
    if text is None:
        return None
    if text == AUTO:
        return _from(environment)
    match = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text) if isinstance(text, str) else None
    if match is None:
        raise UsageError(f"--shard {printable(str(text))[:40]}: expected I/N or auto", HINT)
    return _checked(int(match[1]), int(match[2]), f"--shard {text}")


def _checked(index: int, count: int, what: str) -> Shard:
    if not 1 <= count <= MOST:
        raise UsageError(f"{what}: a run has 1 to {MOST} parts", HINT)
    if not 1 <= index <= count:
        hint = f"Parts are numbered from 1: 1/{count} to {count}/{count}."
        raise UsageError(f"{what}: there is no part {index} of {count}", hint)
    return Shard(index, count)


# --- auto -------------------------------------------------------------------------------------------------------------


def _from(environment: Mapping[str, str]) -> Shard:
    """The part by a scheduler's variables: an array's, else a process's. Raises `UsageError` where none is set."""
    if ARRAY in environment:
        return _of_array(environment)
    for rank, size in RANKS:
        if rank in environment:
            number, count = _number(environment, rank), _number(environment, size)
            return _checked(number + 1, count, f"--shard auto ({rank}={number}, {size}={count})")
    raise UsageError(f"--shard auto: none of {ARRAY}, {RANKS[0][0]} and {RANKS[1][0]} is set", HINT)


def _of_array(environment: Mapping[str, str]) -> Shard:
    """The part of a task of an array; where `srun` started several processes in the task, each takes a part of that part."""
    task, count, first = (_number(environment, name) for name in (ARRAY, ARRAY_COUNT, ARRAY_MIN))
    step = _number(environment, ARRAY_STEP, 1) or 1
    place, rest = divmod(task - first, step)
    last = _number(environment, ARRAY_MAX, first + (count - 1) * step)
    if rest or last != first + (count - 1) * step:
        raise UsageError(
            f"--shard auto: the numbers of this job's array are not evenly spaced ({count} of {first} to {last})",
            "Submit all of them (--array=1-16), or give each task its part: --shard 3/16.",
        )
    processes = _number(environment, STEP_COUNT, 1)
    number = _number(environment, RANKS[0][0], 0) if processes > 1 else 0
    what = f"--shard auto ({ARRAY}={task}, {ARRAY_COUNT}={count})"
    return _checked(place * processes + number + 1, count * processes, what)


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    """A variable's whole number. Raises `UsageError` where it is none, or is not set and has no default."""
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or re.fullmatch(r"\d{1,9}", text) is None:
        state = "not set" if text is None else printable(text)[:40]
        raise UsageError(f"--shard auto: {name} is {state}", HINT)
    return int(text)
