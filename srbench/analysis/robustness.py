"""Matrices of methods x suites, and of methods x prompts made against a method: how often the concept comes back.

A cell's rate is its `asr`, or 100 - `fsr`. A file of prompts that an attack made names what it was made against
(`CellRecord.made_against`); its column shows how well the attack transfers to other methods. Where every file was run only on
the method that it was made against, each attack has one column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from srbench.analysis import strength
from srbench.analysis.attacks import against
from srbench.analysis.origin import SHOWN, Identity, ground_of, ground_text, in_order, told_by
from srbench.analysis.records import Metric, turned
from srbench.analysis.results import ResultCell, metric_to_dict, name_of, order_of
from srbench.catalog import load

STATIC = ("igmu", "i2p", "evolved", "ood", "multi", "mma", "ring-a-bell")
"""The order of suites; others follow."""
OWN = "own"
"""Mark for prompts run on the method that they were made against."""


@dataclass(frozen=True)
class Matrix:
    """One table of rates, lower is better, in percent."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Metric]]
    """Line -> column -> rate, without pairs that were not run. A line is a method, with its source where both have it."""
    notes: tuple[str, ...] = ()
    """What tells lines and columns of one name apart."""
    sources: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Line -> its method, and where its cells are from, `local` or `committed`: no line has cells of both."""
    weak: Mapping[str, str] = field(default_factory=dict)
    """Attack -> why its search is too weak for its rates to say anything."""

    def method(self, row: str) -> str:
        """The method of a line."""
        return self.sources[row][0] if row in self.sources else row

    def own(self, row: str, column: str) -> bool:
        """Whether the column's prompts were made against the row's method."""
        return column.partition(" (")[0].endswith(f" against {self.method(row)}")


def rate_of(cell: ResultCell) -> Metric | None:
    """The share of the cell's attack or forget rows that show the concept; None where its suite measures neither."""
    if "asr" in cell.metrics:
        return cell.metrics["asr"]
    return turned(cell.metrics["fsr"]) if "fsr" in cell.metrics else None


def from_attack(cell: ResultCell) -> bool:
    """Whether its prompts are from a file that an attack made, not from one of srbench's suites."""
    return bool(cell.made_against) and cell.suite not in load.suites()


def matrices(cells: Iterable[ResultCell]) -> list[Matrix]:
    """For each backbone (by content), concept, judge, dtype and seed one matrix of suites and one of attack prompts by what
    they were made against. Cells on other rows get their own column, except where each method has its own prompts; cells
    with another origin get their own line.
    """
    places: dict[Identity, dict[bool, list[tuple[str, ResultCell]]]] = {}
    for cell in cells:
        by_attack = from_attack(cell)
        if rate_of(cell) is not None:
            place = (cell.concept, cell.protocol, cell.dtype, *ground_of(cell))
            column = cell.made_against if by_attack else cell.suite
            places.setdefault(place, {}).setdefault(by_attack, []).append((column, cell))
    return [
        _matrix(by_attack, sides[by_attack])
        for _, sides in sorted(places.items(), key=lambda item: _place_order(item[0]))
        for by_attack in (False, True) if by_attack in sides
    ]  # fmt: skip


def _place_order(place: Identity) -> tuple[tuple[bool, str], ...]:
    concept, protocol, dtype, backbone, *rest = place
    return in_order((backbone, concept, protocol, dtype, *rest))


def _matrix(by_attack: bool, entries: Sequence[tuple[str, ResultCell]]) -> Matrix:
    first = entries[0][1]
    too_weak = strength.weak([cell for _, cell in entries], rate_of) if by_attack else {}
    what = "how often it is drawn, by suite"
    if by_attack and _only_own_prompts(entries):
        what, entries = "prompts made against the method itself", [(attack_of(column), cell) for column, cell in entries]
    elif by_attack:
        what, entries = "prompts made against one method, on others", _with_row_hashes(_with_file_names(entries))
    else:
        entries = _with_row_hashes(entries)
    columns = dict.fromkeys(column for column, _ in entries)
    rows, sources = _lines(entries)
    caption = f"judge {first.protocol} · {first.dtype} · lower is better"
    title, notes = f"{first.concept} on {ground_text(first)}: {what}", tuple(told_by([cell for _, cell in entries]))
    return Matrix(title, caption, tuple(sorted(columns, key=_rank)), rows, notes, sources, too_weak)


def _lines(
    entries: Sequence[tuple[str, ResultCell]],
) -> tuple[dict[str, dict[str, Metric]], dict[str, tuple[str, str]]]:
    """Line -> column -> rate, and line -> its method and source; a method with cells of both sources has two lines."""
    of_method: dict[str, set[str]] = {}
    for _, cell in entries:
        of_method.setdefault(name_of(cell), set()).add(cell.source)
    rows: dict[str, dict[str, Metric]] = {}
    sources: dict[str, tuple[str, str]] = {}
    for column, cell in sorted(entries, key=lambda each: (*order_of(each[1]), each[1].source != "local")):
        rate, name = rate_of(cell), name_of(cell)
        assert rate is not None  # see `matrices`
        line = name if len(of_method[name]) == 1 else f"{name} ({cell.source})"
        sources[line] = name, cell.source
        rows.setdefault(line, {}).setdefault(column, rate)
    return rows, sources


def attack_of(column: str) -> str:
    """The attack in a column's name `ATTACK against METHOD`."""
    return column.partition(" against ")[0]


def _only_own_prompts(entries: Sequence[tuple[str, ResultCell]]) -> bool:
    """Whether there are several methods, each run once per attack on prompts made against it, and on no others."""
    matching = {(attack_of(column), cell.label) for column, cell in entries if column == against(attack_of(column), cell)}
    return len({cell.label for _, cell in entries}) > 1 and len(matching) == len(entries)


def _with_file_names(entries: Sequence[tuple[str, ResultCell]]) -> list[tuple[str, ResultCell]]:
    """The entries, with the file's name added to columns that have several files."""
    files: dict[str, set[str]] = {}
    for column, cell in entries:
        files.setdefault(column, set()).add(cell.suite)
    return [(f"{column} ({cell.suite})" if len(files[column]) > 1 else column, cell) for column, cell in entries]


def _with_row_hashes(entries: Sequence[tuple[str, ResultCell]]) -> list[tuple[str, ResultCell]]:
    """The entries, with the rows' hash added to columns whose cells ran different rows."""
    rows: dict[str, set[str]] = {}
    for column, cell in entries:
        rows.setdefault(column, set()).add(cell.rows_sha)
    return [(f"{column} (rows {cell.rows_sha[:SHOWN]})" if len(rows[column]) > 1 else column, cell) for column, cell in entries]


def _rank(column: str) -> tuple[int, str]:
    name = column.partition(" (")[0]
    return (STATIC.index(name), column) if name in STATIC else (len(STATIC), column)


def to_dict(matrix: Matrix) -> dict[str, Any]:
    """JSON-ready."""
    rows = {name: {column: metric_to_dict(rate) for column, rate in rates.items()} for name, rates in matrix.rows.items()}
    sources = {line: {"method": method, "source": source} for line, (method, source) in matrix.sources.items()}
    said = {"title": matrix.title, "caption": matrix.caption, "columns": list(matrix.columns), "rows": rows, "lines": sources}
    return said | {"weak": dict(matrix.weak)}
