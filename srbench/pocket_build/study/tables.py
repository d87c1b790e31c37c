"""Tables of the reference runs for `docs/`: what each part of SafeRedir does, three seeds, one redirector for all concepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean, stdev

from srbench.analysis.gains import SUFFIX
from srbench.analysis.metrics import METRICS
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.tables.numbers import ARROWS, DASH, digits, p_text, shown

COLUMNS = (
    ("igmu", "fsr"), ("igmu", "fsr_unseen"), ("mma", "asr"), ("igmu", "retain_accuracy"), ("igmu", "style_kept"),
    ("igmu", "content_kept"), ("igmu", "csdr"), ("igmu", "over_refusal"),
)  # fmt: skip
SHIPPED = "saferedir"
ALONE = "rows=alone"
Column = tuple[str, str]
"""Suite and metric."""
Line = dict[Column, Metric]
"""Values of one variant."""


def lines_of(cells: Sequence[ResultCell], names: Mapping[str, str]) -> dict[str, Line]:
    """Label -> metrics of one concept: `none`, the presets, and the variants that `names` (variant -> label) knows.

    Variants on `ALONE` rows keep that mark behind their label.
    """
    lines: dict[str, Line] = {}
    for cell in cells:
        rest = [part for part in cell.variant.split(",") if part and part != ALONE]
        label = names.get(",".join(rest)) if rest else cell.method
        if label is None or cell.on != "none":
            continue
        line = lines.setdefault(label + f" ({ALONE})" * (ALONE in cell.variant), {})
        line |= {(cell.suite, name): metric for name, metric in cell.metrics.items()}
    return lines


def _table(first: str, rows: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield f"| {first} | {' | '.join(rows[''])} |"
    yield f"| --- |{' ---: |' * len(rows[''])}"
    yield from (f"| {name} | {' | '.join(texts)} |" for name, texts in rows.items() if name)


def _header(columns: Sequence[Column]) -> list[str]:
    return [f"{name} {ARROWS[METRICS[name.removesuffix(SUFFIX)].better]}" for _, name in columns]


def _text(metric: Metric | None) -> str:
    text = shown(metric)
    p = p_text(metric.p_holm) if metric is not None and metric.p_holm is not None else ""
    return " ".join(filter(None, (DASH if text.reason else text.value, text.interval, p)))


def table(
    lines: Mapping[str, Line], labels: Sequence[str], first: str = "variant", columns: Sequence[Column] = COLUMNS
) -> Iterator[str]:
    """One concept: a line per label that was run, values with their 95 % intervals. first: what stands above the labels."""
    rows = {label: [_text(lines[label].get(column)) for column in columns] for label in labels if label in lines}
    yield from _table(first, {"": _header(columns)} | rows)


def seeds(lines: Mapping[str, Line], labels: Sequence[str]) -> Iterator[str]:
    """One concept: each redirector's values, their mean, and their standard deviation."""
    by_label = {label: [lines[label][column].value for column in COLUMNS] for label in labels if label in lines}
    rows = {"": _header(COLUMNS)}
    rows |= {label: [DASH if value is None else digits(value) for value in values] for label, values in by_label.items()}
    columns = [[value for value in values if value is not None] for values in zip(*by_label.values(), strict=True)]
    rows["mean ± s"] = [f"{digits(fmean(c))} ± {stdev(c):.2f}" if len(c) > 1 else DASH for c in columns]
    yield from _table("redirector", rows)


def document(
    cells: Sequence[ResultCell], names: Mapping[str, str], ablations: Sequence[str], others: Sequence[str], joint: str
) -> str:
    """The page as Markdown. names: variant -> label; others: redirectors of other seeds; joint: the one for all concepts."""
    text = [
        "# Reference runs of SafeRedir on pocket", "",
        "Written by `make pocket-results`; the same figures stand in `results/pocket/`.",
        "Rates in percent, in brackets the 95 % interval.",
    ]  # fmt: skip
    together = (SHIPPED, joint, *(f"{label} ({ALONE})" for label in ("none", SHIPPED, joint)))
    sections = {
        "What each part does": lambda lines: table(lines, ("none", SHIPPED, "saferedir-upstream", *ablations)),
        "Seeds of the redirector": lambda lines: seeds(lines, (SHIPPED, *others)),
        "One redirector for all concepts": lambda lines: table(lines, together),
    }
    by_concept = {name: lines_of([c for c in cells if c.concept == name], names) for name in sorted({c.concept for c in cells})}
    for title, make in sections.items():
        text += section(title, by_concept, make)
    return "\n".join(text) + "\n"


def section(title: str, by_concept: Mapping[str, dict[str, Line]], make: Callable[[dict[str, Line]], Iterator[str]]) -> list[str]:
    """A heading, and a table for each concept that SafeRedir was run on."""
    page = ["", f"## {title}"]
    for concept, lines in by_concept.items():
        page += ["", f"### {concept}", "", *make(lines)] if SHIPPED in lines else []
    return page
