"""Scoring from request to result: `srbench score` for Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from srbench.catalog import load, plugins
from srbench.catalog.settings import check, check_count
from srbench.errors import OK, SOME_FAILED, UsageError, did_you_mean
from srbench.outputs import check_results
from srbench.progress import Reporter
from srbench.results.run_files import RunResult
from srbench.results.sensitive import tend
from srbench.results.store import Store
from srbench.scoring.folders import score_folders
from srbench.scoring.layouts import ScoreRequest
from srbench.scoring.runs import score_runs
from srbench.shards import shard_of

Say = Callable[[str], None]


def score(request: ScoreRequest, say: Say, reporter: Callable[[], Reporter]) -> RunResult:
    """Score external images where a layout is given, else the images of existing runs with more scorers.

    Raises `SrbenchError` where the request is wrong or something is missing.
    """
    return _runs(request, say, reporter) if request.layout is None else _pictures(request, say, reporter)


def _pictures(request: ScoreRequest, say: Say, reporter: Callable[[], Reporter]) -> RunResult:
    check_count(request.per_prompt, "--per-prompt")
    shard_of(request.shard)
    check(request.settings, plugins.plugins("scorers"))
    check_results(request.out)
    store = Store(request.out / "store", say)
    if request.shard is not None:  # only the process that joins the parts deletes pictures and rewrites ledgers
        return score_folders(request, store, reporter())
    swept = tend(store, say)
    done = score_folders(request, store, reporter())
    say(f"run {done.run}: {request.out}/runs/{done.run}/run.json")
    return replace(done, exit_code=done.exit_code or (SOME_FAILED if swept.stuck else OK))


def _runs(request: ScoreRequest, say: Say, reporter: Callable[[], Reporter]) -> RunResult:
    if request.columns or request.prompts:
        what = "runs hold their own rows: --prompts and --column go with pictures made elsewhere"
        raise UsageError(what, f"Add --as LAYOUT. {did_you_mean('', load.layouts())}")
    _, folder = request.folders[0]
    if len(request.folders) > 1 or not (folder / "runs").is_dir():
        hint = f"Add --as LAYOUT. {did_you_mean('', load.layouts())}"
        raise UsageError(f"{folder}: holds no runs; which layout have the pictures?", hint)
    if not request.scorers:
        raise UsageError("which scorer?", "Add --scorer; `srbench list scorers` shows them.")
    check(request.settings, plugins.plugins("scorers"))
    shard = shard_of(request.shard)
    store = Store(folder / "store", say)
    if shard is None:
        tend(store, say)
    return score_runs(folder, request.scorers, request.settings, store, reporter(), shard)
