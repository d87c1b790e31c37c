"""Images per second of `srbench run` against a plain loop of one prompt per pipeline call, on this machine.

Same model, same prompts, seeds and recipe, same process; loading and a warm-up call are not timed, writing PNG files is.
Each figure is the best of a few alternating repeats, so that a busy machine blurs it less.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging

from srbench.backbones.loader import Backbone, open_backbone
from srbench.catalog import load
from srbench.engine.plan import plan
from srbench.engine.request import Cell, RunRequest
from srbench.engine.run import execute
from srbench.engine.sampling import work
from srbench.errors import SrbenchError
from srbench.results.keys import ImageSpec
from srbench.results.store import Store
from srbench.scoring.scoring import Scoring

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
EQUAL_DTYPE_TARGET, BF16_TARGET = 2.5, 4.0
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


class Silent:
    """A reporter that keeps what it is told: a benchmark's own output is its table."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, cells: int, images: int) -> None:
        """Nothing to show."""

    def images(self, count: int) -> None:
        """Nothing to show."""

    def cell(self, title: str) -> None:
        """Nothing to show."""

    def line(self, text: str) -> None:
        """Keep it for the error message."""
        self.lines.append(text)

    def end(self) -> None:
        """Nothing to show."""


@dataclass
class Figures:
    """Seconds per image, one entry a repeat."""

    plain: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)
    added: list[float] = field(default_factory=list)
    """What SafeRedir adds to an image."""

    @property
    def ratio(self) -> float:
        """How many times faster the engine is."""
        return min(self.plain) / min(self.engine)


def peak_mb() -> float:
    """The most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, kilobytes here


def has_bf16() -> bool | None:
    """Whether the CPU computes in bf16 natively; None where it does not say."""
    info = Path("/proc/cpuinfo")
    return bool(BF16_FLAGS & set(info.read_text().split())) if info.exists() else None


def _request(asked: argparse.Namespace, dtype: str, method: str, out: Path) -> RunRequest:
    return RunRequest(
        backbone=asked.backbone, methods=(method,), on=("none",), suites=(asked.suite,), concepts=(asked.concept,), part="test",
        limit=asked.limit, seed=0, batch_size=asked.batch_size, dtype=dtype, settings=(), protocol=None, scorers=(), out=out,
        score=False,
    )


def _planned(request: RunRequest, backbone: Backbone) -> list[Cell]:
    cells = plan(request, backbone)
    for cell in cells:
        if cell.blocked is not None:
            raise cell.blocked
    return cells


def _specs(cells: list[Cell], store: Store) -> list[ImageSpec]:
    return [planned.spec for planned in work(cells, store, Scoring(store), score=False).missing]


def engine_run(asked: argparse.Namespace, backbone: Backbone, method: str) -> tuple[list[ImageSpec], float, Store]:
    """What `srbench run --no-score` does after loading: the images it made, its seconds, its store."""
    out = Path(tempfile.mkdtemp(dir=asked.folder))
    request, store, reporter = _request(asked, backbone.dtype, method, out), Store(out / "store"), Silent()
    cells = _planned(request, backbone)
    specs = _specs(cells, store)
    began = time.perf_counter()
    done = execute(request, backbone, cells, store, reporter)
    seconds = time.perf_counter() - began
    if done.exit_code or len(store.images) != len(specs):
        raise SrbenchError(f"the run failed: {reporter.lines[-1]}")
    return specs, seconds, store


def plain_loop(pipeline: Any, specs: Iterable[ImageSpec], folder: Path) -> float:
    """Seconds for one pipeline call and one PNG per prompt, as a script would do it."""
    began = time.perf_counter()
    for number, spec in enumerate(specs):
        image = pipeline(
            spec.prompt, negative_prompt=spec.negative_prompt, num_inference_steps=spec.steps, guidance_scale=spec.guidance,
            height=spec.height, width=spec.width, generator=torch.Generator("cpu").manual_seed(spec.seed),
        ).images[0]
        image.save(folder / f"{number}.png")
    return time.perf_counter() - began


def row_seconds(store: Store, method: str) -> float:
    """Median sampling seconds per image of one method."""
    return statistics.median(record["seconds"] for record in store.images.values() if record["method"] == method)


def measure(asked: argparse.Namespace, dtype: str) -> tuple[Figures, int, str]:
    """Figures for one dtype, the number of images a repeat, and why SafeRedir has none (else empty)."""
    backbone = open_backbone(load.named("backbone", asked.backbone, load.backbones()), dtype, "cpu")
    plain = StableDiffusionPipeline.from_pretrained(backbone.folder, dtype=DTYPES[dtype], local_files_only=True)
    plain.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        specs = _specs(_planned(_request(asked, dtype, "none", Path(folder)), backbone), Store(Path(folder) / "store"))
        plain_loop(plain, specs[:1], Path(folder))
    figures, reason = Figures(), ""
    for repeat in range(asked.repeats):
        with tempfile.TemporaryDirectory() as folder:
            figures.plain.append(plain_loop(plain, specs, Path(folder)) / len(specs))
        if not repeat:
            print(f"{dtype}: peak memory {peak_mb():.0f} MB after the plain loop", flush=True)
            engine_run(asked, backbone, "none")
        made, seconds, _ = engine_run(asked, backbone, "none")
        figures.engine.append(seconds / len(made))
        reason = reason or _saferedir(asked, backbone, figures)
    print(f"{dtype}: peak memory {peak_mb():.0f} MB after srbench at batch {asked.batch_size}", flush=True)
    return figures, len(specs), reason


def _saferedir(asked: argparse.Namespace, backbone: Backbone, figures: Figures) -> str:
    """Add one figure for SafeRedir, or say why there is none. Its run samples reference images without it, batch by batch."""
    try:
        _, _, store = engine_run(asked, backbone, "saferedir")
    except SrbenchError as error:
        return error.message
    figures.added.append(row_seconds(store, "saferedir") - row_seconds(store, "none"))
    return ""


def _verdict(name: str, ratio: float, target: float) -> str:
    return f"  {name:<34}{ratio:5.2f}x  (target {target:g}x: {'reached' if ratio >= target else 'missed'})"


def report(found: dict[str, tuple[Figures, int, str]], asked: argparse.Namespace) -> list[str]:
    """The lines to print."""
    native = {True: "native", False: "not native", None: "unknown"}[has_bf16()]
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"bf16 {native}; batch {asked.batch_size}, best of {asked.repeats}",
        f"  {'':<6}{'images':>7}{'plain s/image':>15}{'srbench s/image':>17}{'SafeRedir adds':>18}",
    ]
    for dtype, (figures, images, reason) in found.items():
        added = f"{1000 * statistics.median(figures.added):.1f} ms/image" if figures.added else "n/a"
        lines.append(f"  {dtype:<6}{images:>7}{min(figures.plain):>15.3f}{min(figures.engine):>17.3f}{added:>18}")
        lines += [f"  {dtype:<6} n/a: {reason}"] if reason else []
    lines += [_verdict(f"srbench / plain loop, {dtype}", each.ratio, EQUAL_DTYPE_TARGET) for dtype, (each, _, _) in found.items()]
    if {"fp32", "bf16"} <= found.keys():
        ratio = min(found["fp32"][0].plain) / min(found["bf16"][0].engine)
        lines.append(_verdict("srbench bf16 / plain loop fp32", ratio, BF16_TARGET))
    return lines


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="pocket")
    parser.add_argument("--suite", default="igmu")
    parser.add_argument("--concept", default="hazard")
    parser.add_argument("--limit", type=int, default=10, help="rows per kind; their reference images come on top")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtypes", default="fp32,bf16", help="with commas")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print."""
    asked = parse()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        asked.folder = folder
        found = {dtype: measure(asked, dtype) for dtype in asked.dtypes.split(",")}
    print("\n".join(report(found, asked)))


if __name__ == "__main__":
    main()
