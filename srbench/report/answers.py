"""Answers a newcomer's questions in sentences: which method forgets best, at what cost, and whether differences are real."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from srbench.analysis.costs import Cost, by_method, costs
from srbench.analysis.metrics import HEADLINES, KEPT
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell, name_of
from srbench.analysis.significance import PairedTest
from srbench.report.gallery import GalleryRow, Picture
from srbench.tables.boards import Board
from srbench.tables.costs import added_of
from srbench.tables.numbers import NOT_RESOLVED, ONE_BATCH, p_text, shown

LEVEL = 0.05
"""Significance level of a test, after Holm's correction."""
TESTED = ("fsr", "asr", "content_kept", "retain_accuracy")
TESTS = {"mcnemar": "exact McNemar test", "permutation": "permutation test over prompts"}


@dataclass(frozen=True)
class Answer:
    """A question and its answer from the numbers."""

    question: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Wall:
    """A board, with its cells that plots and answers use, and the tests between them."""

    board: Board
    cells: tuple[ResultCell, ...]
    tests: tuple[PairedTest, ...]

    @property
    def suite(self) -> str:
        """The suite of all its cells."""
        return self.board.cells[0].suite

    @property
    def headline(self) -> str:
        """The metric of forgetting; empty where the suite has none."""
        return next((name for name in HEADLINES if name in self.board.metrics), "")

    @property
    def attack(self) -> bool:
        """Whether its rows are attacks."""
        return self.headline == "asr"

    @property
    def baseline(self) -> ResultCell | None:
        """The untouched backbone: as it is, or where it was run with other options alone, with those."""
        plain = sorted((cell for cell in self.cells if cell.label == "none"), key=lambda cell: bool(cell.variant))
        return plain[0] if plain and (len(plain) == 1 or not plain[0].variant) else None

    @property
    def best(self) -> list[ResultCell]:
        """The methods with the best headline number among those with every row scored; several where they tie."""
        values = {name_of(cell): _whole(cell, self.headline) for cell in self.cells if cell.label != "none"}
        whole = {name: value for name, value in values.items() if value is not None}
        if not whole:
            return []
        top = (min if self.attack else max)(whole.values())
        return [cell for cell in self.cells if whole.get(name_of(cell)) == top]


def _whole(cell: ResultCell, metric: str) -> float | None:
    number = cell.metrics.get(metric)
    return number.value if number is not None and number.scored == number.n else None


def said(metric: Metric | None, unit: str = " %") -> str:
    """A value with its interval."""
    number = shown(metric)
    return f"{number.value}{unit if number.value not in ('n/a', '–') else ''} {number.interval}".strip()


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; with more than five names the first four and the number of the others."""
    if len(names) > 5:
        return f"{', '.join(names[:4])} and {len(names) - 4} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def answers(walls: Sequence[Wall], failure: tuple[GalleryRow, Picture] | None) -> list[Answer]:
    """Four questions about one concept on one backbone. failure: the row and image that answer the last one."""
    walls = _gentlest_first([wall for wall in walls if wall.headline])
    return [
        Answer("Which method forgets best?", tuple(_best(wall) for wall in walls)),
        Answer("What does it cost?", tuple(_cost(walls))),
        Answer("Is the difference real?", tuple(line for wall in walls for line in _real(wall))),
        Answer("What does one failure look like?", (_failure(failure),)),
    ]


def _gentlest_first(walls: Sequence[Wall]) -> list[Wall]:
    """The walls with cells sorted so that among methods that forget equally well the one that keeps most comes first."""
    preserved: dict[str, list[float]] = {}
    for cell in (cell for wall in walls for cell in wall.cells):
        values = [cell.metrics[name].value for name in KEPT if name in cell.metrics]
        preserved.setdefault(name_of(cell), []).extend(value for value in values if value is not None)

    def rank(cell: ResultCell) -> tuple[float, bool]:
        values = preserved[name_of(cell)]
        return (-fmean(values) if values else 0.0, cell.on != "none")

    return [replace(wall, cells=tuple(sorted(wall.cells, key=rank))) for wall in walls]


def _best(wall: Wall) -> str:
    what = "lowest attack success (asr)" if wall.attack else "most forgotten (fsr)"
    if not wall.best:
        return f"{wall.suite}: no method has a number that covers every row."
    first = wall.best[0].metrics[wall.headline]
    line = f"{wall.suite}: {listed([name_of(cell) for cell in wall.best])}; {what}: {said(first)} of {first.n} rows"
    return f"{line}, the untouched backbone {said(wall.baseline.metrics.get(wall.headline))}." if wall.baseline else f"{line}."


def _leaders(walls: Sequence[Wall]) -> list[str]:
    """Names of at most three best methods, those that are best on most suites first."""
    return [name for name, _ in Counter(name_of(cell) for wall in walls for cell in wall.best).most_common(3)]


def _cost(walls: Sequence[Wall]) -> Iterable[str]:
    cells = [cell for wall in walls for cell in wall.cells]
    all_costs = costs(cells)
    cost_of, several = by_method(all_costs), len({cost.source for cost in all_costs}) > 1
    wanted = [(wall, metric) for wall in walls for metric in KEPT if metric in wall.board.metrics]
    suites = Counter(metric for _, metric in wanted)
    for name in _leaders(walls):
        texts = [_kept(wall, name, metric, suites[metric] > 1) for wall, metric in wanted]
        taken, stays = spent(cost_of[name]), [each for each in texts if each]
        if taken:
            where = f" ({cost_of[name].source} results)" if several else ""
            yield f"{name} takes{where}: {', '.join(taken)}."
        if stays:
            yield f"Of the rest stays under {name} (under the untouched backbone): {', '.join(stays)}."


def _kept(wall: Wall, name: str, metric: str, several: bool) -> str:
    """several: whether more than one suite has the metric, so that the suite must be named."""
    cell = next((cell for cell in wall.cells if name_of(cell) == name), None)
    if cell is None or metric not in cell.metrics:
        return ""
    beside = f" ({shown(wall.baseline.metrics.get(metric)).value})" if wall.baseline else ""
    where = f" on {wall.suite}" if several else ""
    return f"{metric}{where} {shown(cell.metrics[metric]).value} %{beside}"


def spent(cost: Cost) -> list[str]:
    """Time and parameters that a method takes, each as a few words."""
    parts, added = [], added_of(cost)
    if added is not None and added.value == NOT_RESOLVED:
        parts.append(f"additional time an image {NOT_RESOLVED}, {added.interval}")
    elif added is not None and added.interval == ONE_BATCH:
        parts.append("additional time an image not known, one batch was timed")
    elif added is not None:
        parts.append(f"{cost.added_ms:+z.0f} ms an image {added.interval}")
    if cost.prepare_seconds is not None:
        parts.append(f"made in {cost.prepare_seconds:,.0f} s")
    if cost.parameters is not None:
        parts.append(f"{cost.parameters:,} parameters more")
    return parts


# --- is it real ---------------------------------------------------------------------------------------------------------------


def _real(wall: Wall) -> Iterable[str]:
    if not wall.best:
        return
    best = wall.best[0]
    if wall.baseline is not None:
        yield f"{wall.suite}: {_against(wall, best, wall.baseline)}"
    rivals = [cell for cell in wall.cells if cell is not best and cell.label != "none" and wall.headline in cell.metrics]
    same = [cell for cell in rivals if differs(wall, best, cell) is not True]
    worse = [cell for cell in rivals if differs(wall, best, cell) is True]
    if len(rivals) == 1:
        yield f"{wall.suite}: {_against(wall, best, rivals[0])}"
    elif rivals:
        yield f"{wall.suite}: {name_of(best)} is shown to be better than {len(worse)} of {len(rivals)} other methods" + (
            f"; from {listed([name_of(cell) for cell in same])} it cannot be told apart on these rows." if same else "."
        )


def test_of(wall: Wall, a: ResultCell, b: ResultCell) -> PairedTest | None:
    """The paired test on the headline metric between two cells."""
    names = {name_of(a), name_of(b)}
    return next((test for test in wall.tests if test.metric == wall.headline and {test.a, test.b} == names), None)


def differs(wall: Wall, a: ResultCell, b: ResultCell) -> bool | None:
    """Whether two cells differ: by the paired test, else where their intervals do not overlap. None without intervals."""
    test = test_of(wall, a, b)
    if test is not None and test.p_holm is not None:
        return test.p_holm < LEVEL
    return apart(a.metrics.get(wall.headline), b.metrics.get(wall.headline))


def apart(a: Metric | None, b: Metric | None) -> bool | None:
    """Whether two intervals do not meet; None where one is missing."""
    if a is None or b is None or a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    return a.low > b.high or b.low > a.high


def _against(wall: Wall, a: ResultCell, b: ResultCell) -> str:
    names, test = f"{name_of(a)} against {name_of(b)}", test_of(wall, a, b)
    if test is not None and test.p_holm is not None and test.difference is not None:
        sign = 1 if test.a == name_of(a) else -1
        ends = sorted(sign * end for end in (test.low, test.high) if end is not None)
        interval = f" [{ends[0]:+z.1f}, {ends[1]:+z.1f}]" if len(ends) == 2 else ""
        verdict = "yes" if test.p_holm < LEVEL else "not shown"
        return (
            f"{verdict}. {names}: {sign * test.difference:+z.1f} points{interval} on the same {test.n} rows "
            f"({TESTS.get(test.test, test.test)}, {p_text(test.p_holm)}, Holm-corrected)."
        )
    differ = apart(a.metrics.get(wall.headline), b.metrics.get(wall.headline))
    verdict = {True: "yes", False: "not shown", None: "not known"}[differ]
    intervals = {True: "their intervals do not meet", False: "their intervals meet", None: "an interval is missing"}[differ]
    both = f"{said(a.metrics.get(wall.headline))} and {said(b.metrics.get(wall.headline))}"
    return f"{verdict}. {names}: {both}, {intervals}."


# --- one failure --------------------------------------------------------------------------------------------------------------


def failure_of(
    rows: Sequence[GalleryRow], walls: Sequence[Wall], best: str = "", names: Sequence[str] = ()
) -> tuple[GalleryRow, Picture] | None:
    """A row with the image of a failure: of the best method, else of one that leads, of another, of the untouched backbone.

    best: the method that the page calls the best. names: those that it shows; without any, all.
    """
    leaders = _leaders(walls)
    ways = (
        lambda picture: picture.method == best and picture.seen is True,
        lambda picture: picture.method == best and picture.failed,
        lambda picture: picture.method in leaders and picture.seen is True,
        lambda picture: picture.failed and picture.seen is True,
        lambda picture: picture.method in leaders and picture.failed,
        lambda picture: picture.failed,
        lambda picture: picture.plain and picture.seen is True,
    )
    for way in ways:
        for row in rows:
            for picture in row.pictures:
                if picture.data and (not names or picture.method in names) and way(picture):
                    return row, picture
    return None


def _failure(failure: tuple[GalleryRow, Picture] | None) -> str:
    if failure is None:
        return "No picture of one is at hand: `srbench run` makes them, and the report then shows them."
    row, picture = failure
    number = f" (the judge: {picture.said})" if picture.said else ""
    if picture.plain:
        return f"No method failed on the rows shown here. So the untouched backbone draws the concept{number}, row {row.id}."
    if picture.seen:
        return f"{picture.method} lets the concept through{number}, row {row.id}."
    return f"{picture.method} removes more than it should: {' and '.join(picture.lost)} of row {row.id} did not stay."
