"""Gathers the report's content from a results folder: results, rows and images as typed data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from pydantic import ValidationError

from srbench.analysis.metrics import lens_of
from srbench.analysis.origin import ground_text
from srbench.analysis.records import CellRecord
from srbench.analysis.results import ResultCell, name_of
from srbench.analysis.sensitivity import Curve, curves
from srbench.analysis.significance import PairedTest, corrected_together, paired
from srbench.analysis.verdicts import spread
from srbench.catalog import load, plugins
from srbench.catalog.specs import ProtocolSpec
from srbench.errors import SrbenchError
from srbench.report import examples
from srbench.report.answers import TESTED, Wall
from srbench.report.embed import MAX_BYTES, Album
from srbench.report.gallery import NAMED, GalleryRow, Hung, hung, place_of, rows_of
from srbench.report.plots import Series
from srbench.report.rows import Verdicts, committed_verdicts, files_of, joined, local_verdicts
from srbench.report.sources import Source, only, sources, usual
from srbench.results.run_files import Identity, check_folder, identity, no_results
from srbench.results.store import Store
from srbench.results.stored import stored_cells
from srbench.tables.boards import Board, boards, with_stars

Warn = Callable[[str], None]
MANY = 16
"""Up to this many cells of a board, plots include variants; with more, variants are in the tables only."""
MAX_CLASSES = 4
"""Class lists of a judge that get a plot, at most."""




@dataclass(frozen=True)
class ReportOptions:
    """Selects the results of a report."""

    methods: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    images: int = 500
    """Images at most, divided evenly among the boards that have any."""
    image_bytes: int = MAX_BYTES
    """Of one image at most, before base64."""
    defaults: bool = False
    """Only methods with their default options."""


@dataclass(frozen=True)
class Sweep:
    """A judge's rates at other thresholds, under one list of classes."""

    classes: tuple[str, ...]
    metric: str
    curves: tuple[Curve, ...]
    own: bool
    """Whether these are the judge's own classes."""


@dataclass(frozen=True)
class Section:
    """One board: its numbers, and its rows where they are stored here."""

    number: int
    wall: Wall
    hung: tuple[Hung, ...]
    rows: tuple[GalleryRow, ...]
    """Those with pictures on the page."""
    verdicts: Verdicts | None = None
    """What was said of every row, where rows are at hand."""

    @property
    def board(self) -> Board:
        return self.wall.board

    @property
    def title(self) -> str:
        """Concept and suite, and the backbone."""
        return self.board.title


@dataclass(frozen=True)
class Subject:
    """One concept on one backbone, over its suites."""

    name: str
    """The backbone's name in the catalog."""
    backbone: str
    """With the start of its hash, and the run's seed where rows have none."""
    concept: str
    sections: tuple[Section, ...]

    @property
    def walls(self) -> list[Wall]:
        return [section.wall for section in self.sections]


@dataclass(frozen=True)
class Gathered:
    """The page's whole content."""

    sources: list[Source]
    subjects: list[Subject]
    series: dict[str, Series]

    @property
    def sections(self) -> list[Section]:
        return [section for subject in self.subjects for section in subject.sections]

    @property
    def rows(self) -> list[GalleryRow]:
        return [row for section in self.sections for row in section.rows]


def gathered(folder: Path, options: ReportOptions, warn: Warn) -> Gathered:
    """Read a results folder. Raises `UsageError` for another folder, `MissingError` where it holds no results."""
    check_folder(folder)
    every = sources(folder, warn)
    if not every:
        raise no_results(folder)
    every = only(every if options.suites else usual(every, warn), options.methods, options.suites, options.concepts)
    shown = [source for source in every if not (options.defaults and source.cell.variant)]
    store = Store.peek(folder / "store", warn)
    walls = _walls(folder, store, shown, warn)
    committed = examples.read(folder, shown, warn)
    shares = sum(bool(hung_cells) for _, hung_cells in walls)
    stored = len({row.place for row in committed})
    album, files = Album(store, options.image_bytes), files_of(folder, warn)
    sections = []
    for number, (wall, hung_cells) in enumerate(walls):
        rows = rows_of(hung_cells, options.images // shares, album) if hung_cells else []
        rows = rows or (_some(_of_wall(wall, committed), options.images // max(1, stored)) if options.images else [])
        said = joined(local_verdicts(hung_cells, wall.board.metrics), committed_verdicts(files, wall))
        sections.append(Section(number, wall, hung_cells, tuple(rows), said))
    return Gathered(shown, _subjects(sections), _series([cell for wall, _ in walls for cell in wall.cells]))


def _walls(folder: Path, store: Store, shown: Sequence[Source], warn: Warn) -> list[tuple[Wall, tuple[Hung, ...]]]:
    """One wall per board, with its cells whose rows are stored here."""
    by_identity = {identity(source.cell): source for source in shown}
    plotted = [(board, drawn(board)) for board in boards([source.cell for source in shown])]
    wanted = {identity(cell) for _, cells in plotted for cell in cells}
    records = _records(folder, store, wanted, warn)
    walls = []
    for board, cells in plotted:
        hung_cells = tuple(hung([by_identity[identity(cell)] for cell in cells], records))
        starred = with_stars(board, lambda cell: records.get(identity(cell)))
        walls.append((Wall(starred, cells, tuple(_tests(hung_cells))), hung_cells))
    return walls


def _some(rows: Sequence[GalleryRow], images: int) -> list[GalleryRow]:
    """Rows with about so many images, spread evenly; one at least."""
    each = max((row.embedded for row in rows), default=1)
    return spread(rows, max(1, images // max(1, each)))


def _of_wall(wall: Wall, committed: Sequence[GalleryRow]) -> list[GalleryRow]:
    """Committed examples of the wall's runs and methods."""
    place, runs = place_of(wall.cells[0]), {cell.run for cell in wall.cells}
    names = {name_of(cell) for cell in wall.cells}
    rows = [
        replace(row, place=place, pictures=tuple(
            each for each in row.pictures if each.run in runs and (each.method in names or each.plain)
        ))
        for row in committed if row.place == place[:NAMED]
    ]  # fmt: skip
    return [row for row in rows if row.pictures]


def drawn(board: Board) -> tuple[ResultCell, ...]:
    """The cells in plots and gallery: those with default options, and the user's local others unless there are too many."""
    cells = board.main + tuple(cell for cell in board.apart if cell.source == "local")
    return cells if 0 < len(cells) <= MANY else board.main or board.apart[:MANY]


def _records(folder: Path, store: Store, wanted: set[Identity], warn: Warn) -> dict[Identity, CellRecord]:
    """Stored rows with raw scores of the wanted cells. Where a suite's rows cannot be read, the others still are."""

    def judge_of(suite: str | None) -> Callable[[ResultCell], ProtocolSpec | None]:
        def judge(cell: ResultCell) -> ProtocolSpec | None:
            protocol = load.protocols().get(cell.protocol)
            ours = cell.concept in load.concepts() and cell.method in plugins.presets()
            readable = ours or cell.backbone == "elsewhere"
            fits = identity(cell) in wanted and suite in (None, cell.suite)
            return protocol if protocol is not None and not protocol.cannot and readable and fits else None

        return judge

    try:
        return {identity(cell): record for cell, record in stored_cells(folder, store, judge_of(None))}
    except (SrbenchError, ValidationError):
        pass
    records: dict[Identity, CellRecord] = {}
    for suite in sorted({str(name[2]) for name in wanted}):
        try:
            records |= {identity(cell): record for cell, record in stored_cells(folder, store, judge_of(suite))}
        except SrbenchError as error:
            warn(f"{suite}: no gallery. {error.line}")
        except ValidationError:
            warn(f"{suite}: no gallery, a row in a run file is damaged")
    return records


def _tests(cells: Sequence[Hung]) -> Iterator[PairedTest]:
    """Tests of all pairs of cells on each metric of `TESTED`, Holm-corrected together: they are one table."""
    family = [
        replace(paired(a.record, b.record, metric, lens_of(a.record, a.judge)), a=a.name, b=b.name)
        for metric in TESTED for a, b in combinations([cell for cell in cells if metric in cell.record.metrics], 2)
    ]
    yield from corrected_together(family)


def _subjects(sections: Sequence[Section]) -> list[Subject]:
    """Sections by backbone and concept; those of the backbone with the newest run come first."""
    subjects: dict[tuple[str, str, str], list[Section]] = {}
    for section in sections:
        cell = section.wall.cells[0]
        subjects.setdefault((cell.backbone, ground_text(cell), cell.concept), []).append(section)
    newest: dict[str, str] = {}
    for (_, ground, _), of_subject in subjects.items():
        runs = [cell.run for section in of_subject for cell in section.wall.cells]
        newest[ground] = max([newest.get(ground, ""), *runs])
    ordered = sorted(subjects.items(), key=lambda each: newest[each[0][1]], reverse=True)
    return [Subject(*names, tuple(of_subject)) for names, of_subject in ordered]


def _series(cells: Sequence[ResultCell]) -> dict[str, Series]:
    """A number for each method; 0 is the untouched backbone's."""
    names = dict.fromkeys(["none", *(name_of(cell) for cell in cells)])
    return {name: Series(name, number) for number, name in enumerate(names)}


def sweeps(section: Section) -> list[Sweep]:
    """The board's judge at other thresholds; empty for a union of judges, which has no threshold of its own."""
    if not section.hung or section.hung[0].judge.any_of or not section.wall.headline:
        return []
    judge = section.hung[0].judge
    by_classes: dict[tuple[str, ...], list[Curve]] = {}
    for curve in curves([each.record for each in section.hung], judge, list(load.protocols().values())):
        if any(rate.value is not None for _, rate in curve.rates):
            by_classes.setdefault(curve.classes, []).append(curve)
    all_sweeps = [Sweep(classes, each[0].metric, tuple(each), classes == judge.classes) for classes, each in by_classes.items()]
    return all_sweeps[:MAX_CLASSES]
