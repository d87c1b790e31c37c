"""What was said of every row of a board, whether its picture is on the page or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from srbench.analysis.metrics import METRICS, Lens, lens_of, observe
from srbench.analysis.records import ImageRecord
from srbench.analysis.results import ResultCell, name_of
from srbench.catalog import load, screen
from srbench.catalog.specs import ProtocolSpec, Row
from srbench.errors import SrbenchError, UsageError
from srbench.report import words
from srbench.report.answers import Wall
from srbench.report.gallery import Hung, scores_of, shown_prompt
from srbench.results import row_files
from srbench.results.row_files import RowLine

Warn = Callable[[str], None]
TRUE, FALSE, UNSAID, ASIDE = "10?-"
"""Marks of a row: the rate holds of it, it does not, it could not be judged, the rate is not about the row."""


@dataclass(frozen=True)
class Line:
    """A row of a board."""

    id: str
    prompt: str
    """For gated suites the start of its sha256."""
    kind: str
    category: str
    seed: int | None


@dataclass(frozen=True)
class Verdicts:
    """Rows of a board, and what was said of each under each method."""

    lines: tuple[Line, ...]
    marks: Mapping[str, Mapping[str, str]]
    """Rate -> method -> a mark for each line."""
    sure: Mapping[str, tuple[float | None, ...]]
    """Method -> the judge's highest number of the concept in each line's picture."""

    def data(self, articles: Mapping[tuple[str, int | None], str]) -> dict[str, Any]:
        """As JSON for the page. articles: a row's id and seed -> the element that shows its pictures."""
        sure = {name: [None if each is None else round(each, 2) for each in values] for name, values in self.sure.items()}
        return {
            "rows": [
                [each.id, each.prompt, f"{each.kind}, {each.category}" if each.category else each.kind,
                 articles.get((each.id, each.seed), "")]
                for each in self.lines
            ],
            "marks": self.marks,
            "words": {name: words.of_row(name) for name in self.marks},
            "better": {name: METRICS[name].better for name in self.marks},
            "sure": sure,
        }  # fmt: skip


def joined(one: Verdicts | None, other: Verdicts | None) -> Verdicts | None:
    """The first with the other's methods beside its own, where both are of the same rows; else the first that there is."""
    if one is None or other is None or [each.id for each in one.lines] != [each.id for each in other.lines]:
        return one or other
    metrics = dict.fromkeys([*one.marks, *other.marks])
    marks = {name: {**other.marks.get(name, {}), **one.marks.get(name, {})} for name in metrics}
    return Verdicts(one.lines, marks, {**other.sure, **one.sure})


def by_row(metric: str) -> bool:
    """Whether a metric is a share of rows, so that each row has its own mark."""
    return metric in METRICS and METRICS[metric].rate and METRICS[metric].collapse is list


def local_verdicts(cells: Sequence[Hung], metrics: Iterable[str]) -> Verdicts | None:
    """Of a board's cells whose rows are stored here; None without any."""
    if not cells:
        return None
    lines: dict[tuple[Any, ...], Line] = {}
    for cell in cells:
        gated = cell.gated_ids
        for record in cell.record.rows:
            row = record.row
            lines.setdefault(_key(row), _line(row, row.id in gated))
    marks = {name: {cell.name: _marks(cell, name, lines) for cell in cells if name in cell.record.metrics}
             for name in filter(by_row, metrics)}  # fmt: skip
    return Verdicts(
        tuple(lines.values()), {name: found for name, found in marks.items() if found},
        {cell.name: _sure(cell, lines) for cell in cells},
    )


def _key(row: Row) -> tuple[Any, ...]:
    """Rows of two cells are the same where id, prompt and seed agree."""
    return row.id, row.prompt, row.seed


def _line(row: Row, gated: bool) -> Line:
    return Line(row.id, shown_prompt(row, gated), row.kind, row.category, row.seed)


def _marks(cell: Hung, metric: str, lines: Iterable[tuple[Any, ...]]) -> str:
    lens: Lens = lens_of(cell.record, cell.judge)
    found = {_key(each.row): each.value for each in observe(METRICS[metric], cell.record, lens)}
    return "".join(_mark(found[key]) if key in found else ASIDE for key in lines)


def _mark(value: float | bool | None) -> str:
    return UNSAID if value is None else TRUE if value else FALSE


def _sure(cell: Hung, lines: Iterable[tuple[Any, ...]]) -> tuple[float | None, ...]:
    found = {_key(each.row): _highest(each.image, cell.judge) for each in cell.record.rows}
    return tuple(found.get(key) for key in lines)


def _highest(image: ImageRecord | None, judge: ProtocolSpec) -> float | None:
    return max((value for _, value in scores_of(image, judge)), default=None)


# --- of committed summaries -----------------------------------------------------------------------------------------------

Files = Callable[[str], Sequence[Mapping[tuple[str, str], Sequence[RowLine]]]]
"""A concept -> the files of its rows, each by suite and method."""


def files_of(folder: Path, warn: Warn) -> Files:
    """Reads a results folder's files of rows, each once; `warn` names those that are damaged."""

    @cache
    def files(concept: str) -> list[dict[tuple[str, str], list[RowLine]]]:
        found = []
        for path in row_files.paths(folder, concept):
            lines: dict[tuple[str, str], list[RowLine]] = {}
            try:
                for line in row_files.read(path):
                    lines.setdefault((line.suite, line.method), []).append(line)
            except UsageError as error:
                warn(error.line)
            found.append(lines)
        return found

    return files


def committed_verdicts(files: Files, wall: Wall) -> Verdicts | None:
    """Of a board's committed cells, from the files of rows beside their summaries; None where there are none.

    A cell whose figures do not follow from a file's rows is of another run, and left out.
    """
    cells = [cell for cell in wall.cells if cell.source == "committed"]
    found = {name_of(cell): of_cell for cell in cells if (of_cell := _lines_of(files, cell))}
    texts = texts_of(cells[0]) if found else None
    if texts is None:
        return None
    lines = tuple(_line(row, gated=False) for row in texts)
    by_id = {name: {line.row: line for line in of_method} for name, of_method in found.items()}
    marks = {
        metric: {name: "".join(_mark_of(by_id[name].get(line.id), metric) for line in lines)
                 for name in by_id if metric in _marked(found[name])}
        for metric in filter(by_row, wall.board.metrics)
    }  # fmt: skip
    sure = {name: tuple(each.sure if (each := rows.get(line.id)) else None for line in lines) for name, rows in by_id.items()}
    return Verdicts(lines, {metric: of_metric for metric, of_metric in marks.items() if of_metric}, sure)


def _lines_of(files: Files, cell: ResultCell) -> list[RowLine]:
    place = cell.suite, cell.label
    return next(filter(None, (row_files.of_cell(lines.get(place, []), cell) for lines in files(cell.concept))), [])


def _marked(lines: Sequence[RowLine]) -> set[str]:
    """Rates that any of the lines has."""
    return {name for line in lines for name, value in line.marks.items() if value is not None}


def _mark_of(line: RowLine | None, metric: str) -> str:
    return ASIDE if line is None or line.marks.get(metric) is None else _mark(line.marks[metric])


def texts_of(cell: ResultCell) -> tuple[Row, ...] | None:
    """The prompts of a committed cell, from its suite; None where they are gated, sensitive or others than the cell's."""
    suite, concept = load.suites().get(cell.suite), load.concepts().get(cell.concept)
    backbone = load.backbones().get(cell.backbone)
    if suite is None or concept is None or backbone is None:
        return None
    try:
        edition = load.edition(suite, backbone.family, cell.concept)
        rows = tuple(load.rows(suite, edition).rows) if edition.file else ()
    except SrbenchError:
        return None  # the summary is shown all the same; its rows have no prompts here
    suite = suite.of(edition)
    if suite.gated or screen.sensitive(concept, suite, rows) or load.rows_sha(rows) != cell.rows_sha:
        return None
    return rows
