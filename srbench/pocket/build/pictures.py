"""Pictures of the reference runs for `docs/`: what each part of SafeRedir trades, and rows side by side."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.engine.store import Store

SHEET_ROWS = 24
SCALE, TEXT_PX, GAP_PX = 2, 150, 10
COLUMNS = ("none", "reference", "saferedir")


def tradeoff(cells: Sequence[ResultCell], names: dict[str, str], path: Path) -> None:
    """One panel a concept: what is kept against what is forgotten, a point with its intervals for each variant.

    names: variant -> label; other variants are left out. x is `content_kept` on igmu, y is 100 - `asr` on mma.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    concepts = sorted({cell.concept for cell in cells})
    figure, axes = plt.subplots(1, len(concepts), figsize=(6 * len(concepts), 5.5), sharex=True, sharey=True, squeeze=False)
    for axis, concept in zip(axes[0], concepts, strict=True):
        points = _points([cell for cell in cells if cell.concept == concept], names)
        for label, (kept, gone) in sorted(points.items()):
            x, *across = _ends(kept)
            y, *along = _ends(gone)
            axis.errorbar(
                x, 100 - y, xerr=[[across[0]], [across[1]]], yerr=[[along[1]], [along[0]]], fmt="o", markersize=5, capsize=2,
            )
            axis.annotate(label, (x, 100 - y), xytext=(5, 4), textcoords="offset points", fontsize=8)
        axis.set(title=concept, xlabel="content kept, igmu (%)")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("attacks that fail, mma (%)")
    figure.suptitle("SafeRedir on pocket: what each part trades (95 % intervals)")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _ends(metric: Metric) -> tuple[float, float, float]:
    """The value, and how far its interval reaches below and above it."""
    value = 0.0 if metric.value is None else metric.value
    low, high = (value if bound is None else bound for bound in (metric.low, metric.high))
    return value, value - low, high - value


def _points(cells: Sequence[ResultCell], names: dict[str, str]) -> dict[str, tuple[Metric, Metric]]:
    found = {(cell.method, cell.variant, cell.suite): cell.metrics for cell in cells}
    points = {}
    for (method, variant, suite), metrics in found.items():
        attacked = found.get((method, variant, "mma"))
        label = names.get(variant, "") if method == "saferedir" else "" if variant else method
        if suite == "igmu" and attacked is not None and label:
            pair = metrics["content_kept"], attacked["asr"]
            if None not in (pair[0].value, pair[1].value):
                points[label] = pair
    return points


def _run_rows(results: Path, concept: str) -> dict[str, list[dict[str, Any]]]:
    """Method -> the igmu rows of the newest full run of none and saferedir, with their image keys."""
    for path in sorted(results.glob("runs/*/run.json"), reverse=True):
        data = json.loads(path.read_text(encoding="utf-8"))
        found = {
            cell["result"]["method"]: cell["rows"] for cell in data["cells"]
            if (cell["result"]["concept"], cell["result"]["suite"], cell["result"]["variant"]) == (concept, "igmu", "")
        }
        if {"none", "saferedir"} <= found.keys():
            return found
    return {}


def side_by_side(results: Path, concepts: Sequence[str], path: Path) -> list[dict[str, str]]:
    """Draw `SHEET_ROWS` forget rows, evenly spread over the concepts: none, reference, saferedir. Returns what was drawn."""
    store, each = Store.peek(results / "store", lambda line: None), SHEET_ROWS // len(concepts)
    side = 64 * SCALE
    wide = TEXT_PX + len(COLUMNS) * side + GAP_PX
    sheet = Image.new("RGB", (wide * len(concepts), 18 + each * (side + 4)), "white")
    pen, drawn = ImageDraw.Draw(sheet), []
    for block, concept in enumerate(concepts):
        rows = _run_rows(results, concept)
        plain = {row["id"]: row for row in rows["none"]}
        forget = [row for row in rows["saferedir"] if row["row"]["kind"] == "forget" and "reference" in plain[row["id"]]]
        for column, name in enumerate(COLUMNS):
            pen.text((block * wide + TEXT_PX + column * side + 4, 3), name, "black")
        for number in range(each):
            row = forget[number * len(forget) // each]
            top = 18 + number * (side + 4)
            text = textwrap.fill(row["row"]["prompt"], 22)
            pen.text((block * wide + 4, top + 8), f"{row['id'].split('-')[-1]}\n{text}", "black")
            for column, key in enumerate((plain[row["id"]]["image"], plain[row["id"]]["reference"], row["image"])):
                picture = Image.fromarray(store.pixels(key)).resize((side, side), Image.Resampling.NEAREST)
                sheet.paste(picture, (block * wide + TEXT_PX + column * side, top))
            drawn.append({"row": row["id"], "prompt": row["row"]["prompt"], "reference": row["row"]["reference"]})
    sheet.save(path, optimize=True)
    return drawn
