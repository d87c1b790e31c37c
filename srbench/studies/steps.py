"""One job: the hash of its inputs, where its output lies, and the command that carries it out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from statistics import fmean, harmonic_mean
from typing import Any

from srbench.analysis.metrics import METRICS
from srbench.analysis.results import ResultCell
from srbench.attacks import command as attacking
from srbench.backbones.choose import chosen
from srbench.backbones.loader import Backbone, open_backbone
from srbench.catalog import load, plugins, resolve
from srbench.catalog.specs import UNVERIFIED, BackboneSpec
from srbench.engine import command, erasing, training
from srbench.engine.command import Telling
from srbench.engine.devices import device_of, devices_of, dtype_of, is_cuda
from srbench.engine.options import Say
from srbench.engine.request import RunOptions
from srbench.errors import OK, MissingError, SrbenchError, UsageError
from srbench.files import file_sha, kind_of_path, read_json, write_atomic
from srbench.hashing import digest
from srbench.outputs import check_results
from srbench.progress import Reporter
from srbench.results.keys import KEY_VERSION
from srbench.results.provenance import OfStudy
from srbench.results.run_files import LOCAL, RunResult, read_run
from srbench.results.sensitive import tend
from srbench.results.store import Store
from srbench.scoring.folders import score_folders
from srbench.scoring.layouts import ScoreRequest
from srbench.shards import Shard, part_of, shard_of
from srbench.studies.checks import point_texts
from srbench.studies.expand import options_of, plain
from srbench.studies.spec import KINDS, Choice, Job, Made, Settings, Study
from srbench.version import __version__

FOLDER, RECORD = "studies", "job.json"
"""In a results folder, `studies/STEP/KEY/` holds a job's output and `job.json`; KEY is the start of its inputs' hash."""
NO_INPUT = frozenset({
    "out", "device", "gpus", "ray", "ray_gpus", "ray_cpus", "compile", "durable", "checkpoints", "batch_size", "reference",
    "sheet", "shard", "trace_steps",
})  # fmt: skip
"""Fields that decide where and how fast something is made, and not what."""


@dataclass(frozen=True)
class StudyOptions:
    """What holds for a whole study, in the command line's words."""

    out: Path = Path("results")
    device: str = "auto"
    gpus: str | None = None
    reference: bool = False
    shard: str | None = None
    """`I/N` or `auto`: of runs this part of the images, of other jobs those whose inputs' hash is in the part."""
    sample_only: bool = False
    """With a shard: its images are not scored."""
    ray: str | None = None
    """The cluster whose actors sample and score the runs, and search; trainings are this process's."""
    ray_gpus: float | None = None
    ray_cpus: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What a job made."""

    sha256: str
    """Of the files; of a grid's settings; of the name of a run."""
    path: Path | None = None
    """The folder or file, of a training, a checkpoint or a search."""
    runs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """Of a grid, `NAME.OPTION=VALUE` each."""


@dataclass
class Bench:
    """What the jobs of a study share: options, where progress goes, and the backbone that was opened last."""

    study: Study
    options: StudyOptions
    say: Say
    reporter: Callable[[], Reporter]
    telling: Telling
    outcomes: dict[Job, Outcome] = field(default_factory=dict)
    _opened: tuple[tuple[str, str, str], Backbone] | None = None

    def open(self, spec: BackboneSpec, dtype: str, device: str) -> Backbone:
        """As `open_backbone`; the last one is kept."""
        key = (spec.model_dump_json(), dtype, device)
        if self._opened is None or self._opened[0] != key:
            self._opened = (key, open_backbone(spec, dtype, device))
        return self._opened[1]

    @cached_property
    def shard(self) -> Shard | None:
        """The part that is done here. Raises `UsageError`."""
        return shard_of(self.options.shard)

    @property
    def spread(self) -> dict[str, Any]:
        """Options of runs and searches that say what they are done on."""
        names = ("device", "gpus", "ray", "ray_gpus", "ray_cpus")
        return {name: getattr(self.options, name) for name in names}

    @property
    def device(self) -> str:
        """What is trained on: one card, where a run takes every card of `--gpus`."""
        if self.options.gpus is None:
            return self.options.device
        return "cuda" if any(map(is_cuda, devices_of(self.options.gpus))) else "cpu"

    @property
    def checkpoints(self) -> Path:
        """Where weight methods' checkpoints are kept."""
        return self.options.out / "store" / "checkpoints"

    def of_study(self, job: Job) -> OfStudy:
        """The study and step, for the record of a job's run."""
        return OfStudy(self.study.name, job.step, self.study.sha256, self.study.text)


# --- what a job is ----------------------------------------------------------------------------------------------------


def made_path(bench: Bench, made: Made) -> Any:
    """The output of an earlier job: a path, or a grid's settings."""
    outcome = bench.outcomes[made.job]
    return list(outcome.settings) if made.job.verb == "grid" else str(outcome.path)


def inputs(bench: Bench, job: Job) -> dict[str, Any]:
    """Everything that decides what a job makes: options, backbone, rows, versions, and hashes of files and earlier outputs."""
    kind = KINDS[job.verb]


    def sha_of(made: Made) -> Any:
        sha = bench.outcomes[made.job].sha256
        return [f"grid={sha}"] if made.job.verb == "grid" else sha

    shas = plain(kind, job.values, sha_of)
    values = {name: value for name, value in asdict(options_of(kind, shas)).items() if name not in NO_INPUT}
    concepts = {name: digest(load.concepts()[name].model_dump(mode="json")) for name in job.concepts}
    identity: dict[str, Any] = {
        "verb": job.verb, "called": "" if job.verb == "run" else job.called, "srbench": __version__, "keys": KEY_VERSION,
        "options": {name: _content(value) for name, value in values.items()}, "concepts": concepts,
        "names": _versions(job), "suites": _suites(job, values),
    }  # fmt: skip
    if job.verb != "score":
        spec = chosen(values["backbone"])
        dtype = dtype_of(values.get("dtype", "fp32"), device_of(bench.device)) if not bench.options.reference else "fp32"
        identity |= {"backbone": bench.open(spec, dtype, device_of(bench.device)).sha256, "dtype": dtype}
    if job.choice is not None:
        identity |= {"choice": job.choice.model_dump(), "points": [list(point) for point in job.points]}
    return identity


def _content(value: Any) -> Any:
    """A value of options with the hash of each file in place of its path."""
    if isinstance(value, Path):
        return content_sha(value) or str(value)  # for an earlier job's output, `value` is its hash already
    if isinstance(value, tuple | list):
        return [_content(each) for each in value]
    if isinstance(value, str) and (at := value.partition("=")[2]) and kind_of_path(Path(at).expanduser()) in ("file", "folder"):
        return [value.partition("=")[0], content_sha(Path(at).expanduser())]
    return value


def content_sha(path: Path) -> str:
    """sha256 of a file, or of a folder's files with their names; empty where there is nothing.

    Raises `UsageError` where it cannot be read.
    """
    kind = kind_of_path(path)
    try:
        if kind != "folder":
            return file_sha(path) if kind == "file" else ""
        files = sorted(each for each in path.rglob("*") if each.is_file() and not each.name.startswith("."))
        return digest([[each.relative_to(path).as_posix(), file_sha(each)] for each in files])
    except OSError as error:
        raise UsageError(f"{error.filename or path}: cannot be read ({error.strerror})", "Mend its rights.") from error



def _versions(job: Job) -> dict[str, Any]:
    """Versions of the plug-ins, and contents of the protocols, that a job names."""
    values, versions = job.values, dict[str, Any]()
    methods = [values.get("method"), *values.get("methods", ()), *_listed(values.get("on", ()))]
    for name in methods:
        if isinstance(name, str) and name in plugins.presets():
            meta = plugins.plugins("methods")[plugins.preset(name)[0]].meta
            versions[f"method {name}"] = [meta["version"], digest(meta.get("fitted", {}))]
    if job.verb == "attack":
        versions["attack"] = plugins.plugins("attacks")[values["name"]].meta["version"]
    for name in values.get("scorers", ()):
        versions[f"scorer {name}"] = plugins.plugins("scorers")[name].meta["version"]
    if job.verb in ("run", "grid", "score"):
        versions["protocols"] = digest([each.model_dump(mode="json") for each in load.protocols().values()])
    return versions


def _listed(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _suites(job: Job, values: Mapping[str, Any]) -> dict[str, Any]:
    """Contents of the suites that a job names, with those of their files that may be changed in place."""
    contents: dict[str, Any] = {}
    for name in (*(values.get("suites") or ()), *([values["suite"]] if values.get("suite") else [])):
        spec = load.suites()[name]
        files = [each.file for each in spec.editions if each.file and each.sha256 == UNVERIFIED]
        contents[name] = [digest(spec.model_dump(mode="json")), [file_sha(resolve.find("suites", file)) for file in files]]
    return contents


# --- what was made before ---------------------------------------------------------------------------------------------


def place(bench: Bench, job: Job, key: str) -> Path:
    """The folder of a job."""
    return bench.options.out / FOLDER / job.step / key[:12]


def output(bench: Bench, job: Job, key: str) -> Path:
    """Where a training, a checkpoint or a search is written."""
    return place(bench, job, key) / (f"{job.called}.json" if job.verb == "attack" else job.called)


def stored_outcome(bench: Bench, job: Job, key: str) -> Outcome | None:
    """The stored outcome of a job with these inputs; None where it was not done, or its output is missing or changed."""
    record = place(bench, job, key) / RECORD
    if kind_of_path(record) != "file":
        return None
    try:
        data = read_json(record)
        outcome = Outcome(data["sha256"], None, tuple(data["runs"]), tuple(data["settings"]))
        fits = data["key"] == key
    except (SrbenchError, KeyError, TypeError):
        return None
    if job.verb in ("train", "erase", "attack"):
        path = output(bench, job, key)
        outcome = replace(outcome, path=path)
        fits = fits and content_sha(path) == outcome.sha256
    runs = [bench.options.out / "runs" / str(run) / LOCAL for run in outcome.runs]
    return outcome if fits and all(kind_of_path(run) == "file" for run in runs) else None


def keep(bench: Bench, job: Job, key: str, outcome: Outcome) -> None:
    """Write down that a job is done. Raises `SrbenchError` where the disk is full."""
    data = {
        "key": key, "study": bench.study.name, "step": job.step, "title": job.title, "sha256": outcome.sha256,
        "runs": outcome.runs, "settings": outcome.settings,
    }  # fmt: skip
    folder = place(bench, job, key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / RECORD, (json.dumps(data, indent=1) + "\n").encode())
    except OSError as error:
        why = f"cannot write to {folder} ({error.strerror or error})"
        raise SrbenchError(why, "Mend that, then run the study again.") from error


def cells_of(bench: Bench, outcome: Outcome) -> list[ResultCell]:
    """The cells of a job's runs."""
    paths = [bench.options.out / "runs" / run / LOCAL for run in outcome.runs]
    return [replace(entry["result"], source="local") for path in paths for entry in read_run(path, bench.say)["cells"]]


# --- doing it ---------------------------------------------------------------------------------------------------------


class Incomplete(SrbenchError):
    """A run whose record is written, and some of whose cells failed."""

    def __init__(self, message: str, runs: tuple[str, ...]) -> None:
        super().__init__(message, "Its table says why; run the study again to try it once more.")
        self.runs = runs


def carry_out(bench: Bench, job: Job, key: str) -> Outcome:
    """Do a job. Raises `SrbenchError` where it fails in whole or in part; the next call resumes from what it stored."""
    return {"train": _train, "erase": _erase, "attack": _attack, "run": _run, "score": _score, "grid": _grid}[job.verb](
        bench, job, key
    )


def carry_out_part(bench: Bench, job: Job, key: str) -> Outcome | None:
    """Do a shard's part of a job: of runs and grids its images, of pictures made elsewhere its own, of others all or nothing.

    None where the job is not done with that: it is joined by the study without a shard, or made by another shard.
    Raises `SrbenchError` where the part failed.
    """
    shard = bench.shard
    if shard is None:
        return carry_out(bench, job, key)
    if job.verb == "run":
        _complete(_part(bench, run_options(bench, job)))
    elif job.verb == "grid":
        for point, concept in product(job.points, job.concepts):
            _complete(_part(bench, _point_options(bench, job, point, concept)))
    elif job.verb == "score":
        request = options(bench, job, out=bench.options.out, shard=bench.options.shard)
        check_folders(request)
        check_results(request.out)
        _complete(score_folders(request, Store(request.out / "store", bench.say), bench.reporter()))
    elif shard.has(key):
        return carry_out(bench, job, key)
    else:
        bench.say(f"{job.title} is made by shard {part_of(key, shard.count)}/{shard.count}")
    return None


def _part(bench: Bench, request: RunOptions) -> RunResult:
    return command.run(request, bench.say, bench.reporter, bench.telling, bench.open)


def _complete(done: RunResult) -> None:
    """Raises `SrbenchError` where a shard's part is not complete."""
    if done.exit_code != OK:
        raise SrbenchError("a part of it failed", "The lines above say why; the same command tries it once more.")


def options(bench: Bench, job: Job, **fixed: Any) -> Any:
    """The command's options object. fixed: fields that are the study's."""
    kind = KINDS[job.verb]
    return replace(options_of(kind, plain(kind, job.values, lambda made: made_path(bench, made))), **fixed)


def _file_outcome(bench: Bench, job: Job, key: str) -> Outcome:
    path = output(bench, job, key)
    return Outcome(content_sha(path), path)


def _train(bench: Bench, job: Job, key: str) -> Outcome:
    request = options(bench, job, out=output(bench, job, key), device=bench.device, checkpoints=bench.checkpoints)
    training.train(request, bench.say, bench.telling, bench.open)
    return _file_outcome(bench, job, key)


def _erase(bench: Bench, job: Job, key: str) -> Outcome:
    request = options(bench, job, out=output(bench, job, key), device=bench.device)
    erasing.erase(request, bench.say, bench.telling, bench.open)
    return _file_outcome(bench, job, key)


def _attack(bench: Bench, job: Job, key: str) -> Outcome:
    request = options(bench, job, out=output(bench, job, key), checkpoints=bench.checkpoints, **bench.spread)
    result = attacking.attack(request, bench.say, bench.telling, bench.open)
    if result.failed:
        bench.say(f"{len(result.failed)} targets are left out; the first: {result.failed[0]}")
    return _file_outcome(bench, job, key)


def run_options(bench: Bench, job: Job, **more: Any) -> RunOptions:
    """Options of a run with what holds for the whole study."""
    whole = bench.options
    fixed = {"out": whole.out, "reference": whole.reference, **bench.spread}
    fixed |= {"shard": whole.shard} | ({"score": False} if whole.sample_only else {})
    request: RunOptions = options(bench, job, **fixed, **more)
    return request


def _whole(done: RunResult) -> RunResult:
    """The run. Raises `Incomplete` where any of its cells failed."""
    if done.exit_code != OK:
        reasons = [metric.reason for cell in done.cells for metric in cell.metrics.values() if metric.reason]
        raise Incomplete(f"run {done.run} failed in part{f': {reasons[0]}' if reasons else ''}", (done.run,))
    return done


def _run(bench: Bench, job: Job, key: str) -> Outcome:
    request = run_options(bench, job)
    done = _whole(command.run(request, bench.say, bench.reporter, bench.telling, bench.open, bench.of_study(job)))
    return Outcome(digest([cell.run for cell in done.cells]), runs=(done.run,))


def check_folders(request: ScoreRequest) -> None:
    """Raises `MissingError` where the pictures' folder is not there."""
    for _, folder in request.folders:
        if kind_of_path(folder) != "folder":
            raise MissingError(f"{folder}: there is no such folder", "Put the pictures there, then run the study again.")


def _score(bench: Bench, job: Job, key: str) -> Outcome:
    request = options(bench, job, out=bench.options.out)
    check_folders(request)
    check_results(request.out)
    store = Store(request.out / "store", bench.say)
    swept = tend(store, bench.say)
    done = _whole(score_folders(request, store, bench.reporter(), bench.of_study(job)))
    if swept.stuck:
        raise Incomplete("pictures of sensitive rows could not be deleted", (done.run,))
    return Outcome(digest(done.run), runs=(done.run,))


# --- grids ------------------------------------------------------------------------------------------------------------


def _grid(bench: Bench, job: Job, key: str) -> Outcome:
    """Run every point on the dev part and choose the best."""
    if job.choice is None:
        raise UsageError(f"step '{job.step}' says no options to choose from", "Add options and by.")
    runs, lines = list[str](), list[dict[str, Any]]()
    for number, point in enumerate(job.points, 1):
        texts = tuple(f"{name}={value}" for name, value in point)
        bench.say(f"point {number}/{len(job.points)} of {job.title}: {' '.join(texts) or 'as it is'}")
        cells = [cell for concept in job.concepts for cell in _point(bench, job, point, concept, runs)]
        lines.append({"settings": list(texts), **_worth(job.choice, cells)})
        bench.say(_line(lines[-1]))
    best = max(lines, key=lambda line: line["score"])
    bench.say(f"best for {job.title}: {' '.join(best['settings']) or 'as it is'}")
    place(bench, job, key).mkdir(parents=True, exist_ok=True)
    write_atomic(place(bench, job, key) / "grid.json", (json.dumps(lines, indent=1) + "\n").encode())
    settings = point_texts(job.points[lines.index(best)], job.concepts[0])
    return Outcome(digest(list(settings)), runs=tuple(runs), settings=settings)



def _point(bench: Bench, job: Job, point: Settings, concept: str, runs: list[str]) -> list[ResultCell]:
    """The preset's own cells for one concept at one point."""
    request = _point_options(bench, job, point, concept)
    done = _whole(command.run(request, bench.say, bench.reporter, bench.telling, bench.open, bench.of_study(job)))
    runs.append(done.run)
    preset = request.methods[-1]
    return [cell for cell in done.cells if cell.label == preset]


def _point_options(bench: Bench, job: Job, point: Settings, concept: str) -> RunOptions:
    return run_options(bench, job, settings=point_texts(point, concept), concepts=(concept,), dev=True)


def _worth(choice: Choice, cells: list[ResultCell]) -> dict[str, Any]:
    """Means of the metrics over the cells, and the score that decides: higher is better."""
    means = {name: _mean(name, cells) for names in choice.by for name in names}
    turned = {name: _turned(name, value, cells) for name, value in means.items()}
    parts = [fmean(turned[name] for name in names) for names in choice.by]
    if len(parts) > 1 and min(parts) < 0:
        raise UsageError("a harmonic mean needs metrics that are not negative", "Choose by one metric, or by rates.")
    return {"score": parts[0] if len(parts) == 1 else harmonic_mean(parts), **means}


def _mean(name: str, cells: list[ResultCell]) -> float:
    values = [cell.metrics[name].value for cell in cells if name in cell.metrics]
    measured = [value for value in values if value is not None]
    if not measured:
        names = sorted({name for cell in cells for name, metric in cell.metrics.items() if metric.value is not None})
        raise UsageError(f"no value of '{name}' to choose by", f"There are: {', '.join(names)}")
    return fmean(measured)


def _turned(name: str, value: float, cells: list[ResultCell]) -> float:
    """The value so that higher is better: where lower is, 100 less a rate, or minus another number."""
    better = next(cell.metrics[name].better for cell in cells if name in cell.metrics)
    if better == "higher":
        return value
    return 100 - value if name in METRICS and METRICS[name].rate else -value


def _line(line: Mapping[str, Any]) -> str:
    numbers = " ".join(f"{name} {value:.1f}" for name, value in line.items() if name != "settings")
    return f"{numbers}  {' '.join(line['settings']) or 'as it is'}"
