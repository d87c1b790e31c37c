"""`srbench merge`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from srbench.cli import console
from srbench.cli.console import say
from srbench.cli.progress import telling
from srbench.errors import OK, SOME_FAILED
from srbench.outputs import check_results
from srbench.progress import counted
from srbench.results.merging import Merged
from srbench.results.merging import merge as joined

MANY = 20
"""Conflicts that are named; the rest are counted. `--json` names all."""


def merge(folders: Sequence[Path], into: Path, as_json: bool) -> int:
    """Join results folders into one, and say what was added and what differs; 1 where pictures are damaged."""
    check_results(into)
    with telling("merging") as tell:
        done = joined(folders, into, say, tell)
    if as_json:
        console.write_json(asdict(done))
    else:
        _print(done, into)
    return SOME_FAILED if done.damaged else OK


def _print(done: Merged, into: Path) -> None:
    added = {
        "image": done.images, "score": done.scores, "vector": done.vectors, "run": done.runs, "checkpoint": done.checkpoints,
        "folder of studies": done.made_by_studies,
    }  # fmt: skip
    new = ", ".join(counted(count, what) for what, count in added.items() if count) or "nothing new"
    console.line(f"{into}: {new}; {counted(done.there, 'image')} there already")
    if done.secret:
        say(f"{done.secret} pictures of sensitive rows stay where they are; their scores are joined")
    for what, lines in (("differs", done.conflicts), ("damaged", done.damaged), ("left", done.left)):
        for line in lines[:MANY]:
            say(f"{what}: {line}")
        if len(lines) > MANY:
            say(f"{what}: {len(lines) - MANY} more; --json names them")
