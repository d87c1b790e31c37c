"""`--trace-steps`: rows whose verdict a method turned over are sampled once more, to keep what their steps look like.

A strip is kept only where the picture that comes out is the stored one to the last bit. Nothing else of the run depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from srbench import stopping
from srbench.analysis.records import CellRecord
from srbench.analysis.verdicts import flipped, spread
from srbench.engine.batches import Failed, Made, generate
from srbench.engine.devices import deterministic
from srbench.engine.record import Outcome, cell_record
from srbench.engine.request import Cell, Planned
from srbench.engine.sampling import Sampling
from srbench.errors import SrbenchError
from srbench.progress import Reporter, counted
from srbench.results import strips
from srbench.results.marks import ELSEWHERE
from srbench.results.store import Store, pixel_sha

OPTION = "--trace-steps"


@dataclass
class Wish:
    """The pictures that are to have a strip."""

    images: dict[str, Planned] = field(default_factory=dict)
    """By key: of a method's cell and of `none` beside it."""
    flipped: int = 0
    """Rows of cells with another verdict than that of `none`."""
    rows: int = 0
    """How many of them are shown."""
    lines: list[str] = field(default_factory=list)
    """Why cells have none."""


def traced(sampling: Sampling, cells: Sequence[Cell], outcome: Outcome, reporter: Reporter) -> bool:
    """Make the missing strips of rows whose verdict differs from `none`'s, at most `how.trace_steps` of a cell.

    Whether all of them are there. Raises `SrbenchError` where the disk is full.
    """
    store = outcome.scoring.store
    wish = wished(sampling, cells, outcome)
    for line in wish.lines:
        reporter.line(f"{OPTION}: {line}")
    todo = [planned for key, planned in wish.images.items() if strips.get(store, key) is None]
    there = len(wish.images) - len(todo)
    made = f"{counted(len(todo), 'picture')} to sample again, {counted(there, 'strip')} in the store"
    reporter.line(f"{OPTION}: {counted(wish.flipped, 'row')} with another verdict than none's, {wish.rows} of them shown; {made}")
    return not todo or _filmed(sampling, todo, len(cells), store, reporter)


# --- which ------------------------------------------------------------------------------------------------------------------


def wished(sampling: Sampling, cells: Sequence[Cell], outcome: Outcome) -> Wish:
    """The pictures of all cells, each once."""
    wish, store = Wish(), outcome.scoring.store
    secret = list(dict.fromkeys(f"{cell.suite.name}/{cell.concept.name}" for cell in cells if _hidden(cell)))
    if secret:
        wish.lines.append(f"no previews of {', '.join(secret)}: sensitive or gated")
    records = _Records(sampling, outcome)
    for cell in (each for each in cells if not _is_baseline(each) and each.blocked is None and not _hidden(each)):
        none = _beside(cell, cells)
        if none is None:
            wish.lines.append(f"{cell.title}: no run of none beside it")
            continue
        ours = {row.row.id: row.image for row in cell.rows}
        theirs = {row.row.id: row.image for row in none.rows}
        rows = [row for row in flipped(records.of(cell), records.of(none), cell.protocol) if row in ours and row in theirs]
        chosen = spread(rows, sampling.how.trace_steps)
        wish.flipped += len(rows)
        wish.rows += len(chosen)
        pairs = (planned for row in chosen for planned in (ours[row], theirs[row]))
        wish.images.update({planned.key: planned for planned in pairs if _may(store, planned.key)})
    return wish


class _Records:
    """The cells' records, each made once."""

    def __init__(self, sampling: Sampling, outcome: Outcome) -> None:
        self.sampling, self.outcome = sampling, outcome
        self._made: dict[int, CellRecord] = {}

    def of(self, cell: Cell) -> CellRecord:
        """With scores and verdicts' numbers."""
        if id(cell) not in self._made:
            store = self.outcome.scoring.store
            self._made[id(cell)] = cell_record(cell, self.sampling.backbone, self.sampling.run, store, self.outcome)
        return self._made[id(cell)]


def _hidden(cell: Cell) -> bool:
    return cell.sensitive or cell.suite.gated


def _is_baseline(cell: Cell) -> bool:
    return cell.method == "none" and cell.on == "none"


def _beside(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """The untouched backbone's cell on the same rows: that of the same variant, or the only one."""
    place = (cell.suite.name, cell.concept.name, cell.protocol.name)
    plain = [
        each for each in cells
        if _is_baseline(each) and each.blocked is None and (each.suite.name, each.concept.name, each.protocol.name) == place
    ]  # fmt: skip
    same = [each for each in plain if each.variant == cell.variant]
    return same[0] if same else plain[0] if len(plain) == 1 else None


def _may(store: Store, key: str) -> bool:
    """Whether a picture is stored, and no run says that its row is sensitive or gated."""
    record = store.images.get(key)
    return record is not None and strips.harmless(record) and not record.get(ELSEWHERE)


# --- sampled again ----------------------------------------------------------------------------------------------------------


def _filmed(sampling: Sampling, todo: Sequence[Planned], cells: int, store: Store, reporter: Reporter) -> bool:
    """Sample pictures again and keep their strips; whether all came out as they are stored."""
    failed: dict[str, str] = {}

    def fail(images: Sequence[Planned], error: SrbenchError) -> None:
        failed.update({planned.key: error.line for planned in images})

    kept = other = 0
    reporter.begin(cells, len(todo))
    try:
        with stopping.patient(), deterministic(sampling.how.reference):
            for batch in _batches(sampling, todo, store, fail, reporter):
                same = [made for made in batch if pixel_sha(made.pixels) == store.images[made.planned.key]["pixel_sha"]]
                kept += _kept(same, store)
                other += len(batch) - len(same)
                reporter.images(len(batch))
                stopping.check()
    finally:
        reporter.end()
    for why, count in _counts(failed).items():
        reporter.line(f"{OPTION}: no strip of {counted(count, 'picture')}: {why}")
    if other:
        how = "another machine, thread number or compilation than the stored ones"
        reporter.line(f"{OPTION}: no strip of {counted(other, 'picture')}, which came out with other pixels ({how})")
    reporter.line(f"{OPTION}: {counted(kept, 'strip')} kept")
    return kept == len(todo)


def _batches(
    sampling: Sampling, todo: Sequence[Planned], store: Store, fail: Failed, reporter: Reporter
) -> Iterator[list[Made]]:
    """In calls of the sizes that the stored pictures were made in: another size may round otherwise."""
    sizes: dict[int, list[Planned]] = {}
    for planned in todo:
        sizes.setdefault(int(store.images[planned.key].get("batch_size", sampling.request.batch_size)), []).append(planned)
    for size, images in sizes.items():
        yield from generate(sampling.backbone, images, size, sampling.run, fail, reporter.line, filming=True)


def _kept(batch: Sequence[Made], store: Store) -> int:
    films = [(made.planned.key, *made.film) for made in batch if made.film is not None]
    for key, strip, pixels in films:
        strips.put(store, key, strip, pixels)
    return len(films)


def _counts(failed: Mapping[str, str]) -> dict[str, int]:
    """Reason -> how many pictures have it."""
    return {why: list(failed.values()).count(why) for why in dict.fromkeys(failed.values())}
