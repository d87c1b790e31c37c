"""Fits the baselines' constants to pocket: `python -m srbench.pocket_build.study.fit`. The grids are `fit.yaml`'s; resumes.

Prints each preset's budget, which has to be the same for all, then runs every point on dev rows and says the best of each kind of
concept. What it says goes into METHOD["fitted"] by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from srbench import api
from srbench.catalog import load
from srbench.errors import UsageError, did_you_mean
from srbench.files import write_atomic
from srbench.pocket_build.__main__ import say
from srbench.pocket_build.command import Words, guarded
from srbench.studies.read import read
from srbench.studies.spec import Study

FIT = Path(__file__).with_name("fit.yaml")
GONE, STAYS = "fsr", "retain_accuracy"
ATTACKED = "asr"


def study_of(suites: Sequence[str], presets: Sequence[str] = ()) -> dict[str, Any]:
    """`fit.yaml` on the dev rows of these suites. Where some are attacks, being gone is the mean of plain and attacked.

    presets: those to fit; without any, all. Raises `UsageError` for an unknown suite or preset.
    """
    known = load.suites()
    for name in suites:
        if name not in known:
            raise UsageError(f"unknown suite '{name}'", did_you_mean(name, known))
    study = dict(yaml.safe_load(FIT.read_text(encoding="utf-8")), suites=list(suites))
    for name in presets:
        if name not in study["steps"]:
            raise UsageError(f"no grid for '{name}' in {FIT.name}", did_you_mean(name, study["steps"]))
    attacked = [known[name].attack for name in suites]
    gone = [name for name, there in ((GONE, not all(attacked)), (ATTACKED, any(attacked))) if there]
    chosen = {name: study["steps"][name] for name in presets or study["steps"]}
    return study | {"steps": {name: step | {"by": [gone, STAYS]} for name, step in chosen.items()}}


def budgets(study: Study) -> dict[str, dict[str, int]]:
    """Preset -> concepts of a kind -> the points that are tried on each of them."""
    return {step.name: {"+".join(job.concepts): len(job.points) for job in step.jobs} for step in study.steps}


def check_budgets(found: dict[str, dict[str, int]]) -> None:
    """Raises `UsageError` where one preset has more points than another."""
    counts = {count for jobs in found.values() for count in jobs.values()}
    if len(counts) > 1:
        raise UsageError(f"{FIT.name}: the presets have different budgets ({', '.join(map(str, sorted(counts)))} points)",
                         "Give every grid as many points.")  # fmt: skip


def told(found: dict[str, dict[str, int]]) -> Iterator[str]:
    """A line for each preset, and one for all."""
    for preset, jobs in found.items():
        yield f"{preset}: {', '.join(f'{count} points for {concepts}' for concepts, count in jobs.items())}"
    runs = sum(count * len(concepts.split("+")) for jobs in found.values() for concepts, count in jobs.items())
    yield f"{len(found)} presets, {runs} runs of one preset on one concept"


@guarded
def main(words: Words = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m srbench.pocket_build.study.fit", description=__doc__)
    parser.add_argument("--suite", default="igmu", help="suites whose dev rows are read, with commas (default: %(default)s)")
    parser.add_argument("--preset", default="", help="only these presets, with commas (default: all)")
    parser.add_argument("--out", type=Path, default=Path("results/fit"), help="folder for images and runs (default: %(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--budget", action="store_true", help="only print the budgets")
    options = parser.parse_args(words)
    path = options.out / FIT.name
    path.parent.mkdir(parents=True, exist_ok=True)
    study = study_of(options.suite.split(","), options.preset.split(",") if options.preset else ())
    write_atomic(path, yaml.safe_dump(study, sort_keys=False).encode())
    found = budgets(read(path))
    for line in told(found):
        say(line)
    check_budgets(found)
    return 0 if options.budget else api.study(path, out=options.out, device=options.device).exit_code


if __name__ == "__main__":
    sys.exit(main())
