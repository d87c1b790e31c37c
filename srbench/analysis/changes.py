"""Comparisons of two methods in the terminal: what changed, whether it is more than chance, and which rows flipped."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from srbench.analysis.differences import NO_ROWS, Change, Comparison
from srbench.analysis.origin import meanings
from srbench.analysis.results import ARROWS, caption_of, coarse, name_of, shown, title_of
from srbench.analysis.table import FOLD, GAP, folded, ruled

TESTED = "p: exact McNemar, or permutation over prompts; Holm-corrected within concept, suite and metric."
FLIPS = 5
"""Rows that are named per metric and direction; the others are counted."""
INTERVAL, VERDICT = 15, 9
"""Characters of the columns with differences and verdicts."""


def render(found: Sequence[Comparison], folder: Path, width: int = 120, plain: bool = False) -> RenderableType:
    """A table for each comparison, then the rows that flipped. folder: the results folder that `srbench show` is to read."""
    return Group(*(part for each in found for part in _parts(each, folder, width, plain)))


def _parts(found: Comparison, folder: Path, width: int, plain: bool) -> Iterator[RenderableType]:
    cell = found.b.cell
    title = f"{title_of(cell)}: from {name_of(found.a.cell)} to {name_of(cell)}"
    yield Text.assemble((title, "bold"), "   ", (caption_of(cell), "dim"))
    yield _table(found, width, plain)
    yield Text(_summary(found))
    for note in _notes(found):
        yield Text(f"* {note}", style="dim")
    yield from _flips(found, folder)
    yield Text("")


def _table(found: Comparison, width: int, plain: bool) -> Table:
    names = max(VERDICT, (width - FOLD - INTERVAL - VERDICT - 4 * GAP) // 2)
    table = ruled(plain)
    table.add_column("metric", no_wrap=True)
    for side in (found.a, found.b):
        table.add_column(Text(name_of(side.cell)), justify="right", max_width=names, overflow="fold")
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for change in found.changes:
        table.add_row(*_row(change))
    return table


def _row(change: Change) -> list[Text]:
    header = Text(folded(f"{change.metric} {ARROWS[change.difference.better]}"))
    values = [Text(shown(metric).value) for metric in (change.before, change.after)]
    return [header, *values, _difference(change), Text(change.verdict, style="bold" if change.verdict == "worse" else "")]


def _difference(change: Change) -> Text:
    text = shown(change.difference)
    found = Text(text.value)
    for line in filter(None, (text.interval, *text.bounds)):
        found.append(f"\n{line}", style="dim")
    return found


def _summary(found: Comparison) -> str:
    said = {verdict: [change.metric for change in found.changes if change.verdict == verdict] for verdict in VERDICTS}
    parts = [f"{VERDICTS[verdict]}: {', '.join(names)}" for verdict, names in said.items() if names]
    return "; ".join(parts) or "nothing can be compared"


VERDICTS = {"better": "better", "worse": "worse", "not shown": "no difference shown"}
"""Verdict of a change -> as a summary says it."""


def _notes(found: Comparison) -> Iterator[str]:
    reasons = {change.difference.reason: change.metric for change in found.changes if change.difference.value is None}
    yield from (f"{metric}: n/a ({reason})" for reason, metric in reasons.items())
    cells = [found.a.cell, found.b.cell]
    yield from coarse(cells, [change.metric for change in found.changes])
    yield from (f"{each}." for each in meanings(cell.mark for cell in cells))
    yield TESTED if found.paired else NO_ROWS


def _flips(found: Comparison, folder: Path) -> Iterator[Text]:
    for change in found.changes:
        if change.gained or change.lost:
            yield Text(f"{change.metric}: {len(change.lost)} rows lost, {len(change.gained)} gained", style="bold")
            for what, rows in (("lost", change.lost), ("gained", change.gained)):
                yield from (Text(f"  {what}: {_hint(row, folder)}") for row in rows[:FLIPS])
                if len(rows) > FLIPS:
                    yield Text(f"  {what}: {len(rows) - FLIPS} more; --json names all", style="dim")


def _hint(row: str, folder: Path) -> str:
    at = [] if folder == Path("results") else ["--out", str(folder)]
    return shlex.join(["srbench", "show", row, *at])
