"""Renders the report's page from the gathered content."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from srbench.analysis.costs import Cost, by_method, costs
from srbench.analysis.metrics import KEPT
from srbench.analysis.origin import ground_text
from srbench.analysis.records import Metric, turned
from srbench.analysis.results import name_of, untouched
from srbench.analysis.sensitivity import Curve
from srbench.catalog import load
from srbench.catalog.specs import ProtocolSpec
from srbench.files import calm
from srbench.hashing import digest
from srbench.report import words
from srbench.report.answers import TESTS, Answer, Wall, answers, failure_of
from srbench.report.brief import brief
from srbench.report.gallery import GalleryRow, Picture, decided
from srbench.report.gather import Gathered, Section, Subject, Sweep, sweeps
from srbench.report.glance import Glance, glance, main_wall
from srbench.report.plots import Bars, Line, Plot, Series, bars, lines, tradeoff
from srbench.report.rows import FALSE, TRUE
from srbench.report.sources import Source
from srbench.report.traces import probabilities
from srbench.tables.boards import coverage, star_note
from srbench.tables.costs import added_of
from srbench.tables.numbers import ARROWS, named, p_text, shown_as
from srbench.version import __version__

TRADEOFFS = 4
"""Plots of a subject at most: each takes a tenth of a second, and the map has all their numbers."""
FIRST = 5
"""Methods among which the comparison of two looks for those that it begins with."""
BARS = ("fsr", "asr", "fsr_unseen", "content_kept", "retain_accuracy", "style_kept", "csdr", "harm", "over_refusal", "added_ms")
# --- plots --------------------------------------------------------------------------------------------------------------------


@dataclass
class Painter:
    """Draws plots, each with a unique name on the page."""

    series: dict[str, Series]
    count: int = field(default=0)

    def name(self) -> str:
        """A new unique name."""
        self.count += 1
        return f"plot{self.count}"

    def tradeoffs(self, subject: Subject) -> list[Plot]:
        """Forgetting against what stays: every metric of the main suite's, then one of each other suite, `TRADEOFFS` at most.

        An attack suite stands against what is kept on a suite without attacks.
        """
        main, gentle = main_wall(subject.walls), [wall for wall in subject.walls if not wall.attack]
        ordered = sorted((wall for wall in subject.walls if wall.headline), key=lambda wall: wall is not main)
        plots = (plot for wall in ordered for plot in islice(self._tradeoffs(wall, gentle), None if wall is main else 1))
        return list(islice(plots, TRADEOFFS))

    def _tradeoffs(self, wall: Wall, gentle: Sequence[Wall]) -> Iterator[Plot]:
        """gentle: walls without attacks; an attack wall is plotted against the one that shares the most methods with it."""
        pairs = [(wall, metric) for metric in KEPT]
        if wall.attack:
            candidates = [(each, next((name for name in KEPT if name in each.board.metrics), "")) for each in gentle]
            pairs = sorted(candidates, key=lambda pair: -len(self._points(wall, *pair)))[:1]
        across = "attacks that fail (100 - asr)" if wall.attack else words.short("fsr")
        for beside, metric in pairs:
            points = self._points(wall, beside, metric)
            if points:
                of = "" if beside is wall else f" of {beside.suite}"
                yield tradeoff(self.name(), f"gone on {wall.suite}, against {metric}{of}", points, across, words.short(metric))

    def _points(self, wall: Wall, beside: Wall, metric: str) -> list[tuple[Series, Metric, Metric]]:
        points = []
        others = {name_of(cell): cell for cell in beside.cells}
        for cell in wall.cells:
            across, other = cell.metrics.get(wall.headline), others.get(name_of(cell))
            up = other.metrics.get(metric) if other else None
            if across is not None and up is not None and across.value is not None and up.value is not None:
                points.append((self.series[name_of(cell)], turned(across) if wall.attack else across, up))
        return points

    def bars(self, wall: Wall) -> list[Bars]:
        """One chart per metric."""
        charts = []
        for metric in (name for name in BARS if name in wall.board.metrics):
            values = [(self.series[name_of(cell)], cell.metrics[metric]) for cell in wall.cells if metric in cell.metrics]
            if any(each.value is not None for _, each in values):
                title = f"{wall.suite}: {words.short(metric)} {ARROWS[values[0][1].better]}"
                charts.append(bars(title, metric, values, words.is_rate(metric)))
        return charts

    def sweep(self, sweep: Sweep, suite: str) -> Plot:
        """A judge's rates by threshold."""
        drawn = [_curve(self.series[curve.method], curve) for curve in sweep.curves if curve.method in self.series]
        title = f"{suite}: {words.short(sweep.metric)} by threshold"
        return lines(self.name(), title, drawn, "threshold of the judge", f"{sweep.metric}, %", 100)

    def steps(self, probability: Sequence[Line], suite: str) -> Plot:
        """Unsafe probability by step."""
        return lines(self.name(), f"{suite}: unsafe probability by step", probability, "denoising step", "probability", 1)


def _curve(series: Series, curve: Curve) -> Line:
    rates = [(at, rate, rate.value) for at, rate in curve.rates if rate.value is not None]
    return Line(
        series, series.name, tuple(at for at, _, _ in rates), tuple(value for _, _, value in rates),
        tuple(value if rate.low is None else rate.low for _, rate, value in rates),
        tuple(value if rate.high is None else rate.high for _, rate, value in rates),
    )


# --- the page -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SubjectView:
    """A subject in the page's summary."""

    subject: Subject
    note: str
    answers: list[Answer]
    failure: tuple[GalleryRow, Picture] | None
    tradeoffs: list[Plot]
    glance: Glance
    brief: list[str]
    columns: list[tuple[Wall, str]]
    """Of the overview table."""
    methods: list[str]
    costs: dict[str, Cost]
    told: bool
    """Whether another subject has the same concept, so that the backbone has to be named."""

    def metric(self, wall: Wall, method: str, name: str) -> Metric | None:
        """A number of the overview table."""
        return next((cell.metrics.get(name) for cell in wall.cells if name_of(cell) == method), None)


@dataclass(frozen=True)
class SectionView:
    """A section with its plots."""

    section: Section
    name: str
    """Its title, with its rows where another section has the same."""
    bars: list[Bars]
    sweeps: list[tuple[Sweep, Plot]]
    steps: Plot | None
    lines: list[Line]


def page(content: Gathered) -> str:
    """The whole file."""
    painter = Painter(content.series)
    concepts = Counter(subject.concept for subject in content.subjects)
    subjects = [_subject(subject, painter, concepts[subject.concept] > 1) for subject in content.subjects]
    titles = Counter(section.title for section in content.sections)
    views = [_section(section, painter, titles[section.title] > 1) for section in content.sections]
    script, style = asset("page.js") + asset("rows.js"), asset("page.css")
    cells = [cell for section in content.sections for cell in section.wall.cells]
    row_ids = {(row.place, row.id, row.seed): f"row-{number}" for number, row in enumerate(content.rows)}
    html = environment().get_template("template.html.jinja").render(
        version=__version__, subjects=subjects, views=views, series=content.series, sources=content.sources,
        costs=costs(cells),
        runs=_runs(content.sources), judges=_judges(content.sources), scorers=_scorers(content.sources),
        metrics=list(dict.fromkeys(name for view in views for name in view.section.board.metrics)),
        variants=sum(bool(source.cell.variant) for source in content.sources), rows=content.rows,
        heat=[row for subject in content.subjects for row in _heat(subject)],
        row_ids=row_ids, verdicts=_verdicts(content.sections, row_ids),
        gallery_methods=list(dict.fromkeys(picture.method for row in content.rows for picture in row.pictures)),
        pair=_pair(subjects), script=Markup(script), script_sha=_sha(script), style=Markup(style),
    )  # fmt: skip
    return html.lstrip()


def _verdicts(sections: Sequence[Section], row_ids: Mapping[tuple[Any, ...], str]) -> Markup:
    """What was said of every row, as JSON by a section's number: it is read by the page's script and never run."""
    data = {}
    for section in sections:
        if section.verdicts is not None:
            articles = {(row.id, row.seed): row_ids[row.place, row.id, row.seed] for row in section.rows}
            data[str(section.number)] = section.verdicts.data(articles)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _pair(subjects: Sequence[SubjectView]) -> dict[str, str]:
    """What the comparison of two methods begins with: the first concept's main suite, and of its `FIRST` best methods the two
    that differ on the most rows with pictures of both; where no two do, one of them and the untouched model."""
    for view in subjects:
        main = main_wall(view.subject.walls)
        names = list(dict.fromkeys(entry.name for entry in (*view.glance.balanced, *view.glance.methods)))
        for section in view.subject.sections:
            if section.wall is not main or section.verdicts is None:
                continue
            marks = section.verdicts.marks.get(main.headline, {})
            among, plain = [name for name in names if name in marks][:FIRST], next(filter(untouched, marks), None)
            ways = [list(combinations(among, 2)), [(plain, name) for name in among] if plain is not None else []]
            best = [max(pairs, key=lambda pair: _differing(section, main.headline, *pair)) for pairs in ways if pairs]
            if best:
                one, two = next((pair for pair in best if _differing(section, main.headline, *pair)), best[0])
                return {"board": str(section.number), "metric": main.headline, "one": one, "two": two}
    return {}


def _differing(section: Section, metric: str, one: str, two: str) -> int:
    """On how many rows with pictures of both methods the two differ."""
    if section.verdicts is None:
        return 0
    marks = section.verdicts.marks[metric]
    shown = {(row.id, row.seed): {each.method for each in row.pictures if each.data} for row in section.rows}
    return sum(
        {a, b} == {TRUE, FALSE} and {one, two} <= shown.get((line.id, line.seed), set())
        for line, a, b in zip(section.verdicts.lines, marks[one], marks[two], strict=True)
    )


def _heat(subject: Subject) -> list[GalleryRow]:
    """At most one row whose tokens are shown in the summary; empty where no method's trace has tokens."""
    rows = [row for section in subject.sections for row in section.rows if row.kind == "forget"]
    return [row for row in rows if any(picture.tokens for picture in row.pictures)][:1]


def _subject(subject: Subject, painter: Painter, told: bool) -> SubjectView:
    rows = [row for section in subject.sections for row in section.rows]
    overview = glance([(section.number, section.wall) for section in subject.sections])
    best = overview.balanced[0].name if overview.balanced else ""
    failure = failure_of(rows, subject.walls, best, [entry.name for entry in overview.entries])
    cells = [cell for wall in subject.walls for cell in wall.cells]
    columns = [(wall, name) for wall in subject.walls for name in (wall.headline, *KEPT) if name in wall.board.metrics]
    spec, cost_of = load.backbones().get(subject.name), by_method(costs(cells))
    return SubjectView(
        subject, spec.title if spec else "", answers(subject.walls, failure), failure, painter.tradeoffs(subject), overview,
        brief(overview, subject.walls, cost_of), columns, list(dict.fromkeys(map(name_of, cells))), cost_of, told,
    )


def _section(section: Section, painter: Painter, told: bool) -> SectionView:
    probability = probabilities(section.hung, painter.series)
    name = f"{section.title}, {section.board.caption}" if told else section.title
    return SectionView(
        section, name, painter.bars(section.wall), [(each, painter.sweep(each, section.wall.suite)) for each in sweeps(section)],
        painter.steps(probability, section.wall.suite) if probability else None, probability,
    )


def _runs(of_cells: Sequence[Source]) -> list[tuple[dict[str, Any], int]]:
    """Headers of run files, each with the number of its cells that are shown."""
    headers: dict[str, tuple[dict[str, Any], int]] = {}
    for source in of_cells:
        name = str(source.run.get("run"))
        headers[name] = (source.run, headers.get(name, (source.run, 0))[1] + 1)
    return list(headers.values())


def _judges(of_cells: Sequence[Source]) -> list[tuple[str, ProtocolSpec | None, list[str]]]:
    names = dict.fromkeys(source.cell.protocol for source in of_cells)
    protocols = load.protocols()
    return [(name, protocols.get(name), words.rule(protocols[name]) if name in protocols else []) for name in names]


def _scorers(of_cells: Sequence[Source]) -> list[dict[str, Any]]:
    """Identities of all scorers that were used, without duplicates."""
    every = [each for source in of_cells for each in source.run.get("scorers", {}).values()]
    return list({digest(each): each for each in every}.values())


# --- rendering ----------------------------------------------------------------------------------------------------------------


def asset(name: str) -> str:
    """The text of a file beside this one."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _sha(text: str) -> str:
    """The script's sha256 in the base64 form that a content security policy needs."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def environment() -> jinja2.Environment:
    """Of the pages' templates: everything that is put into one is escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {
        "ARROWS": ARROWS, "TESTS": TESTS, "added_of": added_of, "coverage": coverage, "decided": decided,
        "meaning": words.meaning, "name_of": name_of, "named": named, "ground_text": ground_text, "p_text": p_text,
        "shown_as": shown_as, "broken": broken, "star_note": star_note, "sparkline": sparkline,
    }  # fmt: skip
    return environment


def broken(name: str) -> str:
    """A name that may take another line after each of its words."""
    return name.replace("_", "_\u200b")


def sparkline(values: Sequence[float], width: int = 120, height: int = 28) -> str:
    """Points of an SVG polyline; 0 is at the bottom and 1 at the top."""
    step = width / max(1, len(values) - 1)
    return " ".join(f"{i * step:.1f},{height - height * min(1.0, max(0.0, value)):.1f}" for i, value in enumerate(values))


def encoded(html: str) -> bytes:
    """UTF-8, with unpaired surrogates (of damaged prompts) and control characters escaped."""
    return calm(html).encode()
