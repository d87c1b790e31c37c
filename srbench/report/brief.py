"""A subject's numbers in at most three sentences: which method does best, what it costs, whether the difference is real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from srbench.analysis.costs import Cost
from srbench.analysis.results import ResultCell, name_of, untouched
from srbench.report.answers import Wall, differs, listed, said, spent
from srbench.report.glance import FEWEST, UNEVEN, Column, Entry, Glance, Tile, main_wall
from srbench.tables.numbers import shown


def brief(glance: Glance, walls: Sequence[Wall], cost_of: Mapping[str, Cost]) -> list[str]:
    """walls: of the subject. cost_of: method -> its cost. Empty where no suite says whether the concept is gone."""
    main = main_wall(walls)
    if main is None:
        return []
    balanced = glance.balanced
    none = _none(glance)
    if balanced and none is not None and none.gone is not None and all((each.gone or 0.0) <= none.gone for each in balanced):
        said = f"No method removes it: {shown_number(none.gone)} % are gone without one, and no more with any."
        return [_joined(said, _aside(glance), _unranked(glance))]
    name = balanced[0].name if balanced else next((name_of(cell) for cell in main.best), "")
    if not name:
        return [f"No method has a number that covers every row of {main.suite}."]
    ties = [entry for entry in balanced if entry.balance == balanced[0].balance]
    if balanced and none is not None and not _better(glance, balanced[0], none):
        said = f"No method is shown to be better than none: the best balance has {name}, {_both(balanced[0])}"
        beside = f"; without a method {_both(none)}" if none.gone is not None else ""
        return [_joined(f"{said}{beside}.", _aside(glance), _unranked(glance)), *_real(main, name)]
    most = f"Forgets most on {main.suite}: {name}: {_numbers(glance, name, gone=True)}."
    first = _best(glance, ties) if balanced else _joined(most, _aside(glance))
    return [first, _cost(glance, name, cost_of.get(name)), *_real(main, name)]


def _joined(*texts: str) -> str:
    return " ".join(filter(None, texts))


def _better(glance: Glance, entry: Entry, none: Entry) -> bool:
    """Whether a method is better than the untouched model: in both sides' balance, in what is gone, and in a suite that counts
    not only by chance. What is not known speaks for it."""
    if none.gone is not None and (entry.gone or 0.0) <= none.gone:
        return False
    if none.balance is not None and (entry.balance or 0.0) <= none.balance:
        return False
    told = []
    for wall in {id(column.wall): column.wall for column in glance.columns if column.gone and column.counts}.values():
        cell = next((each for each in wall.cells if name_of(each) == entry.name), None)
        told.append(differs(wall, cell, wall.baseline) if cell is not None and wall.baseline is not None else None)
    return any(each is not False for each in told)


def _best(glance: Glance, ties: Sequence[Entry]) -> str:
    entry = ties[0]
    none = _none(glance)
    beside = f" (without a method {shown_number(none.gone)} % gone)" if none is not None and none.gone is not None else ""
    left_out = [name for name in UNEVEN if any(column.metric == name for column in glance.columns)]
    means = "the mean of the columns below" if entry.stays is None else "means of the columns below" + (
        f" without {' and '.join(left_out)}, which not every method has" if left_out else ""
    )
    after = next((each for each in glance.balanced if each.balance != entry.balance), None)
    behind = f"Next: {after.name}, {_both(after)}." if after is not None else ""
    first = f"Best in all: {listed([each.name for each in ties])}, {_both(entry)}{beside}; {means}."
    return _joined(first, _aside(glance), behind, _unranked(glance))


def _aside(glance: Glance) -> str:
    """Which columns do not count for want of rows."""
    few = [column for column in glance.columns if column.few]
    whole = {column.section for column in glance.columns if not column.few}
    names = dict.fromkeys(
        f"{column.metric} on {column.wall.suite}" if column.section in whole else column.wall.suite for column in few
    )
    return f"Not counted, of fewer than {FEWEST} rows: {listed(list(names))}." if names else ""


def _unranked(glance: Glance) -> str:
    """How many methods are not ranked, and which suites they lack."""
    lacking = [entry for entry in glance.methods if entry.lacks]
    suites = list(dict.fromkeys(suite for entry in lacking for suite in entry.lacks))
    many = f"{len(lacking)} method{'s' if len(lacking) != 1 else ''}"
    return f"Not ranked, for want of a number on {listed(suites)}: {many}." if lacking else ""


def _both(entry: Entry) -> str:
    """The two means of a method."""
    stays = f" and {shown_number(entry.stays)} % of the rest kept" if entry.stays is not None else ""
    return f"{shown_number(entry.gone)} % gone{stays}"


def _none(glance: Glance) -> Entry | None:
    """The untouched model's line; None where there are several, with other options each."""
    found = [each for each in glance.entries if untouched(each.name)]
    return next((each for each in found if each.name == "none"), found[0] if len(found) == 1 else None)


def shown_number(value: float | None) -> str:
    """A mean with as many digits as its size needs."""
    return "n/a" if value is None else f"{value:.3g}"


def _cost(glance: Glance, name: str, cost: Cost | None) -> str:
    found = "; ".join(filter(None, [*_losses(glance, name), ", ".join(spent(cost)) if cost is not None else ""]))
    return f"What it costs: {found}." if found else "What it costs was not measured."


def _losses(glance: Glance, name: str) -> list[str]:
    """What a method takes from the rest, and what stays within the untouched model's interval."""
    entry = next(each for each in glance.entries if each.name == name)
    none = _none(glance)
    lost, same = [], []
    for place, (column, tile) in enumerate(zip(glance.columns, entry.tiles, strict=True)):
        if column.gone or tile is None or tile.good is None:
            continue
        other = none.tiles[place] if none is not None else None
        if other is not None and _within(tile, other):
            same.append(_named(glance, column))
        else:
            lost.append(_number(glance, column, said(tile.metric), none, place))
    return [", ".join(lost), f"{listed(same)} as without a method" if same else ""]


def _within(tile: Tile, other: Tile) -> bool:
    """Whether a value is no worse than the untouched model's interval."""
    if other.good is None or tile.metric.value is None:
        return False
    low, high = other.metric.low, other.metric.high
    worst = low if other.metric.better == "higher" else high
    if worst is None:
        return tile.good is not None and tile.good >= other.good
    return tile.metric.value >= worst if other.metric.better == "higher" else tile.metric.value <= worst


def _numbers(glance: Glance, name: str, gone: bool) -> str:
    """A method's numbers of one side, each beside the untouched model's."""
    entry = next(each for each in glance.entries if each.name == name)
    none = _none(glance)
    texts = []
    for place, column in enumerate(glance.columns):
        tile = entry.tiles[place]
        if column.gone == gone and tile is not None:
            texts.append(_number(glance, column, said(tile.metric), none, place))
    return ", ".join(texts)


def _named(glance: Glance, column: Column) -> str:
    """A column's metric, with its suite where another column has the same metric."""
    several = sum(each.metric == column.metric for each in glance.columns) > 1
    return f"{column.metric} on {column.wall.suite}" if several else column.metric


def _number(glance: Glance, column: Column, text: str, none: Entry | None, place: int) -> str:
    other = none.tiles[place] if none is not None else None
    beside = f", untouched {shown(other.metric).value}" if other is not None and other.good is not None else ""
    return f"{_named(glance, column)} {text}{beside}"


def _real(main: Wall, name: str) -> list[str]:
    """Whether the method differs from the untouched model and from the others in the main suite's headline."""
    best = next((cell for cell in main.cells if name_of(cell) == name), None)
    if best is None or main.headline not in best.metrics:
        return []
    rivals = [cell for cell in main.cells if cell is not best and cell.label != "none" and main.headline in cell.metrics]
    unlike = [cell for cell in rivals if differs(main, best, cell) is True]
    alike = [name_of(cell) for cell in rivals if differs(main, best, cell) is not True]
    parts = [_beside_none(main, best)] if main.baseline is not None else []
    parts += [f"it differs from {len(unlike)} of {len(rivals)} other methods"] if unlike else []
    parts += [f"it cannot be told apart from {listed(alike)}"] if alike else []
    return [f"Is the difference real ({main.headline} on {main.suite})? {_capital('; '.join(parts))}."] if parts else []


def _beside_none(main: Wall, best: ResultCell) -> str:
    verdict = differs(main, best, main.baseline) if main.baseline is not None else None
    if verdict is None:
        return "from the untouched model it is not known: an interval is missing"
    return "yes, from the untouched model" if verdict else "from the untouched model no difference is shown"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
