"""`srbench attack relearn`: an attack on weights. What it runs, in the words of a run."""

from __future__ import annotations

from pathlib import Path

from srbench.analysis.lineage import lineage
from srbench.analysis.results import ResultCell
from srbench.attacks.command import AttackOptions
from srbench.engine.onnames import MOST_STEPS, expanded, taken_apart
from srbench.engine.request import RunOptions
from srbench.errors import UsageError

NAME = "relearn"
STEPS = "0,8,32,128,512"
SUITE = "igmu"


def steps_of(text: str) -> tuple[int, ...]:
    """Steps from a list with commas, in order, with 0. Raises `UsageError` for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) <= MOST_STEPS for part in parts):
        raise UsageError(f"--steps {text}: expected whole numbers up to {MOST_STEPS} with commas", f"Example: --steps {STEPS}")
    found = sorted({0, *map(int, parts)})
    if len(found) < 2:
        raise UsageError("--steps 0: nothing is taught", f"Example: --steps {STEPS}")
    return tuple(found)


def planned(options: AttackOptions, steps: str, other: bool) -> RunOptions:
    """The run of an attack's options: each checkpoint before its lessons and after.

    Raises `UsageError` for a checkpoint that was taught already, and for options of attacks that search for prompts.
    """
    given = {
        "--targets": options.targets, "--pairs": options.pairs, "--with-targets": options.with_targets,
        "--budget": options.budget, "--column": options.columns,
    }  # fmt: skip
    foreign = [name for name, value in given.items() if value]
    if foreign:
        raise UsageError(f"{foreign[0]} is for attacks that search for prompts", "Leave it out; --suite says which rows are run.")
    if options.out.suffix == ".json":
        raise UsageError(f"--out {options.out}: relearn writes a results folder", "Example: --out results")
    names = expanded(options.on.split(","))
    for name in names:
        if taken_apart(name).steps:
            raise UsageError(f"--on {name}: its steps are told by --steps", "Give the checkpoint alone.")
    lesson = ":other" if other else ""
    on = [f"{name}~{count}{lesson}" if count else name for name in names for count in steps_of(steps)]
    settings = [setting if "." in setting.partition("=")[0] else f"{NAME}.{setting}" for setting in options.settings]
    return RunOptions(
        backbone=options.backbone, methods=tuple(options.method.split(",")), on=tuple(dict.fromkeys(on)),
        suites=tuple((options.suite or SUITE).split(",")), concepts=tuple(options.concept.split(",")), dev=options.dev,
        limit=options.limit, seed=options.seed, device=options.device, settings=tuple(settings), out=Path(options.out),
        gpus=options.gpus, ray=options.ray, ray_gpus=options.ray_gpus, ray_cpus=options.ray_cpus,
    )


def is_of(cell: ResultCell, run: RunOptions) -> bool:
    """Whether a result belongs to what was run."""
    bases = {taken_apart(name).before for name in run.on}
    own = lineage(cell.on)
    name = own.base if own.seed is None else f"{own.base}#{own.seed}"
    known = name in bases or any(name.startswith(f"{Path(base).name}@") for base in bases)
    return known and cell.suite in run.suites and cell.concept in run.concepts and cell.method in run.methods
