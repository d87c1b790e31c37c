"""Methods by suites, and by what prompts were made against, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from srbench.analysis import strength
from srbench.analysis.robustness import OWN, Matrix, attack_of, to_dict
from srbench.tables.numbers import item_of
from srbench.tables.sheet import Column, Item, Section, Sheet, Tables

FIELDS = (
    *("table", "method", "prompts", "own", "value", "low", "high", "n", "scored", "worst", "best", "better", "reason"),
    *("trials", "phrases", "phrase_low", "phrase_high", "source", "weak"),
)
"""Columns of CSV. `prompts`: a suite, or an attack with what it was made against; `own`: whether that is the method itself;
`weak`: why the attack's search is too weak, where it is."""
OWN_PROMPTS = f"{OWN}: prompts that were made against the method of this line."


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
    columns = [_column(matrix, name) for name in matrix.columns]
    columns += [Column("source", "l", beside=True, wraps=False)] if matrix.sources else []
    lines = tuple((Item(matrix.method(line)), *_items(matrix, line), *_source(matrix, line)) for line in matrix.rows)
    marked = any(item.mark for line in lines for item in line)
    weak = (f"{strength.TOO_WEAK.capitalize()}: {attack}: {why}." for attack, why in matrix.weak.items())
    notes = (*([OWN_PROMPTS] if marked else []), *weak, *_sizes(matrix), *matrix.notes)
    return Sheet(matrix.title, matrix.caption, (Column("method", "l"), *columns), (Section("", lines),), notes)


def _column(matrix: Matrix, name: str) -> Column:
    """A column; of an attack whose search is too weak it says so."""
    weak = _why_weak(matrix, name)
    narrow = name.replace(" against ", "\nagainst\n") + (f"\n({strength.TOO_WEAK})" if weak else "")
    return Column(f"{name} ({strength.TOO_WEAK})" if weak else name, narrow=narrow, wraps=False)


def _why_weak(matrix: Matrix, column: str) -> str:
    """Empty for a suite, and for an attack that nothing shows to be too weak."""
    return matrix.weak.get(attack_of(column).partition(" (")[0], "")


def _source(matrix: Matrix, line: str) -> list[Item]:
    return [Item(matrix.sources[line][1])] if matrix.sources else []


def _sizes(matrix: Matrix) -> Iterator[str]:
    """A note on how many rows are behind the rates of each column, columns of one n together."""
    joined: dict[str, str] = {}
    for name in matrix.columns:
        sizes = {rate.scored for rates in matrix.rows.values() if (rate := rates.get(name)) and rate.value is not None}
        if sizes:
            n = str(max(sizes)) if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
            joined[n] = f"{joined[n]}, {name}" if n in joined else name
    if len(joined) == 1:
        yield f"Rows behind each rate: n = {next(iter(joined))}."
    elif joined:
        yield f"Rows behind each rate: {'; '.join(f'n = {n} ({names})' for n, names in joined.items())}."


def _items(matrix: Matrix, method: str) -> Iterator[Item]:
    for name in matrix.columns:
        mark = OWN if matrix.own(method, name) else ""
        item = item_of(matrix.rows[method].get(name), mark=mark)
        # Beside a reason there is no small print.
        yield item._replace(text=f"{item.text}, {mark}") if item.reason and mark else item


def _records(matrix: Matrix) -> Iterator[dict[str, Any]]:
    """A record a rate, in percent."""
    for line, rates in to_dict(matrix)["rows"].items():
        source = matrix.sources[line][1] if matrix.sources else ""
        for name, rate in rates.items():
            place = {"table": matrix.title, "method": matrix.method(line), "prompts": name, "own": matrix.own(line, name)}
            place |= {"source": source, "weak": _why_weak(matrix, name)}
            yield place | {field: value for field, value in rate.items() if field in FIELDS}
