"""Fits the baselines' constants to pocket: `python -m srbench.pocket.build.fit PRESET`. Reads `dev` editions only; resumes.

What the papers fitted to Stable Diffusion (rates, scales, thresholds) says nothing about a model of another size. Each
preset's grid is run on the `dev` editions of every concept; the best line is what its `METHOD["fitted"]` should say.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from srbench.analysis.results import ResultCell
from srbench.backbones.loader import Backbone, open_backbone
from srbench.catalog import load
from srbench.engine.plan import RunRequest, plan
from srbench.engine.prepare import is_weight
from srbench.engine.run import execute
from srbench.engine.store import Store, write_atomic
from srbench.errors import SrbenchError, UsageError, did_you_mean
from srbench.pocket.build.__main__ import say
from srbench.pocket.build.reference import Lines, concepts

SUITES = ("igmu", "mma")
RETAIN_SLACK = 5.0
"""Points of retain accuracy that a setting may cost before it stands behind every one that costs less."""

Grid = dict[str, tuple[object, ...]]
POCKET_STEPS: Grid = {"steps": (16,)}
GRIDS: dict[str, list[Grid]] = {
    "esd-x": [POCKET_STEPS | {"batch": (4,), "lr": (1e-4, 3e-4, 1e-3), "iterations": (100, 200)}],
    "esd-x-strict": [POCKET_STEPS | {"batch": (4,), "lr": (1e-4, 3e-4, 1e-3), "iterations": (100, 200)}],
    "esd-u": [POCKET_STEPS | {"batch": (4,), "lr": (1e-5, 3e-5, 1e-4), "iterations": (100, 200)}],
    "uce": [
        {"lam": (0.01, 0.1, 0.5), "preserve": ("none", "neighbours")},
        {"lam": (0.1, 0.5), "preserve": ("neighbours",), "guide": ("",)},
        {"lam": (0.1,), "preserve": ("none", "neighbours"), "tokens": ("last-and-after",)},
    ],
    "uce-old": [{"lam": (0.01, 0.1, 0.5), "preserve": ("none", "neighbours")}],
    "rece": [{"lam": (1e-3, 1e-1), "epochs": (1, 3), "preserve": ("none", "neighbours")}],
    "ablation": [
        POCKET_STEPS | {"images": (192,), "guidance": (5.0,), "batch": (8,), "lr": (1e-4, 3e-4, 1e-3), "iterations": (100, 300)}
    ],
    "sld-medium": [{"scale": (200, 1000, 5000), "threshold": (0.01, 0.1, 0.5)}],
    "sld-max": [{"scale": (1000, 5000), "threshold": (0.1, 0.3, 1.0), "momentum_scale": (0.0, 0.5)}],
    "safree": [{"alpha": (0.01, 0.1), "m": (1.0, 2.5, 4.0, 5.333), "steps": ("scaled", "absolute")}],
}
"""Preset -> grids of options; each grid is taken whole."""


@dataclass(frozen=True)
class Line:
    """One setting on `dev`, means over concepts in percent."""

    settings: str
    fsr: float
    asr: float
    retain_accuracy: float
    content_kept: float

    @property
    def score(self) -> float:
        """How far the concept is gone, plain and attacked."""
        return (self.fsr + 100 - self.asr) / 2


def settings(preset: str) -> Iterator[tuple[str, ...]]:
    """The preset as it is, then every point of its grids."""
    yield ()
    for grid in GRIDS[preset]:
        for values in itertools.product(*grid.values()):
            yield tuple(f"{preset}.{name}={value}" for name, value in zip(grid, values, strict=True))


def request(preset: str, chosen: Sequence[str], concept: str, results: Path) -> RunRequest:
    """One setting on one concept's `dev` editions, beside the untouched backbone."""
    return RunRequest(
        backbone="pocket", methods=tuple(dict.fromkeys(("none", preset))), on=("none",), suites=SUITES, concepts=(concept,),
        part="dev", limit=None, seed=0, batch_size=16, dtype="fp32", settings=tuple(chosen), protocol=None, scorers=(),
        out=results,
    )


def measure(preset: str, chosen: Sequence[str], backbone: Backbone, results: Path) -> Line:
    """Run one setting on every concept. Raises `SrbenchError` where a cell failed."""
    cells: list[ResultCell] = []
    for concept in concepts():
        asked = request(preset, chosen, concept, results)
        done = execute(asked, backbone, plan(asked, backbone), Store(results / "store"), Lines())
        if done.exit_code:
            raise SrbenchError(f"{preset}: {concept} failed in part", "Run it again; `srbench compare` says why.")
        cells += [cell for cell in done.cells if cell.label == preset]
    return line(chosen, cells)


def line(chosen: Sequence[str], cells: Sequence[ResultCell]) -> Line:
    """Means over the concepts' cells."""

    def mean(metric: str) -> float:
        values = [cell.metrics[metric].value for cell in cells if metric in cell.metrics]
        return fmean(value for value in values if value is not None)

    said = ", ".join(each.partition(".")[2] for each in chosen) or "as it is"
    return Line(said, mean("fsr"), mean("asr"), mean("retain_accuracy"), mean("content_kept"))


def best(lines: Sequence[Line], retain_of_none: float) -> Line:
    """The highest score among those that keep what must stay; where none does, the one that keeps most."""
    keeps = [each for each in lines if each.retain_accuracy >= retain_of_none - RETAIN_SLACK]
    return max(keeps, key=lambda each: each.score) if keeps else max(lines, key=lambda each: each.retain_accuracy)


def main(words: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m srbench.pocket.build.fit", description=__doc__)
    parser.add_argument("presets", nargs="*", default=list(GRIDS), help="presets to fit (default: all)")
    parser.add_argument("--results", type=Path, default=Path("results/fit"), help="for images and runs (default: %(default)s)")
    asked = parser.parse_args(words)
    try:
        for preset in asked.presets:
            if preset not in GRIDS:
                raise UsageError(f"no grid for '{preset}'", did_you_mean(preset, GRIDS))
        backbone = open_backbone(load.backbones()["pocket"], "fp32", "cpu")
        untouched = measure("none", (), backbone, asked.results)
        for preset in asked.presets:
            _fit(preset, untouched, backbone, asked.results)
    except SrbenchError as error:
        print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def _fit(preset: str, untouched: Line, backbone: Backbone, results: Path) -> None:
    kind = "weight" if is_weight(preset) else "inference"
    say(f"{preset} ({kind}); dev, means over {', '.join(concepts())}; none keeps {untouched.retain_accuracy:.1f}")
    lines = []
    for chosen in settings(preset):
        lines.append(measure(preset, chosen, backbone, results))
        say(_said(lines[-1]))
    found = best(lines, untouched.retain_accuracy)
    say(f"best: {found.settings}")
    text = json.dumps({"preset": preset, "best": found.settings, "lines": [vars(each) for each in lines]}, indent=1)
    write_atomic(results / f"{preset}.json", (text + "\n").encode())


def _said(found: Line) -> str:
    gone = f"fsr {found.fsr:5.1f}  asr {found.asr:5.1f}"
    return f"  {gone}  retain {found.retain_accuracy:5.1f}  content {found.content_kept:5.1f}  {found.settings}"


if __name__ == "__main__":
    sys.exit(main())
