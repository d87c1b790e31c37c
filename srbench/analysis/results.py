"""One cell's numbers as tables, files and committed summaries carry them, and how cells stand together in a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from srbench.analysis.gains import Stacked, is_stacked, stacking_gains
from srbench.analysis.intervals import resolution
from srbench.analysis.judging import NOT_FINITE, Unscored, seen_in
from srbench.analysis.measure import baseline_times, measure
from srbench.analysis.metrics import METRICS, Times, is_baseline, lens_of
from srbench.analysis.origin import (
    ORIGIN,
    SHOWN,
    UNKNOWN,
    Identity,
    Origin,
    backbone_text,
    ground_of,
    in_order,
    marks,
    meanings,
    noises,
    place_of,
)
from srbench.analysis.records import CellRecord, Metric, RowRecord, label
from srbench.catalog import load
from srbench.catalog.specs import ProtocolSpec
from srbench.errors import UsageError

ARROWS = {"higher": "↑", "lower": "↓"}
STAR = "★"
DASH = "–"
"""Stands where a line has no such metric."""
SHORT = 17
"""A reason up to this length stands in its table cell, a longer one below the table."""
DIFFERENCE = "_diff"
"""Ends the name of a column of differences from another method."""
COARSE = 10.0
"""Points either side of a rate; where the rows settle no less, the table says so."""
IDENTITY = ("backbone", "concept", "suite", "method", "on", "variant", "protocol", "dtype", "rows_sha", "run")
COUNTS = ("n_loaded", "n_excluded", "n_run", "n_scored", "n_failed")

NOTES = {
    "saferedir-upstream": "saferedir-upstream is the released code, but its countdown does not leak from one image into the next."
}
"""Method, checkpoint, suite or concept -> footnote of every table in which it stands."""


@dataclass(frozen=True)
class ResultCell:
    """A cell without its rows: identity, counts, metrics. Rates are in percent."""

    backbone: str
    concept: str
    suite: str
    method: str
    on: str
    variant: str
    protocol: str
    dtype: str
    rows_sha: str
    run: str
    source: str
    """`local` or `committed`; not part of the JSON."""
    n_loaded: int
    n_excluded: int
    n_run: int
    """Rows, not reference images."""
    n_scored: int
    """Rows whose image the judge could decide on."""
    n_failed: int
    """Rows without an image, or whose image the judge failed on."""
    metrics: Mapping[str, Metric]
    cost: Mapping[str, float] = field(default_factory=dict)
    """As `CellRecord.cost`."""
    notes: tuple[str, ...] = ()
    """As `CellRecord.notes`."""
    made_against: str = ""
    """As `CellRecord.made_against`."""
    origin: Origin = UNKNOWN
    """What made it, beside its names."""
    mark: str = ""
    """What tells it from others of its name among the cells that it is shown with (`told_apart`); not part of the JSON."""

    @property
    def label(self) -> str:
        """`method`, `method on checkpoint`, or the checkpoint alone."""
        return label(self)


def result(
    cell: CellRecord,
    judge: ProtocolSpec,
    none: CellRecord | None = None,
    times: Times | None = None,
) -> ResultCell:
    """Measure a cell; the arguments are those of `measure`."""
    metrics = measure(cell, judge, none, times)
    return ResultCell(
        **{name: getattr(cell, name) for name in (*IDENTITY, "source", "n_loaded", "n_excluded")},
        n_run=len(cell.rows),
        n_scored=sum(_judged(record, judge) for record in cell.rows),
        n_failed=sum(_failed(record, judge) for record in cell.rows),
        metrics=metrics,
        cost=cell.cost,
        notes=cell.notes,
        made_against=cell.made_against,
        origin=cell.origin,
        mark=cell.mark,
    )


def told_apart(cells: Sequence[ResultCell]) -> list[ResultCell]:
    """The cells, each with what tells it from the others of its name."""
    texts = marks(cells, [cell.run for cell in cells])
    return [cell if cell.mark == text else replace(cell, mark=text) for cell, text in zip(cells, texts, strict=True)]


def _judged(record: RowRecord, judge: ProtocolSpec) -> bool:
    try:
        seen_in(record.image, judge)
    except Unscored:
        return False
    return True


def _failed(record: RowRecord, judge: ProtocolSpec) -> bool:
    return record.image is None or any(part.scorer in record.image.errors for part in load.parts(judge))


# --- JSON -------------------------------------------------------------------------------------------------------------


def to_dict(cell: ResultCell) -> dict[str, Any]:
    """JSON-ready; every number in it is finite or None."""
    metrics = {name: metric_to_dict(metric) for name, metric in cell.metrics.items()}
    more: dict[str, Any] = {"cost": dict(cell.cost), "notes": list(cell.notes), "made_against": cell.made_against}
    found = {name: value for name, value in more.items() if value}
    named = {name: getattr(cell, name) for name in IDENTITY}
    return {**named, **cell.origin.to_dict(), **{name: getattr(cell, name) for name in COUNTS}, "metrics": metrics, **found}


def metric_to_dict(metric: Metric) -> dict[str, Any]:
    value, low, high = (_finite(each) for each in (metric.value, metric.low, metric.high))
    found: dict[str, Any] = {"value": value, "low": low, "high": high, "n": metric.n, "better": metric.better}
    reason = metric.reason or (NOT_FINITE if None in (value, low, high) else "")
    if reason:
        found["reason"] = reason
    if metric.scored < metric.n:
        bounds = {"worst": _finite(metric.worst), "best": _finite(metric.best)}
        found |= {"scored": metric.scored, **{name: bound for name, bound in bounds.items() if bound is not None}}
    if metric.test:
        found["test"] = metric.test
    if metric.p is not None:
        found |= {"p": metric.p, "p_holm": metric.p_holm}
    if metric.trials:
        found["trials"] = metric.trials
    return found


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def from_dict(data: Mapping[str, Any], source: str = "committed") -> ResultCell:
    """The inverse of `to_dict`. Raises UsageError that names the missing or unknown key."""
    known = {*IDENTITY, *COUNTS, "metrics"}
    for key in sorted(known ^ (set(data) - {"cost", "notes", "made_against", *ORIGIN})):
        what = "an unknown" if key in data else "no"
        raise UsageError(f"a summary's cell has {what} key '{key}'", f"Its keys: {', '.join(sorted(known))}")
    metrics = {name: _metric_from_dict(name, metric) for name, metric in data["metrics"].items()}
    named = {name: value for name, value in data.items() if name not in ORIGIN}
    more = {"source": source, "metrics": metrics, "notes": tuple(data.get("notes", ())), "origin": Origin.of(data)}
    return ResultCell(**{**named, **more})


def _metric_from_dict(name: str, data: Mapping[str, Any]) -> Metric:
    try:
        return Metric(**{"scored": data["n"], **data})
    except (KeyError, TypeError) as error:
        raise UsageError(f"a summary's metric '{name}' is not readable: {error}", "Write the summary again.") from error


# --- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Board:
    """One table: cells that may be compared, those with a variant apart, and the metrics that any of them has."""

    title: str
    caption: str
    main: tuple[ResultCell, ...]
    apart: tuple[ResultCell, ...]
    """Limited or otherwise changed runs; never marked as best."""
    metrics: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def cells(self) -> tuple[ResultCell, ...]:
        return self.main + self.apart

    def header(self, metric: str) -> str:
        """The metric's name with its direction."""
        return f"{metric} {ARROWS[_better(self.cells, metric)]}"

    def starred(self, cell: ResultCell, metric: str) -> bool:
        """Whether the cell holds the best value among the cells of `main` that failed nowhere, and another is worse."""
        if metric not in METRICS or not METRICS[metric].starred or cell not in self.main:
            return False
        values = [other.metrics[metric].value for other in self.main if _whole(other, metric)]
        if len(set(values)) < 2 or not _whole(cell, metric):
            return False
        pick = max if _better(self.cells, metric) == "higher" else min
        return cell.metrics[metric].value == pick(values)  # type: ignore[type-var]


def _whole(cell: ResultCell, metric: str) -> bool:
    found = cell.metrics.get(metric)
    return found is not None and found.value is not None and found.scored == found.n and cell.n_scored == cell.n_run


def _better(cells: Iterable[ResultCell], metric: str) -> str:
    return next(cell.metrics[metric].better for cell in cells if metric in cell.metrics)


def boards(cells: Sequence[ResultCell], notes: Mapping[str, str] | None = None, sort: str | None = None) -> list[Board]:
    """One board per place (`origin.place_of`): cells of another backbone, by content, of other rows, judge, dtype, seed or noise
    can not be compared and have a board of their own.

    notes: method, checkpoint, suite or concept -> footnote; `NOTES` where not given.
    sort: the metric whose best value comes first; the untouched backbone comes first where not given.
    """
    notes = NOTES if notes is None else notes
    places: dict[Identity, list[ResultCell]] = {}
    for cell in cells:
        places.setdefault(place_of(cell), []).append(cell)
    several = len(noises(cells)) > 1
    return [_board(_told_apart(places[place]), sort, notes, several) for place in sorted(places, key=_board_order)]


def _told_apart(cells: Sequence[ResultCell]) -> Sequence[ResultCell]:
    """As given, where names are enough; cells of a results folder come with what they need."""
    return cells if len(set(map(name_of, cells))) == len(cells) else told_apart(cells)


def _board_order(place: Identity) -> tuple[tuple[bool, str], ...]:
    """By backbone, concept, suite and judge, then by what else tells boards apart."""
    backbone, sha, noise, seed, scorers, concept, suite, protocol, dtype, rows = place
    return in_order((backbone, concept, suite, protocol, dtype, rows, sha, seed, noise, scorers))


def title_of(cell: ResultCell) -> str:
    """What a cell's table is called."""
    return f"{cell.concept} × {cell.suite} on {backbone_text(cell)}"


def caption_of(cell: ResultCell, noise: bool = False) -> str:
    """What the cells of a table share beside its title. noise: whether to say how noise was drawn."""
    seed, drawn = cell.origin.seed, cell.origin.noise or "not known"
    parts = [f"judge {cell.protocol}", cell.dtype, f"rows {cell.rows_sha[:SHOWN]}"]
    parts += [] if seed is None else [f"seed {seed}"]
    parts += [f"scorers {cell.origin.scorers_sha[:SHOWN]}"] if cell.origin.scorers_sha else []
    return " · ".join([*parts, f"noise: {drawn}"] if noise else parts)


def _ranked(cells: list[ResultCell], metric: str | None) -> list[ResultCell]:
    """By a metric, the best first and those without a value last; else by name."""
    ordered = sorted(cells, key=_order)
    return ordered if metric is None else sorted(ordered, key=lambda cell: _rank(cell.metrics.get(metric)))


def _rank(metric: Metric | None) -> tuple[bool, float]:
    if metric is None or metric.value is None or not math.isfinite(metric.value):
        return True, 0.0
    return False, -metric.value if metric.better == "higher" else metric.value


def _board(cells: Sequence[ResultCell], sort: str | None, notes: Mapping[str, str], noise: bool) -> Board:
    main, apart = (_ranked([cell for cell in cells if bool(cell.variant) == changed], sort) for changed in (False, True))
    cells = main + apart
    metrics = _metric_names(cells)
    return Board(
        title=title_of(cells[0]),
        caption=caption_of(cells[0], noise),
        main=tuple(main),
        apart=tuple(apart),
        metrics=metrics,
        notes=_footnotes(cells, metrics, notes),
    )


def _order(cell: ResultCell) -> tuple[bool, str, bool, str, str, str]:
    return cell.label != "none", cell.method, cell.on != "none", cell.on, cell.variant, cell.mark


def _metric_names(cells: Sequence[ResultCell]) -> tuple[str, ...]:
    """Metrics in their order, what scorers and stacking add behind them, and each difference beside its metric.

    Where some cells were run here, those decide: what only committed cells have would be columns without a value of one's own.
    """
    own = [cell for cell in cells if cell.source == "local"] or cells
    asked = {name for cell in own for name in cell.metrics}
    plain = {name.removesuffix(DIFFERENCE) for name in asked}
    ordered = [*(name for name in METRICS if name in plain), *sorted(plain - set(METRICS))]
    return tuple(each for name in ordered for each in (name, name + DIFFERENCE) if each in asked)


def _footnotes(cells: Sequence[ResultCell], metrics: Sequence[str], notes: Mapping[str, str]) -> tuple[str, ...]:
    present = dict.fromkeys(name for cell in cells for name in (cell.method, cell.on, cell.suite, cell.concept))
    found = [notes[name] for name in present if name in notes]
    judge = load.protocols().get(cells[0].protocol)
    found += [judge.note] if judge and judge.note else []
    found += dict.fromkeys(note for cell in cells for note in cell.notes)
    found += [f"Lines of one name differ in what made them. {each}." for each in meanings(cell.mark for cell in cells)]
    found += coarse(cells, metrics)
    if not all(cell.metrics.keys() >= set(metrics) for cell in cells):
        found.append(f"{DASH} not asked for, or without a meaning for this method.")
    if any(cell.n_excluded for cell in cells):
        found.append("Rows were excluded (they name minors, or trained a method): n differs from the published suite's.")
    if any(metric.scored < metric.n for cell in cells for metric in cell.metrics.values()):
        found.append(
            "Where rows failed, the value is over the scored ones; the range counts the failures against and for the method."
        )
    return tuple(found)


def coarse(cells: Sequence[ResultCell], metrics: Sequence[str]) -> list[str]:
    """Which rates rest on so few rows that they settle only large differences."""
    few: dict[int, list[str]] = {}
    for name in (name for name in metrics if name in METRICS and METRICS[name].rate):
        known = [cell.metrics[name] for cell in cells if name in cell.metrics and cell.metrics[name].value is not None]
        trials = [metric.trials or metric.scored for metric in known]
        fewest = min(trials, default=0)
        if fewest and resolution(fewest) > COARSE:
            few.setdefault(fewest, []).append(name)
    return [
        f"n = {n} ({', '.join(names)}): ±{resolution(n):.0f} points at a rate of 50 %; less needs a paired test, or more rows."
        for n, names in few.items()
    ]


def coverage(cell: ResultCell) -> str:
    """Rows scored of rows run, and how many were excluded before."""
    return f"{cell.n_scored}/{cell.n_run}" + (f" ({cell.n_excluded} excluded)" if cell.n_excluded else "")


def name_of(cell: ResultCell) -> str:
    """The label, with the variant where there is one, and with what tells it from others of that name."""
    more = ", ".join(filter(None, (cell.variant, cell.mark)))
    return f"{cell.label} ({more})" if more else cell.label


@dataclass(frozen=True)
class Shown:
    """A metric as text: its value, its interval, the bounds where rows failed, or the reason why there is no value."""

    value: str
    interval: str = ""
    """For a difference also its corrected p-value."""
    bounds: tuple[str, ...] = ()
    reason: str = ""


def shown(metric: Metric | None) -> Shown:
    """A metric as text; a dash where there is none."""
    if metric is None:
        return Shown(DASH)
    if metric.value is None or not math.isfinite(metric.value):
        return Shown("n/a", reason=metric.reason or NOT_FINITE)
    interval = "" if metric.low is None or metric.high is None else f"[{digits(metric.low)}, {digits(metric.high)}]"
    if not metric.test:
        return Shown(digits(metric.value), interval, _bounds(metric))
    tested = () if metric.p_holm is None else (p_text(metric.p_holm),)
    return Shown(f"{'+' * (metric.value > 0)}{digits(metric.value)}", interval, (*_bounds(metric), *tested))


def p_text(p: float) -> str:
    """A p-value with two digits of meaning."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _bounds(metric: Metric) -> tuple[str, ...]:
    if metric.scored == metric.n:
        return ()
    counted = f"n {metric.scored}/{metric.n}"
    if metric.worst is None or metric.best is None:
        return (counted,)
    return f"{digits(metric.worst)} to {digits(metric.best)}", counted


def digits(value: float) -> str:
    """Three decimals below 0.1, two below 10, one from there on; 0 and 100 without any are exact."""
    if value in (0, 100):
        return f"{value:.0f}"
    if abs(value) < 0.0995:
        return f"{value:.3f}"
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}"


def brief(reason: str, reasons: list[str]) -> str:
    """A short reason itself; a long one goes into `reasons`, and its number stands for it."""
    if len(reason) <= SHORT:
        return reason
    if reason not in reasons:
        reasons.append(reason)
    return str(reasons.index(reason) + 1)


def measured(judged: Sequence[tuple[CellRecord, ProtocolSpec]]) -> list[ResultCell]:
    """Metrics of cells of one run, each under its judge, with the gains of those that are stacked on a checkpoint.
    """
    records = [record for record, _ in judged]
    plain = {_beside(r): r for r in records if is_baseline(r)}
    times = baseline_times(r for r in records if r.method == "none")
    found = [
        result(record, judge, plain.get(_beside(record)), times)
        for record, judge in judged
    ]
    alone = {(*_beside(r), *_under_it(r)): r for r in records if r.method == "none"}
    stacked = [i for i, record in enumerate(records) if is_stacked(record)]
    gains = stacking_gains([
        Stacked(cell, alone.get((*_beside(cell), *_under_it(cell))), lens_of(cell, judge))
        for cell, judge in (judged[i] for i in stacked)
    ])
    for i, more in zip(stacked, gains, strict=True):
        found[i] = replace(found[i], metrics={**found[i].metrics, **more})
    return found


def _under_it(cell: CellRecord) -> tuple[str, ...]:
    """The checkpoint by name and content, and what of its options is not at the default: a sweep has several of one name."""
    return cell.on, cell.origin.checkpoint_sha, *(part for part in cell.variant.split(",") if part.startswith(f"{cell.on}."))


def _beside(cell: CellRecord) -> Identity:
    """What cells share that can be compared with each other, whatever judges them."""
    return (*ground_of(cell), cell.suite, cell.concept, cell.dtype, cell.rows_sha)
