"""Comparisons of two methods as tables: what changed, whether it is more than chance, and which rows flipped."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from srbench.analysis.differences import NO_ROWS, Change, Comparison, to_dict
from srbench.analysis.origin import told_by
from srbench.analysis.results import name_of, title_of
from srbench.tables.boards import caption_of, coarse, family_note, folded, of_cells, timed
from srbench.tables.numbers import ADDED, ARROWS, item_of, named, shown_as
from srbench.tables.sheet import Column, Detail, Item, Layout, Section, Sheet, Tables

FLIPS = 5
"""Rows that are named per metric and direction; the others are counted."""
VERDICTS = {"better": "better", "worse": "worse", "not shown": "no difference shown"}
"""Verdict of a change -> as a summary says it."""
FIELDS = (
    *("concept", "suite", "a", "b", "metric", "before", "after", "difference", "low", "high", "better", "reason", "test"),
    *("p", "p_holm", "verdict"),
)
"""Columns of CSV."""


def tables(comparisons: Sequence[Comparison], folder: Path) -> Tables:
    """One sheet a comparison. folder: the results folder that `srbench show` is to read."""
    return Tables(
        title="srbench compare",
        sheets=tuple(_sheet(each, folder) for each in comparisons),
        fields=FIELDS,
        records=list(records(comparisons)),
        data={"comparisons": [to_dict(each) for each in comparisons]},
        layout=Layout(blocks=False),
    )


def records(comparisons: Sequence[Comparison]) -> Iterator[dict[str, Any]]:
    """A record a metric, with numbers that are not rounded."""
    for comparison in comparisons:
        cell = comparison.b.cell
        shared = {"concept": cell.concept, "suite": cell.suite, "a": name_of(comparison.a.cell), "b": name_of(cell)}
        for change in comparison.changes:
            difference = change.difference
            yield {
                **shared, "metric": change.metric, "before": change.before.value, "after": change.after.value,
                "difference": difference.value, "low": difference.low, "high": difference.high, "better": difference.better,
                "reason": difference.reason, "test": difference.test, "p": difference.p, "p_holm": difference.p_holm,
                "verdict": change.verdict,
            }  # fmt: skip


def _sheet(comparison: Comparison, folder: Path) -> Sheet:
    a, b = (name_of(entry.cell) for entry in (comparison.a, comparison.b))
    return Sheet(
        title=f"{title_of(comparison.b.cell)}: from {a} to {b}",
        caption=caption_of(comparison.b.cell),
        columns=(
            Column("metric", "l", wraps=False), Column(a), Column(b), Column("difference", wraps=False),
            Column("verdict", "l", wraps=False),
        ),
        sections=(Section("", tuple(map(_line, comparison.changes))),),
        notes=tuple(_notes(comparison)),
        summary=_summary(comparison),
        details=tuple(_flips(comparison, folder)),
    )  # fmt: skip


def _line(change: Change) -> tuple[Item, ...]:
    header = f"{named(change.metric)} {ARROWS[change.difference.better]}"
    sides = (Item(shown_as(change.metric, metric).value) for metric in (change.before, change.after))
    difference = item_of(change.difference)._replace(reason="")  # a note has it
    return (Item(header, narrow=folded(header)), *sides, difference, Item(change.verdict, strong=change.verdict == "worse"))


def _summary(comparison: Comparison) -> str:
    metrics = {verdict: [named(each.metric) for each in comparison.changes if each.verdict == verdict] for verdict in VERDICTS}
    parts = [f"{VERDICTS[verdict]}: {', '.join(names)}" for verdict, names in metrics.items() if names]
    return "; ".join(parts) or "nothing can be compared"


def _notes(comparison: Comparison) -> Iterator[str]:
    reasons = {change.difference.reason: named(change.metric) for change in comparison.changes if change.difference.value is None}
    yield from (f"{metric}: n/a ({reason})" for reason, metric in reasons.items())
    cells = [comparison.a.cell, comparison.b.cell]
    yield from coarse({change.metric: of_cells(cells, change.metric) for change in comparison.changes})
    yield from timed(of_cells(cells, ADDED))
    yield from told_by(cells)
    yield family_note(sum(change.difference.p is not None for change in comparison.changes)) if comparison.paired else NO_ROWS


def _flips(comparison: Comparison, folder: Path) -> Iterator[Detail]:
    for change in comparison.changes:
        if change.gained or change.lost:
            lines = (*_named("lost", change.lost, folder), *_named("gained", change.gained, folder))
            rows = "row" if len(change.lost) == 1 else "rows"
            yield Detail(f"{change.metric}: {len(change.lost)} {rows} lost, {len(change.gained)} gained", lines)


def _named(direction: str, rows: Sequence[str], folder: Path) -> Iterator[Item]:
    """The command that shows each of the first rows, and how many more there are."""
    yield from (Item(f"{direction}: {_hint(row, folder)}") for row in rows[:FLIPS])
    if len(rows) > FLIPS:
        yield Item("", tail=f"{direction}: {len(rows) - FLIPS} more; --json names all")


def _hint(row: str, folder: Path) -> str:
    place = [] if folder == Path("results") else ["--out", str(folder)]
    return shlex.join(["srbench", "show", row, *place])
