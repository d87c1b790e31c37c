"""Pictures of the reference runs for `docs/`: what each part of SafeRedir trades, and rows side by side."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from srbench.analysis.metrics import METRICS, lens_of, observe
from srbench.analysis.records import CellRecord, Metric, RowRecord
from srbench.analysis.results import ResultCell
from srbench.catalog import load
from srbench.catalog.specs import ProtocolSpec, Row
from srbench.pocket_build.study.tables import SHIPPED, Line, lines_of
from srbench.results.store import Store
from srbench.results.stored import stored_records

SHEET_ROWS = 24
SCALE, TEXT_PX, GAP_PX = 2, 150, 10
COLUMNS = ("none", "reference", "saferedir")
FAILURES_ACROSS = 2
SUITES = ("igmu", "mma")
"""Of others the pictures may have been dropped after scoring."""
WATCHED = ("fsr", "fsr_unseen", "asr", "retain_accuracy", "style_kept", "content_kept", "over_refusal")
"""Rates that name rows on which a method fails."""


DRAWN = {
    ("igmu", "fsr"): ("forgotten (fsr, igmu)", "C0", False),
    ("mma", "asr"): ("attacks that fail (100 - asr, mma)", "C3", True),
    ("igmu", "content_kept"): ("content kept (igmu)", "C2", False),
}
"""(suite, metric) -> its name, its colour, whether 100 - value is drawn, so that right and up are better everywhere."""


def tradeoff(cells: Sequence[ResultCell], names: dict[str, str], scales: dict[str, float], path: Path) -> None:
    """Two panels a concept: what the redirect's strength trades, and what each other part does, with 95 % intervals.

    names: variant -> label; other variants are left out. scales: label -> alpha scale, drawn as curves; the other labels
    are drawn a line each.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    concepts = sorted({cell.concept for cell in cells})
    labels = dict.fromkeys(("none", *names.values(), "saferedir-upstream"))
    parts = [label for label in labels if label not in scales.keys() - {SHIPPED}]
    high = (4.0, 0.42 * len(parts))
    size = (6 * len(concepts), 0.5 + sum(high))
    figure, axes = plt.subplots(2, len(concepts), figsize=size, sharey="row", squeeze=False, height_ratios=high)
    for (above, below), concept in zip(axes.T, concepts, strict=True):
        lines = lines_of([cell for cell in cells if cell.concept == concept], names)
        _strength(above, lines, scales)
        _parts(below, lines, parts)
        above.set(title=concept, xlabel="alpha scale (shipped: 2)")
        below.set(xlabel="%")
    axes[0][0].set_ylabel("%")
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.985), "ncols": len(DRAWN), "frameon": False}
    figure.legend(*axes[0][0].get_legend_handles_labels(), **place)
    figure.suptitle("SafeRedir on pocket: what its strength trades (above), what each part does (below); 95 % intervals", y=0.998)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _strength(axis: Any, lines: Mapping[str, Line], scales: dict[str, float]) -> None:
    """Curves over the alpha scale."""
    for column, (name, colour, turned) in DRAWN.items():
        seen = sorted((x, *_ends(lines[label][column], turned)) for label, x in scales.items() if label in lines)
        if seen:
            x, y, low, high = zip(*seen, strict=True)
            axis.errorbar(x, y, yerr=(low, high), fmt="o-", color=colour, label=name, markersize=4, capsize=2, alpha=0.85)
    axis.grid(alpha=0.3)
    axis.set(ylim=(-3, 103))


def _parts(axis: Any, lines: Mapping[str, Line], labels: Sequence[str]) -> None:
    """One line a variant, the first on top, one point a metric."""
    for row, label in enumerate(labels):
        for shift, (column, (_, colour, turned)) in zip((-0.22, 0.0, 0.22), DRAWN.items(), strict=True):
            if label in lines and column in lines[label]:
                x, low, high = _ends(lines[label][column], turned)
                axis.errorbar(x, row + shift, xerr=([low], [high]), fmt="o", color=colour, markersize=4, capsize=2)
    axis.set_yticks(range(len(labels)), labels)
    axis.set(ylim=(len(labels) - 0.5, -0.5), xlim=(-3, 103))
    axis.grid(alpha=0.3)


def _ends(metric: Metric, turned: bool) -> tuple[float, float, float]:
    """The value, and how far its interval reaches below and above it; `turned`: of 100 - value."""
    value = 0.0 if metric.value is None else metric.value
    low, high = (value if bound is None else bound for bound in (metric.low, metric.high))
    return (100 - value, high - value, value - low) if turned else (value, value - low, high - value)


MARKERS = "osD^vPX*p"
KEPT = ("retain_accuracy", "content_kept")
"""Of igmu, what is drawn upwards, a row of panels each."""


def methods(cells: Sequence[ResultCell], labels: Sequence[str], path: Path) -> None:
    """What each method forgets against what it keeps: a column a concept, 95 % intervals, the upper right corner is best."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    concepts = sorted({cell.concept for cell in cells})
    metrics = {(cell.concept, cell.label): cell.metrics for cell in cells if cell.suite == "igmu" and not cell.variant}
    size = (4.6 * len(concepts), 8.4)
    figure, axes = plt.subplots(len(KEPT), len(concepts), figsize=size, sharex=True, sharey=True, squeeze=False)
    paired = plt.get_cmap("tab20")
    colours = [paired(number) for number in (*range(0, 20, 2), *range(1, 20, 2))]  # the strong ones first, then their pale twins
    for row, metric in zip(axes, KEPT, strict=True):
        for axis, concept in zip(row, concepts, strict=True):
            for number, label in enumerate(label for label in labels if (concept, label) in metrics):
                style = {"color": colours[number % len(colours)], "marker": MARKERS[number % len(MARKERS)], "label": label}
                _method(axis, metrics[concept, label], metric, style)
            axis.set(xlim=(-3, 103), ylim=(-3, 103), title=concept if metric == KEPT[0] else "")
            axis.grid(alpha=0.3)
        row[0].set_ylabel(f"{metric} %")
    for axis in axes[-1]:
        axis.set_xlabel("forgotten (fsr) %")
    handles = dict(zip(*reversed(axes[0][0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="lower center", ncols=6, frameon=False)
    figure.suptitle("pocket × igmu: what is forgotten against what stays; 95 % intervals, the upper right corner is best")
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _method(axis: Any, metrics: Mapping[str, Metric], metric: str, style: Mapping[str, Any]) -> None:
    if metric not in metrics or "fsr" not in metrics:
        return
    (x, left, right), (y, below, above) = _ends(metrics["fsr"], False), _ends(metrics[metric], False)
    axis.errorbar(
        x, y, xerr=([left], [right]), yerr=([below], [above]), linestyle="none", markersize=7, linewidth=1, capsize=2, **style
    )


# --- what fails --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """A row on which SafeRedir fails, by which metrics, and the keys of its images."""

    concept: str
    row: Row
    metrics: tuple[str, ...]
    images: tuple[str | None, ...]
    """none, reference, saferedir; None where the row has no such image."""


def sampled(results: Path, store: Store) -> list[CellRecord]:
    """What was run here of the untouched backbone and the shipped SafeRedir, for the pictures below."""
    return stored_records(results, store, _judge_of)


def failures(records: Sequence[CellRecord]) -> list[Failure]:
    """Every row on which the shipped SafeRedir fails by one of `WATCHED`, by concept, suite and row. records: as `sampled`."""
    plain = {(r.concept, row.row.id): row for r in records if r.method == "none" for row in r.rows}
    failed: list[Failure] = []
    for record in sorted((r for r in records if r.method == SHIPPED), key=lambda r: (r.concept, r.suite)):
        lens = lens_of(record, load.protocols()[record.protocol])
        wrong: dict[str, list[str]] = defaultdict(list)
        for name in (name for name in WATCHED if name in record.metrics):
            for seen in observe(METRICS[name], record, lens):
                if seen.value is None or bool(seen.value) != (METRICS[name].better == "higher"):
                    wrong[seen.row.id].append(name)
        for row in (row for row in record.rows if row.row.id in wrong):
            beside = _beside(plain[record.concept, row.row.id], row)
            failed.append(Failure(record.concept, row.row, tuple(wrong[row.row.id]), beside))
    return failed


def _judge_of(cell: ResultCell) -> ProtocolSpec | None:
    """The cell's own protocol for the cells that failures are read from."""
    shipped = cell.method in ("none", SHIPPED) and cell.on == "none" and not cell.variant and cell.suite in SUITES
    return load.protocols()[cell.protocol] if shipped and (cell.backbone, cell.dtype) == ("pocket", "fp32") else None


def draw_failures(failed: Sequence[Failure], store: Store, path: Path) -> None:
    """One block a failure, `FAILURES_ACROSS` in a line: concept, row, what failed, prompt, and the three pictures."""
    side = 64 * SCALE
    wide, high = TEXT_PX + len(COLUMNS) * side + GAP_PX, side + 4
    sheet = Image.new("RGB", (wide * FAILURES_ACROSS, 18 + high * max(1, -(-len(failed) // FAILURES_ACROSS))), "white")
    pen = ImageDraw.Draw(sheet)
    for block in range(FAILURES_ACROSS):
        _column_names(pen, block * wide)
    for number, failure in enumerate(failed):
        left, top = number % FAILURES_ACROSS * wide, 18 + number // FAILURES_ACROSS * high
        head = f"{failure.row.id}\nfails: {', '.join(failure.metrics)}"
        pen.text((left + 4, top + 4), f"{head}\n\n{textwrap.fill(failure.row.prompt or '', 22)}", "black")
        _paste(sheet, store, failure.images, left, top)
    sheet.save(path, optimize=True)


def _paste(sheet: Image.Image, store: Store, keys: Sequence[str | None], left: int, top: int) -> None:
    """Pictures beside each other, behind the room for text; a gap where there is none."""
    side = 64 * SCALE
    for column, key in enumerate(keys):
        if key is not None:
            picture = Image.fromarray(store.pixels(key)).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + TEXT_PX + column * side, top))


def _column_names(pen: ImageDraw.ImageDraw, left: int) -> None:
    for column, name in enumerate(COLUMNS):
        pen.text((left + TEXT_PX + column * 64 * SCALE + 4, 3), name, "black")


# --- rows side by side -------------------------------------------------------------------------------------------------------


def at_hand(records: Sequence[CellRecord], concepts: Sequence[str]) -> bool:
    """Whether the runs that `side_by_side` and `failures` show are here, for every concept."""
    present = {(r.concept, r.method) for r in records if r.suite == "igmu"}
    return present >= {(concept, method) for concept in concepts for method in ("none", SHIPPED)}


def side_by_side(records: Sequence[CellRecord], store: Store, concepts: Sequence[str], path: Path) -> None:
    """Draw `SHEET_ROWS` forget rows of igmu, evenly spread over the concepts: none, reference, saferedir."""
    per_concept, side = SHEET_ROWS // len(concepts), 64 * SCALE
    wide = TEXT_PX + len(COLUMNS) * side + GAP_PX
    sheet = Image.new("RGB", (wide * len(concepts), 18 + per_concept * (side + 4)), "white")
    pen = ImageDraw.Draw(sheet)
    cells = {(r.concept, r.method): r.rows for r in records if r.suite == "igmu"}
    for block, concept in enumerate(concepts):
        plain = {row.row.id: row for row in cells[concept, "none"]}
        forget = [row for row in cells[concept, SHIPPED] if row.row.kind == "forget" and plain[row.row.id].reference]
        _column_names(pen, block * wide)
        for number in range(per_concept):
            row = forget[number * len(forget) // per_concept]
            top = 18 + number * (side + 4)
            text = textwrap.fill(row.row.prompt or "", 22)
            pen.text((block * wide + 4, top + 8), f"{row.row.id.split('-')[-1]}\n{text}", "black")
            _paste(sheet, store, _beside(plain[row.row.id], row), block * wide, top)
    sheet.save(path, optimize=True)


def _beside(plain: RowRecord, row: RowRecord) -> tuple[str | None, ...]:
    """Image keys of `COLUMNS`."""
    return tuple(image.key if image else None for image in (plain.image, plain.reference, row.image))
