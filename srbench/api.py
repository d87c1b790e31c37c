"""srbench from Python: `import srbench`, then `srbench.run(...)`, `srbench.evaluate(pipe, ...)`, `srbench.compare(...)`.

Arguments have the command line's words; errors are those of `srbench.errors`. Nothing is printed on stdout.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from srbench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from srbench.analysis.records import CellRecord
    from srbench.analysis.results import ResultCell

Words = str | Sequence[str]
PAGE_WIDTH = 100
"""Characters of a printed table."""


# --- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Results:
    """Measured cells of a results folder: all of the newest, or those of one run."""

    folder: Path
    cells: tuple[ResultCell, ...]
    run: str = ""
    """The run's name, where it is one."""
    exit_code: int = 0
    """0: everything that was asked for is there; 1: some cells failed, and their metrics say why."""

    def table(self, format: str = "text", sort: str | None = None) -> str:
        """The tables of `srbench compare`. format: `text`, `md`, `csv`, `latex`, `html` or `json`."""
        from srbench.analysis import formats, table
        from srbench.cli.console import console

        if format == "text":
            with (printer := console(width=PAGE_WIDTH, plain=True)).capture() as captured:
                printer.print(table.render(self.cells, width=PAGE_WIDTH, sort=sort, plain=True))
            return captured.get()
        if format not in formats.FORMATS:
            raise UsageError(f"there is no format '{format}'", did_you_mean(format, ("text", *formats.FORMATS)))
        return formats.write(self.cells, format, sort=sort)

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
        ])  # fmt: skip

    def rows(self, suite: str | None = None, method: str | None = None) -> pd.DataFrame:
        """A line a prompt and method: id, kind, seed, image key, what the judge sees, raw scores, path of the picture.

        `seen` is whether the judge sees the concept (None where it cannot say), `decision` whether a method that decides acted.
        Texts of gated suites, and paths of pictures that were dropped, are None. Committed summaries have no rows.
        """
        import pandas as pd

        known = [record for record in self._records if suite in (None, record.suite) and method in (None, record.method)]
        return pd.DataFrame([line for record in known for line in self._lines(record)])

    def image(self, row: str, method: str | None = None, suite: str | None = None) -> Image:
        """The picture of a row, by the row's id. Raises `UsageError` where there is none, or several."""
        from PIL import Image as Pictures

        table = self.rows(suite, method)
        fits = table[table["id"] == row] if len(table) else table
        keys = sorted(set(fits["key"].dropna())) if len(fits) else []
        if len(keys) != 1:
            what = "no picture" if not keys else f"{len(keys)} pictures"
            raise UsageError(f"{what} of a row '{row}'", "Name its method= and suite=; `rows()` lists them.")
        return Pictures.fromarray(self._store.pixels(keys[0]))

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return self.table("html")

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

        judge, gated = load.protocol(record.protocol), _is_gated(record.suite)
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


def _is_gated(suite: str) -> bool:
    from srbench.catalog import load

    return suite in load.suites() and load.suites()[suite].gated


def _newest(folder: str | Path) -> Results:
    from srbench.results.run_files import newest

    place = Path(folder).expanduser()
    if not place.is_dir():
        raise UsageError(f"{place}: not a results folder", "Give the folder that a run wrote to (out=).")
    return Results(place, tuple(newest(place, _warn)))


@overload
def compare(folder: str | Path = "results", a: None = None, b: None = None) -> Results: ...


@overload
def compare(folder: str | Path, a: str, b: str) -> pd.DataFrame: ...


def compare(folder: str | Path = "results", a: str | None = None, b: str | None = None) -> Results | pd.DataFrame:
    """The newest result of every cell in a results folder; or what changes from one method or run to another.

    a, b: as `srbench compare RESULTS A B` takes them; the frame has a line a metric: difference, interval, paired test and
    Holm-corrected p. Raises `UsageError` where the folder is none, or the two have no rows in common.
    """
    if a is None or b is None:
        if a != b:
            raise UsageError("one name to compare", "Give both, or none for all results.")
        return _newest(folder)
    import pandas as pd

    from srbench.analysis.differences import comparisons
    from srbench.analysis.results import name_of
    from srbench.results.pairing import Reader, pairs, side

    found = _newest(folder)
    reader = Reader(found.folder, _warn)
    both = pairs(*(side(name, list(found.cells), reader, lambda cell: True) for name in (a, b)))
    return pd.DataFrame([
        {
            "concept": each.b.cell.concept, "suite": each.b.cell.suite, "a": name_of(each.a.cell), "b": name_of(each.b.cell),
            "metric": change.metric, "before": change.before.value if change.before else None,
            "after": change.after.value if change.after else None, "difference": change.difference.value,
            "low": change.difference.low, "high": change.difference.high, "better": change.difference.better,
            "test": change.difference.test, "p": change.difference.p, "p_holm": change.difference.p_holm,
            "verdict": change.verdict,
        }
        for each in comparisons(both) for change in each.changes
    ])  # fmt: skip


# --- running ----------------------------------------------------------------------------------------------------------


def run(
    method: Words = ("none", "saferedir"), suite: Words = ("igmu",), concept: Words = (), *, on: Words = ("none",),
    set: Mapping[str, object] | Sequence[str] = (), scorers: Words = (), category: Words = (), column: Sequence[str] = (),
    out: str | Path = "results", prompts: str | Path | None = None, progress: bool = True, **more: Any,
) -> Results:
    """`srbench run`: sample the suites under the methods, score the images, judge them. Resumes.

    Names are one text with commas or a list. set: `{"saferedir.cooldown": 2}`, or the command line's texts.
    more: `backbone`, `dev`, `limit`, `seed`, `batch_size`, `dtype`, `device`, `gpus`, `compile`, `reference`, `protocol`,
    `score`, `keep_images`, `accept_prompts`, `sweep`, as in `srbench run --help`.
    Raises `SrbenchError` where the request is wrong or something is missing; cells that fail are in the result, with the reason.
    """
    from srbench.engine import command

    options = _options(method, suite, concept, on, set, scorers, category, column, out, prompts, more)
    say = _say(progress)
    done = command.run(options, say, _reporter(progress), _telling(progress))
    return Results(options.out, tuple(done.cells), done.run, done.exit_code)


def study(
    path: str | Path, *, out: str | Path = "results", device: str = "auto", gpus: str | None = None, reference: bool = False,
    progress: bool = True,
) -> Results:
    """`srbench run STUDY.yaml`: carry out a study's steps, or what is not done of them. See `docs/studies.md`.

    Raises `SrbenchError` where the file is wrong; steps that fail make `exit_code` 1, and are said.
    """
    from srbench.studies.read import read
    from srbench.studies.steps import StudyOptions
    from srbench.studies.study import run as carry_out

    options = StudyOptions(_path(out), device, gpus, reference)
    done = carry_out(read(_path(path)), options, _say(progress), _reporter(progress), _telling(progress))
    return Results(options.out, done.cells, "", done.exit_code)


def evaluate(
    pipe: Any, name: str = "mine", version: str | None = None, suites: Words = ("igmu",), concept: str | None = None, *,
    beside: Words = ("none",), backbone: str | None = None, limit: int | None = None, out: str | Path = "results",
    progress: bool = True, **more: Any,
) -> Results:
    """Run a diffusers pipeline of your own through the suites, in one table with the methods in `beside`.

    pipe: however it is patched: changed weights, hooks, attention processors, adapters. Its family must be the backbone's, and
    its scheduler too, so that noise and sampler are the same for all.
    name: its line in tables. version: what you call the state of the code that acts on it. Weights are hashed; hooks and
    processors of your own cannot be, and without a version nothing of such a pipeline is served from the store, and every table
    says so. backbone: the untouched model, where it cannot be told from the pipeline. more: as for `run`.
    Raises `UsageError` where the pipeline does not fit, or the name is taken.
    """
    from srbench.catalog import plugins
    from srbench.engine import command, given
    from srbench.engine.options import resolve

    plugins.register("methods", given.method_of(pipe, name, version))
    more = {"backbone": given.backbone_of(pipe, backbone), "limit": limit, "dtype": _dtype_of(pipe), **more}
    options = _options((*_words(beside), name), suites, concept or (), ("none",), (), (), (), (), out, None, more)
    say = _say(progress)
    request, opened, how = resolve(options, say)
    given.check_fits(pipe, opened)
    done = command.carried_out(options, request, opened, how, say, _reporter(progress), _telling(progress))
    return Results(options.out, tuple(done.cells), done.run, done.exit_code)


def score(
    folder: str | Path | Mapping[str, str | Path], layout: str, *, suite: str | None = None, concept: str | None = None,
    backbone: str | None = None, prompts: str | Path | None = None, reference: str | Path | None = None, category: Words = (),
    per_prompt: int = 1, protocol: str | None = None, scorers: Words = (), set: Mapping[str, object] | Sequence[str] = (),
    accept_prompts: bool = False, column: Sequence[str] = (), out: str | Path = "results", progress: bool = True,
) -> Results:
    """`srbench score`: pictures that were made elsewhere. folder: one of them, or method -> folder."""
    from srbench.catalog.prompts import chosen_columns
    from srbench.outputs import check_results
    from srbench.results.sensitive import tend
    from srbench.results.store import Store
    from srbench.scoring.folders import score_folders
    from srbench.scoring.layouts import ScoreRequest

    named = folder.items() if isinstance(folder, Mapping) else [("", folder)]
    request = ScoreRequest(
        folders=tuple((name, _path(place)) for name, place in named), layout=layout, suite=suite, concept=concept,
        backbone=backbone, prompts=_path(prompts) if prompts else None, reference=_path(reference) if reference else None,
        categories=_words(category), per_prompt=per_prompt, protocol=protocol, scorers=_words(scorers), settings=_settings(set),
        out=_path(out), accept_prompts=accept_prompts, columns=tuple(chosen_columns(column).items()),
    )
    check_results(request.out)
    say = _say(progress)
    store = Store(request.out / "store", say)
    tend(store, say)
    done = score_folders(request, store, _reporter(progress)())
    return Results(request.out, tuple(done.cells), done.run, done.exit_code)


# --- plug-ins of this process -----------------------------------------------------------------------------------------


def method(meta: Mapping[str, Any]) -> Any:
    """A class decorator that makes a method known in this process; meta: what `METHOD` says. See `docs/extending.md`."""
    return _registered("methods", meta)


def scorer(meta: Mapping[str, Any]) -> Any:
    """A class decorator that makes a scorer known in this process; meta: what `SCORER` says."""
    return _registered("scorers", meta)


def attack(
    name: str | Mapping[str, Any], concept: str = "", *, suite: str | None = None, targets: str | Path | None = None,
    method: str = "none", on: str = "none", backbone: str = "pocket", pairs: str | Path | None = None, dev: bool = False,
    limit: int | None = None, seed: int = 0, device: str = "auto", set: Mapping[str, object] | Sequence[str] = (),
    with_targets: bool = False, column: Sequence[str] = (), out: str | Path = "attack.json", progress: bool = True,
) -> Any:
    """`srbench attack`: search prompts against a method, write them to `out`, and return the rows as a frame.

    Run them with `run(prompts=out)`. Given a mapping in place of a name, it is a class decorator that makes an attack known in
    this process; the mapping is what `ATTACK` says.
    Raises `SrbenchError` where the request is wrong, something is missing, or every target failed.
    """
    if isinstance(name, Mapping):
        return _registered("attacks", name)
    from srbench.attacks import command

    asked = command.AttackOptions(
        name=name, backbone=backbone, concept=concept, suite=suite, targets=_path(targets) if targets else None, dev=dev,
        limit=limit, method=method, on=on, pairs=_path(pairs) if pairs else None, out=_path(out), seed=seed, device=device,
        settings=_settings(set), with_targets=with_targets, columns=tuple(column),
    )
    found = command.attack(asked, _say(progress), _telling(progress))
    return _frame_of(found)


def _frame_of(found: Any) -> pd.DataFrame:
    """A line a target that was attacked: what was found, and the objective at the start and the end."""
    import pandas as pd

    return pd.DataFrame([
        {"target": each.target, "prompt": each.prompt, "similarity": each.similarity, "objective": each.objective,
         "objective_before": each.history[0]}
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


def _words(given: Words) -> tuple[str, ...]:
    """Names in one text with commas, or in a list."""
    names: Iterable[str] = given.split(",") if isinstance(given, str) else given
    return tuple(name.strip() for name in names if name.strip())


def _settings(given: Mapping[str, object] | Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in given.items()) if isinstance(given, Mapping) else tuple(given)


def _path(given: str | Path) -> Path:
    return Path(given).expanduser()


def _options(
    method: Words, suite: Words, concept: Words, on: Words, settings: Any, scorers: Words, category: Words,
    column: Sequence[str], out: str | Path, prompts: str | Path | None, more: Mapping[str, Any],
) -> Any:
    from srbench.engine.options import RunOptions

    known = {field.name for field in fields(RunOptions)}
    for name in more:
        if name not in known:
            raise UsageError(f"there is no argument '{name}'", did_you_mean(name, known))
    suites = () if prompts is not None and suite == ("igmu",) else _words(suite)
    return replace(
        RunOptions(
            methods=_words(method), on=_words(on), suites=suites, concepts=_words(concept), settings=_settings(settings),
            scorers=_words(scorers), out=_path(out), prompts=_path(prompts) if prompts is not None else None,
            categories=_words(category), columns=tuple(column),
        ),
        **more,
    )


def _dtype_of(pipe: Any) -> str:
    """The number format of a pipeline, as `--dtype` calls it."""
    import torch

    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    if pipe.dtype not in names:
        raise UsageError(f"a pipeline in {pipe.dtype}", f"Convert it: {', '.join(map(str, names))}.")
    return names[pipe.dtype]


# --- what is said -----------------------------------------------------------------------------------------------------


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _silent(text: str) -> None:
    """Nothing."""


def _say(progress: bool) -> Any:
    return _warn if progress else _silent


def _reporter(progress: bool) -> Any:
    from srbench.progress import Bar, Quiet

    return Bar if progress else Quiet


def _telling(progress: bool) -> Any:
    @contextmanager
    def silent(what: str) -> Iterator[Any]:
        from srbench.methods.base import quiet

        yield quiet

    def bars(what: str) -> AbstractContextManager[Any]:
        from srbench.progress import telling

        return telling(what)

    return bars if progress else silent
