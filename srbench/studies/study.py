"""Carries out a study's steps in order. Jobs that are done are skipped; a failure blocks only the jobs that need it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from srbench.analysis.results import ResultCell
from srbench.engine.cluster import check_installed
from srbench.engine.command import Telling
from srbench.engine.devices import device_of, devices_of
from srbench.engine.options import Say, check_spread
from srbench.errors import OK, SOME_FAILED, SrbenchError, UsageError
from srbench.files import printable
from srbench.methods.base import quiet
from srbench.outputs import check_results
from srbench.progress import Quiet, Reporter
from srbench.results.run_files import identity
from srbench.shards import shard_of
from srbench.studies import steps
from srbench.studies.spec import Job, Step, Study
from srbench.studies.steps import Bench, Incomplete, Outcome, StudyOptions


@dataclass(frozen=True)
class Done:
    """What came of a study."""

    cells: tuple[ResultCell, ...]
    """Of all its runs in order, also of skipped ones; the last where several runs have the same cell."""
    failures: tuple[str, ...]
    """What failed or was blocked, a line each."""

    @property
    def exit_code(self) -> int:
        """0 where everything is there, 1 where anything failed."""
        return SOME_FAILED if self.failures else OK


def check(options: StudyOptions) -> None:
    """Raises `UsageError` for options that do not go together, or an output folder that is something else."""
    check_spread(options.gpus, options.device, options.ray, (options.ray_gpus, options.ray_cpus), options.shard)
    if options.gpus is not None:
        devices_of(options.gpus)
    if options.ray is not None:
        check_installed("--ray")
    shard = shard_of(options.shard)
    if options.sample_only and shard is None:
        hint = "Add --shard I/N, or write `score: false` into a step."
        raise UsageError("--sample-only goes with a study's shards: its steps need scores", hint)
    device_of(options.device)
    check_results(options.out)


def run(study: Study, options: StudyOptions, say: Say, reporter: Callable[[], Reporter], telling: Telling) -> Done:
    """Carry the study out. The same call goes on where it was interrupted, and does nothing that is done.

    Raises `SrbenchError` only before the first step; later ones are in the result.
    """
    check(options)
    bench = Bench(study, options, say, reporter, telling)
    cells: list[ResultCell] = []
    failures: list[str] = []
    for number, step in enumerate(study.steps, 1):
        _step(bench, step, f"step {number}/{len(study.steps)} {step.verb} {step.name}", cells, failures)
    for line in failures:
        say(f"not done: {line}")
    newest = {(*identity(cell), cell.mark): cell for cell in cells}
    return Done(tuple(newest.values()), tuple(failures))


def done_outcomes(study: Study, options: StudyOptions, say: Say) -> dict[Job, Outcome]:
    """What is done of a study, without doing anything. Raises `SrbenchError` where a backbone is not on this machine."""
    bench = Bench(study, options, say, Quiet, lambda what: nullcontext(quiet))
    for job in (job for step in study.steps for job in step.jobs):
        if all(each in bench.outcomes for each in job.needs):
            outcome = steps.stored_outcome(bench, job, steps.digest(steps.inputs(bench, job)))
            if outcome is not None:
                bench.outcomes[job] = outcome
    return bench.outcomes


def _step(bench: Bench, step: Step, heading: str, cells: list[ResultCell], failures: list[str]) -> None:
    skipped = 0
    for number, job in enumerate(step.jobs, 1):
        what = f"{heading} ({number}/{len(step.jobs)}): {job.title}" if len(step.jobs) > 1 else f"{heading}: {job.title}"
        try:
            lacking = [each for each in job.needs if each not in bench.outcomes]
            if lacking:
                raise SrbenchError(f"needs step '{lacking[0].step}' ({lacking[0].title}), which is not done")
            key = steps.digest(steps.inputs(bench, job))
            outcome = steps.stored_outcome(bench, job, key)
            if outcome is not None:
                skipped += 1
                bench.outcomes[job] = outcome
            else:
                bench.say(what)
                outcome = _done(bench, job, key)
            if outcome is None:
                continue  # a shard has done its part of it
            cells += steps.cells_of(bench, outcome)
        except SrbenchError as error:
            if isinstance(error, Incomplete):
                with suppress(SrbenchError):
                    cells += steps.cells_of(bench, Outcome("", runs=error.runs))
            failures.append(_failure(bench, step, job, error))
            bench.say(f"{what}: {'blocked' if lacking else 'failed'}: {printable(error.line)}")
    if skipped == len(step.jobs):
        bench.say(f"{heading}: there already")
    elif skipped:
        bench.say(f"{heading}: {skipped} of {len(step.jobs)} were there already")


def _done(bench: Bench, job: Job, key: str) -> Outcome | None:
    """Do a job, or the shard's part of it; None where it is not done with that."""
    outcome = steps.carry_out_part(bench, job, key)
    if outcome is not None:
        steps.keep(bench, job, key, outcome)
        bench.outcomes[job] = outcome
    return outcome


def _failure(bench: Bench, step: Step, job: Job, error: SrbenchError) -> str:
    where = f"{bench.study.path}:{bench.study.lines.get(step.name, 1)}"
    return f"{where}: step '{step.name}' ({job.title}): {printable(error.line)}"
