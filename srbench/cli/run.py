"""`srbench run` and `--dry-run`."""

from __future__ import annotations

from typing import Any

from srbench.cli import console
from srbench.cli.console import say
from srbench.cli.output import print_cells
from srbench.cli.progress import reporter, telling
from srbench.engine import command
from srbench.engine.request import RunOptions


def run(options: RunOptions, as_json: bool) -> int:
    """Carry the run out and print its table. The exit code says whether everything asked for exists."""
    done = command.run(options, say, reporter, telling)
    if done.run or as_json:  # a shard has no table
        print_cells(done.cells, as_json, options.out)
    return done.exit_code


def dry_run(options: RunOptions, as_json: bool) -> int:
    """Print what a run would do."""
    summary = command.forecast(options, say)
    if as_json:
        console.write_json(summary)
    else:
        _print_plan(summary)
    return 0


def _print_plan(summary: dict[str, Any]) -> None:
    for entry in summary["cells"]:
        state = "blocked" if entry["blocked"] else f"{entry['images']} images, {entry['cached']} in the store"
        console.line(f"{entry['cell']:<40} {state}")
    unknown = "unknown until something was sampled here"
    disk = unknown if summary["disk_mb"] is None else f"{summary['disk_mb']} MB"
    eta = unknown if summary["eta_seconds"] is None else f"{summary['eta_seconds']} s"
    console.line(f"{summary['to_sample']} images to sample, {summary['cached']} in the store; disk: {disk}; time: {eta}")
