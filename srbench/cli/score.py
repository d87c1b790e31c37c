"""`srbench score`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from srbench.catalog.prompts import chosen_columns
from srbench.cli.console import say
from srbench.cli.output import print_cells
from srbench.cli.progress import reporter
from srbench.errors import UsageError
from srbench.scoring import command
from srbench.scoring.layouts import ScoreRequest


def score(request: ScoreRequest, as_json: bool) -> int:
    """Score, and print the cells."""
    done = command.score(request, say, reporter)
    if done.run or as_json:  # a shard has no table
        print_cells(done.cells, as_json, request.out)
    return done.exit_code


def named(path: Path) -> tuple[str, Path]:
    """`NAME=FOLDER` where there is no folder of that very name."""
    name, equals, rest = str(path).partition("=")
    if not equals or path.exists():
        return "", path
    if not name or not rest:
        raise UsageError(f"'{path}': expected NAME=FOLDER", "Write both, without blanks around the '='.")
    return name, Path(rest)


def columns_of(settings: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`FIELD=COLUMN` each, as a request holds them. Raises `UsageError`."""
    return tuple(chosen_columns(settings).items())
