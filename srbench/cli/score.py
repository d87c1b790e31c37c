"""`srbench score`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from srbench.catalog import load, plugins
from srbench.cli.compare import print_cells
from srbench.cli.main import say
from srbench.cli.progress import reporter
from srbench.engine.settings import check
from srbench.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Asked:
    """The command's options as typed."""

    folders: tuple[Path, ...]
    layout: str | None
    suite: str | None
    concept: str | None
    backbone: str | None
    prompts: Path | None
    reference: Path | None
    categories: tuple[str, ...]
    per_prompt: int
    protocol: str | None
    scorers: tuple[str, ...]
    settings: tuple[str, ...]
    out: Path


def score(asked: Asked, as_json: bool) -> int:
    """Pictures made elsewhere where a layout is given, else the images of existing runs."""
    return _elsewhere(asked, as_json) if asked.layout is not None else _again(asked, as_json)


def _named(path: Path) -> tuple[str, Path]:
    """`NAME=FOLDER` where there is no folder of that very name."""
    name, equals, rest = str(path).partition("=")
    return (name, Path(rest)) if equals and not path.exists() else ("", path)


def _elsewhere(asked: Asked, as_json: bool) -> int:
    from srbench.engine.elsewhere import ScoreRequest, score_folders
    from srbench.engine.store import Store

    if asked.per_prompt < 1:
        raise UsageError(f"--per-prompt {asked.per_prompt}: expected 1 or more", "Leave it out for the default.")
    check(asked.settings, plugins.plugins("scorers"))
    request = ScoreRequest(
        folders=tuple(map(_named, asked.folders)), layout=asked.layout or "", suite=asked.suite, concept=asked.concept,
        backbone=asked.backbone, prompts=asked.prompts, reference=asked.reference, categories=asked.categories,
        per_prompt=asked.per_prompt, protocol=asked.protocol, scorers=asked.scorers, settings=asked.settings, out=asked.out,
    )
    done = score_folders(request, Store(asked.out / "store", say), reporter())
    say(f"run {done.run}: {asked.out}/runs/{done.run}/run.json")
    print_cells(done.cells, "json" if as_json else None)
    return done.exit_code


def _again(asked: Asked, as_json: bool) -> int:
    from srbench.engine.rescore import score_runs
    from srbench.engine.store import Store

    folder = asked.folders[0]
    if len(asked.folders) > 1 or not (folder / "runs").is_dir():
        hint = f"Add --as LAYOUT. {did_you_mean('', load.layouts())}"
        raise UsageError(f"{folder}: holds no runs; which layout have the pictures?", hint)
    if not asked.scorers:
        raise UsageError("which scorer?", "Add --scorer; `srbench list scorers` shows them.")
    check(asked.settings, plugins.plugins("scorers"))
    done = score_runs(folder, asked.scorers, asked.settings, Store(folder / "store", say), reporter())
    print_cells(done.cells, "json" if as_json else None)
    return done.exit_code
