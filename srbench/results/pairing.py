"""Whom a comparison is between: the cells that a name stands for, with their rows where they are at hand. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from srbench.analysis.differences import Entry
from srbench.analysis.origin import SHOWN, backbone_text, names_of, place_of
from srbench.analysis.records import CellRecord
from srbench.analysis.results import ResultCell, name_of, title_of, told_apart
from srbench.catalog import load, plugins
from srbench.catalog.specs import ProtocolSpec
from srbench.errors import SrbenchError, UsageError, did_you_mean
from srbench.files import kind_of_path, printable
from srbench.results.run_files import Identity, identity, read_run
from srbench.results.store import Store
from srbench.results.stored import Raws, Stored, identities, raws_of, reread, stored_cells

ELSEWHERE = "elsewhere"
"""The backbone of pictures that others made."""


class Side(NamedTuple):
    """What one of two names stands for."""

    name: str
    entries: list[Entry]
    run: bool
    """Whether it is a run, with all its methods."""


@dataclass
class Reader:
    """Reads rows of local cells from a results folder; the store is opened when first needed."""

    folder: Path
    warn: Callable[[str], None]

    @cached_property
    def store(self) -> Store:
        """For reading only."""
        return Store.peek(self.folder / "store", self.warn)

    @cached_property
    def raws(self) -> Raws:
        """Every stored score."""
        return raws_of(self.store)

    def entries(self, cells: Sequence[ResultCell]) -> list[Entry]:
        """Cells with their rows; those of committed results, and those whose rows cannot be read, without."""
        wanted = {_same(cell) for cell in cells if cell.source == "local"}
        records: dict[Identity, CellRecord] = {}
        if wanted:
            found = stored_cells(self.folder, self.store, lambda cell: _judge(cell) if _same(cell) in wanted else None)
            records = {(*_same(cell), cell.run): record for cell, record in found}
        return [Entry(cell, _judged(records.get((*_same(cell), cell.run)), cell)) for cell in cells]

    def run(self, name: str) -> list[Entry] | None:
        """All cells of a local run, also where later runs have the same ones; None where there is no such run."""
        path = self.folder / "runs" / name / "run.json"
        if "/" in name or "\0" in name or kind_of_path(path) == "nothing":
            return None
        data = read_run(path, self.warn)
        stored = Stored(self.store, identities(data), self.raws, data.get("scorers", {}))
        cells = told_apart([replace(each["result"], source="local") for each in data["cells"]])
        return [self._entry(cell, each, stored) for cell, each in zip(cells, data["cells"], strict=True)]

    def _entry(self, cell: ResultCell, entry: dict[str, Any], stored: Stored) -> Entry:
        judge = _judge(cell)
        try:
            return Entry(cell, reread(cell, entry, judge, stored) if judge else None)
        except SrbenchError as error:  # the user's own file of a gated suite may be gone
            self.warn(printable(f"{cell.suite}/{cell.concept}, {cell.label}: without its rows: {error.line}"))
            return Entry(cell)


def _same(cell: ResultCell) -> Identity:
    """A cell under whatever judge."""
    return identity(replace(cell, protocol=""))


def _judge(cell: ResultCell) -> ProtocolSpec | None:
    """The cell's protocol; None where it, the concept or the method is not known here, so that its rows cannot be read."""
    known = cell.backbone == ELSEWHERE or (cell.concept in load.concepts() and cell.method in plugins.presets())
    judge = load.protocols().get(cell.protocol)
    return judge if known and judge is not None and not judge.cannot else None


def _judged(record: CellRecord | None, cell: ResultCell) -> CellRecord | None:
    """The rows under the cell's own judge: raw scores are the same under each."""
    return None if record is None or _judge(cell) is None else replace(record, protocol=cell.protocol)


# --- names ------------------------------------------------------------------------------------------------------------


def side(name: str, cells: Sequence[ResultCell], reader: Reader, chosen: Callable[[ResultCell], bool]) -> Side:
    """The cells that a name stands for: a method, `method@checkpoint`, a line of the table, or a run.

    cells: the newest of each, already chosen among; chosen: which of a run's cells to take. Raises `UsageError` with a
    suggestion where it is none of these.
    """
    run = reader.run(name)
    if run is not None:
        return Side(name, [entry for entry in run if chosen(entry.cell)], run=True)
    of_run = [cell for cell in cells if cell.run == name]
    if of_run:
        return Side(name, reader.entries(of_run), run=True)
    return Side(name, reader.entries(plainest(named(name, cells))), run=False)


def named(name: str, cells: Sequence[ResultCell]) -> list[ResultCell]:
    """Cells of a method. Raises `UsageError` with a suggestion where there is none."""
    method, _, on = name.partition("@")
    found = [cell for cell in cells if name in (cell.label, name_of(cell))]
    found = found or [cell for cell in cells if on and (cell.method, cell.on) == (method, on)]
    if not found:
        known = {cell.label for cell in cells} | {cell.run for cell in cells}
        raise UsageError(f"no result is of '{name}'", did_you_mean(name, known))
    return found


def plainest(cells: Iterable[ResultCell]) -> list[ResultCell]:
    """Of each place, the cells with the fewest changed options: where there are defaults, those."""
    places: dict[Identity, list[ResultCell]] = {}
    for cell in cells:
        places.setdefault(place_of(cell), []).append(cell)
    return [cell for own in places.values() for cell in own if _changed(cell) == min(map(_changed, own))]


def _changed(cell: ResultCell) -> int:
    return len([part for part in cell.variant.split(",") if part])


def _refuse_several(name: str, cells: Sequence[ResultCell]) -> None:
    places: dict[Identity, list[ResultCell]] = {}
    for cell in cells:
        places.setdefault(place_of(cell), []).append(cell)
    for own in places.values():
        if len(own) > 1:
            lines = " or ".join(f'"{name_of(cell)}"' for cell in own)
            raise UsageError(f"'{name}' stands for {len(own)} results of {title_of(own[0])}", f"Name one line in full: {lines}")


# --- pairs ------------------------------------------------------------------------------------------------------------


def pairs(a: Side, b: Side) -> list[tuple[Entry, Entry]]:
    """Cells of both sides in one table; of two runs those of the same method. Raises `UsageError` where there is none."""
    both = [
        (x, y) for x in a.entries for y in b.entries
        if _differ(x.cell, y.cell) and not (a.run and b.run and names_of(x.cell) != names_of(y.cell))
    ]  # fmt: skip
    found = [_named_apart(x, y) for x, y in both if place_of(x.cell) == place_of(y.cell)]
    if not found:
        what = f"no concept and suite have results of '{a.name}' and '{b.name}' on the same rows"
        near = next(((x.cell, y.cell) for x, y in both if _called_alike(x.cell, y.cell)), None)
        if near:
            raise UsageError(f"{what}: {_apart(*near)}", "Run both with the same of these: one command, --method A,B")
        raise UsageError(what, "Run both on the same suite: srbench run --method A,B --suite S")
    return found


def _differ(a: ResultCell, b: ResultCell) -> bool:
    return (identity(a), a.run) != (identity(b), b.run)


def _called_alike(a: ResultCell, b: ResultCell) -> bool:
    """Whether tables of both have the same title, but for hashes."""
    return (a.backbone, a.concept, a.suite, a.protocol) == (b.backbone, b.concept, b.suite, b.protocol)


def _apart(a: ResultCell, b: ResultCell) -> str:
    """What keeps two cells out of one table."""
    sides: list[dict[str, str | int | None]] = [
        {"backbone": backbone_text(cell), "dtype": cell.dtype, "rows": cell.rows_sha[:SHOWN], "seed": cell.origin.seed,
         "noise": cell.origin.noise, "scorers": cell.origin.scorers_sha[:SHOWN]}
        for cell in (a, b)
    ]  # fmt: skip
    texts = [{what: "not known" if value in (None, "") else str(value) for what, value in side.items()} for side in sides]
    return f"on {a.suite} they differ in {'; '.join(f'{what}: {x}, {y}' for what, x, y in _differing(*texts))}"


def _differing(a: dict[str, str], b: dict[str, str]) -> list[tuple[str, str, str]]:
    return [(what, text, b[what]) for what, text in a.items() if text != b[what]]


def _named_apart(a: Entry, b: Entry) -> tuple[Entry, Entry]:
    """A pair of one name, as of two runs of one method, with what tells its sides apart."""
    if name_of(a.cell) != name_of(b.cell):
        return a, b
    x, y = told_apart([replace(each.cell, mark="") for each in (a, b)])
    return Entry(x, a.record), Entry(y, b.record)


def against(name: str, entries: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """(baseline, other) for every other cell in the baseline's table.

    Raises `UsageError` where no cell is of that name, and where several of one table are, that something else made.
    """
    base = plainest(named(name, [entry.cell for entry in entries]))
    _refuse_several(name, base)
    bases = {place_of(cell): next(each for each in entries if each.cell is cell) for cell in base}
    return [
        (bases[place_of(entry.cell)], entry) for entry in entries
        if place_of(entry.cell) in bases and entry is not bases[place_of(entry.cell)]
    ]  # fmt: skip
