"""Tables of the grid for `docs/`: every method alone, methods on checkpoints, inversions from elsewhere, and what all cost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from srbench.analysis.costs import Cost, costs
from srbench.analysis.gains import SUFFIX
from srbench.analysis.results import ResultCell
from srbench.analysis.robustness import matrices
from srbench.pocket_build.study.tables import Line, section, table
from srbench.tables import attacks, formats
from srbench.tables.numbers import DASH, digits

RATES = (("igmu", "fsr"), ("mma", "asr"), ("igmu", "retain_accuracy"), ("igmu", "content_kept"))
GAINS = tuple((suite, name) for suite, rate in RATES for name in (rate, rate + SUFFIX))


def name_of(cell: ResultCell) -> str | None:
    """The cell's line: its label, with where its redirector was trained or its inversion learned; None for other variants."""
    if not cell.variant:
        return cell.label
    retrained = re.fullmatch(r"redirector=on-([\w-]+)@\w+", cell.variant)
    if retrained is not None:
        return f"{cell.method} trained on {cell.on}" if retrained[1] == cell.on else None
    borrowed = re.fullmatch(r"inversion=from-([\w-]+)@\w+", cell.variant)
    return borrowed and f"{cell.method} learned on {borrowed[1]}, on {cell.on}"


def lines_of(cells: Sequence[ResultCell]) -> dict[str, Line]:
    """Name -> metrics of one concept."""
    lines: dict[str, Line] = {}
    for cell in cells:
        name = name_of(cell)
        if name is not None:
            lines.setdefault(name, {}).update({(cell.suite, metric): value for metric, value in cell.metrics.items()})
    return lines


def stacked(lines: Mapping[str, Line], methods: Sequence[str], under: Sequence[str]) -> Iterator[str]:
    """One concept: each checkpoint alone, then methods on it, each rate beside its difference from the checkpoint alone."""
    names = [
        name for on in under
        for name in (on, *(f"{method} on {on}" for method in methods), f"saferedir trained on {on}")
    ]  # fmt: skip
    yield from table(lines, names, "method", GAINS)


def borrowed(lines: Mapping[str, Line], presets: Sequence[str], under: Sequence[str]) -> Iterator[str]:
    """One concept: presets with the inversion of the checkpoint they act on, and with those of others, where these were run."""
    places, names = ("none", *under), list[str]()
    for on in places:
        others = [source for source in places if source != on]
        for preset in presets:
            names.append(preset if on == "none" else f"{preset} on {on}")
            names.extend(f"{preset} learned on {source}, on {on}" for source in others)
    run = [lines[name] for name in names if name in lines and " learned on " in name]
    yield from table(lines, names, "method", [column for column in GAINS if any(column in line for line in run)])


def cost_table(all_costs: Sequence[Cost], names: Sequence[str]) -> Iterator[str]:
    """One line a method."""
    yield "| method | prepare s | added ms an image | its range over cells | parameters | peak MB |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    by_name = {cost.method: cost for cost in all_costs}
    for name in (name for name in names if name in by_name):
        yield _cost_line(by_name[name])


def _cost_line(cost: Cost) -> str:
    def number(value: float | None) -> str:
        return DASH if value is None else digits(value)

    whole = [DASH if value is None else f"{value:.0f}" for value in (cost.parameters, cost.peak_mb)]
    spread = DASH if cost.added_low is None else f"{number(cost.added_low)} to {number(cost.added_high)}"
    return f"| {' | '.join((cost.method, number(cost.prepare_seconds), number(cost.added_ms), spread, *whole))} |"


def robustness(cells: Sequence[ResultCell], defenders: Sequence[str], inverted: Mapping[str, Any]) -> str:
    """The page of how often the concept comes back. inverted: label -> rate of what `concept-inversion` found there."""
    defended = [cell for name in defenders for cell in cells if cell.label == name and not cell.variant]
    page = [
        "# Robustness on pocket", "",
        "Written by `make pocket-results`; `srbench compare results/ --attacks` prints the same. Share of rows in which the",
        "concept is seen, in percent, lower is better; in brackets the 95 % interval. Of suites without attacks it is what `fsr`",
        "leaves over. Prompts made against a method attack igmu's first 32 forget rows; `(own)`: on the method attacked.",
        "", formats.write(attacks.tables(matrices(defended)), "md").rstrip(),
    ]  # fmt: skip
    return "\n".join([*page, *_embeddings(inverted)]) + "\n"


def _embeddings(rates: Mapping[str, Any]) -> Iterator[str]:
    if not rates:
        return
    yield from ("", "## Embeddings", "")
    yield "`concept-inversion` finds embeddings, no prompts. The method that one was learned on draws from it."
    yield from ("", "| method | asr |", "| --- | ---: |")
    for name, rate in rates.items():
        yield f"| {name} | {digits(rate['value'])} [{digits(rate['low'])}, {digits(rate['high'])}], n = {rate['n']} |"


def document(
    cells: Sequence[ResultCell], methods: Sequence[str], over: Sequence[str], under: Sequence[str], inverted: Sequence[str]
) -> str:
    """The page as Markdown. methods: alone; over: stacked on `under`; inverted: those with inversions of other checkpoints."""
    page = [
        "# The grid on pocket: baselines and stacking", "",
        "Written by `make pocket-results`; the same figures stand in `results/pocket/`. Rates in percent, in brackets the 95 %",
        "interval. `..._gain` is the difference from the checkpoint alone on the same rows; its p is Holm-corrected over the",
        "methods of the run on that concept, suite and metric.",
    ]  # fmt: skip
    by_concept = {name: lines_of([c for c in cells if c.concept == name]) for name in sorted({c.concept for c in cells})}
    page += section("Every method alone", by_concept, lambda lines: table(lines, methods, "method"))
    page += section("Methods on unlearned checkpoints", by_concept, lambda lines: stacked(lines, over, under))
    page += section("Inversions of other checkpoints", by_concept, lambda lines: borrowed(lines, inverted, under))
    plain = [cell for cell in cells if not cell.variant]
    return "\n".join([*page, "", "## Costs", "", *cost_table(costs(plain), methods)]) + "\n"
