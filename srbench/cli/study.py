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

TOGETHER = ("study", "out", "device", "gpus", "reference", "dry_run", "json", "debug")
"""Parameters of `run` that hold for a whole study."""


def refuse_others(path: Path, given: Sequence[str]) -> None:
    """Raises `UsageError` for options of a single run. given: names of the parameters that were typed."""
    others = [f"--{name.rstrip('_').replace('_', '-')}" for name in given if name not in TOGETHER]
    if others:
        raise UsageError(f"{path} says what is run: {', '.join(others)} cannot be given with it", "Write it into the study.")


def study(path: Path, options: StudyOptions, dry: bool, as_json: bool) -> int:
    """Carry a study out and print the table of its runs, or say what it would do."""
    plan = read(path)
    if dry:
        return _print(forecast(plan, options, say), as_json)
    from srbench.cli.output import print_cells

    done = run(plan, options, say, reporter, telling)
    if done.cells or as_json:
        print_cells(done.cells, as_json)
    return done.exit_code


def _print(found: Whole, as_json: bool) -> int:
    if as_json:
        console.write_json({"steps": [asdict(each) for each in found.steps]})
        return found.exit_code
    for number, each in enumerate(found.steps, 1):
        console.line(f"step {number}/{len(found.steps)} {each.verb} {each.step}: {_state(each)}")
        for line in each.missing:
            console.line(f"  missing: {line}")
    images = sum(each.images for each in found.steps)
    console.line(f"{images} images to sample; time: {_seconds([each for each in found.steps if each.images])}")
    return found.exit_code


def _state(each: Forecast) -> str:
    if each.there == each.jobs:
        return "there already"
    parts = [f"{each.jobs - each.there} of {each.jobs} to do" if each.there else f"{each.jobs} to do"]
    if each.verb in ("run", "grid", "score"):
        about = "about " if each.about else ""
        parts.append(f"{about}{each.images} images to sample, {each.cached} in the store")
        parts.append(f"time: {_seconds([each])}")
    else:
        parts.append("time: n/a")
    return "; ".join(parts)


def _seconds(steps: Sequence[Forecast]) -> str:
    known = [each.seconds for each in steps]
    if not known:
        return "0 s"
    return "n/a" if None in known else f"{sum(each for each in known if each is not None):.0f} s"
