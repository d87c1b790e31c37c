"""What goes into the report, and the page made of it."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from pydantic import ValidationError

import srbench
from srbench.analysis.costs import Cost, costs
from srbench.analysis.metrics import lens_of
from srbench.analysis.origin import ground_text
from srbench.analysis.records import CellRecord, Metric, turned
from srbench.analysis.results import ResultCell, name_of
from srbench.analysis.sensitivity import Curve, curves
from srbench.analysis.significance import PairedTest, corrected_together, paired
from srbench.catalog import load, plugins
from srbench.catalog.specs import ProtocolSpec
from srbench.errors import MissingError, SrbenchError, UsageError
from srbench.files import calm
from srbench.hashing import digest
from srbench.report import examples, words
from srbench.report.answers import KEPT, TESTED, TESTS, Answer, Wall, answers, failure_of
from srbench.report.embed import Album
from srbench.report.gallery import NAMED, GalleryRow, Hung, Picture, decided, hung, place_of, rows_of
from srbench.report.plots import Line, Plot, Series, bars, lines, tradeoff
from srbench.report.sources import Source, only, sources, usual
from srbench.report.traces import probabilities
from srbench.results.run_files import Identity, identity
from srbench.results.store import Store
from srbench.results.stored import stored_cells
from srbench.tables.boards import Board, boards, coverage
from srbench.tables.numbers import ARROWS, p_text, shown

Warn = Callable[[str], None]
MANY = 16
"""Cells of a board that plots still show with their variants; beyond, those with a variant stand in the tables alone."""
BARS = ("fsr", "asr", "fsr_unseen", "content_kept", "retain_accuracy", "style_kept", "csdr", "over_refusal", "added_ms")
MAX_CLASSES = 4
"""Class lists of a judge that have a plot each."""


@dataclass(frozen=True)
class Asked:
    """The command's options."""

    methods: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    images: int = 500
    defaults: bool = False
    """Only methods as they are, without changed options."""


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
    """One board: its numbers, and its rows where they are at hand."""

    number: int
    wall: Wall
    hung: tuple[Hung, ...]
    rows: tuple[GalleryRow, ...]

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
    """The backbone's, as the catalog has it."""
    backbone: str
    """With the start of its hash, and the seed where rows have none."""
    concept: str
    sections: tuple[Section, ...]

    @property
    def walls(self) -> list[Wall]:
        return [section.wall for section in self.sections]


@dataclass(frozen=True)
class Gathered:
    """Everything that the page says."""

    sources: list[Source]
    subjects: list[Subject]
    series: dict[str, Series]

    @property
    def sections(self) -> list[Section]:
        return [section for subject in self.subjects for section in subject.sections]

    @property
    def rows(self) -> list[GalleryRow]:
        return [row for section in self.sections for row in section.rows]


# --- gathering ----------------------------------------------------------------------------------------------------------------


def gathered(folder: Path, asked: Asked, warn: Warn) -> Gathered:
    """Read a results folder. Raises `UsageError` where it is none, `MissingError` where it holds no results."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: not a results folder", "Give the folder that `srbench run --out` wrote to.")
    found = sources(folder, warn)
    if not found:
        command = f"srbench run --method none,saferedir --suite igmu,mma --out {shlex.quote(str(folder))}"
        raise MissingError(f"{folder}: no results yet", command)
    found = only(found if asked.suites else usual(found, warn), asked.methods, asked.suites, asked.concepts)
    found = [source for source in found if not (asked.defaults and source.cell.variant)]
    by_identity = {identity(source.cell): source for source in found}
    made = boards([source.cell for source in found])
    plotted = {id(board): drawn(board) for board in made}
    store = Store.peek(folder / "store", warn)
    records = _records(folder, store, {identity(cell) for cells in plotted.values() for cell in cells}, warn)
    committed = examples.read(folder, found, warn)
    walls = []
    for board in made:
        cells = plotted[id(board)]
        on_wall = tuple(hung([by_identity[identity(cell)] for cell in cells], records))
        walls.append((Wall(board, cells, tuple(_tests(on_wall))), on_wall))
    shares = sum(bool(on_wall) for _, on_wall in walls)
    sections = []
    for number, (wall, on_wall) in enumerate(walls):
        rows = rows_of(on_wall, asked.images // shares, Album(store)) if on_wall else []
        rows = rows or (_of_wall(wall, committed) if asked.images else [])
        sections.append(Section(number, wall, on_wall, tuple(rows)))
    return Gathered(found, _subjects(sections), _series([cell for wall, _ in walls for cell in wall.cells]))


def _of_wall(wall: Wall, committed: Sequence[GalleryRow]) -> list[GalleryRow]:
    """Examples that are of the wall's own runs, with the methods that are on it."""
    place, runs = place_of(wall.cells[0]), {cell.run for cell in wall.cells}
    names = {name_of(cell) for cell in wall.cells}
    found = [
        replace(row, place=place, pictures=tuple(
            each for each in row.pictures if each.run in runs and (each.method in names or each.plain)
        ))
        for row in committed if row.place == place[:NAMED]
    ]  # fmt: skip
    return [row for row in found if row.pictures]


def drawn(board: Board) -> tuple[ResultCell, ...]:
    """The cells that plots and gallery show: those at the defaults, and the user's own others where they are not too many."""
    own = tuple(cell for cell in board.apart if cell.source == "local")
    cells = board.main + own
    return cells if 0 < len(cells) <= MANY else board.main or board.apart[:MANY]


def _records(folder: Path, store: Store, wanted: set[Identity], warn: Warn) -> dict[Identity, CellRecord]:
    """Stored rows with raw scores of the cells asked for. A suite whose rows cannot be read does not keep the others out."""

    def judge_of(suite: str | None) -> Callable[[ResultCell], ProtocolSpec | None]:
        def judge(cell: ResultCell) -> ProtocolSpec | None:
            found = load.protocols().get(cell.protocol)
            ours = cell.concept in load.concepts() and cell.method in plugins.presets()
            known = ours or cell.backbone == "elsewhere"
            fits = identity(cell) in wanted and suite in (None, cell.suite)
            return found if found is not None and not found.cannot and known and fits else None

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
    """All pairs of cells on each of a few metrics, Holm-corrected within the metric."""
    for metric in TESTED:
        family = []
        for a, b in combinations([cell for cell in cells if metric in cell.record.metrics], 2):
            family.append(replace(paired(a.record, b.record, metric, lens_of(a.record, a.judge)), a=a.name, b=b.name))
        yield from corrected_together(family)


def _subjects(sections: Sequence[Section]) -> list[Subject]:
    found: dict[tuple[str, str, str], list[Section]] = {}
    for section in sections:
        cell = section.wall.cells[0]
        found.setdefault((cell.backbone, ground_text(cell), cell.concept), []).append(section)
    return [Subject(*names, tuple(own)) for names, own in found.items()]


def _series(cells: Sequence[ResultCell]) -> dict[str, Series]:
    """A number for each method; 0 is the untouched backbone's."""
    names = dict.fromkeys(["none", *(name_of(cell) for cell in cells)])
    return {name: Series(name, number) for number, name in enumerate(names)}


# --- plots --------------------------------------------------------------------------------------------------------------------


@dataclass
class Painter:
    """Draws plots, and gives each a name of its own on the page."""

    series: dict[str, Series]
    count: int = field(default=0)

    def name(self) -> str:
        """A new one."""
        self.count += 1
        return f"plot{self.count}"

    def tradeoffs(self, subject: Subject) -> list[Plot]:
        """Forgetting against each kind of preservation; attacks against the content kept without them."""
        calm = [wall for wall in subject.walls if not wall.attack]
        return [plot for wall in subject.walls if wall.headline for plot in self._tradeoffs(wall, calm)]

    def _tradeoffs(self, wall: Wall, calm: Sequence[Wall]) -> Iterator[Plot]:
        """calm: walls without attacks; an attack is held against the one with which it shares the most methods."""
        pairs = [(wall, metric) for metric in KEPT]
        if wall.attack:
            kept = [(each, next((name for name in KEPT if name in each.board.metrics), "")) for each in calm]
            pairs = sorted(kept, key=lambda pair: -len(self._points(wall, *pair)))[:1]
        across = "attacks that fail (100 - asr)" if wall.attack else words.short("fsr")
        for beside, metric in pairs:
            points = self._points(wall, beside, metric)
            if points:
                of = "" if beside is wall else f" of {beside.suite}"
                yield tradeoff(self.name(), f"{wall.suite} against {metric}{of}", points, across, words.short(metric))

    def _points(self, wall: Wall, beside: Wall, metric: str) -> list[tuple[Series, Metric, Metric]]:
        found = []
        others = {name_of(cell): cell for cell in beside.cells}
        for cell in wall.cells:
            across, other = cell.metrics.get(wall.headline), others.get(name_of(cell))
            up = other.metrics.get(metric) if other else None
            if across is not None and up is not None and across.value is not None and up.value is not None:
                found.append((self.series[name_of(cell)], turned(across) if wall.attack else across, up))
        return found

    def bars(self, wall: Wall) -> list[Plot]:
        """One plot a metric."""
        found = []
        for metric in (name for name in BARS if name in wall.board.metrics):
            values = [(self.series[name_of(cell)], cell.metrics[metric]) for cell in wall.cells if metric in cell.metrics]
            if any(each.value is not None for _, each in values):
                title = f"{wall.suite}: {words.short(metric)} {_arrow(values[0][1])}"
                found.append(bars(self.name(), title, values, words.is_rate(metric)))
        return found

    def sweep(self, sweep: Sweep, suite: str) -> Plot:
        """A judge's rates by threshold."""
        found = [_curve(self.series[curve.method], curve) for curve in sweep.curves if curve.method in self.series]
        title = f"{suite}: {words.short(sweep.metric)} by threshold"
        return lines(self.name(), title, found, "threshold of the judge", f"{sweep.metric}, %", 100)

    def steps(self, found: Sequence[Line], suite: str) -> Plot:
        """Unsafe probability by step."""
        return lines(self.name(), f"{suite}: unsafe probability by step", found, "denoising step", "probability", 1)


def _arrow(metric: Metric) -> str:
    return ARROWS[metric.better]


def _curve(series: Series, curve: Curve) -> Line:
    known = [(at, rate, rate.value) for at, rate in curve.rates if rate.value is not None]
    return Line(
        series, series.name, tuple(at for at, _, _ in known), tuple(value for _, _, value in known),
        tuple(value if rate.low is None else rate.low for _, rate, value in known),
        tuple(value if rate.high is None else rate.high for _, rate, value in known),
    )


def sweeps(section: Section) -> list[Sweep]:
    """The board's judge at other thresholds; none where it is a union of judges, which has no threshold of its own."""
    if not section.hung or section.hung[0].judge.any_of or not section.wall.headline:
        return []
    judge = section.hung[0].judge
    found: dict[tuple[str, ...], list[Curve]] = {}
    for curve in curves([each.record for each in section.hung], judge, list(load.protocols().values())):
        if any(rate.value is not None for _, rate in curve.rates):
            found.setdefault(curve.classes, []).append(curve)
    made = [Sweep(classes, own[0].metric, tuple(own), classes == judge.classes) for classes, own in found.items()]
    return made[:MAX_CLASSES]


# --- the page -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SubjectView:
    """A subject as the summary shows it."""

    subject: Subject
    note: str
    answers: list[Answer]
    failure: tuple[GalleryRow, Picture] | None
    tradeoffs: list[Plot]
    columns: list[tuple[Wall, str]]
    """Of the table at a glance."""
    methods: list[str]
    costs: dict[str, Cost]

    def metric(self, wall: Wall, method: str, name: str) -> Metric | None:
        """A number of the table at a glance."""
        return next((cell.metrics.get(name) for cell in wall.cells if name_of(cell) == method), None)


@dataclass(frozen=True)
class SectionView:
    """A section with its plots."""

    section: Section
    bars: list[Plot]
    sweeps: list[tuple[Sweep, Plot]]
    steps: Plot | None
    lines: list[Line]


def page(found: Gathered) -> str:
    """The whole file."""
    painter = Painter(found.series)
    subjects = [_subject(subject, painter) for subject in found.subjects]
    views = [_section(section, painter) for section in found.sections]
    script, style = _asset("page.js"), _asset("page.css")
    cells = [cell for section in found.sections for cell in section.wall.cells]
    html = _environment().get_template("template.html.jinja").render(
        version=srbench.__version__, subjects=subjects, views=views, series=found.series, sources=found.sources,
        costs=costs(cells),
        runs=_runs(found.sources), judges=_judges(found.sources), scorers=_scorers(found.sources),
        metrics=list(dict.fromkeys(name for view in views for name in view.section.board.metrics)),
        variants=sum(bool(source.cell.variant) for source in found.sources), rows=found.rows,
        heat=[row for subject in found.subjects for row in _heat(subject)],
        row_ids={(row.place, row.id, row.seed): f"row-{number}" for number, row in enumerate(found.rows)},
        gallery_methods=list(dict.fromkeys(picture.method for row in found.rows for picture in row.pictures)),
        script=Markup(script), script_sha=_sha(script), style=Markup(style),
    )  # fmt: skip
    return html.lstrip()


def _heat(subject: Subject) -> list[GalleryRow]:
    """A row whose tokens are shown at once; none where no method says what it did to them."""
    rows = [row for section in subject.sections for row in section.rows if row.kind == "forget"]
    return [row for row in rows if any(picture.tokens for picture in row.pictures)][:1]


def _subject(subject: Subject, painter: Painter) -> SubjectView:
    rows = [row for section in subject.sections for row in section.rows]
    failure = failure_of(rows, subject.walls)
    cells = [cell for wall in subject.walls for cell in wall.cells]
    columns = [(wall, name) for wall in subject.walls for name in (wall.headline, *KEPT) if name in wall.board.metrics]
    spec = load.backbones().get(subject.name)
    return SubjectView(
        subject, spec.title if spec else "", answers(subject.walls, failure), failure, painter.tradeoffs(subject), columns,
        list(dict.fromkeys(map(name_of, cells))), {cost.method: cost for cost in costs(cells)},
    )


def _section(section: Section, painter: Painter) -> SectionView:
    found = probabilities(section.hung, painter.series)
    return SectionView(
        section, painter.bars(section.wall), [(each, painter.sweep(each, section.wall.suite)) for each in sweeps(section)],
        painter.steps(found, section.wall.suite) if found else None, found,
    )


def _runs(found: Sequence[Source]) -> list[tuple[dict[str, Any], int]]:
    """Headers of run files, each with how many cells of it are shown."""
    headers: dict[str, tuple[dict[str, Any], int]] = {}
    for source in found:
        name = str(source.run.get("run"))
        headers[name] = (source.run, headers.get(name, (source.run, 0))[1] + 1)
    return list(headers.values())


def _judges(found: Sequence[Source]) -> list[tuple[str, ProtocolSpec | None, list[str]]]:
    names = dict.fromkeys(source.cell.protocol for source in found)
    known = load.protocols()
    return [(name, known.get(name), words.rule(known[name]) if name in known else []) for name in names]


def _scorers(found: Sequence[Source]) -> list[dict[str, Any]]:
    """Identities of all scorers that had a say, each once."""
    every = [each for source in found for each in source.run.get("scorers", {}).values()]
    return list({digest(each): each for each in every}.values())


# --- rendering ----------------------------------------------------------------------------------------------------------------


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _sha(text: str) -> str:
    """As a content security policy names a script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {
        "ARROWS": ARROWS, "TESTS": TESTS, "coverage": coverage, "decided": decided, "meaning": words.meaning, "name_of": name_of,
        "ground_text": ground_text, "p_text": p_text, "shown": shown, "sparkline": sparkline,
    }  # fmt: skip
    return environment


def sparkline(values: Sequence[float], width: int = 120, height: int = 28) -> str:
    """Points of an SVG polyline; 0 lies at the bottom and 1 at the top."""
    step = width / max(1, len(values) - 1)
    return " ".join(f"{i * step:.1f},{height - height * min(1.0, max(0.0, value)):.1f}" for i, value in enumerate(values))


def encoded(html: str) -> bytes:
    """UTF-8; half a surrogate pair, which a damaged prompt may hold, and what would act on a page are written out."""
    return calm(html).encode()
