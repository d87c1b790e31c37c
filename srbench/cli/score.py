"""`srbench score`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from srbench.catalog import load, plugins
from srbench.catalog.prompts import chosen_columns
from srbench.catalog.settings import check
from srbench.cli.console import say
from srbench.cli.output import print_cells
from srbench.cli.progress import reporter
from srbench.errors import OK, SOME_FAILED, UsageError, did_you_mean
from srbench.outputs import check_results
from srbench.results.sensitive import tend
from srbench.scoring.layouts import ScoreRequest


def score(asked: ScoreRequest, as_json: bool) -> int:
    """Pictures made elsewhere where a layout is given, else the images of existing runs."""
    return _elsewhere(asked, as_json) if asked.layout is not None else _again(asked, as_json)


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


def _elsewhere(asked: ScoreRequest, as_json: bool) -> int:
    from srbench.results.store import Store
    from srbench.scoring.folders import score_folders

    if asked.per_prompt < 1:
        raise UsageError(f"--per-prompt {asked.per_prompt}: expected 1 or more", "Leave it out for the default.")
    check(asked.settings, plugins.plugins("scorers"))
    check_results(asked.out)
    store = Store(asked.out / "store", say)
    swept = tend(store, say)
    done = score_folders(asked, store, reporter())
    say(f"run {done.run}: {asked.out}/runs/{done.run}/run.json")
    print_cells(done.cells, as_json)
    return done.exit_code or (SOME_FAILED if swept.stuck else OK)


def _again(asked: ScoreRequest, as_json: bool) -> int:
    from srbench.results.store import Store
    from srbench.scoring.runs import score_runs

    if asked.columns or asked.prompts:
        raise UsageError("runs hold their own rows: --prompts and --column go with pictures made elsewhere", "Add --as LAYOUT.")
    _, folder = asked.folders[0]
    if len(asked.folders) > 1 or not (folder / "runs").is_dir():
        hint = f"Add --as LAYOUT. {did_you_mean('', load.layouts())}"
        raise UsageError(f"{folder}: holds no runs; which layout have the pictures?", hint)
    if not asked.scorers:
        raise UsageError("which scorer?", "Add --scorer; `srbench list scorers` shows them.")
    check(asked.settings, plugins.plugins("scorers"))
    store = Store(folder / "store", say)
    tend(store, say)
    done = score_runs(folder, asked.scorers, asked.settings, store, reporter())
    print_cells(done.cells, as_json)
    return done.exit_code
