"""`srbench run`: plan, sample what is missing, score it meanwhile, and write the record."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from srbench import stopping
from srbench.analysis.metrics import uncompared
from srbench.analysis.results import ResultCell, unjudged
from srbench.backbones.loader import Backbone
from srbench.engine import parts
from srbench.engine.crew import Crew
from srbench.engine.devices import PLAIN, Runtime
from srbench.engine.flips import traced
from srbench.engine.marks import hush_of, marks_of
from srbench.engine.record import Outcome, entry_of, results
from srbench.engine.request import Cell, RunRequest
from srbench.engine.sampling import Background, Sampling, Work, opened, sample_all, work
from srbench.engine.stale import stale
from srbench.errors import MISSING, OK, SOME_FAILED, MissingError
from srbench.progress import Reporter
from srbench.results.gated import Hushed, clean
from srbench.results.marks import TRIED
from srbench.results.provenance import OfStudy, of_study, provenance
from srbench.results.run_files import RunResult, now, run_id, write_run
from srbench.results.sensitive import Mark, Swept, begin, end, restate, scoring_command, sweep
from srbench.results.store import Store
from srbench.scoring.awaited import given_up
from srbench.scoring.scoring import Scoring
from srbench.shards import is_mine


def _made(
    sampling: Sampling, todo: Work, cells: Sequence[Cell], scoring: Scoring, reporter: Reporter, marks: Mapping[str, Mark],
    crew: Crew | None,
) -> dict[str, str]:
    """Sample every missing image, in this process or by actors; image key -> reason for those that failed."""
    if crew is not None:
        return crew.sample(sampling.run, todo, cells, scoring, reporter) if todo.missing else {}
    # Scorers may have no deterministic kernels, so they run after sampling.
    meanwhile = Work(todo.missing, todo.cached) if sampling.how.reference else todo
    return sample_all(sampling, todo, cells, Background(scoring.store, scoring, meanwhile, reporter, marks))


def _swept(store: Store, scoring: Scoring, todo: Work, failed: Mapping[str, str]) -> Swept:
    """Delete the sensitive images that are scored. Those that wait for an image that failed are kept for one more run."""
    unmade = {key for key in failed if key not in store.images}
    waits = {wanted.image_key for wanted in todo.all_wanted if wanted.reference_key in unmade}
    again = {key for key in waits if store.images.get(key, {}).get(TRIED)}
    given_up_scores = given_up(scoring, todo.all_wanted)
    given_up_scores |= given_up(scoring, (wanted for wanted in todo.all_wanted if wanted.image_key in again), unmade)
    swept = sweep(store, given_up_scores)
    store.restate({**store.images[key], TRIED: True} for key in swept.waiting if key in waits - again)
    return swept


def _tell_swept(swept: Swept, cells: Sequence[Cell], request: RunRequest, scoring: Scoring, reporter: Reporter) -> None:
    """Report which sensitive images were deleted and which are left."""
    if any(cell.sensitive for cell in cells) and request.score and not request.keep_images:
        reporter.line(f"{swept.dropped} images of sensitive cells were scored and dropped")
    elif swept.dropped:
        reporter.line(f"{swept.dropped} pictures of sensitive rows that were scored were dropped")
    secret = {image.key for cell in cells if cell.sensitive for image in cell.images()} if request.keep_images else set()
    if gone := sum(map(scoring.store.dropped, secret)):
        reporter.line(f"{gone} pictures of sensitive rows were dropped by an earlier run: only a new --out folder can have them")
    for line in swept.lines(scoring_command(sys.argv[1:])):
        reporter.line(line)
    if swept.dropped and scoring.broken:
        reporter.line(f"without {', '.join(scoring.broken)}: only a run into a new folder can have what is missing")


def _exit_code(cells: Sequence[Cell], outcome: Outcome, result_cells: Sequence[ResultCell]) -> int:
    """Of a run; a number that nothing is compared with, or a verdict that is not there, has failed, too."""
    broken = bool(outcome.failed or outcome.scoring.errors or outcome.scoring.broken)
    broken = broken or any(uncompared(cell.metrics) for cell in result_cells)
    broken = broken or (outcome.scoring.opened and any(map(unjudged, result_cells)))
    return _ended(cells, broken)


def _ended(cells: Sequence[Cell], broken: bool) -> int:
    """3 where every cell is blocked by something missing, 1 where anything failed or is missing, else 0."""
    blocked = [cell.blocked for cell in cells if cell.blocked is not None]
    if len(blocked) == len(cells) and all(isinstance(error, MissingError) for error in blocked):
        return MISSING
    return SOME_FAILED if blocked or broken else OK


@dataclass
class Carried:
    """A plan after sampling and scoring: what the run, or the shard, says and writes of it."""

    run: str
    reporter: Reporter
    scoring: Scoring
    todo: Work
    failed: dict[str, str]
    """Image key -> why it could not be sampled."""
    secret: bool
    """Whether images of sensitive rows were planned."""

    def made(self, cells: Sequence[Cell]) -> tuple[int, int, int, int, int]:
        """How many images were made now, their bytes, how many failed, how many scores did, and how many cells are blocked."""
        records = [self.scoring.store.images.get(planned.key) for planned in self.todo.missing]
        sizes = [int(record.get("bytes", 0)) for record in records if record is not None]
        blocked = sum(cell.blocked is not None for cell in cells)
        return len(sizes), sum(sizes), len(self.failed), len(self.scoring.errors), blocked


def _carried(
    request: RunRequest, backbone: Backbone, cells: list[Cell], store: Store, reporter: Reporter, how: Runtime,
    crew: Crew | None,
) -> Carried:
    """Sample and score what is missing of the plan, or of one shard of it."""
    run, shard = run_id(), request.shard
    hush = hush_of(cells)
    reporter = cast(Reporter, Hushed(reporter, hush))
    scoring = opened(request, cells, store, reporter)
    marks = marks_of(cells, scoring, request.keep_images)
    if shard is None:  # processes that are at work rewrite nothing of each other's
        clean(store, {key for key, mark in marks.items() if mark.gated}, reporter.line)
    restate(store, {key: mark for key, mark in marks.items() if is_mine(shard, key)})
    secret = any(mark.sensitive for mark in marks.values())
    if secret:
        begin(store.root, run)
    todo = work(cells, store, scoring, request.score, shard)
    unscored = [key for wanted in scoring.missing(todo.all_wanted) for key in (wanted.image_key, wanted.reference_key) if key]
    if store.check(unscored):  # images that are damaged, or not their own, are sampled again
        todo = work(cells, store, scoring, request.score, shard)
    for line in (*stale(cells, store), *scoring.stale(todo.all_wanted)):
        reporter.line(line)
    reporter.line(f"{len(todo.missing)} images to sample, {todo.cached} in the store")
    failed = _made(Sampling(request, backbone, run, how), todo, cells, scoring, reporter, marks, crew)
    if request.score:
        # What an actor could not score is not tried again here.
        to_score = [wanted for wanted in todo.all_wanted if crew is None or wanted not in scoring.errors]
        left = scoring.missing(to_score)
        if left:
            reporter.line(f"{len(left)} scores to make on stored images")
        if left and crew is not None:
            crew.score(left, scoring, reporter)
            to_score = [wanted for wanted in left if wanted not in scoring.errors]
        with stopping.patient():
            scoring.run(to_score, {})
    scoring.errors = {wanted: hush(why) for wanted, why in scoring.errors.items()}
    return Carried(run, reporter, scoring, todo, {key: hush(why) for key, why in failed.items()}, secret)


def execute(
    request: RunRequest, backbone: Backbone, cells: list[Cell], store: Store, reporter: Reporter, how: Runtime = PLAIN,
    study: OfStudy | None = None, crew: Crew | None = None,
) -> RunResult:
    """Carry out a plan, here or by a crew of actors. Running it again resumes; nothing that is in the store is sampled again."""
    started = now()
    done = _carried(request, backbone, cells, store, reporter, how, crew)
    if request.shard is not None:
        return _part(request, cells, done)
    outcome = Outcome(done.scoring, done.failed)
    result_cells = results(cells, backbone, done.run, store, outcome)
    swept = _swept(store, done.scoring, done.todo, done.failed)
    _tell_swept(swept, cells, request, done.scoring, done.reporter)
    header = {
        "started": started, "finished": now(), "provenance": provenance(),
        "request": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(request).items()},
        "runtime": asdict(how), **({"actors": crew.record()} if crew is not None else {}),
        "backbone_sha": backbone.sha256, "scorers": done.scoring.identities, "safety_checker": "off",
        **of_study(study),
    }
    entries = [entry_of(cell, result, outcome.failed) for cell, result in zip(cells, result_cells, strict=True)]
    write_run(request.out, done.run, header, entries)
    if done.secret:
        end(store.root, done.run, [store.images[key] for key in swept.waiting])
    whole = not how.trace_steps or traced(Sampling(request, backbone, done.run, how), cells, outcome, done.reporter)
    exit_code = _exit_code(cells, outcome, result_cells) or (SOME_FAILED if swept.stuck or not whole else OK)
    return RunResult(done.run, result_cells, exit_code, *done.made(cells))


def _part(request: RunRequest, cells: Sequence[Cell], done: Carried) -> RunResult:
    """The end of a shard. It writes no run and drops no image: the same command without `--shard` does."""
    waiting = parts.lying(done.scoring.store, done.run) if done.secret else []
    if done.secret:
        end(done.scoring.store.root, done.run, waiting)
    for line in parts.lines(request, done.todo, done.failed, done.scoring, waiting):
        done.reporter.line(line)
    exit_code = _ended(cells, bool(done.failed or done.scoring.errors or done.scoring.broken))
    return RunResult("", [], exit_code, *done.made(cells))
