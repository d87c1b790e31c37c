"""`srbench`: the commands and their options. Each imports its room only when it runs."""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from srbench.errors import INTERRUPTED, SrbenchError, UsageError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Benchmark of concept unlearning in text-to-image models.",
    epilog="Example: srbench run --method none,saferedir --suite igmu,mma",
)

Out = Annotated[Path, typer.Option("--out", help="Results folder.")]
Backbone = Annotated[str, typer.Option(help="Backbone: a name from `srbench list`.")]
Dtype = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16; auto is fp32 on a CPU and bf16 on CUDA.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


def say(text: str) -> None:
    """One line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def guarded(command: Callable[..., int | None]) -> Callable[..., None]:
    """Turn expected errors into one line, a hint and an exit code; `--debug` shows the traceback instead."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            code = command(*args, **kwargs) or 0
        except SrbenchError as error:
            if kwargs.get("debug"):
                raise
            say(f"error: {error.message}")
            if error.hint:
                say(f"hint: {error.hint}")
            code = error.exit_code
        except KeyboardInterrupt:
            say(f"interrupted; go on with: {shlex.join(['srbench', *sys.argv[1:]])}")
            code = INTERRUPTED
        except BrokenPipeError:
            # The reader of our output went away (`| head`); nothing is left to say, and the exit must not say it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        raise typer.Exit(code)

    return wrapper


def words(text: str | None) -> tuple[str, ...]:
    """Comma list to words, each once. Raises `UsageError` on an empty word."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"'{text}': an empty name in the list", "Write names with commas between them, without spaces.")
    return tuple(dict.fromkeys(parts))


@app.command()
@guarded
def run(
    method: Annotated[str, typer.Option(help="Methods, with commas.")] = "saferedir",
    suite: Annotated[str | None, typer.Option(help="Suites, with commas. [default: igmu; with --prompts the file]")] = None,
    concept: Annotated[str | None, typer.Option(help="Concepts, with commas. [default: the backbone's first]")] = None,
    backbone: Backbone = "pocket",
    on: Annotated[str, typer.Option(help="Checkpoints under the methods: weight methods, baselines, paths.")] = "none",
    out: Out = Path("results"),
    prompts: Annotated[
        Path | None, typer.Option(help="Your own prompts; with --suite your copy of that suite (a file, or a folder of them).")
    ] = None,
    accept_prompts: Annotated[
        bool, typer.Option("--accept-prompts", help="Take a copy that is not the published one; tables say so.")
    ] = False,
    category: Annotated[str | None, typer.Option(help="Only rows of these categories, with commas.")] = None,
    limit: Annotated[int | None, typer.Option(help="Rows per kind (forget, unseen, retain).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of rows that have none.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images per pipeline call.")] = 16,
    dtype: Dtype = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    protocol: Annotated[str | None, typer.Option(help="Judge's protocol. [default: the concept's]")] = None,
    scorers: Annotated[str | None, typer.Option(help="Scorers beside the needed ones, with commas.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME.OPTION=VALUE of a method or scorer; repeat it.")] = None,
    dev: Annotated[bool, typer.Option("--dev", help="The dev edition, on which things may be tuned.")] = False,
    no_score: Annotated[bool, typer.Option("--no-score", help="Sample only.")] = False,
    keep_images: Annotated[bool, typer.Option("--keep-images", help="Keep the images of sensitive runs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Sample the suites under the methods, score the images, print the table."""
    from srbench.cli import run as room

    asked = room.Asked(
        backbone=backbone, methods=words(method), on=words(on), suites=words(suite) or (() if prompts else ("igmu",)),
        concepts=words(concept), dev=dev, limit=limit, seed=seed, batch_size=batch_size, dtype=dtype, device=device,
        settings=tuple(set_ or ()), protocol=protocol, scorers=words(scorers), out=out, score=not no_score,
        keep_images=keep_images, prompts=prompts, accept_prompts=accept_prompts, categories=words(category),
    )
    return room.dry_run(asked, json) if dry_run else room.run(asked, json)


@app.command()
@guarded
def compare(
    results: Annotated[Path, typer.Argument(help="Results folder.")] = Path("results"),
    method: Annotated[str | None, typer.Option(help="Only these methods, with commas.")] = None,
    suite: Annotated[str | None, typer.Option(help="Only these suites, with commas.")] = None,
    concept: Annotated[str | None, typer.Option(help="Only these concepts, with commas.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Judge stored scores under these protocols, with commas.")] = None,
    format: Annotated[str | None, typer.Option("--format", help="md, csv, latex or json. [default: a table]")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also the variants among the committed results.")] = False,
    costs: Annotated[bool, typer.Option("--costs", help="What the methods cost: making, time, parameters, memory.")] = False,
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="One --protocol at other thresholds, classes.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Tables of the newest result of every cell."""
    from srbench.cli import compare as room

    form = "json" if json else format
    return room.compare(results, words(method), words(suite), words(concept), words(protocol), form, all_, costs, sensitivity)


@app.command()
@guarded
def tables(
    name: Annotated[list[str] | None, typer.Argument(help="Tables by name; all where left out.")] = None,
    format: Annotated[str | None, typer.Option("--format", help="md, csv, latex or html. [default: a table]")] = None,
    pocket: Annotated[bool, typer.Option("--pocket", help="Pocket's edition: what its reference runs give.")] = False,
    folder: Annotated[
        Path | None, typer.Option("-o", "--folder", help="Write them there, one file a table and format, in place of printing.")
    ] = None,
    results: Annotated[Path, typer.Option("--results", help="Results folder.")] = Path("results"),
    debug: Debug = False,
) -> int:
    """Tables of the papers: published figures beside those measured here."""
    from srbench.cli import tables as room

    return room.tables(tuple(name or ()), format, pocket, folder, results)


@app.command()
@guarded
def report(
    results: Annotated[Path, typer.Argument(help="Results folder.")] = Path("results"),
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")] = Path("report.html"),
    method: Annotated[str | None, typer.Option(help="Only these methods (and none), with commas.")] = None,
    suite: Annotated[str | None, typer.Option(help="Only these suites, with commas.")] = None,
    concept: Annotated[str | None, typer.Option(help="Only these concepts, with commas.")] = None,
    images: Annotated[int, typer.Option(help="About how many pictures the gallery has; 0 for none.")] = 500,
    debug: Debug = False,
) -> int:
    """One HTML file with everything that a results folder says; needs no network."""
    from srbench.cli import report as room
    from srbench.report.build import Asked

    return room.report(results, out, Asked(words(method), words(suite), words(concept), images))


@app.command()
@guarded
def score(
    folder: Annotated[list[Path], typer.Argument(help="Folders of pictures, NAME=FOLDER to name a method; or a results folder.")],
    as_: Annotated[str | None, typer.Option("--as", help="Layout of the pictures: `srbench list layouts`.")] = None,
    suite: Annotated[str | None, typer.Option(help="Suite whose rows the pictures are of.")] = None,
    concept: Annotated[str | None, typer.Option(help="Concept that should be gone.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Whose edition of the suite, where there are several.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="CSV file with the prompts, in place of a suite.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Folder of the reference images, of the same layout.")] = None,
    category: Annotated[str | None, typer.Option(help="Only pictures of these categories, with commas.")] = None,
    per_prompt: Annotated[int, typer.Option(help="Pictures of one prompt, where names only number them all.")] = 1,
    protocol: Annotated[str | None, typer.Option(help="Judge's protocol. [default: the concept's]")] = None,
    scorer: Annotated[str | None, typer.Option(help="Scorers beside the needed ones, with commas.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME.OPTION=VALUE of a scorer; may be repeated.")] = None,
    out: Out = Path("results"),
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Score pictures that others made; or with one more scorer the images of runs, without sampling them again."""
    from srbench.cli import score as room

    asked = room.ScoreRequest(
        folders=tuple(map(room.named, folder)), layout=as_, suite=suite, concept=concept, backbone=backbone, prompts=prompts,
        reference=reference, categories=words(category), per_prompt=per_prompt, protocol=protocol, scorers=words(scorer),
        settings=tuple(set_ or ()), out=out,
    )
    return room.score(asked, json)


@app.command("list")
@guarded
def list_(
    kind: Annotated[str | None, typer.Argument(help="methods, suites, concepts, ...; all where left out.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Methods, suites, concepts, backbones, scorers, protocols, attacks, baselines and layouts."""
    from srbench.cli import listing

    return listing.show(kind, json)


@app.command()
@guarded
def show(
    what: Annotated[str, typer.Argument(help="A row's id, the start of an image key, or a PNG of the store.")],
    results: Annotated[Path, typer.Option("--out", help="Results folder.")] = Path("results"),
    debug: Debug = False,
) -> int:
    """An image in the terminal, its row, its scores and its trace."""
    from srbench.cli import show as room

    return room.show(what, results)


@app.command()
@guarded
def doctor(
    backbone: Backbone = "pocket",
    out: Out = Path("results"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME.OPTION=VALUE of a scorer; may be repeated.")] = None,
    known: Annotated[
        Path | None, typer.Option(help="Folder with images in with/ and without/ it: what the labels of igmu-head mean.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Check that everything a run needs is there and works."""
    from srbench.cli import doctor as room

    return room.doctor(backbone, out, tuple(set_ or ()), known, json)


@app.command()
@guarded
def train(
    method: Annotated[str, typer.Argument(help="saferedir, or concept-inversion.")],
    concept: Annotated[str, typer.Option(help="Concept; for saferedir several at once with commas.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for it. [default: redirectors (inversions)/<backbone>/<concept>]")
    ] = None,
    backbone: Backbone = "pocket",
    on: Annotated[str, typer.Option(help="Checkpoint to train on: a weight method, a baseline or a path.")] = "none",
    pairs: Annotated[Path | None, typer.Option(help="JSON lines with `unsafe` and `safe`. [default: the backbone's own]")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Images that show the concept, for concept-inversion. [default: the backbone's own]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="OPTION=VALUE of the training; may be repeated.")] = None,
    debug: Debug = False,
) -> int:
    """Train a redirector, or invert a concept, and write it with its card."""
    from srbench.cli import train as room

    asked = room.Asked(method, backbone, on, words(concept), out, pairs, images, seed, tuple(set_ or ()))
    return room.train(asked)


@app.command()
@guarded
def erase(
    method: Annotated[str, typer.Argument(help="A weight method: `srbench list methods` shows them.")],
    concept: Annotated[str, typer.Option(help="Concept to erase.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for it. [default: checkpoints/<backbone>/<concept>/<method>]")
    ] = None,
    backbone: Backbone = "pocket",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", help="OPTION=VALUE of the method; may be repeated.")] = None,
    debug: Debug = False,
) -> int:
    """Make an unlearned checkpoint and write it with its card."""
    from srbench.cli import erase as room
    from srbench.cli.run import device_of

    return room.erase(method, backbone, concept, out, device_of(device), tuple(set_ or ()))


@app.command()
@guarded
def attack(
    name: Annotated[str, typer.Argument(help="Attack: mma.")],
    concept: Annotated[str, typer.Option(help="Concept whose words are banned.")],
    targets: Annotated[Path, typer.Option(help="Text file, a target prompt a line.")],
    out: Annotated[Path, typer.Option("--out", help="Row file to write (JSON).")],
    backbone: Backbone = "pocket",
    seed: Annotated[int, typer.Option(help="Seed of the attack.")] = 0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="OPTION=VALUE of the attack; may be repeated.")] = None,
    debug: Debug = False,
) -> int:
    """Make adversarial prompts against a backbone's text encoder."""
    from srbench.cli import attack as room

    return room.attack(name, backbone, concept, targets, out, seed, tuple(set_ or ()))


def main() -> None:
    """Entry point of the `srbench` command."""
    app()
