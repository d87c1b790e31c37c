"""What a study would do: per step what is there, what is missing, how many images, and how long they take. Makes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from srbench.attacks.targets import AttackRequest, targets_of
from srbench.backbones.choose import chosen
from srbench.backbones.deployed import NAME as DEPLOYED
from srbench.catalog import load, plugins
from srbench.engine.command import SAMPLED
from srbench.engine.onnames import RELEARN, taken_apart
from srbench.engine.options import Say, resolve
from srbench.engine.plan import plan
from srbench.engine.request import Cell, RunOptions
from srbench.errors import MISSING, OK, MissingError, SrbenchError, Unmade
from srbench.methods.base import quiet
from srbench.progress import Quiet
from srbench.results.store import Store
from srbench.shards import is_mine
from srbench.studies import steps, study
from srbench.studies.checks import point_texts
from srbench.studies.spec import Job, Made, Step, Study
from srbench.studies.steps import Bench, StudyOptions


@dataclass
class Forecast:
    """Of one step."""

    step: str
    verb: str
    jobs: int
    there: int = 0
    """Jobs that are done."""
    images: int = 0
    """To be sampled, each counted in the first step that needs it; an estimate where prompts are yet to be searched."""
    cached: int = 0
    about: bool = False
    """Whether `images` is an estimate."""
    seconds: float | None = None
    """For the images; None where nothing was sampled here yet."""
    missing: list[str] = field(default_factory=list)
    """What is missing or wrong, with the command that mends it."""


@dataclass(frozen=True)
class Whole:
    """Of the study."""

    steps: tuple[Forecast, ...]
    exit_code: int
    """0, or 3 where something is missing."""


def forecast(plan_of: Study, options: StudyOptions, say: Say) -> Whole:
    """What running the study would do. Raises `SrbenchError` as `study.run` does before its first step."""
    study.check(options)
    bench = Bench(plan_of, options, _silent, Quiet, lambda what: nullcontext(quiet))
    store = Store.peek(options.out / "store", say)
    seen: set[str] = set()
    forecasts = tuple(_step(bench, step, store, seen) for step in plan_of.steps)
    return Whole(forecasts, MISSING if any(each.missing for each in forecasts) else OK)


def _silent(text: str) -> None:
    """Nothing."""


def _step(bench: Bench, step: Step, store: Store, seen: set[str]) -> Forecast:
    step_forecast = Forecast(step.name, step.verb, len(step.jobs))
    dtypes: Counter[str] = Counter()
    for job in step.jobs:
        try:
            if _is_there(bench, job):
                step_forecast.there += 1
            elif job.verb in ("run", "grid"):
                _of_run(bench, job, store, seen, step_forecast, dtypes)
            else:
                _of_other(bench, job)
        except SrbenchError as error:
            if error.line not in step_forecast.missing:
                step_forecast.missing.append(error.line)
    speeds = {dtype: _seconds_each(store, dtype) for dtype in dtypes}
    if dtypes and None not in speeds.values():
        step_forecast.seconds = sum(count * (speeds[dtype] or 0.0) for dtype, count in dtypes.items())
    return step_forecast


def _is_there(bench: Bench, job: Job) -> bool:
    """Whether a job is done; if so, its outcome is recorded for later jobs."""
    if any(each not in bench.outcomes for each in job.needs):
        return False
    key = steps.digest(steps.inputs(bench, job))
    outcome = steps.stored_outcome(bench, job, key)
    if outcome is not None:
        bench.outcomes[job] = outcome
    return outcome is not None


def _seconds_each(store: Store, dtype: str) -> float | None:
    """Measured seconds an image, the mean over some of what was sampled in that dtype."""
    records = store.images.sample(SAMPLED)
    seconds = [record["seconds"] for record in records if record.get("dtype") == dtype and "seconds" in record]
    return sum(seconds) / len(seconds) if seconds else None


# --- runs -------------------------------------------------------------------------------------------------------------


def _of_run(bench: Bench, job: Job, store: Store, seen: set[str], step_forecast: Forecast, dtypes: Counter[str]) -> None:
    lacking = [Made(needed) for needed in job.needs if needed not in bench.outcomes]
    for options in _plannable_runs(bench, job, lacking):
        makes = [name for name in options.methods if _makes(name)]
        options = replace(options, methods=tuple(name for name in options.methods if name not in makes) or ("none",))
        request, backbone, _ = resolve(_with_settings_of(options), _silent, bench.open)
        cells = plan(request, backbone, make=False)
        if makes:
            rows = {(cell.suite.name, cell.concept.name): cell.n_loaded - cell.n_excluded for cell in cells}
            count = sum(rows.values()) * len(makes) * len(options.on)
            step_forecast.images, step_forecast.about = step_forecast.images + count, True
            dtypes[request.dtype] += count
        keys = {image.key for cell in cells for image in cell.images() if is_mine(bench.shard, image.key)}
        store.recover(keys)
        cached = sum(key in store.images for key in keys)
        unmade = sum(cell.n_loaded - cell.n_excluded for cell in cells if isinstance(cell.blocked, Unmade))
        new = len(keys - seen - store.images.keys()) + unmade
        step_forecast.cached += cached
        step_forecast.images += new
        step_forecast.about = step_forecast.about or bool(unmade or lacking)
        dtypes[request.dtype] += new
        if lacking:
            continue  # without the settings that are not made yet, the keys are of no real image
        seen |= keys
        _note_missing(cells, step_forecast)
    prompts = job.values.get("prompts")
    if isinstance(prompts, Made) and prompts.job not in bench.outcomes:
        count = _targets(bench, prompts.job) * len(job.values["methods"]) * len(job.values.get("on", ("none",)))
        step_forecast.images, step_forecast.about = step_forecast.images + count, True
        dtypes["fp32"] += count


def _makes(preset: str) -> bool:
    """Whether a method makes its artifact while a run is planned: a forecast makes nothing."""
    return plugins.plugins("methods")[plugins.preset(preset)[0]].meta.get("prepare") == "make"


def _with_settings_of(options: RunOptions) -> RunOptions:
    """Without the settings of methods that are not planned."""
    bases = [taken_apart(name).base for name in options.on]
    presets = [name for name in (*options.methods, *bases) if name in plugins.presets()]
    known = {*presets, *(plugins.preset(name)[0] for name in presets), *plugins.plugins("scorers"), DEPLOYED, RELEARN}
    return replace(options, settings=tuple(each for each in options.settings if each.partition(".")[0] in known))


def _note_missing(cells: Iterable[Cell], step_forecast: Forecast) -> None:
    for cell in cells:
        if isinstance(cell.blocked, MissingError) and cell.blocked.line not in step_forecast.missing:
            step_forecast.missing.append(cell.blocked.line)



def _plannable_runs(bench: Bench, job: Job, lacking: list[Made]) -> list[RunOptions]:
    """The runs of a job, without the settings and checkpoints that earlier steps are yet to make."""
    if isinstance(job.values.get("prompts"), Made) and Made(job.values["prompts"].job) in lacking:
        return []
    values = dict(job.values)
    values["settings"] = tuple((n, v) for n, v in values.get("settings", ()) if not (isinstance(v, Made) and v in lacking))
    values["on"] = tuple(each for each in values.get("on", ("none",)) if each not in lacking) or ("none",)
    plannable = Job(job.step, job.verb, job.concepts, job.called, job.title, values, job.choice, job.points)
    if job.verb == "run":
        return [steps.run_options(bench, plannable)]
    return [
        steps.run_options(bench, plannable, settings=point_texts(point, concept), concepts=(concept,), dev=True)
        for point in job.points for concept in job.concepts
    ]


# --- searches and trainings -------------------------------------------------------------------------------------------


def _of_other(bench: Bench, job: Job) -> None:
    """Raises `MissingError` where the backbone, the targets or the pictures are not there."""
    if job.verb != "score":
        spec = chosen(job.values.get("backbone", "pocket"))
        bench.open(spec, "fp32", "cpu")
    else:
        steps.check_folders(steps.options(bench, job))
    if job.verb == "attack" and all(each in bench.outcomes for each in job.needs):
        _targets(bench, job)


def _targets(bench: Bench, job: Job) -> int:
    """How many prompts a search writes."""
    values: dict[str, Any] = dict(job.values)
    if isinstance(values.get("targets"), Made):
        return _targets(bench, values["targets"].job)
    spec, (concept,) = chosen(values.get("backbone", "pocket")), job.concepts
    settings = tuple(each for each in values.get("settings", ()) if not isinstance(each[1], Made))
    values |= {"settings": settings, "on": "none"}
    options = steps.options(bench, Job(job.step, job.verb, job.concepts, job.called, job.title, values))
    request = AttackRequest(
        options.name, concept, options.suite, options.targets, "none", "none", None, options.limit, options.out, None,
        part="dev" if options.dev else "test", plain=options.with_targets,
    )  # fmt: skip
    rows, _, _ = targets_of(request, spec, load.concepts()[concept])
    return len(rows) * (2 if options.with_targets else 1)
