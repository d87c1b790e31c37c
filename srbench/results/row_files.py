"""Files of rows beside committed summaries: what was said of every picture, so that a clone can show and work out each figure.

`FOLDER/CONCEPT-rows.csv` belongs to the summary `FOLDER/CONCEPT.json`. A line is one row of one cell: the start of its image's
key, the judge's probability of the concept (`sure`), and 1 or 0 for each rate; empty where the rate is not about the row.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from srbench.analysis.results import ResultCell
from srbench.errors import UsageError

PLACE = ("suite", "method", "row", "image", "sure")
"""The first columns; the others are rates."""
ENDING = "-rows.csv"
KEY = 16
"""Digits of an image's key in a file of rows."""
MARKS = {"": None, "0": False, "1": True}
NEAR = 1e-6
"""How far a rate worked out from its rows may be from the summary's, in percentage points: both are written with more digits."""


@dataclass(frozen=True)
class RowLine:
    """What was said of one row's picture."""

    suite: str
    method: str
    """With its checkpoint, as `ResultCell.label`."""
    row: str
    image: str
    """The first `KEY` digits of the image's key; empty where there is no image."""
    sure: float | None
    """The judge's probability of the concept."""
    marks: Mapping[str, bool | None]
    """Rate -> whether it holds of the row; None where the rate is not about it."""


def paths(folder: Path, concept: str) -> list[Path]:
    """The files of a concept's rows in a results folder."""
    return sorted(folder.glob(f"*/{concept}{ENDING}"))


def read(path: Path) -> list[RowLine]:
    """Every line of a file of rows. Raises `UsageError` where it cannot be read or a line is damaged."""
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            return list(_lines(path, csv.reader(handle)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read ({error})", "Restore the file.") from error


def _lines(path: Path, lines: Iterator[list[str]]) -> Iterator[RowLine]:
    head = next(lines, [])
    if tuple(head[: len(PLACE)]) != PLACE or len(set(head)) != len(head):
        raise UsageError(f"{path}: no file of rows", f"Its first columns are {', '.join(PLACE)}.")
    for number, line in enumerate(lines, 2):
        try:
            if len(line) != len(head):
                raise ValueError
            suite, method, row, image, sure = line[: len(PLACE)]
            marks = {name: MARKS[text] for name, text in zip(head[len(PLACE) :], line[len(PLACE) :], strict=True)}
            yield RowLine(suite, method, row, image, _probability(sure), marks)
        except (KeyError, ValueError) as error:
            raise UsageError(f"{path}: line {number} is damaged", "Restore the file.") from error


def _probability(text: str) -> float | None:
    """Raises `ValueError` for anything but an empty text or a number from 0 to 1."""
    if not text:
        return None
    if not 0.0 <= float(text) <= 1.0:
        raise ValueError(text)
    return float(text)


def named(folder: Path, what: str, least: int, warn: Callable[[str], None]) -> list[tuple[Path, list[RowLine]]]:
    """The lines of every file of rows whose row is `what`, or whose image's key begins so (`least` characters or more).

    A damaged file is named by `warn` and left out.
    """
    found = []
    for path in sorted(folder.glob(f"*/*{ENDING}")):
        try:
            lines = read(path)
        except UsageError as error:
            warn(error.line)
            continue
        key = what[:KEY] if len(what) >= least else ""
        mine = [line for line in lines if line.row == what or (key and line.image.startswith(key))]
        found += [(path, mine)] if mine else []
    return found


def of_cell(lines: Sequence[RowLine], cell: ResultCell) -> list[RowLine]:
    """The lines of a cell; empty where the cell's figures do not follow from them: they are then of another run."""
    place = cell.suite, cell.label
    mine = [line for line in lines if (line.suite, line.method) == place]
    return mine if mine and len(mine) == cell.n_run and all(_follows(mine, name, cell) for name in cell.metrics) else []


def _follows(lines: Sequence[RowLine], name: str, cell: ResultCell) -> bool:
    if name not in lines[0].marks:
        return True  # not a rate of rows
    values = [value for line in lines if (value := line.marks[name]) is not None]
    claimed = cell.metrics[name].value
    if not values or claimed is None:  # what the untouched model does to itself is no figure
        return claimed is None and (not values or cell.label == "none")
    return math.isclose(100 * sum(values) / len(values), claimed, abs_tol=NEAR)
