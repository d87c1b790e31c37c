"""Methods by suites, and by what prompts were made against, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from srbench.analysis.robustness import OWN, Matrix, to_dict
from srbench.tables.numbers import item_of
from srbench.tables.sheet import Column, Item, Section, Sheet, Tables

FIELDS = (
    *("table", "method", "prompts", "own", "value", "low", "high", "n", "scored", "worst", "best", "better", "reason"), "trials",
)
"""Columns of CSV. `prompts`: a suite, or an attack with what it was made against; `own`: whether that is the method itself."""


def tables(matrices: Sequence[Matrix]) -> Tables:
    """One sheet a matrix."""
    return Tables(
        title="srbench compare --attacks",
        sheets=tuple(map(_sheet, matrices)),
        fields=FIELDS,
        records=[record for matrix in matrices for record in _records(matrix)],
        data={"attacks": [to_dict(matrix) for matrix in matrices]},
    )


def _sheet(matrix: Matrix) -> Sheet:
    columns = (Column(name, narrow=name.replace(" against ", "\nagainst\n"), wraps=False) for name in matrix.columns)
    lines = tuple((Item(method), *_items(matrix, method)) for method in matrix.rows)
    return Sheet(matrix.title, matrix.caption, (Column("method", "l"), *columns), (Section("", lines),))


def _items(matrix: Matrix, method: str) -> Iterator[Item]:
    for name in matrix.columns:
        mark = OWN if matrix.own(method, name) else ""
        yield item_of(matrix.rows[method].get(name), mark=mark)._replace(reason="")  # one of many; JSON and CSV have it


def _records(matrix: Matrix) -> Iterator[dict[str, Any]]:
    """A record a rate, in percent."""
    for method, rates in to_dict(matrix)["rows"].items():
        for name, rate in rates.items():
            place = {"table": matrix.title, "method": method, "prompts": name, "own": matrix.own(method, name)}
            yield place | {field: value for field, value in rate.items() if field in FIELDS}
