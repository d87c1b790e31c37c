"""`srbench`: the commands and their options. Each imports its room only when it runs."""

from __future__ import annotations

import functools
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from srbench import faults
from srbench.cli import console, new, signals
from srbench.cli.console import say
from srbench.cli.helping import HOW, OUTPUT, WHAT, Command, Group
from srbench.errors import INTERRUPTED, SOME_FAILED, USAGE, SrbenchError, UsageError
from srbench.rules import words
from srbench.version import __version__

app = typer.Typer(
    cls=Group, no_args_is_help=True,  pretty_exceptions_enable=False,
    help="Benchmark of concept unlearning in text-to-image models.",
    epilog="Example: srbench run --method none,saferedir --suite igmu,mma",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        console.line(f"srbench {__version__}")
        raise typer.Exit


@app.callback()
def _of_all(
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Benchmark of concept unlearning in text-to-image models."""

Out = Annotated[Path, OUTPUT.value("FOLDER", "--out", help="Results folder.")]
Backbone = Annotated[str, WHAT.one("backbones", help="From `srbench list`; or a folder, a file of weights, a hub id.")]
Dtype = Annotated[str, HOW.value("TYPE", help="auto, fp32, bf16 or fp16; auto is fp32 on a CPU, on CUDA bf16 or else fp16.")]
Column = Annotated[
    list[str] | None, WHAT.value("FIELD=COLUMN", help="Which column of your file holds what: prompt=adv_prompt; repeat it.")
]
Debug = Annotated[bool, OUTPUT.flag("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, OUTPUT.flag("--json", help="JSON on stdout.")]
Gpus = Annotated[str | None, HOW.value("NUMBERS", help="Cards of this machine by number, with commas: an actor each.")]
Ray = Annotated[str | None, HOW.value("ADDRESS", help="Work on a Ray cluster: auto, HOST:PORT, or local.")]
RayGpus = Annotated[
    float | None, HOW.value("SHARE", help="Cards of an actor, 0.25 a quarter of one.", default="1 where there are any")
]
RayCpus = Annotated[float | None, HOW.value("N", help="Cores of an actor.", default="1")]
Shard = Annotated[
    str | None, HOW.value("I/N", help="Only this part of the images, or auto. Without it the same command joins the parts.")
]
Set = Annotated[list[str] | None, HOW.value("NAME.OPTION=VALUE", "--set", help="Of a method or scorer; repeat it.")]
OwnSet = Annotated[list[str] | None, HOW.value("OPTION=VALUE", "--set", help="Of the method; repeat it.")]
Plain = Annotated[bool, OUTPUT.flag("--plain", help="No colour and no box characters, as in a pipe.")]

LEAST = {"limit": 1, "batch_size": 1, "per_prompt": 1, "images": 0, "seed": 0, "trace_steps": 1}
"""Option that is a number -> its lowest value."""
MOST, MOST_SEED = 2**63 - 1, 2**64 - 1
COUNTED_SEED = {"train": 2**63 - 1, "attack": (2**63 - 1) // 1_000_003 - 1}
"""Command -> its highest seed: `train` counts up from it, an attack multiplies it by `attacks.base.SEED_STRIDE`."""


def guarded(command: Callable[..., int | None]) -> Callable[..., None]:
    """The command, with every error as one line and an exit code; `--debug` shows the traceback, too.

    Its numbers, texts and paths are checked before it begins.
    """

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        name, said = command.__name__.rstrip("_"), ""
        try:
            with console.alone():
                code = command(*args, **_checked(name, kwargs)) or 0
        except typer.Exit:
            raise
        except BrokenPipeError:
            console.silence()  # the reader went away (`| head`)
            code = 0
        except BaseException as error:  # noqa: BLE001 - whatever a library raises
            code, said = _ended(name, error, bool(kwargs.get("debug"))), getattr(error, "line", "")
        _say_left_out(said)
        raise typer.Exit(code)

    return wrapper


def _say_left_out(said: str) -> None:
    """A line for each plug-in and each data file that cannot be used, where such were looked for at all.

    said: the error that ended the command, which is not said again.
    """
    for name in ("plugins", "load"):
        catalog = sys.modules.get(f"srbench.catalog.{name}")
        for line in catalog.left_out() if catalog else ():
            if line != f"left out: {said}":
                say(line)


# --- how commands end -------------------------------------------------------------------------------------------------


def _ended(command: str, error: BaseException, debug: bool) -> int:
    """Say how a command ended; returns its exit code. 1 is left for cells that failed."""
    if isinstance(error, KeyboardInterrupt) or signals.heard():
        _interrupted()
        return INTERRUPTED
    if debug:
        traceback.print_exception(error)
    if isinstance(error, SrbenchError):
        say(f"error: {error.message}")
        if error.hint:
            say(f"hint: {error.hint}")
        return USAGE if error.exit_code == SOME_FAILED else error.exit_code
    say(f"error: {command}: {_reason(error)}{_where(error)}")
    say(f"hint: {_hint(error)}")
    return USAGE


_interrupt_lines: list[str] = []
"""The lines printed for an interrupt."""


def _interrupted() -> None:
    _interrupt_lines.append(f"interrupted; go on with: {shlex.join(['srbench', *sys.argv[1:]])}")
    say(_interrupt_lines[-1])


def _reason(error: BaseException) -> str:
    """What went wrong, for errors that nobody foresaw."""
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, RecursionError):
        return "something is nested too deeply"
    if isinstance(error, SystemExit):
        return f"a library or plug-in tried to end the process (SystemExit: {error.code})"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {error.filename}' if error.filename is not None else ''}"
    return faults.said_by(error)


def _where(error: BaseException) -> str:
    """The innermost step of srbench that was being done."""
    root = str(Path(__file__).parent.parent)
    steps = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(root)]
    if not steps or steps[-1].filename == __file__:
        return ""
    return f" (in {Path(steps[-1].filename).relative_to(root).as_posix()}, {steps[-1].name}, line {steps[-1].lineno})"


def _hint(error: BaseException) -> str:
    if isinstance(error, OSError):
        return "Mend the space, the rights or the path, then run the same command again; --debug shows where it happened."
    if isinstance(error, MemoryError):
        return "Ask for less at once, or free some memory; --debug shows where it happened."
    return "This is a fault of srbench or of a library: --debug shows where it happened; please report it with the command."


# --- what options hold ------------------------------------------------------------------------------------------------


def _checked(command: str, values: dict[str, Any]) -> dict[str, Any]:
    """The options' values, `~` in every path as the home folder.

    Raises `UsageError` for a number out of its range, and for a text or path that is empty or has a NUL byte.
    """
    for name, value in values.items():
        if isinstance(value, int) and name in LEAST:
            _check_number(command, name, value)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str | Path):
                _check_text(name, str(item))
            if isinstance(item, Path) and str(item).startswith("="):
                raise UsageError(f"'{item}' begins with '='", "After a short option a blank stands: -o FILE")
    return {name: _at_home(name, value) for name, value in values.items()}


def _check_text(name: str, text: str) -> None:
    if not text.strip() or "\0" in text:
        why = "holds a NUL byte" if text.strip() else "is empty"
        raise UsageError(f"{_option(name)} {why}", "Give a value, or leave it out.")


def _check_number(command: str, name: str, value: int) -> None:
    most = MOST if name != "seed" else COUNTED_SEED.get(command, MOST_SEED)
    if value < LEAST[name]:
        raise UsageError(f"{_option(name)} {value}: expected {LEAST[name]} or more", "Leave it out for the default.")
    if value > most:
        raise UsageError(f"{_option(name)} {value}: expected at most {most}", "Leave it out for the default.")


def _option(name: str) -> str:
    return f"--{name.rstrip('_').replace('_', '-')}"


def _at_home(name: str, value: Any) -> Any:
    """Paths, and values of `--set`, with `~` as the home folder: of `--out=~/x` no shell makes one."""
    if isinstance(value, list):
        return [_at_home(name, each) for each in value]
    if isinstance(value, Path):
        return Path(_expanded(str(value)))
    if name == "set_" and isinstance(value, str):
        return _expanded(value)
    return value


def _expanded(text: str) -> str:
    """A path, or what follows the first `=` of `NAME=PATH`, where it begins with `~`."""
    name, equals, value = text.partition("=")
    if equals and value.startswith("~") and not name.startswith("~"):
        return f"{name}={os.path.expanduser(value)}"
    return os.path.expanduser(text)


def names_or_paths(text: str) -> tuple[str, ...]:
    """As `words`, but an existing path stays one word, with the commas in it; the longest such path is taken."""
    parts = text.split(",")
    names, at = [], 0
    while at < len(parts):
        joined = {end: ",".join(parts[at:end]) for end in range(len(parts), at + 1, -1)}
        end = next((end for end, name in joined.items() if os.path.lexists(os.path.expanduser(name.strip()))), at + 1)
        names.append(",".join(parts[at:end]).strip())
        at = end
    if not all(names):
        return words(text)  # which says what is wrong
    return tuple(dict.fromkeys(names))


@app.command(cls=Command)
@guarded
def run(
    context: typer.Context,
    study: Annotated[
        Path | None, typer.Argument(metavar="STUDY.yaml", help="An experiment as a file; few options go with it.")
    ] = None,
    method: Annotated[str, WHAT.several("methods", help="Methods, with commas.")] = "saferedir",
    suite: Annotated[
        str | None, WHAT.several("suites", help="Suites, with commas.", default="igmu; with --prompts the file")
    ] = None,
    concept: Annotated[
        str | None, WHAT.several("concepts", help="Concepts, with commas.", default="the backbone's first")
    ] = None,
    joint: Annotated[bool, WHAT.flag("--joint", help="One checkpoint of a weight method for all concepts.")] = False,
    backbone: Annotated[
        str, WHAT.one("backbones", help="From `srbench list`; or a folder, a file of weights, a hub id, or auto.")
    ] = "pocket",
    on: Annotated[
        str, WHAT.several("checkpoints", help="Checkpoints under the methods: weight methods, baselines, paths.")
    ] = "none",
    out: Out = Path("results"),
    prompts: Annotated[
        Path | None, WHAT.value("FILE", help="Your own prompts; with --suite your copy of it (a file, or a folder).")
    ] = None,
    accept_prompts: Annotated[
        bool, WHAT.flag("--accept-prompts", help="Take a copy that is not the published one; tables say so.")
    ] = False,
    column: Column = None,
    category: Annotated[str | None, WHAT.value("NAMES", help="Only rows of these categories, with commas.")] = None,
    limit: Annotated[int | None, WHAT.value("N", help="Rows per kind (forget, unseen, retain).")] = None,
    seed: Annotated[int, HOW.value("N", help="Seed of rows that have none.")] = 0,
    batch_size: Annotated[
        int | None, HOW.value("N", help="Images per pipeline call.", default="16, less where a card's memory is short")
    ] = None,
    dtype: Dtype = "auto",
    device: Annotated[str, HOW.value("DEVICE", help="auto, cpu or cuda.")] = "auto",
    gpus: Gpus = None,
    ray: Ray = None,
    ray_gpus: RayGpus = None,
    ray_cpus: RayCpus = None,
    compile: Annotated[str, HOW.value("auto|on|off", help="Compile the denoiser's blocks (CUDA).")] = "auto",
    durable: Annotated[str, HOW.value("each|batch|none", help="When images are synced to the disk.")] = "each",
    reference: Annotated[
        bool, HOW.flag("--reference", help="fp32, one image a call, deterministic kernels: slow, to compare with.")
    ] = False,
    protocol: Annotated[str | None, HOW.one("protocols", help="Judge's protocol.", default="the concept's")] = None,
    scorers: Annotated[str | None, HOW.several("scorers", help="Scorers beside the needed ones, with commas.")] = None,
    set_: Set = None,
    sweep: Annotated[str | None, WHAT.value("METHOD.OPTION=V1,V2", help="A variant for each value, in one run.")] = None,
    dev: Annotated[bool, WHAT.flag("--dev", help="The dev edition, on which things may be tuned.")] = False,
    sample_only: Annotated[bool, HOW.flag("--sample-only", "--no-score", help="Sample, and score nothing.")] = False,
    trace_steps: Annotated[
        int | None, HOW.value("N", help="Keep the steps of N rows a cell whose verdict flipped, for the report.", default="none")
    ] = None,
    shard: Shard = None,
    keep_images: Annotated[bool, OUTPUT.flag("--keep-images", help="Keep the images of sensitive runs.")] = False,
    sheet: Annotated[Path | None, OUTPUT.value("FILE", help="PNG to draw: rows by methods side by side.")] = None,
    fetch: Annotated[bool, HOW.flag("--fetch", help="First download what is missing, as `srbench fetch` does.")] = False,
    dry_run: Annotated[bool, OUTPUT.flag("--dry-run", help="Say what would be done, and do nothing.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Sample the suites under the methods, score the images, print the table."""
    if study is not None:
        from srbench.studies.steps import StudyOptions

        whole = StudyOptions(out, device, gpus, reference, shard, sample_only, ray, ray_gpus, ray_cpus)
        return _study(context, study, whole, dry_run, json)
    from srbench.cli import run as room
    from srbench.engine.request import RunOptions

    options = RunOptions(
        backbone=backbone, methods=words(method), on=names_or_paths(on), suites=words(suite) or (() if prompts else ("igmu",)),
        concepts=words(concept), joint=joint, dev=dev, limit=limit, seed=seed, batch_size=batch_size, dtype=dtype, device=device,
        settings=tuple(set_ or ()), protocol=protocol, scorers=words(scorers), out=out, score=not sample_only,
        keep_images=keep_images, prompts=prompts, accept_prompts=accept_prompts, categories=words(category),
        reference=reference, compile=compile, gpus=gpus, sweep=sweep, columns=tuple(column or ()), sheet=sheet is not None,
        shard=shard, ray=ray, ray_gpus=ray_gpus, ray_cpus=ray_cpus, durable=durable,
        trace_steps=trace_steps,
    )
    if sheet is not None:
        from srbench.outputs import SHEET, check_file

        check_file(sheet, SHEET)
    if fetch:
        _fetch(options, dry_run)
    if dry_run:
        return room.dry_run(options, json)
    code = room.run(options, json)
    if sheet is not None:
        from srbench.cli.show import sheet_of_newest

        sheet_of_newest(out, sheet)
    return code


def _fetch(run: Any, dry_run: bool) -> None:
    """Fetch what a run lacks. What nothing fetches is said, and the run says what it costs."""
    from srbench.cli import fetch as room

    wanted = room.FetchOptions(
        run.backbone, run.methods, run.suites, run.concepts, run.on, run.scorers, run.settings, run.protocol, run.prompts,
        run.dev,
    )
    room.fetch(wanted, dry_run, as_json=False, line=say)


def _study(context: typer.Context, path: Path, options: Any, dry_run: bool, json: bool) -> int:
    from srbench.cli import study as room

    sources = {name: context.get_parameter_source(name) for name in context.params}
    room.refuse_others(path, [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"])
    return room.study(path, options, dry_run, json)


@app.command(cls=Command)
@guarded
def compare(
    results: Annotated[Path, typer.Argument(help="Results folder.")] = Path("results"),
    names: Annotated[
        list[str] | None, typer.Argument(help="Two to compare: a method, method@checkpoint, a table's line, or a run.")
    ] = None,
    method: Annotated[str | None, WHAT.several("methods", help="Only these methods, with commas.")] = None,
    suite: Annotated[str | None, WHAT.several("suites", help="Only these suites, with commas.")] = None,
    concept: Annotated[str | None, WHAT.several("concepts", help="Only these concepts, with commas.")] = None,
    on: Annotated[str | None, WHAT.several("checkpoints", help="Only on these checkpoints, with commas.")] = None,
    backbone: Annotated[str | None, WHAT.several("backbones", help="Only these backbones, with commas.")] = None,
    protocol: Annotated[
        str | None, HOW.several("protocols", help="Judge stored scores under these protocols, with commas.")
    ] = None,
    baseline: Annotated[str | None, OUTPUT.one("methods", help="Method that differences and tests are against.")] = None,
    sort: Annotated[str | None, OUTPUT.value("METRIC", help="Metric whose best value comes first.")] = None,
    format: Annotated[
        str | None, OUTPUT.value("FORMAT", "--format", help="md, csv, latex, html or json.", default="a table")
    ] = None,
    all_: Annotated[bool, OUTPUT.flag("--all", help="Also the variants among the committed results.")] = False,
    costs: Annotated[bool, OUTPUT.flag("--costs", help="What the methods cost: making, time, parameters, memory.")] = False,
    attacks: Annotated[bool, OUTPUT.flag("--attacks", help="Methods by suites, and by what prompts were made against.")] = False,
    relearned: Annotated[bool, OUTPUT.flag("--relearned", help="Checkpoints that were taught again: W~8, W~32.")] = False,
    seeds: Annotated[bool, OUTPUT.flag("--seeds", help="Checkpoints that several seeds made: W#0, W#1.")] = False,
    durability: Annotated[bool, OUTPUT.flag("--durability", help="Does it stay gone: a method a line.")] = False,
    sensitivity: Annotated[bool, OUTPUT.flag("--sensitivity", help="One --protocol at other thresholds, classes.")] = False,
    curve: Annotated[str | None, OUTPUT.value("METHOD.OPTION", help="Draw what its values trade, to -o FILE.")] = None,
    out: Annotated[Path | None, OUTPUT.value("FILE", "-o", help="Picture to write, with --curve.")] = None,
    plain: Plain = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Tables of the newest result of every cell, or what changes from one method to another."""
    from srbench.cli import compare as room

    options = room.CompareOptions(
        results, tuple(names or ()), words(method), words(suite), words(concept), words(on), words(backbone), words(protocol),
        format="json" if json else format, sort=sort, baseline=baseline, everything=all_, costs=costs, attacks=attacks,
        relearned=relearned, seeds=seeds, durability=durability, sensitivity=sensitivity, curve=curve, out=out,
    )
    return room.compare(options, plain)


@app.command(cls=Command)
@guarded
def tables(
    name: Annotated[list[str] | None, typer.Argument(help="Tables by name; all where left out.")] = None,
    format: Annotated[
        str | None, OUTPUT.value("FORMAT", "--format", help="md, csv, latex, html or json.", default="a table")
    ] = None,
    pocket: Annotated[bool, OUTPUT.flag("--pocket", help="Pocket's edition: what its reference runs give.")] = False,
    folder: Annotated[
        Path | None, OUTPUT.value("FOLDER", "-o", "--folder", help="Write them there, a file a table and format, and print none.")
    ] = None,
    results: Annotated[Path, OUTPUT.value("FOLDER", "--results", help="Results folder.")] = Path("results"),
    plain: Plain = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Tables of the papers: published figures beside those measured here."""
    from srbench.cli import tables as room

    return room.tables(room.TablesOptions(tuple(name or ()), pocket, results, "json" if json else format), folder, plain)


@app.command(cls=Command)
@guarded
def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Results folder; with --leaderboard one of each contributor.", show_default="results"),
    ] = None,
    out: Annotated[
        Path | None,
        OUTPUT.value("FILE", "--out", "-o", help="HTML file to write.", default="report.html, or leaderboard.html"),
    ] = None,
    method: Annotated[str | None, WHAT.several("methods", help="Only these methods (and none), with commas.")] = None,
    suite: Annotated[str | None, WHAT.several("suites", help="Only these suites, with commas.")] = None,
    concept: Annotated[str | None, WHAT.several("concepts", help="Only these concepts, with commas.")] = None,
    leaderboard: Annotated[
        bool, WHAT.flag("--leaderboard", help="A page of several people's results, judged again where their pictures are there.")
    ] = False,
    no_verify: Annotated[bool, HOW.flag("--no-verify", help="For a leaderboard: judge nothing again.")] = False,
    images: Annotated[
        int | None, OUTPUT.value("N", help="About how many pictures the gallery has; 0 for none.", default="500")
    ] = None,
    debug: Debug = False,
) -> int:
    """One HTML file with everything that a results folder says; needs no network."""
    from srbench.cli import report as room

    folders = tuple(results or ())
    chosen = (words(method), words(suite), words(concept))
    return room.written(room.PageOptions(folders, out, *chosen, images, leaderboard, not no_verify))


@app.command(cls=Command)
@guarded
def score(
    folder: Annotated[list[Path], typer.Argument(help="Folders of pictures, NAME=FOLDER to name a method; or a results folder.")],
    as_: Annotated[str | None, WHAT.one("layouts", "--as", help="Layout of the pictures: `srbench list layouts`.")] = None,
    suite: Annotated[str | None, WHAT.one("suites", help="Suite whose rows the pictures are of.")] = None,
    concept: Annotated[str | None, WHAT.one("concepts", help="Concept that should be gone.")] = None,
    backbone: Annotated[str | None, WHAT.one("backbones", help="Whose edition of the suite, where there are several.")] = None,
    prompts: Annotated[
        Path | None, WHAT.value("FILE", help="File with the prompts; with --suite your copy of that suite.")
    ] = None,
    accept_prompts: Annotated[
        bool, WHAT.flag("--accept-prompts", help="Take a copy that is not the published one; tables say so.")
    ] = False,
    column: Column = None,
    reference: Annotated[Path | None, WHAT.value("FOLDER", help="Folder of the reference images, of the same layout.")] = None,
    category: Annotated[str | None, WHAT.value("NAMES", help="Only pictures of these categories, with commas.")] = None,
    per_prompt: Annotated[int, HOW.value("N", help="Pictures of one prompt, where names only number them all.")] = 1,
    protocol: Annotated[str | None, HOW.one("protocols", help="Judge's protocol.", default="the concept's")] = None,
    scorer: Annotated[str | None, HOW.several("scorers", help="Scorers beside the needed ones, with commas.")] = None,
    set_: Set = None,
    out: Out = Path("results"),
    shard: Shard = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Score pictures that others made; or with one more scorer the images of runs, without sampling them again."""
    from srbench.cli import score as room

    request = room.ScoreRequest(
        folders=tuple(map(room.named, folder)), layout=as_, suite=suite, concept=concept, backbone=backbone, prompts=prompts,
        reference=reference, categories=words(category), per_prompt=per_prompt, protocol=protocol, scorers=words(scorer),
        settings=tuple(set_ or ()), out=out, accept_prompts=accept_prompts, columns=room.columns_of(column or ()),
        shard=shard,
    )
    return room.score(request, json)


@app.command("list", cls=Command)
@guarded
def list_(
    kind: Annotated[str | None, typer.Argument(help="methods, suites, concepts, ...; all where left out.")] = None,
    paper: Annotated[bool, OUTPUT.flag("--paper", help="Methods with their papers.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Methods, suites, concepts, backbones, scorers, protocols, attacks, baselines and layouts."""
    from srbench.cli import listing

    return listing.show(kind, json, paper)


@app.command(cls=Command)
@guarded
def show(
    what: Annotated[str, typer.Argument(help="A row's id, the start of an image key, a PNG of the store; with --sheet a run.")],
    name: Annotated[str | None, typer.Argument(help="After method, attack or scorer: which one, for its options.")] = None,
    results: Annotated[Path, OUTPUT.value("FOLDER", "--out", help="Results folder.")] = Path("results"),
    sheet: Annotated[Path | None, OUTPUT.value("FILE", help="PNG to draw instead: rows by methods side by side.")] = None,
    debug: Debug = False,
) -> int:
    """An image in the terminal, its row, its scores and its trace; or a method, attack or scorer with its options."""
    if name is not None:
        from srbench.cli import about

        if what not in about.KINDS:
            problem = f"show {what} {name}: the first of two is {', '.join(about.KINDS)}"
            raise UsageError(problem, "Example: srbench show method uce")
        return about.show(what, name, results)
    from srbench.cli import show as room

    return room.show(what, results, sheet)


@app.command(cls=Command)
@guarded
def verify(
    results: Annotated[Path, typer.Argument(help="Results folder.")] = Path("results"),
    scores: Annotated[int, HOW.value("N", help="Stored scores to make anew.")] = 20,
    seed: Annotated[int, HOW.value("N", help="Of which scores are drawn.")] = 0,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Check a results folder: pictures, records, runs, checkpoints, numbers. Changes nothing; 1 where anything is wrong."""
    from srbench.cli import verify as room

    return room.verify(results, scores, seed, json)


@app.command(cls=Command)
@guarded
def export(
    as_: Annotated[str, OUTPUT.value("FORM", "--as", help="hub, bibtex-table, wandb or mlflow.")],
    out: Annotated[Path, OUTPUT.value("FOLDER", "--out", "-o", help="Where its files go.")],
    run: Annotated[str | None, typer.Argument(help="A run's name; the newest where left out.")] = None,
    results: Annotated[Path, WHAT.value("FOLDER", "--results", help="Results folder.")] = Path("results"),
    debug: Debug = False,
) -> int:
    """A run as cards and pictures for the hub, a table for a paper, or a run of wandb or MLflow."""
    from srbench.cli import export as room

    return room.export(run, as_, results, out)


@app.command(cls=Command)
@guarded
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Results folders.")],
    out: Annotated[Path, OUTPUT.value("FOLDER", "--out", help="Results folder that they are joined in, new or not.")],
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Join results folders, such as those of two people: content keys decide, and what differs is named."""
    from srbench.cli import merge as room

    return room.merge(folders, out, json)


@app.command(cls=Command)
@guarded
def doctor(
    method: Annotated[str | None, WHAT.several("methods", help="Methods of a run that is planned, with commas.")] = None,
    suite: Annotated[str | None, WHAT.several("suites", help="Its suites, with commas.")] = None,
    concept: Annotated[str | None, WHAT.several("concepts", help="Its concepts, with commas.")] = None,
    backbone: Backbone = "pocket",
    out: Out = Path("results"),
    set_: Set = None,
    known: Annotated[
        Path | None, WHAT.value("FOLDER", help="Folder with images in with/ and without/ it: what the labels of igmu-head mean.")
    ] = None,
    all_: Annotated[bool, HOW.flag("--all", help="Also open every scorer and draw a picture; takes longer.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Check that everything a run needs is there and works, and say what fetches the rest."""
    from srbench.cli import doctor as room

    settings = tuple(set_ or ())
    return room.doctor(
        room.DoctorOptions(backbone, words(method), words(suite), words(concept), settings, all_, out, known), json
    )


@app.command(cls=Command)
@guarded
def fetch(
    method: Annotated[str | None, WHAT.several("methods", help="Methods of a run that is planned, with commas.")] = None,
    suite: Annotated[str | None, WHAT.several("suites", help="Its suites, with commas.")] = None,
    concept: Annotated[str | None, WHAT.several("concepts", help="Its concepts, with commas.")] = None,
    backbone: Backbone = "pocket",
    on: Annotated[
        str | None, WHAT.several("baselines", help="Published checkpoints, with commas: `srbench list baselines`.")
    ] = None,
    scorers: Annotated[str | None, HOW.several("scorers", help="Scorers whose weights are wanted, with commas.")] = None,
    set_: Set = None,
    for_: Annotated[str | None, WHAT.value("'run ...'", "--for", help="What this run needs, as you type it.")] = None,
    dry_run: Annotated[bool, OUTPUT.flag("--dry-run", help="Say how many bytes it would be, and fetch nothing.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Download what a run needs and is not here: backbone, prompts, judges, checkpoints. Goes on where it was cut off."""
    from srbench.cli import fetch as room

    options = room.FetchOptions(
        backbone, words(method), words(suite), words(concept), names_or_paths(on) if on else (), words(scorers),
        tuple(set_ or ()),
    )  # fmt: skip
    if for_ is not None:
        if options != room.FetchOptions():
            raise UsageError("--for says all that the run is", "Leave --method, --suite and the others out, or --for.")
        given = _values_of("run", for_)
        if given["study"] is not None:
            raise UsageError("--for takes a run, not a study", "Fetch for each of its runs.")
        suites = words(given["suite"]) or (() if given["prompts"] else ("igmu",))
        options = room.FetchOptions(
            given["backbone"], words(given["method"]), suites, words(given["concept"]), names_or_paths(given["on"]),
            words(given["scorers"]), tuple(given["set_"] or ()), given["protocol"], given["prompts"], given["dev"],
        )
    return room.fetch(options, dry_run, json)


def _values_of(command: str, text: str) -> dict[str, Any]:
    """The options that a command line gives, defaults included. Raises `UsageError` where it is none of this command."""
    try:
        words_of = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--for: {error}", "Close every quotation mark.") from error
    words_of = words_of[1:] if words_of[:1] == ["srbench"] else words_of
    if words_of[:1] != [command]:
        hint = f"--for '{command} --method none,saferedir --suite mma'"
        raise UsageError(f"--for '{text}': it has to begin with '{command}'", hint)
    try:
        group: Any = typer.main.get_command(app)
        return dict(group.commands[command].make_context(command, words_of[1:]).params)
    except Exception as error:  # click's errors, which typer has in a module of its own that moves
        if not hasattr(error, "format_message"):
            raise
        raise UsageError(f"--for: {error.format_message()}", "Give the run as you would type it.") from error


@app.command(cls=Command)
@guarded
def train(
    method: Annotated[str, typer.Argument(help="saferedir, or concept-inversion.")],
    concept: Annotated[str, WHAT.several("concepts", help="Concept; for saferedir several at once with commas.")],
    out: Annotated[
        Path | None, OUTPUT.value("FOLDER", "--out", help="Folder for it.", default="redirectors|inversions/<backbone>/<concept>")
    ] = None,
    backbone: Backbone = "pocket",
    on: Annotated[str, WHAT.one("checkpoints", help="Checkpoint to train on: a weight method, a baseline or a path.")] = "none",
    pairs: Annotated[
        Path | None, WHAT.value("FILE", help="Table with `unsafe` and `safe`, or IGMU's folder.", default="pocket's, or IGMU")
    ] = None,
    adversarial: Annotated[
        Path | None, WHAT.value("FILE", help="Row file of `srbench attack` on the concept: its prompts are trained on too.")
    ] = None,
    column: Column = None,
    accept_prompts: Annotated[bool, WHAT.flag("--accept-prompts", help="Take a copy of IGMU that differs.")] = False,
    images: Annotated[
        Path | None, WHAT.value("FOLDER", help="Images of the concept, for concept-inversion.", default="the backbone's own")
    ] = None,
    seed: Annotated[int, HOW.value("N", help="Seed of the training.")] = 0,
    device: Annotated[str, HOW.value("DEVICE", help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, HOW.value("TYPE", help="auto, fp32, bf16 or fp16 of the backbone; auto as in `run`.")] = "auto",
    set_: OwnSet = None,
    debug: Debug = False,
) -> int:
    """Train a redirector, or invert a concept, and write it with its card. The same command goes on after an interruption."""
    from srbench.cli import train as room

    options = room.TrainOptions(
        method, words(concept), backbone, on, out, pairs, adversarial, images, seed, tuple(set_ or ()), accept_prompts,
        device, dtype, tuple(column or ()),
    )
    return room.train(options)


@app.command(cls=Command)
@guarded
def erase(
    method: Annotated[str, typer.Argument(help="A weight method: `srbench list methods` shows them.")],
    concept: Annotated[str, WHAT.several("concepts", help="Concept to erase; several with commas, in one checkpoint.")],
    out: Annotated[
        Path | None, OUTPUT.value("FOLDER", "--out", help="Folder for it.", default="checkpoints/<backbone>/<concept>/<method>")
    ] = None,
    backbone: Backbone = "pocket",
    device: Annotated[str, HOW.value("DEVICE", help="auto, cpu or cuda.")] = "auto",
    set_: OwnSet = None,
    debug: Debug = False,
) -> int:
    """Make an unlearned checkpoint and write it with its card."""
    from srbench.cli import erase as room

    return room.erase(room.EraseOptions(method, concept, backbone, out, device, tuple(set_ or ())))


@app.command(cls=Command)
@guarded
def attack(
    name: Annotated[str, typer.Argument(help="Attack: `srbench list attacks` shows them; or relearn, which attacks weights.")],
    concept: Annotated[str, WHAT.one("concepts", help="Concept to bring back; its words are banned.")],
    out: Annotated[Path, OUTPUT.value("PATH", "--out", help="Row file to write (JSON); of relearn the results folder.")],
    suite: Annotated[str | None, WHAT.one("suites", help="Suite whose forget prompts are the targets.")] = None,
    targets: Annotated[Path | None, WHAT.value("FILE", help="Or a file of target prompts: a table, or text.")] = None,
    column: Column = None,
    dev: Annotated[bool, WHAT.flag("--dev", help="The suite's dev edition.")] = False,
    limit: Annotated[int | None, WHAT.value("N", help="Only the first targets.")] = None,
    backbone: Backbone = "pocket",
    method: Annotated[str, WHAT.one("methods", help="Method that defends; white-box attacks see it.")] = "none",
    on: Annotated[str, WHAT.one("checkpoints", help="Checkpoint under it: a weight method, a baseline or a path.")] = "none",
    pairs: Annotated[
        Path | None, WHAT.value("FILE", help='For ring-a-bell: table of "unsafe" and "safe".', default="the backbone\'s own")
    ] = None,
    with_targets: Annotated[
        bool, WHAT.flag("--with-targets", help="Also write the targets as they are: what needed no attack?")
    ] = False,
    budget: Annotated[
        str | None, HOW.value("small|paper", help="small: 2 cores finish it on pocket; paper: as published.", default="paper")
    ] = None,
    steps: Annotated[str | None, HOW.value("NUMBERS", help="For relearn: steps of teaching.", default="0,8,32,128,512")] = None,
    other: Annotated[bool, WHAT.flag("--other", help="For relearn: teach other things than the concept.")] = False,
    seed: Annotated[int, HOW.value("N", help="Seed of the attack.")] = 0,
    device: Annotated[str, HOW.value("DEVICE", help="auto, cpu or cuda.")] = "auto",
    gpus: Gpus = None,
    ray: Ray = None,
    ray_gpus: RayGpus = None,
    ray_cpus: RayCpus = None,
    set_: Annotated[
        list[str] | None, HOW.value("OPTION=VALUE", "--set", help="Of the attack, METHOD.OPTION=VALUE of the method; repeat it.")
    ] = None,
    debug: Debug = False,
) -> int:
    """Search for prompts that bring a concept back. Goes on where it was interrupted."""
    from srbench.cli import attack as room

    options = room.AttackOptions(
        name, concept, backbone, suite, targets, dev, limit, method, on, pairs, out, seed, device, tuple(set_ or ()),
        with_targets, tuple(column or ()), budget=budget, gpus=gpus, ray=ray, ray_gpus=ray_gpus, ray_cpus=ray_cpus,
    )
    if name == room.lessons.NAME:
        return room.relearn(options, steps or room.lessons.STEPS, other)
    if steps or other:
        raise UsageError("--steps and --other are relearn's", "Leave them out.")
    return room.attack(options)


for _command in new.app.registered_commands:
    if _command.callback is not None:
        _command.callback = guarded(_command.callback)
app.add_typer(new.app, name="new")


def main() -> None:
    """The `srbench` command."""
    if COMPLETING in os.environ:
        _complete()
    console.prepare()
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        console.silence()
        code = 0
    except BaseException as error:  # noqa: BLE001 - also an interrupt before the command has begun
        if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):  # click's, of `--help | head -1`
            console.silence()
            code = 0
        else:
            code = _ended("srbench", error, "--debug" in sys.argv)
    if code == INTERRUPTED and not _interrupt_lines:
        _interrupted()  # before the command had begun
    signals.leave()
    sys.exit(code)


NAME = "srbench"
"""Of the program, however it was started."""
COMPLETING = "_SRBENCH_COMPLETE"
"""Set by a shell that asks what a word can become; the answer is all that is printed."""
_CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
"""click's exception for what cannot be parsed: of click itself, or of the copy that later releases of typer have."""


def _complete() -> None:
    """Answer a shell; whatever fails, it is told nothing."""
    try:
        app(prog_name=NAME)
    except Exception:  # noqa: BLE001 - a shell shows what is printed beside the user's line
        sys.exit(1)


def _run() -> int:
    """Parse and carry out; the exit code. What cannot be parsed is one line and a hint, as every other error."""
    for argument in sys.argv[1:]:
        if not argument or (argument.startswith("--") and argument.endswith("=") and not argument.startswith("--set=")):
            raise UsageError(f"{argument.removesuffix('=') or 'an argument'} is empty", "Give a value, or leave it out.")
    try:
        return int(app(prog_name=NAME, standalone_mode=False) or 0)
    except SystemExit as ended:  # of `--show-completion`; what commands do is caught by `guarded`
        if isinstance(ended.__context__, BrokenPipeError):
            raise
        return int(ended.code or 0)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except _CLICK_ERROR as error:
        return _unparsed(error)


def _unparsed(error: Any) -> int:
    if len(sys.argv) == 1:
        error.show()  # the help, where no command is given
        return USAGE
    say(f"error: {error.format_message()}")
    command = error.ctx.command_path if getattr(error, "ctx", None) else "srbench"
    say(f"hint: {command} --help shows what there is.")
    return USAGE
