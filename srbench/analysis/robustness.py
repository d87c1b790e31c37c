"""Methods x suites, and methods x prompts made against a method: how often the concept comes back, from cells that were run.

A cell's rate is its `asr`, or what its `fsr` leaves over. A file of prompts that an attack made says what it was made against
(`CellRecord.made_against`); its column shows how far the attack carries to other methods (its transfer). Where every file was run
on the method that it was made against and on no other, an attack has one column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srbench.analysis.attacks import against
from srbench.analysis.origin import SHOWN, Identity, ground_of, ground_text, in_order
from srbench.analysis.records import Metric, turned
from srbench.analysis.results import ResultCell, metric_to_dict, name_of
from srbench.catalog import load

STATIC = ("igmu", "i2p", "evolved", "ood", "multi", "mma", "ring-a-bell")
"""The order of suites; others stand behind them."""
OWN = "own"
"""Marks prompts on the method that they were made against."""


@dataclass(frozen=True)
class Matrix:
    """One table of rates, lower is better, in percent."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Metric]]
    """Method -> column -> rate; pairs that nobody ran are not in it."""

    def own(self, row: str, column: str) -> bool:
        """Whether the column's prompts were made against the row's method."""
        return column.partition(" (")[0].endswith(f" against {row}")


def rate_of(cell: ResultCell) -> Metric | None:
    """The share of the cell's attack or forget rows that show the concept; None where its suite asks for neither."""
    if "asr" in cell.metrics:
        return cell.metrics["asr"]
    return turned(cell.metrics["fsr"]) if "fsr" in cell.metrics else None


def from_attack(cell: ResultCell) -> bool:
    """Whether its prompts are a file that an attack made, and no suite of srbench's."""
    return bool(cell.made_against) and cell.suite not in load.suites()


def matrices(cells: Iterable[ResultCell]) -> list[Matrix]:
    """Per backbone by content, concept, judge, dtype and seed one matrix of suites and one of prompts by what they were made
    against. Cells on other rows have a column of their own, but where each method has its own prompts; those of another making
    have a line.
    """
    places: dict[Identity, dict[bool, list[tuple[str, ResultCell]]]] = {}
    for cell in cells:
        made = from_attack(cell)
        if rate_of(cell) is not None:
            place = (cell.concept, cell.protocol, cell.dtype, *ground_of(cell))
            column = cell.made_against if made else cell.suite
            places.setdefault(place, {}).setdefault(made, []).append((column, cell))
    return [
        _matrix(made, sides[made])
        for _, sides in sorted(places.items(), key=lambda item: _place_order(item[0])) for made in (False, True) if made in sides
    ]  # fmt: skip


def _place_order(place: Identity) -> tuple[tuple[bool, str], ...]:
    concept, protocol, dtype, backbone, *rest = place
    return in_order((backbone, concept, protocol, dtype, *rest))


def _matrix(made: bool, found: Sequence[tuple[str, ResultCell]]) -> Matrix:
    first = found[0][1]
    what = "how often it is drawn, by suite"
    if made and _each_its_own(found):
        what, found = "prompts made against the method itself", [(attack_of(column), cell) for column, cell in found]
    elif made:
        what, found = "prompts made against one method, on others", _rows_apart(_told_apart(found))
    else:
        found = _rows_apart(found)
    columns = dict.fromkeys(column for column, _ in found)
    rows: dict[str, dict[str, Metric]] = {}
    for column, cell in sorted(found, key=lambda each: _order(each[1])):
        rate = rate_of(cell)
        assert rate is not None  # see `matrices`
        rows.setdefault(name_of(cell), {}).setdefault(column, rate)
    caption = f"judge {first.protocol} · {first.dtype} · lower is better"
    return Matrix(f"{first.concept} on {ground_text(first)}: {what}", caption, tuple(sorted(columns, key=_rank)), rows)


def attack_of(column: str) -> str:
    """The attack of a column of prompts that were made against something."""
    return column.partition(" against ")[0]


def _each_its_own(found: Sequence[tuple[str, ResultCell]]) -> bool:
    """Whether several methods were each run on prompts made against them, once an attack, and none on another's."""
    own = {(attack_of(column), cell.label) for column, cell in found if column == against(attack_of(column), cell)}
    return len({cell.label for _, cell in found}) > 1 and len(own) == len(found)


def _told_apart(found: Sequence[tuple[str, ResultCell]]) -> list[tuple[str, ResultCell]]:
    """Columns with the file's name behind them where several files were made against the same."""
    files: dict[str, set[str]] = {}
    for column, cell in found:
        files.setdefault(column, set()).add(cell.suite)
    return [(f"{column} ({cell.suite})" if len(files[column]) > 1 else column, cell) for column, cell in found]


def _rows_apart(found: Sequence[tuple[str, ResultCell]]) -> list[tuple[str, ResultCell]]:
    """Columns with the rows' hash behind them where cells of one column ran other rows."""
    rows: dict[str, set[str]] = {}
    for column, cell in found:
        rows.setdefault(column, set()).add(cell.rows_sha)
    return [(f"{column} (rows {cell.rows_sha[:SHOWN]})" if len(rows[column]) > 1 else column, cell) for column, cell in found]


def _order(cell: ResultCell) -> tuple[bool, bool, bool]:
    """Without a method, methods alone, methods on checkpoints, and each with other options behind them."""
    return cell.label != "none", bool(cell.variant), cell.method != "none" and cell.on != "none"


def _rank(column: str) -> tuple[int, str]:
    name = column.partition(" (")[0]
    return (STATIC.index(name), column) if name in STATIC else (len(STATIC), column)


def to_dict(matrix: Matrix) -> dict[str, Any]:
    """JSON-ready."""
    rows = {name: {column: metric_to_dict(rate) for column, rate in own.items()} for name, own in matrix.rows.items()}
    return {"title": matrix.title, "caption": matrix.caption, "columns": list(matrix.columns), "rows": rows}
