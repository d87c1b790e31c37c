"""`srbench verify`."""

from __future__ import annotations

from pathlib import Path

from srbench.cli import console
from srbench.cli.console import say
from srbench.cli.output import show, width_of
from srbench.cli.progress import telling
from srbench.errors import OK, SOME_FAILED, UsageError
from srbench.progress import counted
from srbench.scoring.verify import Line, Report
from srbench.scoring.verify import verify as check

MANY = 50
"""Faults of one kind that are named; the rest are counted. `--json` names all."""


def verify(folder: Path, scores: int, seed: int, as_json: bool) -> int:
    """Check a results folder and print what was checked; 1 where anything is wrong."""
    if scores < 0:
        raise UsageError(f"--scores {scores}: expected 0 or more", "Leave it out for the default.")
    with telling("verifying") as tell:
        report = check(folder, scores, seed, lambda done, of: tell("pictures", done, of, ""))
    if as_json:
        console.write_json(report.to_dict())
    else:
        _print(report)
    return SOME_FAILED if report.faults else OK


def _print(report: Report) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(str(report.folder)), title_justify="left", box=None, pad_edge=False)
    for name in ("what", "sound", "faults", "not checked"):
        table.add_column(name, justify="left" if name in ("what", "not checked") else "right")
    for line in report.lines:
        table.add_row(Text(line.what), str(line.sound), str(len(line.faults)), Text(_unsaid(line)))
    show(table, *width_of(plain=False))
    for line in report.lines:
        for text in line.faults[:MANY]:
            console.line(f"fault: {text}")
        if len(line.faults) > MANY:
            console.line(f"fault: {len(line.faults) - MANY} more of {line.what}; --json names them")
    for note in report.notes:
        say(note)
    sound = "everything that was checked is as it was written"
    console.line(counted(len(report.faults), "fault") if report.faults else sound)


def _unsaid(line: Line) -> str:
    return "; ".join(f"{count}: {why}" for why, count in line.unsaid.most_common())
