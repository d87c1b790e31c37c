"""Sweeps of one option: cells that differ only in its value, in the order of the values."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from srbench.analysis.origin import MAKING, SHOWN, Identity, ground_text, place_of, telling
from srbench.analysis.records import Metric, turned
from srbench.analysis.results import ResultCell
from srbench.catalog import load, plugins
from srbench.errors import MissingError, UsageError, did_you_mean

HEADLINES = ("fsr", "asr")
"""Metrics of forgetting; the first that a cell has counts."""
KEPT = ("content_kept", "retain_accuracy", "style_kept")
"""Metrics of what is preserved."""


class Point(NamedTuple):
    """One value of the option."""

    said: str
    at: float | None
    """The value as a number, else None."""
    forgotten: Metric
    """Percent, higher is better: `fsr`, or 100 - `asr`."""
    kept: Mapping[str, Metric]
    """Metric -> value, for those in `KEPT` that have one."""


@dataclass(frozen=True)
class Swept:
    """A method on one suite at several values of the option."""

    panel: tuple[str, ...]
    """Backbone with the start of its hash and the run's seed, concept, and suite, with the rows' hash where there are several."""
    name: str
    """Method, checkpoint, and other options that are not at their default."""
    headline: str
    beside: str
    """The suite that `kept` is measured on, where it is a different one."""
    points: tuple[Point, ...]
    rows_sha: str = ""


def swept(cells: Sequence[ResultCell], option: str) -> list[Swept]:
    """Every line with at least two values of `METHOD.OPTION`, sorted by panel.

    Raises `UsageError` for a name of another form or an unknown method, `MissingError` where no result has two values.
    """
    method, dot, name = option.partition(".")
    if not dot or not name:
        raise UsageError(f"--curve {option}: expected METHOD.OPTION", "Example: --curve saferedir.alpha_scale")
    plugins.preset(method)
    groups = [(more, part) for members in _groups(cells, method, name).values() for more, part in _by_origin(members)]
    lines = [line for more, members in groups if (line := _line(members, cells, method, name, more)) is not None]
    lines = _with_row_hashes(lines)
    most = {panel: max(len(line.points) for line in lines if line.panel == panel) for panel in {line.panel for line in lines}}
    # A line of two values beside a longer sweep is left over from other runs.
    lines = [line for line in lines if len(line.points) > 2 or most[line.panel] == 2]
    if not lines:
        hint = f"srbench run --method {method} --sweep {option}=V1,V2,..."
        raise MissingError(f"no results at two values of {option}", f"Make some: {hint}")
    return sorted(lines, key=lambda line: (line.panel, line.name))


Valued = tuple[str, ResultCell]
"""A value of the option, and the cell that was run with it."""


def _with_row_hashes(lines: Sequence[Swept]) -> list[Swept]:
    """The lines, with the rows' hash in the panel's name where one suite was run on different rows."""
    rows: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for line in lines:
        rows[line.panel].add(line.rows_sha)
    return [
        replace(line, panel=(*line.panel[:-1], f"{line.panel[-1]} (rows {line.rows_sha[:SHOWN]})"))
        if len(rows[line.panel]) > 1 else line
        for line in lines
    ]  # fmt: skip


def _groups(cells: Iterable[ResultCell], method: str, name: str) -> dict[Identity, list[Valued]]:
    """Cells of the method, grouped by everything except the option; hashes of what made them count too."""
    groups: dict[Identity, list[Valued]] = defaultdict(list)
    for cell in cells:
        if method in (cell.method, cell.on):
            value, rest = _split(cell, method, name)
            place = (*place_of(cell), cell.method, cell.on, *_beside(cell, method), rest)
            groups[place].append((_default(cell, method, name) if value is None else value, cell))
    return groups


def _by_origin(members: Sequence[Valued]) -> list[tuple[str, list[Valued]]]:
    """The cells as one line; where two cells have the same value, one line per origin, with the text that distinguishes it."""
    if len({value for value, _ in members}) == len(members):
        return [("", list(members))]
    parts: dict[Identity, list[Valued]] = defaultdict(list)
    for value, cell in members:
        origin = cell.origin
        parts[origin.checkpoint_sha, origin.artifact_sha, origin.method_version].append((value, cell))
    texts = telling([part[0][1] for part in parts.values()], MAKING)
    return list(zip(texts, parts.values(), strict=True))


def _beside(cell: ResultCell, method: str) -> tuple[str, ...]:
    """The cell's hashes that the swept option does not change: it changes the artifact or the checkpoint of its own method."""
    origin = cell.origin
    return (origin.folder, origin.checkpoint_sha) if cell.method == method else (origin.folder, origin.artifact_sha)


def _split(cell: ResultCell, method: str, name: str) -> tuple[str | None, str]:
    """The option's value in a cell's variant (None at its default), and the rest of the variant."""
    key = f"{name}=" if cell.method == method else f"{method}.{name}="
    parts = cell.variant.split(",")
    values = [part.removeprefix(key) for part in parts if part.startswith(key)]
    return (values[0] if values else None), ",".join(part for part in parts if not part.startswith(key))


def _default(cell: ResultCell, method: str, name: str) -> str:
    """The option's default for a cell's concept, formatted as in variants. Raises `UsageError` for an unknown option."""
    spec, concept = load.backbones().get(cell.backbone), load.concepts().get(cell.concept)
    values = plugins.values(method, spec.family if spec else "", concept.kind if concept else "")
    options = plugins.load("methods", plugins.preset(method)[0]).Options
    if name not in options.model_fields:
        raise UsageError(f"{method} has no option '{name}'", did_you_mean(name, options.model_fields))
    return str(getattr(options(**values), name))


def _line(members: Sequence[Valued], cells: Sequence[ResultCell], method: str, name: str, more: str = "") -> Swept | None:
    """more: text that distinguishes its cells from others of the same name."""
    points = []
    sources = {value: _kept_cells(cell, cells) for value, cell in members}
    beside = _beside_all(members[0][1].suite, list(sources.values()))
    for value, cell in _in_order(members):
        headline = next((each for each in HEADLINES if _has(cell, each)), None)
        if headline is None:
            continue
        source = sources[value].get(beside or cell.suite)
        kept = {} if source is None else {each: source.metrics[each] for each in KEPT if _has(source, each)}
        metric = cell.metrics[headline]
        points.append(Point(value, _number(value), metric if headline == "fsr" else turned(metric), kept))
    if len({point.said for point in points}) < 2:
        return None
    first = members[0][1]
    rest = ", ".join(filter(None, (_split(first, method, name)[1], more)))
    headline = next(each for each in HEADLINES if any(_has(cell, each) for _, cell in members))
    label = f"{first.label} ({rest})" if rest else first.label
    return Swept((ground_text(first), first.concept, first.suite), label, headline, beside, tuple(points), first.rows_sha)


def _in_order(members: Sequence[Valued]) -> Iterator[Valued]:
    """Sorted by value, as numbers where all values are numbers, else as text; without duplicates."""
    numbers = all(_number(text) is not None for text, _ in members)
    by_value = {(_number(text) if numbers else text): (text, cell) for text, cell in reversed(members)}
    yield from (by_value[value] for value in sorted(by_value))  # type: ignore[type-var]  # all numbers, or all text


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _has(cell: ResultCell, metric: str) -> bool:
    return metric in cell.metrics and cell.metrics[metric].value is not None


def _beside_all(suite: str, sources: Sequence[Mapping[str, ResultCell]]) -> str:
    """The suite that a line's points have what is kept from: one for all of them, that which most have; empty: their own."""
    counts = Counter(name for each in sources for name in each)
    if not counts or suite in counts:
        return ""
    return min(counts, key=lambda name: (-counts[name], name))


def _kept_cells(cell: ResultCell, cells: Sequence[ResultCell]) -> dict[str, ResultCell]:
    """Suite -> the cell that measures what is kept: the cell itself, else, for an attack suite, the same method on others."""
    if any(_has(cell, each) for each in KEPT):
        return {cell.suite: cell}

    def same(other: ResultCell) -> bool:
        fields = ("backbone", "concept", "method", "on", "variant", "dtype", "mark")
        origin_fields = ("backbone_sha", "noise", "checkpoint_sha", "artifact_sha", "method_version")
        alike = all(getattr(other, each) == getattr(cell, each) for each in fields)
        alike = alike and all(getattr(other.origin, each) == getattr(cell.origin, each) for each in origin_fields)
        return alike and any(_has(other, each) for each in KEPT)

    return {other.suite: other for other in filter(same, cells)}
