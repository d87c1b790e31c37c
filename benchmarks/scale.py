"""Images per second of actors against one process, the share of time that is not sampling, and what a large run would cost.

Every figure of speed is a whole `srbench run --sample-only` on pocket in processes of its own. Its time is that between what it
says it will sample and its end: loading is left out, writing and handing out are not. What a thousand actors and ten million
images would cost is worked out from the parts, which are measured here one by one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srbench.engine.spread import CHUNK_BATCHES, Answer, Chunk, Facts, Spread, Task
from srbench.results.index import KEY_BYTES, PLACE
from srbench.results.store import Store

ASKED = ("--method", "none,saferedir", "--suite", "igmu", "--concept", "church", "--sample-only")
ACTORS, IMAGES, BATCH = 1000, 10_000_000, 16
"""Of the estimate."""
LEDGER_BYTES = KEY_BYTES + PLACE.itemsize
"""Of the index for one line: its key and its place."""


@dataclass(frozen=True)
class Way:
    """A way to carry the run out."""

    title: str
    more: tuple[str, ...]
    threads: int
    """Of each process that samples."""
    processes: int = 1


WAYS = (
    Way("one process, 1 thread", (), 1),
    Way("one process, 2 threads", (), 2),
    Way("1 actor, 1 thread", ("--ray", "local", "--ray-cpus", "{cores}"), 1),
    Way("2 actors, 1 thread each", ("--gpus", "cpu,cpu"), 1, 2),
)


@dataclass(frozen=True)
class Run:
    """What a run took, in seconds."""

    images: int
    seconds: float
    """From what it says it will sample to its end."""
    whole: float
    """Of the command."""
    sampling: float
    """In pipeline calls, over all processes."""


def timed(way: Way, limit: int, out: Path) -> Run:
    """One run into an empty folder. Raises `SystemExit` where it fails."""
    more = [word.format(cores=os.cpu_count()) for word in way.more]
    command = [sys.executable, "-m", "srbench", "run", *ASKED, "--limit", str(limit), "--out", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": str(way.threads)}
    began, sampled = time.monotonic(), 0.0
    said: list[str] = []
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if " images to sample, " in line:
                sampled = time.monotonic()
    ended = time.monotonic()
    if process.returncode != 0:
        raise SystemExit(f"{way.title}: exit code {process.returncode}\n{''.join(said)}")
    records = list(Store.peek(out / "store").images.values())
    return Run(len(records), ended - sampled, ended - began, sum(record["seconds"] for record in records))


def speeds(limit: int, repeats: int) -> None:
    """Print a line for each way: the medians of some alternating repeats."""
    runs: dict[Way, list[Run]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                runs[way].append(timed(way, limit, Path(folder) / "out"))
    print(f"{'way':<26}{'images':>8}{'images/s':>10}{'not sampling':>14}{'whole command':>15}")
    for way, each in runs.items():
        rate = statistics.median(run.images / run.seconds for run in each)
        idle = statistics.median(1 - run.sampling / (run.seconds * way.processes) for run in each)
        whole = statistics.median(run.whole for run in each)
        print(f"{way.title:<26}{each[0].images:>8}{rate:>10.2f}{100 * idle:>12.1f} %{whole:>13.1f} s")


# --- the parts of a large run -----------------------------------------------------------------------------------------


class Instant:
    """Actors that have done everything at once: what is left is the driver's own work."""

    def __init__(self) -> None:
        self.answers: dict[int, Any] = {}

    def start(self, seat: int) -> int:
        return seat

    def ask(self, handle: int, call: str, *given: Any) -> int:
        ref = len(self.answers) + 1
        self.answers[ref] = Facts("node", "card", {}) if call == "ready" else Answer(done=given[-1], seconds=1.0)
        return ref

    def first(self, refs: Sequence[int]) -> Sequence[int]:
        return refs[:1]  # the worst case: no two answers come together

    def answer(self, ref: int) -> Any:
        heard, self.answers[ref] = self.answers[ref], None
        return heard

    def end(self, handle: int) -> None:
        """Nothing."""


def seconds_a_chunk(actors: int, chunks: int) -> float:
    """Seconds that the driver needs to hand out a chunk of some batches and to hear of it, without Ray's own."""
    keys = [f"{number:064x}" for number in range(BATCH * CHUNK_BATCHES)]
    done: set[str] = set()
    task = Task([Chunk("make", tuple(keys)) for _ in range(chunks)], lambda facts, chunk, answer: done.update(answer.done), list,
                lambda key, why: None, BATCH)  # fmt: skip
    began = time.perf_counter()
    Spread.of(Instant(), actors, lambda line: None, lambda facts: ("", "")).carry_out(task)
    return (time.perf_counter() - began) / chunks


def planned(rows: int) -> tuple[float, float]:
    """Seconds and bytes of one planned image with its key: every actor plans the whole run."""
    from srbench.backbones.loader import open_backbone
    from srbench.catalog import load
    from srbench.engine.plan import plan
    from srbench.engine.request import RunRequest

    request = RunRequest(
        backbone="pocket", methods=("none", "saferedir"), on=("none",), suites=("igmu",), concepts=("church",), part="test",
        limit=rows, seed=0, batch_size=BATCH, dtype="fp32", settings=(), protocol=None, scorers=(), out=Path("results"),
    )  # fmt: skip
    backbone = open_backbone(load.backbones()["pocket"], "fp32", "cpu")
    plan(request, backbone)  # imports, weights' hash
    tracemalloc.start()
    cells = plan(request, backbone)
    images = {image.key for cell in cells for image in cell.images()}
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    began = time.perf_counter()
    again = {image.key for cell in plan(request, backbone) for image in cell.images()}
    seconds = time.perf_counter() - began  # without tracing, which is slow
    assert again == images
    return seconds / len(images), size / len(images)


def estimate() -> None:
    """Print what a thousand actors and ten million images would take beside sampling, and from what."""
    a_chunk = seconds_a_chunk(ACTORS, 3000)
    plan_seconds, plan_bytes = planned(100)
    chunks = IMAGES / (BATCH * CHUNK_BATCHES)
    print(f"{ACTORS} actors, {IMAGES:,} images in {chunks:,.0f} chunks of {CHUNK_BATCHES} batches of {BATCH}:")
    each = "in the driver and in each actor"
    print(f"  driver, a chunk  {1000 * a_chunk:8.2f} ms   {chunks * a_chunk / 60:8.1f} min in all, beside the sampling")
    print(f"  plan, an image   {1e6 * plan_seconds:8.1f} us   {IMAGES * plan_seconds / 60:8.1f} min {each}")
    print(f"  plan, an image   {plan_bytes:8.0f} B    {IMAGES * plan_bytes / 1e9:8.1f} GB {each}")
    print(f"  index, a line    {LEDGER_BYTES:8d} B    {IMAGES * LEDGER_BYTES / 1e9:8.2f} GB {each}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=24, help="rows a kind (24: 192 images)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only-estimate", action="store_true")
    asked = parser.parse_args()
    if not asked.only_estimate:
        speeds(asked.limit, asked.repeats)
        print()
    estimate()


if __name__ == "__main__":
    main()
