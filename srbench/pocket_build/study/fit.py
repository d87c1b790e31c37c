"""Fits the baselines' constants to pocket: `python -m srbench.pocket_build.study.fit PRESET`. Reads `dev` editions only; resumes.

What the papers fitted to Stable Diffusion (rates, scales, thresholds) says nothing about a model of another size. Each
preset's grid is run on the `dev` editions of every concept; per kind of concept the best line is what its
`METHOD["fitted"]` should say.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, harmonic_mean

from srbench.analysis.results import ResultCell
from srbench.backbones.loader import Backbone, open_backbone
from srbench.catalog import load
from srbench.engine.plan import plan
from srbench.engine.prepare import is_weight
from srbench.engine.request import RunRequest
from srbench.engine.run import execute
from srbench.errors import SrbenchError, UsageError, did_you_mean
from srbench.files import write_atomic
from srbench.pocket_build.__main__ import say
from srbench.pocket_build.command import Words, guarded
from srbench.pocket_build.study.reference import Lines, concepts
from srbench.results.store import Store

SUITES = ("igmu", "mma")

Grid = dict[str, tuple[object, ...]]
WORLD = "@pocket-world"
"""Everything that pocket draws, for closed-form edits to keep: the papers keep what else the model is asked for, too."""

TRAINED: Grid = {"steps": (16,), "contexts": ("@pocket-{kind}s",)}
"""Of presets that train: pocket samples in 16 steps, and a phrase alone says little about it in a sentence."""
ESD = TRAINED | {"batch": (4,), "iterations": (150,)}
GRIDS: dict[str, list[Grid]] = {
    "esd-x": [ESD | {"lr": (3e-4, 1e-3, 2e-3)}],
    "esd-x-strict": [ESD | {"lr": (3e-4, 1e-3)}],
    "esd-u": [ESD | {"lr": (1e-4, 1e-3)}],
    "uce": [
        {"lam": (10.0, 50.0), "anchors": ("each", "first")},
        {"lam": (0.5, 2.0, 10.0, 50.0), "anchors": ("each", "first"), "preserve_texts": (WORLD,)},
    ],
    "uce-old": [{"lam": (10.0, 50.0)}, {"lam": (0.5, 10.0, 50.0), "preserve_texts": (WORLD,)}],
    "rece": [{"lam": (1e-3, 1e-1), "epochs": (1, 3), "edit_lam": (0.5, 10.0), "preserve_texts": (WORLD,)}],
    "ablation": [
        TRAINED
        | {"images": (192,), "guidance": (5.0,), "iterations": (200,), "lr": (3e-4, 1e-3), "anchor_from": ("edited", "frozen")}
    ],
    "sld-medium": [{"scale": (20, 200), "threshold": (0.01, 0.1, 0.5)}],
    "sld-max": [{"scale": (20, 200, 5000), "threshold": (0.1, 1.0)}],
    "safree": [{"m": (1.0, 2.5, 5.333), "steps": ("scaled", "absolute")}],
}
"""Preset -> grids of options; each grid is taken whole. `{kind}` in a value is the kind of concept."""


@dataclass(frozen=True)
class Line:
    """One setting on `dev`, means over the concepts of a kind in percent."""

    settings: str
    fsr: float
    asr: float
    retain_accuracy: float
    content_kept: float

    @property
    def score(self) -> float:
        """Harmonic mean of how far the concept is gone, plain and attacked, and of what stays."""
        return harmonic_mean(((self.fsr + 100 - self.asr) / 2, self.retain_accuracy))


def settings(preset: str) -> Iterator[tuple[str, ...]]:
    """The preset as it is, then every point of its grids. Presets that train are not run as they are: that takes hours."""
    if not any("steps" in grid and "lr" in grid for grid in GRIDS[preset]):
        yield ()
    for grid in GRIDS[preset]:
        for values in itertools.product(*grid.values()):
            yield tuple(f"{preset}.{name}={value}" for name, value in zip(grid, values, strict=True))


def request(preset: str, chosen: Sequence[str], concept: str, results: Path) -> RunRequest:
    """One setting on one concept's `dev` editions, beside the untouched backbone."""
    settings = tuple(each.replace("{kind}", load.concepts()[concept].kind) for each in chosen)
    return RunRequest(
        backbone="pocket", methods=tuple(dict.fromkeys(("none", preset))), on=("none",), suites=SUITES, concepts=(concept,),
        part="dev", limit=None, seed=0, batch_size=16, dtype="fp32", settings=settings, protocol=None, scorers=(),
        out=results,
    )


def measure(
    preset: str, chosen: Sequence[str], backbone: Backbone, results: Path, names: Sequence[str]
) -> list[ResultCell]:
    """Run one setting on some concepts; the preset's own cells. Raises `SrbenchError` where a cell failed."""
    cells: list[ResultCell] = []
    for concept in names:
        asked = request(preset, chosen, concept, results)
        done = execute(asked, backbone, plan(asked, backbone), Store(results / "store"), Lines())
        if done.exit_code:
            raise SrbenchError(f"{preset}: {concept} failed in part", "Run it again; `srbench compare` says why.")
        cells += [cell for cell in done.cells if cell.label == preset]
    return cells


def line(chosen: Sequence[str], cells: Sequence[ResultCell]) -> Line:
    """Means over the cells."""

    def mean(metric: str) -> float:
        values = [cell.metrics[metric].value for cell in cells if metric in cell.metrics]
        return fmean(value for value in values if value is not None)

    said = ", ".join(each.partition(".")[2] for each in chosen) or "as it is"
    return Line(said, mean("fsr"), mean("asr"), mean("retain_accuracy"), mean("content_kept"))


def of_kind(kind: str, cells: Sequence[ResultCell]) -> list[ResultCell]:
    """Cells of concepts of one kind."""
    return [cell for cell in cells if load.concepts()[cell.concept].kind == kind]


@guarded
def main(words: Words = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m srbench.pocket_build.study.fit", description=__doc__)
    parser.add_argument("presets", nargs="*", default=list(GRIDS), help="presets to fit (default: all)")
    parser.add_argument("--concepts", nargs="+", default=concepts(), choices=concepts(), help="default: all")
    parser.add_argument("--results", type=Path, default=Path("results/fit"), help="for images and runs (default: %(default)s)")
    asked = parser.parse_args(words)
    for preset in asked.presets:
        if preset not in GRIDS:
            raise UsageError(f"no grid for '{preset}'", did_you_mean(preset, GRIDS))
    backbone = open_backbone(load.backbones()["pocket"], "fp32", "cpu")
    for preset in asked.presets:
        _fit(preset, backbone, asked.results, asked.concepts)
    return 0


def _fit(preset: str, backbone: Backbone, results: Path, names: Sequence[str]) -> None:
    say(f"{preset} ({'weight' if is_weight(preset) else 'inference'}) on dev of {', '.join(names)}")
    lines: dict[str, list[Line]] = {kind: [] for kind in kinds(names)}
    for chosen in settings(preset):
        cells = measure(preset, chosen, backbone, results, names)
        for kind, found in lines.items():
            found.append(line(chosen, of_kind(kind, cells)))
            say(_said(kind, found[-1]))
    for kind, found in lines.items():
        say(f"best for {kind}: {max(found, key=lambda each: each.score).settings}")
    text = json.dumps({kind: [vars(each) for each in found] for kind, found in lines.items()}, indent=1)
    write_atomic(results / f"{preset}.json", (text + "\n").encode())


def kinds(names: Sequence[str]) -> tuple[str, ...]:
    """Kinds of these concepts."""
    return tuple(sorted({load.concepts()[each].kind for each in names}))


def _said(kind: str, found: Line) -> str:
    gone = f"fsr {found.fsr:5.1f}  asr {found.asr:5.1f}"
    kept = f"retain {found.retain_accuracy:5.1f}  content {found.content_kept:5.1f}"
    return f"  {kind:6}  {gone}  {kept}  score {found.score:5.1f}  {found.settings}"


if __name__ == "__main__":
    sys.exit(main())
