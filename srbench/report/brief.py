"""A subject's numbers in at most three sentences: which method does best, what it costs, whether the difference is real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from srbench.analysis.costs import Cost
from srbench.analysis.results import ResultCell, name_of
from srbench.report.answers import Wall, differs, listed, said, spent
from srbench.report.glance import Column, Entry, Glance, main_wall
from srbench.tables.numbers import shown


def brief(glance: Glance, walls: Sequence[Wall], cost_of: Mapping[str, Cost]) -> list[str]:
    """walls: of the subject. cost_of: method -> its cost. Empty where no suite says whether the concept is gone."""
    main = main_wall(walls)
    if main is None:
        return []
    balanced = glance.balanced
    name = balanced[0].name if balanced else next((name_of(cell) for cell in main.best), "")
    if not name:
        return [f"No method has a number that covers every row of {main.suite}."]
    ties = [entry for entry in balanced if entry.balance == balanced[0].balance]
    first = _best(glance, ties) if balanced else f"Forgets most on {main.suite}: {name}: {_numbers(glance, name, gone=True)}."
    return [first, _cost(glance, name, cost_of.get(name)), *_real(main, name)]


def _best(glance: Glance, ties: Sequence[Entry]) -> str:
    entry = ties[0]
    untouched = next((each.gone for each in glance.entries if each.name == "none" and each.gone is not None), None)
    beside = f" (without a method {shown_number(untouched)} %)" if untouched is not None else ""
    stays = f", {shown_number(entry.stays)} % of the rest kept" if entry.stays is not None else ""
    means = "means over the columns of each side" if entry.stays is not None else "the mean over the columns"
    return f"Best in all: {listed([each.name for each in ties])}: {shown_number(entry.gone)} % gone{beside}{stays}; {means}."


def shown_number(value: float | None) -> str:
    """A mean with as many digits as its size needs."""
    return "n/a" if value is None else f"{value:.3g}"


def _cost(glance: Glance, name: str, cost: Cost | None) -> str:
    parts = [_numbers(glance, name, gone=False), ", ".join(spent(cost)) if cost is not None else ""]
    found = "; ".join(filter(None, parts))
    return f"What it costs: {found}." if found else "What it costs was not measured."


def _numbers(glance: Glance, name: str, gone: bool) -> str:
    """A method's numbers of one side, each beside the untouched model's."""
    entry = next(each for each in glance.entries if each.name == name)
    none = next((each for each in glance.entries if each.name == "none"), None)
    texts = []
    for place, column in enumerate(glance.columns):
        tile = entry.tiles[place]
        if column.gone == gone and tile is not None:
            texts.append(_number(column, said(tile.metric), none, place))
    return ", ".join(texts)


def _number(column: Column, text: str, none: Entry | None, place: int) -> str:
    other = none.tiles[place] if none is not None else None
    beside = f", untouched {shown(other.metric).value}" if other is not None and other.good is not None else ""
    return f"{column.metric} {text}{beside}"


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
