"""The reference runs on pocket, after the study `results/pocket/study.yaml`: `python -m srbench.pocket_build.study.reference`.

Runs what a study cannot ask for (rows without another concept), and writes the summaries of `results/pocket/`, the pages and the
pictures. What is tuned is tuned on `dev` editions elsewhere (`fit.yaml`); here nothing is chosen, only measured.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from srbench.analysis.metrics import metrics_of
from srbench.analysis.records import Metric, label
from srbench.analysis.results import ResultCell, to_dict
from srbench.analysis.robustness import from_attack
from srbench.backbones.loader import Backbone, open_backbone
from srbench.catalog import load
from srbench.engine.plan import plan
from srbench.engine.prepare import options_of, options_text
from srbench.engine.request import Cell, RunRequest
from srbench.engine.run import execute
from srbench.errors import MissingError, SrbenchError
from srbench.files import write_atomic
from srbench.pocket_build.__main__ import DOCS, say
from srbench.pocket_build.command import Words, guarded
from srbench.pocket_build.study import attacked, grids, pictures, tables
from srbench.pocket_build.study.examples import main as write_examples
from srbench.report.examples import NAME as EXAMPLES
from srbench.results.provenance import provenance
from srbench.results.run_files import SCHEMA, RunResult, newest, summarised
from srbench.results.store import Store
from srbench.studies.read import read
from srbench.studies.study import StudyOptions, done_outcomes

METHODS = ("none", "saferedir", "saferedir-upstream")
BASELINES = (
    "negative-prompt", "sld-weak", "sld-medium", "sld-strong", "sld-max", "safree", "safree-official",
    "esd-x", "esd-x-strict", "esd-u", "uce", "uce-old", "rece", "ablation",
)
INVERTED = ("sld-max+ci", "safree+ci")
"""Presets that are also run with an inversion that was learned on another checkpoint."""
STACKED = ("none", "saferedir", "safree", "safree+ci", "sld-max", "sld-max+ci")
UNDER = ("none", "esd-x", "uce", "rece")
"""Checkpoints that `STACKED` acts on."""
SUITES = ("igmu", "mma")
SCORERS = ("pocket-perceptual", "fd-pocket")
"""Of the methods alone and of SafeRedir's ablations: what stands in for LPIPS and FID in the papers' tables."""
OTHER_SUITES = ("i2p", "evolved", "ood", "multi", "ring-a-bell")

ABLATIONS: dict[str, tuple[str, ...]] = {
    "detector: text": ("detector=text",),
    "detector: text + latent": ("detector=text+latent",),
    "no mask": ("use_mask=false",),
    "no alpha": ("alpha=1", "alpha_scale=1"),
    "fixed alpha 1": ("alpha=1",),
    "fixed alpha 0.5": ("alpha=0.5",),
    **{f"cooldown {k}": (f"cooldown={k}",) for k in (1, 2, 5)},
    **{f"alpha scale {k:g}": (f"alpha_scale={k:g}",) for k in (0.5, 1, 1.5, 3)},
}
"""Name -> SafeRedir's options that differ from the preset (cooldown 0 and alpha scale 2 are the preset)."""

SEEDS = ("seed-1", "seed-2")
REDIRECTORS = (*SEEDS, "one-delta")
JOINT = "all-concepts"
UNTIMED = "not timed on a quiet machine"
STUDY = Path(__file__).parents[3] / "results" / "pocket" / "study.yaml"
"""All that is run. The names above say what the pages show of it, and in which order."""


@dataclass(frozen=True)
class Job:
    """One run: a title for the log, the concept and the methods."""

    title: str
    concept: str
    methods: tuple[str, ...]
    redirector: Path | None = None
    """The shipped one where this is None."""
    suites: tuple[str, ...] = SUITES
    prompts: Path | None = None
    """A file in place of suites."""
    alone: bool = False
    """Only rows without a trace of another concept, which a redirector for all concepts would rightly remove too."""


class Lines:
    """A reporter that prints a line now and then."""

    def __init__(self) -> None:
        self.count, self.total, self.printed_at = 0, 0, 0.0

    def begin(self, cells: int, images: int) -> None:
        self.count, self.total = 0, images

    def images(self, count: int) -> None:
        self.count += count
        if time.monotonic() - self.printed_at > 20:
            self.printed_at = time.monotonic()
            say(f"    {self.count}/{self.total} images")

    def cell(self, title: str) -> None:
        """Not shown."""

    def line(self, text: str) -> None:
        say(f"    {text}")

    def end(self) -> None:
        """Nothing to show."""


def concepts() -> tuple[str, ...]:
    """Pocket's concepts."""
    return load.backbones()["pocket"].concepts


def jobs(joint: Path) -> Iterator[Job]:
    """Runs on rows without another concept, which no study can ask for. joint: the redirector for all concepts."""
    for concept in concepts():
        yield Job("single, rows without another concept", concept, ("none", "saferedir"), alone=True)
        yield Job(f"{JOINT}, the same rows", concept, ("saferedir",), redirector=joint, alone=True)


def joint_redirector(results: Path) -> Path:
    """The redirector for all concepts that the study trained. Raises `MissingError` where it is not there."""
    for job, outcome in done_outcomes(read(STUDY), StudyOptions(results, device="cpu"), say).items():
        if job.called == JOINT and outcome.path is not None:
            return outcome.path
    raise MissingError(f"{results}: the study has not trained {JOINT} here", f"srbench run {STUDY} --device cpu --out {results}")


def _progress(phase: str, done: int, total: int, note: str) -> None:
    """Progress of what is made before sampling, a line at each quarter."""
    if done == total or (total >= 4 and done % (total // 4) == 0):
        say(f"    {phase} {done}/{total} {note}".rstrip())


def shows_another(cell: Cell, row: Any) -> bool:
    """Whether the row shows a concept other than the cell's."""
    from srbench.pocket.world import CONCEPTS

    others = {member for name, words in CONCEPTS.items() if name != cell.concept.name for member in words.members}
    return bool(others & {*row.objects, row.style})


def _alone(cells: list[Cell]) -> None:
    """Leave out rows that show another concept, and say so in the variant."""
    for cell in cells:
        cell.rows = [planned for planned in cell.rows if not shows_another(cell, planned.row)]
        cell.rows_sha = load.rows_sha(tuple(planned.row for planned in cell.rows))
        cell.variant = ",".join(part for part in (cell.variant, "rows=alone") if part)


def run(job: Job, backbone: Backbone, results: Path, batch_size: int) -> RunResult:
    """Carry one job out; what is stored is not sampled again. Raises `SrbenchError` where a cell failed."""
    settings = () if job.redirector is None else (f"saferedir.redirector={job.redirector}",)
    request = RunRequest(
        backbone="pocket", methods=job.methods, on=("none",), suites=job.suites, concepts=(job.concept,), part="test", limit=None,
        seed=0, batch_size=batch_size, dtype="fp32", settings=settings, protocol=None, scorers=(), out=results,
        prompts=job.prompts,
    )
    cells = plan(request, backbone, _progress)
    if job.alone:
        _alone(cells)
    done = execute(request, backbone, cells, Store(results / "store"), Lines())
    if done.exit_code:
        raise SrbenchError(f"{job.concept}: {job.title} failed in part", "Run it again; `srbench compare` says why.")
    return done


def labels(cells: Sequence[ResultCell]) -> dict[str, str]:
    """Variant -> short name, for those on the untouched backbone that the reference runs know."""
    names = {"": "saferedir"}
    for title, options in ABLATIONS.items():
        names[options_text(*options_of("saferedir", [f"saferedir.{option}" for option in options], "pocket", "object"))] = title
    for variant in {cell.variant for cell in cells if cell.on == "none"}:
        named = re.fullmatch(r"redirector=([\w-]+)@\w+", variant)
        if named is not None and named[1] in (*REDIRECTORS, JOINT):
            names[variant] = named[1]
    return names


def summaries(results: Path, target: Path, whole: bool, alone: Path | None = None) -> list[Path]:
    """Write the newest cells of pocket without their rows, one file a concept.

    whole: everything was run here, so nothing else counts. Otherwise cells that were summarised before stay.
    alone: results of a machine that did nothing else meanwhile; times and memory are then theirs.
    """
    newest_cells = [cell for cell in newest(results, say) if cell.backbone == "pocket" and _reported(cell)]
    cells = [cell for cell in newest_cells if cell.source == "local" or not whole]
    if alone is not None:
        clean = {_place(cell): cell for cell in newest(alone, say)}
        cells = [cell if cell.source == "committed" else timed(cell, clean.get(_place(cell))) for cell in cells]
    written = []
    for concept in concepts():
        mine = (scored(cell) for cell in cells if cell.concept == concept)
        ordered = sorted(mine, key=lambda c: (c.suite, c.variant != "", c.method, c.variant))
        path = target / f"{concept}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, summary(f"pocket-{concept}", ordered))
        written.append(path)
    return written


def summary(run: str, cells: Sequence[ResultCell]) -> bytes:
    """A file of results that travel: cells without their rows."""
    origin = {key: value for key, value in provenance().items() if key not in ("command", "argv")}
    data = {
        "schema": SCHEMA, "run": run, "provenance": origin, "safety_checker": "off",
        "cells": [{"result": to_dict(cell)} for cell in cells],
    }
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def _place(cell: ResultCell) -> tuple[str, ...]:
    """What a cell is, however few of its rows were run."""
    options = [part for part in cell.variant.split(",") if not part.startswith("limit=")]
    return (cell.concept, cell.suite, cell.method, cell.on, ",".join(options))


def scored(cell: ResultCell) -> ResultCell:
    """The cell without metrics of `SCORERS` that have no value: a suite without reference images has no distance to them."""
    optional = {name for scorer in SCORERS for name in metrics_of(scorer)}
    metrics = {name: metric for name, metric in cell.metrics.items() if name not in optional or metric.value is not None}
    return replace(cell, metrics=metrics)


def timed(cell: ResultCell, alone: ResultCell | None) -> ResultCell:
    """The cell with the costs of the same cell on a machine that did nothing else; where there is none it has no costs."""
    if "added_ms" not in cell.metrics:
        return cell
    if alone is None:
        return replace(cell, metrics={**cell.metrics, "added_ms": Metric("lower", reason=UNTIMED)}, cost={})
    return replace(cell, metrics={**cell.metrics, "added_ms": alone.metrics["added_ms"]}, cost=alone.cost)


def draw(results: Path) -> None:
    """Tables and pictures into `docs/`, with the numbers of the summaries; rows with their pictures beside the summaries."""
    cells = summarised(results / "pocket")
    names = labels(cells)
    page = tables.document(cells, names, (*ABLATIONS, "one-delta"), SEEDS, JOINT)
    write_atomic(DOCS / "pocket-tables.md", page.encode())
    write_atomic(DOCS / "pocket-grid.md", grid(cells).encode())
    write_atomic(DOCS / "pocket-robustness.md", robustness(cells).encode())
    pictures.tradeoff(cells, _shown(names), {"saferedir": 2.0} | _scales(), DOCS / "pocket-tradeoff.png")
    pictures.methods(cells, (*METHODS, *BASELINES), DOCS / "pocket-methods.png")
    say("written: docs/pocket-{tables,grid,robustness}.md, docs/pocket-{methods,tradeoff}.png")
    store = Store.peek(results / "store")
    records = pictures.sampled(results, store)
    if not pictures.at_hand(records, concepts()):
        say("examples and docs/pocket-{side-by-side,failures}.png stay as they are: the study was not run here")
        return
    write_examples(results, results / "pocket" / EXAMPLES)
    pictures.side_by_side(records, store, concepts(), DOCS / "pocket-side-by-side.png")
    failed = pictures.failures(records)
    pictures.draw_failures(failed, store, DOCS / "pocket-failures.png")
    for failure in failed:
        say(f"  {failure.row.id}: {', '.join(failure.metrics)}")
    say("written: docs/pocket-{side-by-side,failures}.png")


def grid(cells: Sequence[ResultCell]) -> str:
    """The page of baselines and stacking."""
    return grids.document(cells, (*METHODS, *BASELINES), STACKED[1:], UNDER[1:], INVERTED)


def robustness(cells: Sequence[ResultCell]) -> str:
    """The page of how often the concept comes back, from the cells of the reference runs and what embeddings gave."""
    path = attacked.FOLDER / f"{attacked.INVERTED}.json"
    inverted = json.loads(path.read_text(encoding="utf-8"))["asr"] if path.is_file() else {}
    defenders = (*attacked.DEFENDERS, label(attacked.STACKED))
    return grids.robustness(cells, defenders, inverted)


def _scales() -> dict[str, float]:
    """Label -> alpha scale of the ablations that change it alone."""
    return {title: float(title.rpartition(" ")[2]) for title in ABLATIONS if title.startswith("alpha scale")}


def _shown(names: dict[str, str]) -> dict[str, str]:
    """Without what the picture does not show: other seeds and the redirector for all concepts, which have tables."""
    return {variant: label for variant, label in names.items() if label not in (*SEEDS, JOINT)}


def _reported(cell: ResultCell) -> bool:
    if from_attack(cell) and cell.suite not in attacked.victims(cell.concept):  # those of hardened.py, which reports them itself
        return False
    return cell.dtype == "fp32" and not any(part.startswith(("limit=", "part=")) for part in cell.variant.split(","))


@guarded
def main(words: Words = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m srbench.pocket_build.study.reference", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder for images and runs (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--whole", action="store_true", help="everything was run here: what was summarised before goes")
    parser.add_argument("--summaries", action="store_true", help="only write the summaries of what was run")
    parser.add_argument("--timed", type=Path, metavar="RESULTS", help="costs are of these runs, with the machine to themselves")
    options = parser.parse_args(words)
    torch.manual_seed(0)
    backbone = open_backbone(load.backbones()["pocket"], "fp32", "cpu")
    if not options.summaries:
        for job in jobs(joint_redirector(options.results)):
            say(f"{job.concept}: {job.title}")
            run(job, backbone, options.results, options.batch_size)
    for path in summaries(options.results, options.results / "pocket", options.whole, options.timed):
        say(f"written: {path}")
    if DOCS.is_dir() and (options.results / "runs").is_dir():
        draw(options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
