"""`srbench export`."""

from __future__ import annotations

from pathlib import Path

from srbench.cli import console
from srbench.cli.console import say
from srbench.errors import OK, UsageError, did_you_mean
from srbench.exports import bibtex, hub, trackers
from srbench.exports.read import run_of
from srbench.outputs import write_into

FILES = {"hub": hub.files, "bibtex-table": bibtex.files}
TRACKERS = {"wandb": trackers.to_wandb, "mlflow": trackers.to_mlflow}
FORMS = (*FILES, *TRACKERS)


def export(name: str | None, form: str, results: Path, out: Path) -> int:
    """Write a run in another tool's form. Raises `UsageError` for a form that there is not."""
    if form not in FORMS:
        raise UsageError(f"--as {form}: expected {', '.join(FORMS)}", did_you_mean(form, FORMS))
    if any(out.resolve().is_relative_to(results.resolve() / part) for part in ("store", "runs", "studies")):
        raise UsageError(f"-o {out}: lies in the results folder's own folders", "Choose another -o.")
    run = run_of(results, name, say)
    if form in TRACKERS:
        console.line(f"run {run.name}; next: {TRACKERS[form](run, out)}")
        return OK
    files, left_out = FILES[form](run)
    write_into(out, files, f"srbench export --as {form}", "-o")
    console.line(f"run {run.name}: {len(files)} files in {out}")
    for line in left_out:
        say(line)
    return OK
