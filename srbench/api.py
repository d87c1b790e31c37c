"""srbench from Python: `import srbench`, then `srbench.run(...)`, `srbench.evaluate(pipe, ...)`, `srbench.compare(...)`.

Arguments have the command line's words; errors are those of `srbench.errors`. Nothing is printed on stdout.
"""

from __future__ import annotations

import functools
import inspect
import operator
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from srbench.errors import SrbenchError, UsageError, did_you_mean
from srbench.rules import texts, words

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from srbench.analysis.records import CellRecord
    from srbench.analysis.results import ResultCell
    from srbench.engine.request import RunOptions
    from srbench.progress import Quiet
    from srbench.tables.sheet import Tables

Words = str | Sequence[str]
IGMU: Words = ("igmu",)
"""The suite that is run where none is named."""
WORDS = ("on", "set", "scorers", "category", "column", "prompts")
"""Arguments of `run` that `RunOptions` calls by another name or keeps in another form."""
WHOLE = ("limit", "seed", "batch_size")
"""Arguments that are whole numbers."""
FLAGS = ("dev", "reference", "score", "keep_images", "accept_prompts", "with_targets")
"""Arguments that are true or false: options without a value."""
METRIC_COLUMNS = (
    *("backbone", "concept", "suite", "method", "on", "variant", "metric", "value", "low", "high", "better", "n", "scored"),
    *("reason", "run", "source"),
)
ROW_COLUMNS = (
    *("concept", "suite", "method", "on", "id", "kind", "category", "prompt", "seed", "key", "seen", "decision", "scores"),
    "path",
)
PAGE_WIDTH = 100
"""Characters of a printed table."""
PAGE_STYLE = """div.srbench h2 { font-size: 1em; margin: .8em 0 .2em } div.srbench section { overflow-x: auto }
div.srbench table { border-collapse: collapse; margin: 0; color: inherit }
div.srbench caption { text-align: left; color: inherit; opacity: .7; padding: 0; white-space: nowrap }
div.srbench th, div.srbench td { padding: .25em .5em; border: 0; border-bottom: 1px solid #8886; vertical-align: top }
div.srbench th, div.srbench td { text-align: right } div.srbench th:first-child { text-align: left; white-space: nowrap }
div.srbench small { display: block; opacity: .7; white-space: nowrap } div.srbench ul { font-size: smaller; opacity: .8 }"""
"""Of tables in a notebook: it touches nothing but them, and has no colour of its own, for light pages and for dark ones."""


# --- arguments in messages --------------------------------------------------------------------------------------------

P = ParamSpec("P")
Returned = TypeVar("Returned")
OPTION = re.compile(
    r"\bsrbench [a-z]+ [^;`]*"  # a command to be typed stays one
    r"|--(?P<name>[a-z][a-z-]*)"
    r"(?: (?P<value>'[^']*'|(?!out\b)(?:\S*?(?:[\d=]|[A-Z]{2})\S*?(?=[:;.,)]*(?:\s|$))|\S+?(?=[:;.,)]+(?:\s|$)|$))))?"
)
"""An option of the command line in a message, with the value behind it: one with a digit, `=` or capitals, or a last word."""


def _in_python(function: Callable[P, Returned]) -> Callable[P, Returned]:
    """The function, whose errors name its arguments where a command's errors name options; an unknown argument is one, too."""
    parameters = inspect.signature(function).parameters
    takes_more = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())

    @functools.wraps(function)
    def called(*args: P.args, **named: P.kwargs) -> Returned:
        try:
            if not takes_more:
                _check_arguments(named, parameters)
            return function(*args, **named)
        except SrbenchError as error:
            known = {*parameters, *(_arguments() if takes_more else ())}
            error.message, error.hint = (_as_arguments(text, known) for text in (error.message, error.hint))
            error.args = (error.message,)
            raise

    return called


def _check_arguments(named: Mapping[str, object], known: Collection[str]) -> None:
    for name in named:
        if name not in known:
            raise UsageError(f"there is no argument '{name}'", did_you_mean(name, known))


def _arguments() -> set[str]:
    """Arguments of `run` beside those of its signature."""
    from srbench.engine.request import RunOptions

    named = ("methods", "suites", "concepts", "settings", "categories", "columns", "out", "sheet")
    return {*WORDS, *(field.name for field in fields(RunOptions) if field.name not in named)}


def _as_arguments(text: str, known: Collection[str]) -> str:
    """A message with `limit=-1` in place of `--limit -1`; options that are no arguments of the function stay as they are."""

    def argument(found: re.Match[str]) -> str:
        option, value = (found["name"] or "").replace("-", "_"), found["value"]
        name = next((each for each in (option, f"{option}s", "layout" if option == "as" else "") if each in known), "")
        if not name:
            return found[0]
        if value is None:
            return f"{name}=True" if name in FLAGS else f"{name}="
        if name in FLAGS:
            return f"{name}=True {value}"
        bare = value.startswith("'") or re.fullmatch(r"-?\d+|[A-Z]{2,}", value)
        return f"{name}={value if bare else repr(value)}"

    return OPTION.sub(argument, text)


# --- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Results:
    """Measured cells of a results folder: all of the newest, or those of one run."""

    folder: Path
    cells: tuple[ResultCell, ...]
    run: str = ""
    """The run's name, where it is one."""
    exit_code: int = 0
    """0: everything that was asked for is there; 1: some cells failed, and their metrics say why."""

    @_in_python
    def table(self, format: str = "text", sort: str | None = None) -> str:
        """The tables of `srbench compare`. format: `text`, `md`, `csv`, `latex`, `html` or `json`.

        sort: the metric whose best value comes first. Raises `UsageError` for an unknown format, or a metric that no cell has.
        """
        from srbench.tables.compare import results_of

        (sort,) = (None,) if sort is None else texts([sort])
        return _written(results_of(self.folder, self.cells, lambda line: None, sort), format)

    def attacks(self, format: str = "text") -> str:
        """How often the concept comes back, by suite and by what prompts were made against, in percent; as `--attacks`.

        Raises `MissingError` where no cell has attack or forget rows, `UsageError` for an unknown format.
        """
        from srbench.tables.compare import attacks_of

        return _written(attacks_of(self.cells), format)

    def costs(self, format: str = "text") -> str:
        """What the methods cost: seconds of making, milliseconds an image, parameters, megabytes; as `--costs`.

        Raises `UsageError` for an unknown format.
        """
        from srbench.tables.compare import costs_of

        return _written(costs_of(self.cells), format)

    def metrics(self) -> pd.DataFrame:
        """A line a cell and metric: value and 95 % interval (rates in percent), n, and why there is no value."""
        import pandas as pd

        return pd.DataFrame([
            {
                "backbone": cell.backbone, "concept": cell.concept, "suite": cell.suite, "method": cell.method, "on": cell.on,
                "variant": cell.variant, "metric": name, "value": metric.value, "low": metric.low, "high": metric.high,
                "better": metric.better, "n": metric.n, "scored": metric.scored, "reason": metric.reason, "run": cell.run,
                "source": cell.source,
            }
            for cell in self.cells for name, metric in cell.metrics.items()
        ], columns=METRIC_COLUMNS)  # fmt: skip

    @_in_python
    def rows(self, suite: Words | None = None, method: Words | None = None) -> pd.DataFrame:
        """A line a prompt and method: id, kind, seed, image key, what the judge sees, raw scores, path of the picture.

        `seen` is whether the judge sees the concept (None where it cannot say), `decision` whether a method that decides acted.
        Texts of gated suites, and paths of pictures that were dropped, are None. Committed summaries have no rows.
        Raises `UsageError` for a suite or method that no result has.
        """
        import pandas as pd

        from srbench.results.lookup import check_names

        records = self._records
        for field, names in (("suite", words(suite)), ("method", words(method))):
            check_names(field, names, {getattr(cell, field) for cell in self.cells})
            records = [record for record in records if not names or getattr(record, field) in names]
        return pd.DataFrame([line for record in records for line in self._lines(record)], columns=ROW_COLUMNS)

    @_in_python
    def image(self, row: str, method: Words | None = None, suite: Words | None = None) -> Image:
        """The picture of a row, by the row's id. Raises `UsageError` where there is no such row, no picture of it, or several."""
        from PIL import Image as Pictures

        (name,) = texts([row])
        table = self.rows(suite, method)
        if table.empty:
            raise UsageError("there are no rows here", "Committed results have none: take results of a run of your own.")
        found = table[table["id"] == name]
        if found.empty:
            raise UsageError(f"there is no row '{name}'", did_you_mean(name, set(table["id"]), "`rows()` lists them."))
        keys = sorted(set(found["key"].dropna()))
        if not keys:
            raise UsageError(f"row '{name}' has no picture: it failed", "Make the same call again; `rows()` lists what is there.")
        if len(keys) > 1:
            raise UsageError(f"{len(keys)} pictures of row '{name}'", "Name its method= and suite=; `rows()` lists them.")
        return Pictures.fromarray(self._store.pixels(keys[0]))

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        body = self.table("html").partition("<body>")[2].partition("</body>")[0] if self.cells else "<p>no results</p>"
        return f'<div class="srbench">\n<style>\n{PAGE_STYLE}\n</style>\n{body}\n</div>'

    @cached_property
    def _store(self) -> Any:
        from srbench.results.store import Store

        return Store.peek(self.folder / "store", _warn)

    @cached_property
    def _records(self) -> list[CellRecord]:
        from srbench.catalog import load
        from srbench.results.run_files import identity
        from srbench.results.stored import stored_cells

        mine = {identity(cell) for cell in self.cells}
        found = stored_cells(self.folder, self._store, lambda cell: load.protocol(cell.protocol))
        return [record for cell, record in found if identity(cell) in mine]

    def _lines(self, record: CellRecord) -> Iterator[dict[str, Any]]:
        from srbench.analysis.judging import seen_in
        from srbench.catalog import load

        judge, gated = load.protocol(record.protocol), _is_gated(record.suite, record.concept)
        for each in record.rows:
            image = each.image
            key = image.key if image is not None and image.key else None
            path = self._store.image_path(key) if key is not None else None
            seen = seen_in(image, judge) if image is not None and key is not None else None
            trace = image.trace if image is not None else {}
            acted = trace.get("redirected_steps")
            yield {
                "concept": record.concept, "suite": record.suite, "method": record.method, "on": record.on, "id": each.row.id,
                "kind": each.row.kind, "category": each.row.category, "prompt": None if gated else each.row.prompt,
                "seed": each.row.seed if each.row.seed is not None else record.origin.seed, "key": key,
                "seen": seen if isinstance(seen, bool) else None,
                "decision": None if acted is None or not record.decides else bool(acted),
                "scores": dict(image.scores) if image is not None else {},
                "path": path if path is not None and path.exists() else None,
            }  # fmt: skip


def _is_gated(suite: str, concept: str) -> bool:
    """Whether a suite, or an edition of it for the concept, may not be shown."""
    from srbench.catalog import load

    spec = load.suites().get(suite)
    return spec is not None and any(spec.of(each).gated for each in spec.editions if each.concept in ("any", concept))


def _written(tables: Tables, format: str) -> str:
    """Tables in a format; `text`: as a terminal of `PAGE_WIDTH` characters shows them."""
    from srbench.tables import formats, terminal

    formats.check_format(format, "text")
    if format == "text":
        return terminal.plain_text(terminal.render(tables, PAGE_WIDTH, plain=True), PAGE_WIDTH)
    return formats.write(tables, format)


@overload
def compare(
    folder: str | Path = "results", a: None = None, b: None = None, *, method: Words = (), suite: Words = (),
    concept: Words = (), on: Words = (), backbone: Words = (),
) -> Results: ...


@overload
def compare(
    folder: str | Path, a: str, b: str, *, method: Words = (), suite: Words = (), concept: Words = (), on: Words = (),
    backbone: Words = (),
) -> pd.DataFrame: ...


@_in_python
def compare(
    folder: str | Path = "results", a: str | None = None, b: str | None = None, *, method: Words = (), suite: Words = (),
    concept: Words = (), on: Words = (), backbone: Words = (),
) -> Results | pd.DataFrame:
    """The newest result of every cell in a results folder; or what changes from one method or run to another.

    a, b: as `srbench compare RESULTS A B` takes them; the frame has a line a metric: difference, interval, paired test and
    Holm-corrected p. method, suite, concept, on, backbone: only these names. All committed variants are there (`--all`).
    Raises `UsageError` where the folder is none, no result has one of the names, or the two have no rows in common, and
    `MissingError` where the folder has no results.
    """
    from srbench.tables import compare as comparing

    options = comparing.CompareOptions(
        folder=_path(folder), methods=words(method), suites=words(suite), concepts=words(concept), on=words(on),
        backbones=words(backbone), everything=True,
    )
    if a is None or b is None:
        if a != b:
            raise UsageError("one name to compare", "Give both, or none for all results.")
        comparing.check(options, _warn)
        return Results(options.folder, tuple(comparing.chosen(options, _warn)))
    import pandas as pd

    from srbench.tables import changes

    made = comparing.changed(replace(options, names=texts([a, b])), _warn)
    return pd.DataFrame(list(changes.records(made)), columns=list(changes.FIELDS))


# --- running ----------------------------------------------------------------------------------------------------------


@_in_python
def run(
    method: Words = ("none", "saferedir"), suite: Words = IGMU, concept: Words = (), *, on: Words = ("none",),
    set: Mapping[str, object] | Sequence[str] = (), scorers: Words = (), category: Words = (), column: Sequence[str] = (),
    out: str | Path = "results", prompts: str | Path | None = None, progress: bool = True, **more: Any,
) -> Results:
    """`srbench run`: sample the suites under the methods, score the images, judge them. Resumes.

    Names are one text with commas or a list. set: `{"saferedir.cooldown": 2}`, or the command line's texts.
    more: `backbone`, `dev`, `limit`, `seed`, `batch_size`, `dtype`, `device`, `gpus`, `ray`, `ray_gpus`, `ray_cpus`, `compile`,
    `durable`, `reference`, `protocol`, `score` (false for `--sample-only`), `keep_images`, `accept_prompts`, `sweep`, `shard`,
    `trace_steps`, as in `srbench run --help`. A shard (`shard="1/4"`) writes no run and has no cells: the same call without
    `shard` joins them.
    Raises `SrbenchError` where the request is wrong or something is missing; cells that fail are in the result, with the reason.
    """
    from srbench.engine import command

    named = {"on": on, "set": set, "scorers": scorers, "category": category, "column": column, "prompts": prompts}
    options = _options(method, suite, concept, out, {**named, **more})
    shown = _reporter(progress)
    done = command.run(options, shown.line, lambda: shown, shown.telling)
    return Results(options.out, tuple(done.cells), done.run, done.exit_code)


@_in_python
def study(
    path: str | Path, *, out: str | Path = "results", device: str = "auto", gpus: str | None = None, reference: bool = False,
    shard: str | None = None, score: bool = True, ray: str | None = None, ray_gpus: float | None = None,
    ray_cpus: float | None = None, progress: bool = True,
) -> Results:
    """`srbench run STUDY.yaml`: carry out a study's steps, or what is not done of them. See `docs/studies.md`.

    shard: only this part of the runs' images, and of the other jobs; score: false with a shard, to sample only.

    Raises `SrbenchError` where the file is wrong; steps that fail make `exit_code` 1, and are said.
    """
    from srbench.studies.read import read
    from srbench.studies.steps import StudyOptions
    from srbench.studies.study import run as carry_out

    options = StudyOptions(_path(out), device, gpus, reference, shard, not score, ray, ray_gpus, ray_cpus)
    shown = _reporter(progress)
    done = carry_out(read(_path(path)), options, shown.line, lambda: shown, shown.telling)
    return Results(options.out, done.cells, "", done.exit_code)


@_in_python
def evaluate(
    pipe: Any, name: str = "mine", version: str | None = None, suites: Words = IGMU, concept: Words | None = None, *,
    beside: Words = ("none",), backbone: str | None = None, limit: int | None = None, out: str | Path = "results",
    progress: bool = True, **more: Any,
) -> Results:
    """Run a diffusers pipeline of your own through the suites, in one table with the methods in `beside`.

    pipe: however it is patched: changed weights, hooks, attention processors, adapters. Its family must be the backbone's, and
    its scheduler too, so that noise and sampler are the same for all. It is run where it is, in its number format.
    name: its line in tables, for this call. version: what you call the state of the code that acts on it. Weights are hashed;
    hooks and processors of your own cannot be, and without a version nothing of such a pipeline is served from the store, and
    every table says so. backbone: the untouched model, where it cannot be told from the pipeline. more: as for `run`, but for
    `on`, `gpus` and `ray`.
    Raises `UsageError` where the pipeline does not fit, or the name is taken.
    """
    from srbench.engine import command, given
    from srbench.engine.options import resolve
    from srbench.outputs import check_results

    for each in ("on", "gpus", "ray"):
        if each in more:
            raise UsageError(f"{each}= does not go with a pipeline of yours", "It is run as it is, in this process.")
    if more.get("shard") is not None and version is None:
        raise UsageError("shard= goes with a pipeline of yours that has a version", "Without one nothing of it is served again.")
    made = given.method_of(pipe, name, version)
    more = {"dtype": given.dtype_of(pipe), "device": pipe.device.type, **more}
    more = {"backbone": given.backbone_of(pipe, backbone), "limit": limit, **more}
    options = _options((*words(beside), name), suites, () if concept is None else concept, out, more)
    check_results(options.out)
    shown = _reporter(progress)
    with given.known(made):
        request, opened, how = resolve(options, shown.line)
        given.check_fits(pipe, opened)
        done = command.carried_out(options, request, opened, how, shown.line, lambda: shown, shown.telling)
    return Results(options.out, tuple(done.cells), done.run, done.exit_code)


@_in_python
def score(
    folder: str | Path | Mapping[str, str | Path], layout: str | None = None, *, suite: str | None = None,
    concept: str | None = None, backbone: str | None = None, prompts: str | Path | None = None,
    reference: str | Path | None = None, category: Words = (), per_prompt: int = 1, protocol: str | None = None,
    scorers: Words = (), set: Mapping[str, object] | Sequence[str] = (), accept_prompts: bool = False,
    column: Sequence[str] = (), out: str | Path = "results", shard: str | None = None, progress: bool = True,
) -> Results:
    """`srbench score`: pictures that were made elsewhere, or with more `scorers` the images of existing runs.

    folder: of the pictures, or method -> folder; without a layout a results folder, and the results are written there.
    Raises `SrbenchError` where the request is wrong or something is missing; what could not be scored is in the result.
    """
    from srbench.catalog.prompts import chosen_columns
    from srbench.scoring import command
    from srbench.scoring.layouts import ScoreRequest

    named = folder.items() if isinstance(folder, Mapping) else [("", folder)]
    request = ScoreRequest(
        folders=tuple((name, _path(place)) for name, place in named), layout=layout, suite=suite, concept=concept,
        backbone=backbone, prompts=_path(prompts) if prompts else None, reference=_path(reference) if reference else None,
        categories=words(category), per_prompt=per_prompt, protocol=protocol, scorers=words(scorers), settings=_settings(set),
        out=_path(out), accept_prompts=accept_prompts, columns=tuple(chosen_columns(texts(column)).items()),
        shard=shard,
    )
    shown = _reporter(progress)
    done = command.score(request, shown.line, lambda: shown)
    written = request.folders[0][1] if layout is None else request.out
    return Results(written, tuple(done.cells), done.run, done.exit_code)


# --- plug-ins of this process -----------------------------------------------------------------------------------------


def method(meta: Mapping[str, Any]) -> Any:
    """A class decorator that makes a method known in this process; meta: what `METHOD` says. See `docs/extending.md`."""
    return _registered("methods", meta)


def scorer(meta: Mapping[str, Any]) -> Any:
    """A class decorator that makes a scorer known in this process; meta: what `SCORER` says."""
    return _registered("scorers", meta)


@_in_python
def attack(
    name: str | Mapping[str, Any], concept: str = "", *, suite: str | None = None, targets: str | Path | None = None,
    method: str = "none", on: str = "none", backbone: str = "pocket", pairs: str | Path | None = None, dev: bool = False,
    limit: int | None = None, seed: int = 0, device: str = "auto", set: Mapping[str, object] | Sequence[str] = (),
    with_targets: bool = False, column: Sequence[str] = (), out: str | Path = "attack.json", gpus: str | None = None,
    ray: str | None = None, ray_gpus: float | None = None, ray_cpus: float | None = None, progress: bool = True,
) -> Any:
    """`srbench attack`: search prompts against a method, write them to `out`, and return the rows as a frame.

    suite, targets: where the prompts to attack are from, a suite or a file of one's own; one of the two is needed. Run what is
    found with `run(prompts=out)`. Given a mapping in place of a name, it is a class decorator that makes an attack known in
    this process; the mapping is what `ATTACK` says.
    Raises `SrbenchError` where the request is wrong, something is missing, or every target failed.
    """
    if isinstance(name, Mapping):
        return _registered("attacks", name)
    from srbench.attacks import command

    asked = command.AttackOptions(
        name=name, backbone=backbone, concept=concept, suite=suite, targets=_path(targets) if targets else None, dev=dev,
        limit=limit, method=method, on=on, pairs=_path(pairs) if pairs else None, out=_path(out), seed=seed, device=device,
        settings=_settings(set), with_targets=with_targets, columns=texts(column), gpus=gpus, ray=ray, ray_gpus=ray_gpus,
        ray_cpus=ray_cpus,
    )
    shown = _reporter(progress)
    found = command.attack(asked, shown.line, shown.telling)
    return _frame_of(found)


def _frame_of(found: Any) -> pd.DataFrame:
    """A line a target that was attacked: what was found, and the objective at the start and the end."""
    import pandas as pd

    return pd.DataFrame([
        {"target": each.target, "prompt": each.prompt, "similarity": each.similarity, "objective": each.objective,
         "objective_before": next(iter(each.history), float("nan"))}
        for each in found.found
    ])  # fmt: skip


def _registered(kind: str, meta: Mapping[str, Any]) -> Any:
    from importlib import import_module

    from srbench.catalog import plugins

    def register(cls: type) -> type:
        cls.meta = dict(meta)  # type: ignore[attr-defined]  # any class of the user's
        if kind != "attacks" and not hasattr(cls, "Options"):
            options = import_module(f"srbench.{kind}.base").Options
            cls.Options = options  # type: ignore[attr-defined]  # any class of the user's
        plugins.register(kind, cls)
        return cls

    return register


# --- arguments --------------------------------------------------------------------------------------------------------


def _settings(given: Mapping[str, object] | Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in given.items()) if isinstance(given, Mapping) else texts(given)


def _path(given: str | Path) -> Path:
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"a {type(given).__name__} in place of a path", "Give a file's or folder's: data has to be in a file.")
    return Path(given).expanduser()


def _whole(name: str, value: Any) -> int:
    """A whole number, also numpy's and pandas'. Raises `UsageError` for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{name}={value!r:.60}: expected a whole number", "Leave it out for the default.") from None


def _options(method: Words, suite: Words, concept: Words, out: str | Path, more: Mapping[str, Any]) -> RunOptions:
    """What a run is asked for. more: arguments of `run` beside these. Raises `UsageError` for one that is not known."""
    from srbench.engine.request import RunOptions

    _check_arguments(more, _arguments())
    prompts = more.get("prompts")
    plain = {name: value for name, value in more.items() if name not in WORDS}
    plain |= {name: _whole(name, plain[name]) for name in WHOLE if plain.get(name) is not None}
    return replace(
        RunOptions(
            methods=words(method), on=words(more.get("on", ("none",))), concepts=words(concept), out=_path(out),
            suites=() if prompts is not None and suite is IGMU else words(suite),
            settings=_settings(more.get("set", ())), scorers=words(more.get("scorers", ())),
            prompts=_path(prompts) if prompts is not None else None, categories=words(more.get("category", ())),
            columns=texts(more.get("column", ())),
        ),
        **plain,
    )


# --- what is said -----------------------------------------------------------------------------------------------------


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _reporter(progress: bool) -> Quiet:
    from srbench.progress import reporter

    return reporter(progress)
