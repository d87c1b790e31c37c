"""`srbench new`: write a method, scorer, attack, suite or concept to begin from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srbench.cli.console import line
from srbench.cli.helping import HOW, OUTPUT, WHAT, Command, Group

app = typer.Typer(
    cls=Group, help="Write a method, scorer, attack, suite or concept to begin from.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
Name = Annotated[str, typer.Argument(help="Its name: lower-case letters, digits, '-' and '_'.")]
Folder = Annotated[Path | None, OUTPUT.value("FOLDER", "--out", help="Folder of the package; its name where left out.")]
Debug = Annotated[bool, OUTPUT.flag("--debug", help="Show the traceback of an error.")]


def report(paths: list[Path], commands: list[str]) -> None:
    """Print what was written and which commands come next."""
    line(f"written: {', '.join(map(str, paths))}")
    line("next:")
    for command in commands:
        line(f"  {command}")


@app.command(cls=Command)
def method(
    name: Name,
    weights: Annotated[bool, WHAT.flag("--weights", help="A method that changes weights.")] = False,
    out: Folder = None,
    debug: Debug = False,
) -> None:
    """A package with a method."""
    from srbench.scaffold import method as scaffold
    from srbench.scaffold.package import check

    check("methods", name)
    _package(name, scaffold.files(name, weights), out, [
        f"srbench run --method none --on none,{name} --suite igmu --concept church --limit 2" if weights
        else f"srbench run --method none,{name} --suite igmu --concept church --limit 2"
    ])  # fmt: skip


@app.command(cls=Command)
def scorer(name: Name, out: Folder = None, debug: Debug = False) -> None:
    """A package with a scorer."""
    from srbench.scaffold import scorer as scaffold
    from srbench.scaffold.package import check

    check("scorers", name)
    run = f"srbench run --method none --suite igmu --concept church --limit 2 --scorers {name}"
    _package(name, scaffold.files(name), out, [run])


@app.command(cls=Command)
def attack(name: Name, out: Folder = None, debug: Debug = False) -> None:
    """A package with an attack."""
    from srbench.scaffold import attack as scaffold
    from srbench.scaffold.package import check

    check("attacks", name)
    _package(name, scaffold.files(name), out, [
        f"srbench attack {name} --suite mma --concept church --limit 2 --out {name}.json",
        f"srbench run --method none,saferedir --concept church --prompts {name}.json",
    ])  # fmt: skip


@app.command(cls=Command)
def suite(
    name: Name,
    concept: Annotated[str, WHAT.one("concepts", help="Concept that its prompts ask for: `srbench list concepts`.")] = "church",
    debug: Debug = False,
) -> None:
    """A suite in the folder suites/ of the working directory."""
    from srbench.catalog import load
    from srbench.scaffold import suite as scaffold
    from srbench.scaffold.write import check_name, write

    check_name("suite", name, load.suites())
    files = scaffold.files(name, load.named("concept", concept, load.concepts()))
    report(write(Path(), files), [
        f"srbench run --suite {name} --concept {concept} --method none,saferedir --dry-run",
        f"srbench run --suite {name} --concept {concept} --method none,saferedir",
    ])  # fmt: skip


@app.command(cls=Command)
def concept(
    name: Name,
    words: Annotated[str, WHAT.value("WORDS", help="Every way to say it, with commas, without article.")],
    neighbours: Annotated[str, WHAT.value("WORDS", help="Things near it that must stay, with commas.")],
    anchor: Annotated[str | None, WHAT.value("WORDS", help="What takes its place.", default="the first neighbour")] = None,
    unseen: Annotated[str | None, WHAT.value("WORDS", help="Ways to say it that no method is told, with commas.")] = None,
    kind: Annotated[str, WHAT.value("object|style|content", help="object, style or content.")] = "object",
    backbone: Annotated[str, WHAT.several("backbones", help="Backbones or their families, with commas.")] = "pocket",
    judge: Annotated[
        str | None, HOW.one("scorers", help="A scorer, or zero-shot.", default="zero-shot CLIP; on pocket the pocket judge")
    ] = None,
    classes: Annotated[
        str | None, HOW.value("NAMES", help="Classes of --judge that are the concept; none where its field is a number.")
    ] = None,
    field: Annotated[str | None, HOW.value("NAME", help="Field of --judge to read.", default="its first")] = None,
    threshold: Annotated[
        float | None, HOW.value("NUMBER", help="Seen above this number of --judge.", default="0.5 for --classes")
    ] = None,
    title: Annotated[str | None, OUTPUT.value("TEXT", help="What tables and lists call it.", default="its name")] = None,
    sensitive: Annotated[bool, WHAT.flag("--sensitive", help="Its images are dropped once they are scored.")] = False,
    debug: Debug = False,
) -> None:
    """A concept of yours: its words, judge, prompts, and training pairs. Written into this folder."""
    from srbench.cli.console import say
    from srbench.rules import words as listed
    from srbench.scaffold import concept as scaffold
    from srbench.scaffold.judge import JudgeRequest
    from srbench.scaffold.write import write

    request = scaffold.ConceptRequest(
        name, listed(words), listed(neighbours), listed(backbone), kind, anchor, listed(unseen), title,
        sensitive, JudgeRequest(judge, field, listed(classes), threshold),
    )  # fmt: skip
    paths = write(Path(), scaffold.files(request))
    for remark in scaffold.remarks(request):
        say(remark)
    report(paths, scaffold.next_commands(request))


def _package(name: str, files: dict[str, str], out: Path | None, commands: list[str]) -> None:
    import shlex

    from srbench.scaffold.write import write_package

    folder = out or Path(name)
    paths = write_package(folder, files)
    place = shlex.quote(f"./{folder}[test]" if not folder.is_absolute() else f"{folder}[test]")
    report(paths, [f"pip install -e {place}", f"pytest {shlex.quote(str(folder))}", *commands])
