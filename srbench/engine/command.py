"""A run from request to result, and a forecast of one: `srbench run` and `--dry-run` for Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from srbench.backbones.loader import Backbone, Opener, open_backbone
from srbench.engine import cluster
from srbench.engine.crew import Crew, tell_unmade
from srbench.engine.devices import Runtime
from srbench.engine.options import Say, resolve
from srbench.engine.parts import refuse_unmade
from srbench.engine.plan import plan
from srbench.engine.request import Cell, RunOptions, RunRequest
from srbench.engine.run import execute
from srbench.engine.sampling import work
from srbench.engine.stale import stale
from srbench.engine.team import team_of
from srbench.errors import UsageError
from srbench.methods.base import Tell
from srbench.outputs import check_results
from srbench.progress import Reporter, counted, span
from srbench.results.provenance import OfStudy
from srbench.results.run_files import RunResult
from srbench.results.sensitive import left_line, tend
from srbench.results.store import Store
from srbench.scoring.scoring import Scoring
from srbench.shards import Shard, is_mine

SAMPLED = 2000
"""Stored images whose seconds and bytes a forecast takes the mean of."""
Telling = Callable[[str], AbstractContextManager[Tell]]
"""Name of a step that takes a while -> context manager that gives its progress callback."""


class Watch:
    """How long the phases of a run take."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.laps: list[tuple[str, float]] = []

    def lap(self, phase: str) -> None:
        """The phase ends now."""
        now = time.monotonic()
        self.laps.append((phase, now - self.last))
        self.last = now

    def line(self, done: RunResult) -> str:
        """What a run made, and the phases that took a second or more."""
        taken = ((phase, f"{seconds:.0f} s" if seconds < 600 else span(seconds)) for phase, seconds in self.laps if seconds >= 1)
        phases = ", ".join(f"{text} {phase}" for phase, text in taken)
        megabytes = done.sampled_bytes / 1e6
        size = f"{megabytes:.0f}" if megabytes >= 10 else f"{megabytes:.2g}"
        made = f"{counted(done.sampled, 'image')} made ({size} MB), {done.failed} failed"
        made += f", {counted(done.unscored, 'score')} missing" if done.unscored else ""
        made += f", {counted(done.blocked, 'cell')} blocked" if done.blocked else ""
        return f"{made}; {phases}" if phases else made


def run(
    options: RunOptions, say: Say, reporter: Callable[[], Reporter], telling: Telling, opener: Opener = open_backbone,
    study: OfStudy | None = None,
) -> RunResult:
    """Plan, sample, score and write. The result's exit code says whether everything that was asked for is there.

    study: what the run is a step of, for its record.

    Raises `SrbenchError` before anything is sampled where the request is wrong or something is missing.
    """
    check_results(options.out)
    watch = Watch()
    try:
        request, backbone, how = resolve(options, say, opener)
        watch.lap("to open the backbone")
        return carried_out(options, request, backbone, how, say, reporter, telling, study, watch)
    finally:
        cluster.leave()


def carried_out(
    options: RunOptions, request: RunRequest, backbone: Backbone, how: Runtime, say: Say, reporter: Callable[[], Reporter],
    telling: Telling, study: OfStudy | None = None, watch: Watch | None = None,
) -> RunResult:
    """As `run`, for a resolved request."""
    watch = watch or Watch()
    store = Store(request.out / "store", say, durable=how.durable)
    if request.shard is None:  # only the process that joins the parts deletes pictures and rewrites ledgers
        tend(store, say)
    with team_of(Crew, request, backbone, how, say) as crew:
        cells = _planned(request, backbone, crew, say, telling)
        refuse_unmade(cells, request.shard)
        _refuse_sheet(options, cells, say)
        _header(options, request, how, cells, say)
        watch.lap("to make ready")
        done = execute(request, backbone, cells, store, reporter(), how, study, crew)
        watch.lap("to sample and score")
    say(watch.line(done))
    if done.run:
        say(f"run {done.run}: {request.out}/runs/{done.run}/run.json")
    return done


def _planned(request: RunRequest, backbone: Backbone, crew: Crew | None, say: Say, telling: Telling) -> list[Cell]:
    """The plan, after what it needs was made: by the actors side by side, where there are any."""
    lacking = crew.make_ready(say) if crew is not None and request.shard is None else {}
    with telling("making ready") as tell:
        cells = plan(request, backbone, tell, make=not lacking)
    tell_unmade(cells, lacking)
    return cells


def forecast(options: RunOptions, say: Say) -> dict[str, Any]:
    """What a run would do: its cells, images in the store and to sample, disk in MB, seconds. Nothing is made."""
    try:
        request, backbone, how = resolve(options, say)
    finally:
        cluster.leave()
    store = Store.peek(request.out / "store", say)
    cells = plan(request, backbone, make=False)
    refuse_unmade(cells, request.shard)
    _refuse_sheet(options, cells, say)
    if left := left_line(request.out):
        say(left)
    _header(options, request, how, cells, say)
    todo = work(cells, store, Scoring(store), False, request.shard)
    for line in stale(cells, store):
        say(line)
    records = [record for record in store.images.sample(SAMPLED) if record.get("dtype") == request.dtype]
    seconds = sum(r["seconds"] for r in records) / len(records) if records else None
    size = sum(r["bytes"] for r in records) / len(records) if records else None
    return {
        "cells": [_of_cell(cell, store, request.shard) for cell in cells], "to_sample": len(todo.missing), "cached": todo.cached,
        "disk_mb": None if size is None else round(size * len(todo.missing) / 1e6, 1),
        "eta_seconds": None if seconds is None else round(seconds * len(todo.missing)),
    }


def _of_cell(cell: Cell, store: Store, shard: Shard | None) -> dict[str, Any]:
    keys = {planned.key for planned in cell.images() if is_mine(shard, planned.key)}
    cached = sum(key in store.images for key in keys)
    return {"cell": cell.title, "images": len(keys), "cached": cached, "blocked": cell.blocked is not None}


def _header(options: RunOptions, request: RunRequest, how: Runtime, cells: list[Cell], say: Say) -> None:
    """Print the backbone, checkpoints, blocked cells, and counts and flags of the rows."""
    why = "" if options.concepts else " (the backbone's first; --concept chooses)"
    say(
        f"backbone {request.backbone} on {', '.join(how.devices) or request.device}"
        f"{' by ray' if how.ray and not how.devices else ''}, {request.dtype}, batch {request.batch_size}"
        f"{', reference' if how.reference else ''}{f', shard {request.shard}' if request.shard else ''}; "
        f"concept {', '.join(request.concepts)}{why}; safety checker off"
    )
    for line in dict.fromkeys(f"checkpoint {cell.on}: {cell.checkpoint.passport.line()}" for cell in cells if cell.checkpoint):
        say(line)
    for cell in cells:
        if cell.blocked is not None:
            say(f"blocked: {cell.title}: {cell.blocked.message}")
            if cell.blocked.hint:
                say(f"hint: {cell.blocked.hint}")
    for suite, concept, loaded, excluded, flag in sorted(
        {(c.suite.name, c.concept.name, c.n_loaded, c.n_excluded, c.sensitive) for c in cells if c.n_loaded}
    ):
        note = ", sensitive: images are dropped once scored" if flag and not request.keep_images else ""
        say(f"{suite}/{concept}: {loaded} rows loaded, {excluded} excluded, {loaded - excluded} to run{note}")
    for line in dict.fromkeys(f"{cell.suite.name}: {column}" for cell in cells for column in cell.found.told):
        say(line)
    for line in dict.fromkeys(f"{cell.suite.name}: {flag}; kept as they are" for cell in cells for flag in cell.found.flags):
        say(line)


def _refuse_sheet(options: RunOptions, cells: list[Cell], say: Say) -> None:
    """Raises `UsageError` for a contact sheet of sensitive cells alone, unless their images are kept; warns where some are."""
    sensitive = list(dict.fromkeys(f"{cell.suite.name}/{cell.concept.name}" for cell in cells if cell.sensitive))
    if not options.sheet or options.keep_images or not sensitive:
        return
    named = ", ".join(sensitive)
    if all(cell.sensitive for cell in cells):
        raise UsageError(f"--sheet keeps pictures, and {named} is sensitive", "Add --keep-images, or leave --sheet out.")
    say(f"--sheet: the pictures of {named} are not on it (sensitive; only with --keep-images)")
