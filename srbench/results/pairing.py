"""Resolves a name given to `srbench compare A B` (method, method@checkpoint, table line or run) to result cells.

Their per-prompt rows come along where they are stored locally. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from srbench.analysis.differences import Entry
from srbench.analysis.leaders import RowsOf
from srbench.analysis.measure import if_drawn
from srbench.analysis.metrics import IF_DRAWN, NO_NONE
from srbench.analysis.origin import SHOWN, backbone_text, names_of, place_of
from srbench.analysis.records import CellRecord
from srbench.analysis.results import ResultCell, beside_of, name_of, title_of, told_apart, with_untouched
from srbench.catalog import load, plugins
from srbench.catalog.specs import ProtocolSpec
from srbench.errors import SrbenchError, UsageError, did_you_mean
from srbench.files import kind_of_path, printable
from srbench.results.run_files import Identity, identity, read_run
from srbench.results.store import Store
from srbench.results.stored import Stored, identities, reread, stored_cells

ELSEWHERE = "elsewhere"
"""Backbone name of external images."""


class Side(NamedTuple):
    """The cells that one of two compared names resolves to."""

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

    def entries(self, cells: Sequence[ResultCell]) -> list[Entry]:
        """Cells with their rows; without them for committed cells and where rows cannot be read."""
        wanted = {_same(cell) for cell in cells if cell.source == "local"}
        places = {beside_of(cell) for cell in cells if cell.source == "local"}

        def judge(cell: ResultCell) -> ProtocolSpec | None:
            beside = is_plain(cell) and beside_of(cell) in places  # `none` on the same rows, which it is judged beside
            return _judge(cell) if beside or _same(cell) in wanted else None

        records: dict[Identity, CellRecord] = {}
        if wanted:
            stored = stored_cells(self.folder, self.store, judge)
            paired = with_untouched([record for _, record in stored])
            records = {(*_same(cell), cell.run): record for (cell, _), record in zip(stored, paired, strict=True)}
        return [Entry(cell, _judged(records.get((*_same(cell), cell.run)), cell)) for cell in cells]

    def rows_of(self, cells: Sequence[ResultCell]) -> RowsOf:
        """Gives the rows of any of the cells; reads nothing before it is asked for the rows of a local one."""
        read: dict[Identity, CellRecord | None] = {}

        def rows_of(cell: ResultCell) -> CellRecord | None:
            if cell.source != "local":
                return None
            if not read:
                read.update({(*identity(entry.cell), entry.cell.run): entry.record for entry in self.entries(cells)})
            return read.get((*identity(cell), cell.run))

        return rows_of

    def beside_none(self, cells: Sequence[ResultCell], every: Callable[[], Sequence[ResultCell]]) -> list[ResultCell]:
        """The cells; those that were run without `none` get their rates beside a run of it on the same rows in this folder.

        every: gives all cells of the folder, among which it is looked for; not asked where no cell lacks one.
        """
        lacking = [cell for cell in cells if cell.source == "local" and _lacks_none(cell)]
        plain = {beside_of(cell) for cell in every() if is_plain(cell) and cell.source == "local"} if lacking else set()
        lacking = [cell for cell in lacking if beside_of(cell) in plain]
        more = {
            id(entry.cell): if_drawn(entry.record, judge)
            for entry in self.entries(lacking) if entry.record is not None and (judge := _judge(entry.cell)) is not None
        }  # fmt: skip
        return [replace(cell, metrics={**cell.metrics, **more.get(id(cell), {})}) for cell in cells]

    def run(self, name: str) -> list[Entry] | None:
        """All cells of a local run, even if later runs repeat them; None where there is no such run."""
        path = self.folder / "runs" / name / "run.json"
        if "/" in name or "\0" in name or kind_of_path(path) == "nothing":
            return None
        data = read_run(path, self.warn)
        stored = Stored(self.store, identities(data), data.get("scorers", {}))
        cells = told_apart([replace(entry["result"], source="local") for entry in data["cells"]])
        return [self._entry(cell, entry, stored) for cell, entry in zip(cells, data["cells"], strict=True)]

    def _entry(self, cell: ResultCell, entry: dict[str, Any], stored: Stored) -> Entry:
        judge = _judge(cell)
        try:
            return Entry(cell, reread(cell, entry, judge, stored) if judge else None)
        except SrbenchError as error:  # the user's own file of a gated suite may be gone
            self.warn(printable(f"{cell.suite}/{cell.concept}, {cell.label}: without its rows: {error.line}"))
            return Entry(cell)


def is_plain(cell: ResultCell) -> bool:
    """Whether a cell is the untouched backbone."""
    return cell.method == "none" and cell.on == "none"


def _lacks_none(cell: ResultCell) -> bool:
    """Whether a rate of the cell is there, and the same beside `none` is not, for want of a run of `none`."""
    missing = [cell.metrics.get(name) for metric, name in IF_DRAWN.items() if metric in cell.metrics]
    return not is_plain(cell) and any(metric is None or metric.reason == NO_NONE for metric in missing)


def _same(cell: ResultCell) -> Identity:
    """Identity of a cell apart from its protocol."""
    return identity(replace(cell, protocol=""))


def _judge(cell: ResultCell) -> ProtocolSpec | None:
    """The cell's protocol; None where protocol, concept or method is not installed, so that its rows cannot be read."""
    readable = cell.backbone == ELSEWHERE or (cell.concept in load.concepts() and cell.method in plugins.presets())
    judge = load.protocols().get(cell.protocol)
    return judge if readable and judge is not None and not judge.cannot else None


def _judged(record: CellRecord | None, cell: ResultCell) -> CellRecord | None:
    """The record under the cell's own protocol; raw scores do not depend on it."""
    return None if record is None or _judge(cell) is None else replace(record, protocol=cell.protocol)


# --- names ------------------------------------------------------------------------------------------------------------


def side(name: str, cells: Sequence[ResultCell], reader: Reader, chosen: Callable[[ResultCell], bool]) -> Side:
    """The cells of a name: a method, `method@checkpoint`, a line of the table, or a run.

    cells: the newest of each, already filtered; chosen: the same filter for the cells of a run. Raises `UsageError` with a
    suggestion where the name is none of these.
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
    matches = [cell for cell in cells if name in (cell.label, name_of(cell))]
    matches = matches or [cell for cell in cells if on and (cell.method, cell.on) == (method, on)]
    if not matches:
        names = {cell.label for cell in cells} | {cell.run for cell in cells}
        raise UsageError(f"no result is of '{name}'", did_you_mean(name, names))
    return matches


def plainest(cells: Iterable[ResultCell]) -> list[ResultCell]:
    """Of each table, the cells with the fewest changed options: the defaults, where there are any."""
    places: dict[Identity, list[ResultCell]] = {}
    for cell in cells:
        places.setdefault(place_of(cell), []).append(cell)
    return [cell for group in places.values() for cell in group if _changed(cell) == min(map(_changed, group))]


def _changed(cell: ResultCell) -> int:
    return len([part for part in cell.variant.split(",") if part])


def _refuse_several(name: str, cells: Sequence[ResultCell]) -> None:
    places: dict[Identity, list[ResultCell]] = {}
    for cell in cells:
        places.setdefault(place_of(cell), []).append(cell)
    for group in places.values():
        if len(group) > 1:
            lines = " or ".join(f'"{name_of(cell)}"' for cell in group)
            what = f"'{name}' stands for {len(group)} results of {title_of(group[0])}"
            raise UsageError(what, f"Name one line in full: {lines}")


# --- pairs ------------------------------------------------------------------------------------------------------------


def pairs(a: Side, b: Side) -> list[tuple[Entry, Entry]]:
    """Cells of both sides in one table; of two runs those of the same method. Raises `UsageError` where there is none."""
    both = [
        (x, y) for x in a.entries for y in b.entries
        if _differ(x.cell, y.cell) and not (a.run and b.run and names_of(x.cell) != names_of(y.cell))
    ]  # fmt: skip
    matched = [_named_apart(x, y) for x, y in both if place_of(x.cell) == place_of(y.cell)]
    if not matched:
        what = f"no concept and suite have results of '{a.name}' and '{b.name}' on the same rows"
        near = next(((x.cell, y.cell) for x, y in both if _called_alike(x.cell, y.cell)), None)
        if near:
            raise UsageError(f"{what}: {_apart(*near)}", "Run both with the same of these: one command, --method A,B")
        raise UsageError(what, "Run both on the same suite: srbench run --method A,B --suite S")
    return matched


def _differ(a: ResultCell, b: ResultCell) -> bool:
    return (identity(a), a.run) != (identity(b), b.run)


def _called_alike(a: ResultCell, b: ResultCell) -> bool:
    """Whether the tables of both have the same title apart from hashes."""
    return (a.backbone, a.concept, a.suite, a.protocol) == (b.backbone, b.concept, b.suite, b.protocol)


def _apart(a: ResultCell, b: ResultCell) -> str:
    """What keeps two cells out of one table."""
    sides: list[dict[str, str | int | None]] = [
        {"backbone": backbone_text(cell), "dtype": cell.dtype, "rows": cell.rows_sha[:SHOWN], "seed": cell.origin.seed,
         "noise": cell.origin.noise, "scorers": cell.origin.scorers_sha[:SHOWN]}
        for cell in (a, b)
    ]  # fmt: skip
    x, y = ({what: "not known" if value in (None, "") else str(value) for what, value in side.items()} for side in sides)
    return f"on {a.suite} they differ in {'; '.join(f'{what}: {x[what]}, {y[what]}' for what in x if x[what] != y[what])}"


def _named_apart(a: Entry, b: Entry) -> tuple[Entry, Entry]:
    """A pair; if both sides have one name, as in two runs of one method, each gets a mark that tells it apart."""
    if name_of(a.cell) != name_of(b.cell):
        return a, b
    x, y = told_apart([replace(entry.cell, mark="") for entry in (a, b)])
    return Entry(x, a.record), Entry(y, b.record)


def against(name: str, entries: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """(baseline, other) for every other cell in the baseline's table.

    Raises `UsageError` where no cell has that name, or several of one table have it.
    """
    base = plainest(named(name, [entry.cell for entry in entries]))
    _refuse_several(name, base)
    bases = {place_of(cell): next(entry for entry in entries if entry.cell is cell) for cell in base}
    return [
        (bases[place_of(entry.cell)], entry) for entry in entries
        if place_of(entry.cell) in bases and entry is not bases[place_of(entry.cell)]
    ]  # fmt: skip
