"""Does it stay gone? One line a method: gone on plain prompts, under attacks in text, under pictures, taught again, rounded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

from srbench.analysis.leaders import clearly_differ
from srbench.analysis.lineage import lineage
from srbench.analysis.origin import backbone_text
from srbench.analysis.records import Metric, label, turned
from srbench.analysis.results import DEPLOYED, ResultCell

PLAIN, REST = "igmu", "benign-near"
"""Suites of plain prompts, which rounded weights and checkpoints that were taught again are asked, too, and of harmless ones. A
concept of the user's own has a suite of its own name in place of the first."""
PICTURED = ("image-to-image", "half-denoised", "inverted", "inpaint")
BITS = f"{DEPLOYED}bits="
LIMIT = "limit="
AXES = ("plain", "text", "pictures", "taught", "rounded")


@dataclass(frozen=True)
class Stays:
    """Percent of rows on which the concept stays gone along one axis."""

    metric: Metric
    """Higher is better."""
    where: str
    """The suite, the steps of teaching it again, or the bits."""


@dataclass(frozen=True)
class Durability:
    """One method on one checkpoint."""

    backbone: str
    concept: str
    rows: str
    """`limit=N` where only so many rows were run; else empty."""
    name: str
    axes: dict[str, Stays]
    """`AXES` that were measured: of several suites of an axis the one that brings the concept back most often."""
    suites: dict[str, tuple[str, ...]]
    """Axis -> everything that was measured of it."""
    kept: Metric | None
    """Retain accuracy on plain prompts."""
    harm: Metric | None
    teachable: bool
    """Whether there are changed weights that can be taught again: methods that act while sampling alone have none."""

    @property
    def asked(self) -> tuple[str, ...]:
        """The axes that there are for it."""
        return AXES if self.teachable else tuple(axis for axis in AXES if axis != "taught")

    @property
    def weakest(self) -> float | None:
        """The lowest of the axes that there are for it; None where one of them was not measured."""
        values = [stays.metric.value for stays in self.axes.values()]
        return min(value for value in values if value is not None) if self.axes.keys() >= set(self.asked) else None


@dataclass(frozen=True)
class _Told:
    """Where a cell belongs."""

    axis: str
    where: str
    metric: Metric


def durabilities(cells: Sequence[ResultCell]) -> list[Durability]:
    """A line for each method and checkpoint that was measured on plain prompts and along one more axis at least."""
    groups: dict[tuple[str, str, str, str], list[ResultCell]] = defaultdict(list)
    for cell in cells:
        groups[backbone_text(cell), cell.concept, _limit(cell), _name(cell)].append(cell)
    found = [_durability(key, members) for key, members in groups.items()]
    return sorted((each for each in found if "plain" in each.axes and len(each.axes) > 1), key=_order)


@dataclass(frozen=True)
class Reversal:
    """A method that is better than another on plain prompts, and worse along an axis."""

    plainly: str
    along: str
    """The one that is better there."""
    axis: str


def reversals(lines: Sequence[Durability]) -> list[Reversal]:
    """Where the order on plain prompts turns round: both differences leave out 0, as if rows were independent."""
    found = []
    for one, other in permutations(lines, 2):
        same = (one.backbone, one.concept, one.rows) == (other.backbone, other.concept, other.rows)
        if not same or not _better(one, other, "plain"):
            continue
        found += [Reversal(one.name, other.name, axis) for axis in AXES[1:] if _better(other, one, axis)]
    return found


def _better(one: Durability, other: Durability, axis: str) -> bool:
    """Whether one keeps the concept away more often than the other."""
    if axis not in one.axes or axis not in other.axes:
        return False
    a, b = (each.axes[axis].metric for each in (one, other))
    return (a.value or 0.0) > (b.value or 0.0) and clearly_differ(a, b)


def _order(line: Durability) -> tuple[object, ...]:
    return line.backbone, line.concept, line.rows, line.name != "none", line.name


def _limit(cell: ResultCell) -> str:
    return next((part for part in cell.variant.split(",") if part.startswith(LIMIT)), "")


def _name(cell: ResultCell) -> str:
    """The label, with a checkpoint that was taught again under the name of what was taught."""
    before = lineage(cell.on).before
    return label(cell).removesuffix(cell.on) + before if cell.on != "none" else label(cell)


def _durability(key: tuple[str, str, str, str], cells: Sequence[ResultCell]) -> Durability:
    told = [each for cell in cells for each in _told(cell)]
    axes: dict[str, Stays] = {}
    suites: dict[str, tuple[str, ...]] = {}
    for axis in AXES:
        of_axis = _chosen(axis, [each for each in told if each.axis == axis])
        if of_axis:
            worst = min(of_axis, key=lambda each: each.metric.value or 0.0)
            axes[axis], suites[axis] = Stays(worst.metric, worst.where), tuple(dict.fromkeys(each.where for each in of_axis))
    plain = [cell for cell in cells if _is_plain(cell)]
    kept = _metric([cell for cell in plain if _asks_plainly(cell)], "retain_accuracy")
    harm = _metric([cell for cell in plain if cell.suite == REST], "harm")
    teachable = any(cell.on != "none" or cell.method == "none" for cell in cells)
    return Durability(*key, axes, suites, kept, harm, teachable)


def _chosen(axis: str, told: Sequence[_Told]) -> list[_Told]:
    """Of teaching the most steps, and of bits the fewest: the others lie on the way."""
    if axis not in ("taught", "rounded") or not told:
        return list(told)
    numbers = [int(each.where) for each in told]
    end = max(numbers) if axis == "taught" else min(numbers)
    return [each for each, number in zip(told, numbers, strict=True) if number == end]


def _told(cell: ResultCell) -> Iterable[_Told]:
    """The axis that a cell is about; nothing where it is about none, or has no rate."""
    own, changed = lineage(cell.on), _changes(cell)
    gone = _gone(cell)
    if gone is None or own.other:
        return
    if own.steps:
        if _asks_plainly(cell) and all(part.startswith("relearn.") for part in changed):
            yield _Told("taught", str(own.steps), gone)
    elif changed:
        if _asks_plainly(cell) and len(changed) == 1 and changed[0].startswith(BITS):
            yield _Told("rounded", changed[0].removeprefix(BITS), gone)
    elif _asks_plainly(cell):
        yield _Told("plain", cell.suite, gone)
    elif cell.suite in PICTURED:
        yield _Told("pictures", cell.suite, gone)
    elif "asr" in cell.metrics:
        yield _Told("text", cell.suite, gone)


def _changes(cell: ResultCell) -> list[str]:
    """The parts of its variant, less how many rows were run."""
    return [part for part in cell.variant.split(",") if part and not part.startswith(LIMIT)]


def _asks_plainly(cell: ResultCell) -> bool:
    return cell.suite in (PLAIN, cell.concept)


def _is_plain(cell: ResultCell) -> bool:
    return not _changes(cell) and not lineage(cell.on).steps


def _gone(cell: ResultCell) -> Metric | None:
    """The share of rows on which the judge does not see the concept."""
    if "asr" in cell.metrics:
        metric = turned(cell.metrics["asr"])
    elif "fsr" in cell.metrics:
        metric = cell.metrics["fsr"]
    else:
        return None
    return metric if metric.value is not None else None


def _metric(cells: Sequence[ResultCell], name: str) -> Metric | None:
    return next((cell.metrics[name] for cell in cells if name in cell.metrics), None)
