"""`--as wandb` and `--as mlflow`: a run's request and numbers, through these tools' own libraries."""

from __future__ import annotations

import importlib
import os
import shlex
from pathlib import Path
from typing import Any

from srbench.analysis.results import name_of
from srbench.errors import MissingError
from srbench.exports.read import Run, numbers

PROJECT = "srbench"
LONGEST = 500
"""Characters of a parameter's value; MLflow takes no more."""


def figures(run: Run) -> dict[str, float]:
    """`concept/suite/method/metric` -> value."""
    return {
        f"{cell.concept}/{cell.suite}/{name_of(cell)}/{metric}": value
        for cell in run.cells for metric, _, value in numbers(cell)
    }  # fmt: skip


def settings(run: Run) -> dict[str, str]:
    """What was asked for, and of what content the backbone was."""
    asked = {f"request.{name}": str(value)[:LONGEST] for name, value in run.header.get("request", {}).items()}
    return {**asked, "backbone_sha": str(run.header.get("backbone_sha", ""))}


def library(name: str, has: str) -> Any:
    """The tool's library. Raises `MissingError` where it is not installed; a folder of that name in the way is none.

    has: one of its functions.
    """
    try:
        found = importlib.import_module(name)
    except ImportError as error:
        raise MissingError(f"{name} is not installed", f"pip install 'srbench[{name}]'") from error
    if not hasattr(found, has):
        raise MissingError(f"{name} is not installed", f"pip install 'srbench[{name}]'; a folder '{name}' here is none of it.")
    return found


def to_wandb(run: Run, folder: Path) -> str:
    """Write an offline run, which `wandb sync` uploads, unless WANDB_MODE says otherwise; returns what to do next."""
    wandb = library("wandb", "init")
    mode = os.environ.get("WANDB_MODE", "offline")
    folder.mkdir(parents=True, exist_ok=True)
    with wandb.init(project=PROJECT, name=run.name, config=settings(run), dir=str(folder), mode=mode) as opened:
        opened.summary.update({name.replace("/", "."): value for name, value in figures(run).items()})
    return f"wandb sync {shlex.quote(str(folder / 'wandb'))}/offline-run-*" if mode == "offline" else f"wandb: {mode}"


def to_mlflow(run: Run, folder: Path) -> str:
    """Write to a tracking store in the folder, unless MLFLOW_TRACKING_URI names another; returns what to do next."""
    mlflow = library("mlflow", "start_run")
    place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    folder.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(place)
    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=run.name):
        mlflow.log_params(settings(run))
        mlflow.log_metrics({_key(name): value for name, value in figures(run).items()})
    return f"mlflow ui --backend-store-uri {shlex.quote(place)}"


def _key(name: str) -> str:
    """A metric's name as MLflow takes it: letters, digits, `_-./` and blanks."""
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in name)
