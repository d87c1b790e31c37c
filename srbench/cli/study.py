"""`srbench run STUDY.yaml` and its `--dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from srbench.cli import console
from srbench.cli.console import say
from srbench.cli.progress import reporter, telling
from srbench.errors import UsageError
from srbench.studies.forecast import Forecast, Whole, forecast
from srbench.studies.read import read
from srbench.studies.steps import StudyOptions
from srbench.studies.study import run

TOGETHER = (
    "study", "out", "device", "gpus", "ray", "ray_gpus", "ray_cpus", "reference", "shard", "sample_only", "dry_run", "json",
    "debug",
)
"""Parameters of `run` that hold for a whole study."""


def refuse_others(path: Path, typed: Sequence[str]) -> None:
    """Raises `UsageError` for options of a single run. typed: names of the parameters on the command line."""
    others = [f"--{name.rstrip('_').replace('_', '-')}" for name in typed if name not in TOGETHER]
    if others:
        hint = "Fetch for each of its runs: srbench fetch --for 'run ...'" if "--fetch" in others else "Write it into the study."
        raise UsageError(f"{path} says what is run: {', '.join(others)} cannot be given with it", hint)


def study(path: Path, options: StudyOptions, dry: bool, as_json: bool) -> int:
    """Carry a study out and print the table of its runs, or say what it would do."""
    plan = read(path)
    if dry:
        return _print(forecast(plan, options, say), as_json)
    from srbench.cli.output import print_cells

    done = run(plan, options, say, reporter, telling)
    if done.cells or as_json:
        print_cells(done.cells, as_json, options.out)
    return done.exit_code


def _print(whole: Whole, as_json: bool) -> int:
    if as_json:
        console.write_json({"steps": [asdict(step) for step in whole.steps]})
        return whole.exit_code
    for number, step in enumerate(whole.steps, 1):
        console.line(f"step {number}/{len(whole.steps)} {step.verb} {step.step}: {_state(step)}")
        for line in step.missing:
            console.line(f"  missing: {line}")
    images = sum(step.images for step in whole.steps)
    console.line(f"{images} images to sample; time: {_seconds([step for step in whole.steps if step.images])}")
    return whole.exit_code


def _state(step: Forecast) -> str:
    if step.there == step.jobs:
        return "there already"
    parts = [f"{step.jobs - step.there} of {step.jobs} to do" if step.there else f"{step.jobs} to do"]
    if step.verb in ("run", "grid", "score"):
        about = "about " if step.about else ""
        parts.append(f"{about}{step.images} images to sample, {step.cached} in the store")
        parts.append(f"time: {_seconds([step])}")
    else:
        parts.append("time: n/a")
    return "; ".join(parts)


def _seconds(steps: Sequence[Forecast]) -> str:
    seconds = [each.seconds for each in steps]
    if not seconds:
        return "0 s"
    return "n/a" if None in seconds else f"{sum(each for each in seconds if each is not None):.0f} s"
