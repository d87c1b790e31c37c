"""Plots the trade-off of an option's values: forgetting on the x axis, preservation on the y axis."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srbench.analysis.records import Metric
from srbench.analysis.swept import KEPT, Point, Swept, swept
from srbench.errors import UsageError
from srbench.outputs import CURVE, CURVE_MARK, check_file, write_file
from srbench.tables import compare
from srbench.tables.compare import CompareOptions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE, HIGH = 5.2, 4.4
"""Size of a panel in inches."""
ACROSS = 3
"""Panels side by side."""
COLOURS = dict(zip(KEPT, ("C0", "C2", "C1"), strict=True))
MARKED = {"png": "Software", "svg": "Creator", "pdf": "Creator", "eps": "Creator", "ps": "Creator"}
"""File format -> the metadata field that names the program."""
MARKERS, DASHES = "osD^vPX*", ("-", "--", ":", "-.")
"""By the line's number in a panel."""
AXES = {"fsr": "forgotten (fsr), %", "asr": "attacks that fail (100 - asr), %"}
TITLES = {
    "content_kept": "content kept (content_kept)", "retain_accuracy": "objects kept (retain_accuracy)",
    "style_kept": "styles kept (style_kept)",
}  # fmt: skip


def curve(options: CompareOptions, say: Callable[[str], None]) -> None:
    """Plot the trade-off of the values of `options.curve` into `options.out`, and say what was drawn."""
    compare.check(options, say)
    if options.curve is None or options.out is None:
        raise UsageError("no option to draw", "Example: --curve saferedir.alpha_scale -o curve.png")
    form_of(options.out)
    check_file(options.out, CURVE)
    lines = swept(compare.chosen(options, say), options.curve)
    draw(lines, options.curve, options.out)
    values = sorted({point.said for line in lines for point in line.points})
    panels = len({line.panel for line in lines})
    say(f"{options.out}: {options.curve} at {', '.join(values)}; {panels} {'panel' if panels == 1 else 'panels'}")


def draw(swept_lines: Sequence[Swept], option: str, path: Path) -> None:
    """One panel per backbone, concept and suite, one point per value with both 95 % intervals.

    Raises `UsageError` where the file cannot be written.
    """
    import matplotlib  # half a second
    from matplotlib.figure import Figure

    panels: dict[tuple[str, ...], list[Swept]] = {}
    for line in swept_lines:
        panels.setdefault(line.panel, []).append(line)
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 9}):
        figure = Figure(figsize=(WIDE * across, HIGH * down + 0.8), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False).flatten()
        for place, lines in zip(axes, panels.values(), strict=False):  # the last row may have empty places
            _panel(place, lines)
        for place in axes[len(panels) :]:
            place.set_visible(False)
        handles = {text: handle for place in axes for handle, text in zip(*place.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(3, len(handles)), frameon=False)
        figure.suptitle(f"{option}: what its values trade; 95 % intervals")
        data, form = io.BytesIO(), form_of(path)
        figure.savefig(data, format=form, dpi=100, metadata={MARKED[form]: CURVE_MARK})
    write_file(path, data.getvalue(), CURVE)


def form_of(path: Path) -> str:
    """The image format by the path's suffix. Raises `UsageError` for one whose metadata cannot name srbench."""
    form = path.suffix.lower().removeprefix(".")
    if form not in MARKED:
        raise UsageError(f"{path}: no picture's ending", f"Let it end in {', '.join(f'.{each}' for each in MARKED)}.")
    return form


def _panel(axes: Axes, lines: Sequence[Swept]) -> None:
    backbone, concept, suite = lines[0].panel
    for number, line in enumerate(lines):
        for metric in KEPT:
            points = [point for point in line.points if metric in point.kept]
            if points:
                name = TITLES[metric] if len(lines) == 1 else f"{TITLES[metric]}, {line.name}"
                _line(axes, points, metric, name, number)
    beside = f", kept: {lines[0].beside}" if lines[0].beside else ""
    axes.set(title=f"{concept} × {suite} on {backbone}{beside}", xlabel=AXES[lines[0].headline], ylabel="kept, %")
    axes.grid(alpha=0.3)


def _line(axes: Axes, points: Sequence[Point], metric: str, name: str, number: int) -> None:
    x, y = [point.forgotten.value or 0.0 for point in points], [point.kept[metric].value or 0.0 for point in points]
    xerr, yerr = (_spread([point.forgotten for point in points]), _spread([point.kept[metric] for point in points]))
    style: Any = {"marker": MARKERS[number % len(MARKERS)], "linestyle": DASHES[number % len(DASHES)], "color": COLOURS[metric]}
    axes.errorbar(x, y, xerr=xerr, yerr=yerr, label=name, markersize=5, linewidth=1.4, elinewidth=0.6, alpha=0.85, **style)
    if metric == next(each for each in KEPT if each in points[0].kept):
        at: dict[tuple[float, float], list[str]] = {}
        for point, across, up in zip(points, x, y, strict=True):
            at.setdefault((across, up), []).append(point.said)
        for place, values in at.items():
            axes.annotate(", ".join(values), place, (-5, -11), textcoords="offset points", fontsize=8, ha="right")


def _spread(metrics: Sequence[Metric]) -> list[list[float]]:
    """Length of the intervals below and above the values, (2, N); 0 where there is none."""
    intervals = [(metric.value or 0.0, metric.low, metric.high) for metric in metrics]
    below = [0.0 if low is None else max(0.0, value - low) for value, low, _ in intervals]
    above = [0.0 if high is None else max(0.0, high - value) for value, _, high in intervals]
    return [below, above]
