"""Plots as inline SVG, drawn by matplotlib in the page's colours, so that they follow its light and dark mode."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from srbench.analysis.records import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS, MARKERS = 9, "osD^vPX*p"
"""Colours of the page (`--s0` is the untouched backbone's) and matplotlib's markers; together they distinguish 81 methods."""
INK, MUTED, RULE = "#010101", "#020202", "#030303"
"""Placeholders for the page's `--ink`, `--muted` and `--rule`."""
WIDTH, LEGEND = 4.7, 0.22
"""Inches of a plot and of a line in a legend; the page scales plots to their column."""
TOP, RIGHT, BOTTOM, LEFT = 0.1, 0.1, 0.5, 0.65
"""Inches around the axes, with room for ticks and labels: a layout engine draws every plot twice to find them."""
STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "grid.color": RULE, "grid.linewidth": 0.8, "axes.grid": True,
    "axes.axisbelow": True, "text.parse_math": False, "axes.unicode_minus": True, "legend.frameon": False,
}  # fmt: skip


@dataclass(frozen=True)
class Series:
    """A method in plots; its number determines colour and marker everywhere on the page."""

    name: str
    number: int

    @property
    def colour(self) -> str:
        """Placeholder for the page's colour of this number."""
        return f"#0001{self.number % COLOURS:02x}"

    @property
    def marker(self) -> str:
        """matplotlib's code of the marker."""
        return MARKERS[(self.number + self.number // COLOURS) % len(MARKERS)]


@dataclass(frozen=True)
class Line:
    """A curve with its band."""

    series: Series
    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    dash: str = "-"


@dataclass(frozen=True)
class Plot:
    """A plot; its numbers are also in a table beside it."""

    svg: Markup
    title: str


def tradeoff(name: str, title: str, points: Sequence[tuple[Series, Metric, Metric]], x: str, y: str) -> Plot:
    """Forgetting on the x axis, preservation on the y axis, one point per method with both intervals. Percent."""

    def paint(figure: Figure, axes: Axes) -> None:
        for series, across, up in points:
            place = [across.value or 0.0], [up.value or 0.0]
            shared: dict[str, Any] = {"color": series.colour, "linestyle": "none", "alpha": 0.9}
            axes.errorbar(*place, xerr=_spread(across), yerr=_spread(up), linewidth=1.4, capsize=2.5, **shared)
            hollow: dict[str, Any] = {"markerfacecolor": "none", "markeredgewidth": 1.8}  # one that lies below another is seen
            axes.plot(*place, marker=series.marker, markersize=9, label=_label(series.name), **shared, **hollow)
        axes.set(xlim=(-4, 104), ylim=(-4, 104), xlabel=f"{x}, %  →  better", ylabel=f"{y}, %  →  better")
        figure.legend(loc="lower center", ncols=2, fontsize=10.5, handletextpad=0.4)

    summary = "; ".join(f"{s.name}: {_text(across)} across, {_text(up)} up" for s, across, up in points)
    legend = LEGEND * (_halved(points) + 0.5)
    return _plot(name, title, f"Scatter plot of {y} against {x}. {summary}.", 3.6, paint, below=legend)


@dataclass(frozen=True)
class Bar:
    """One method's bar; places are percent of the chart's width."""

    series: Series
    metric: Metric
    start: float
    width: float
    whisker: tuple[float, float] | None
    """Both ends of the interval; None without one."""


@dataclass(frozen=True)
class Bars:
    """A bar chart of one metric, drawn by the page itself; a metric without a value has no bar."""

    title: str
    name: str
    """Of the metric."""
    bars: tuple[Bar, ...]


def bars(title: str, name: str, values: Sequence[tuple[Series, Metric]], rate: bool) -> Bars:
    """One bar per method with its interval. rate: percent, from 0 to 100; else from 0 or the least value to the greatest."""
    every = [end for _, metric in values for end in (metric.value, metric.low, metric.high)]
    ends = [end for end in every if end is not None and math.isfinite(end)]
    least, most = (0.0, 100.0) if rate else (min([0.0, *ends]), max([0.0, *ends]))
    span = most - least or 1.0

    def place(value: float) -> float:
        return round(100 * (min(most, max(least, value)) - least) / span, 2)

    return Bars(title, name, tuple(_bar(series, metric, place) for series, metric in values))


def _bar(series: Series, metric: Metric, place: Callable[[float], float]) -> Bar:
    if metric.value is None or not math.isfinite(metric.value):
        return Bar(series, metric, 0.0, 0.0, None)
    zero, end = place(0.0), place(metric.value)
    whole = metric.low is not None and metric.high is not None and math.isfinite(metric.low) and math.isfinite(metric.high)
    whisker = (place(metric.low), place(metric.high)) if whole and metric.low is not None and metric.high is not None else None
    return Bar(series, metric, min(zero, end), abs(end - zero), whisker)


def lines(name: str, title: str, drawn: Sequence[Line], x: str, y: str, top: float) -> Plot:
    """Lines with their bands; y from 0 to `top`."""

    def paint(figure: Figure, axes: Axes) -> None:
        for line in drawn:
            axes.fill_between(line.x, line.low, line.high, color=line.series.colour, alpha=0.14, linewidth=0)
            axes.plot(
                line.x, line.y, label=_label(line.label), color=line.series.colour, linestyle=line.dash, linewidth=1.7,
                marker=line.series.marker if len(line.x) < 20 else "", markersize=4.5,
            )  # fmt: skip
        axes.set(ylim=(-0.03 * top, 1.04 * top), xlabel=x, ylabel=y)
        figure.legend(loc="lower center", ncols=2, fontsize=10.5, handletextpad=0.5)

    summary = "; ".join(f"{line.label}: from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in drawn if line.y)
    return _plot(name, title, f"Line chart of {y} by {x}. {summary}.", 2.8, paint, below=LEGEND * (_halved(drawn) + 0.5))


def _halved(items: Sequence[Any]) -> int:
    """Number of lines of a legend with two columns."""
    return (len(items) + 1) // 2


def _spread(metric: Metric) -> list[list[float]] | None:
    if metric.value is None or metric.low is None or metric.high is None:
        return None
    return [[max(0.0, metric.value - metric.low)], [max(0.0, metric.high - metric.value)]]


def _text(metric: Metric) -> str:
    if metric.value is None:
        return "n/a"
    interval = f" [{metric.low:.3g}, {metric.high:.3g}]" if metric.low is not None and metric.high is not None else ""
    return f"{metric.value:.3g}{interval}"


def _cut(name: str, most: int = 30) -> str:
    name = "".join(mark for mark in name if mark.isprintable())  # fonts have no glyphs for the others
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _label(name: str) -> str:
    """A name for a legend; matplotlib leaves out labels that begin with an underscore."""
    return f" {_cut(name)}" if name.startswith("_") else _cut(name)


def _plot(
    name: str, title: str, description: str, height: float, paint: Callable[[Figure, Axes], None], below: float
) -> Plot:
    """name: unique on the page. height: inches without `below`, the inches for a legend."""
    import matplotlib  # half a second
    from matplotlib.figure import Figure

    text, whole = io.StringIO(), height + below
    # The salt makes ids differ between plots, but not between runs.
    settings: Any = {**STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH, whole))
        bottom = below + BOTTOM
        box = (LEFT / WIDTH, bottom / whole, 1 - (LEFT + RIGHT) / WIDTH, 1 - (bottom + TOP) / whole)
        paint(figure, figure.add_axes(box))
        figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return Plot(_inline(text.getvalue(), name, title, description), title)


def _inline(svg: str, name: str, title: str, description: str) -> Markup:
    """matplotlib's SVG as an element of the page: adds title and description, removes prolog, styles, metadata and shared ids."""
    head, rest = svg[svg.index("<svg") :].split(">", 1)
    for inner in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r" font-family: [^;]*;", r"(?<=<g) id=\"[^\"]*\""):
        rest = re.sub(inner, "", rest, flags=re.DOTALL)
    rest = rest.replace("xlink:href", "href")
    rest = re.sub(r"#0001(0[0-8])", lambda match: f"var(--s{int(match[1], 16)})", rest)
    for colour, variable in ((INK, "ink"), (MUTED, "muted"), (RULE, "rule")):
        rest = rest.replace(colour, f"var(--{variable})")
    box = re.search(r'viewBox="[^"]+"', head)
    about = f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
    opened = f'<svg {box[0] if box else ""} role="img" aria-labelledby="{name}-t {name}-d">'
    return Markup(opened + about + rest)  # matplotlib escapes its texts; ours are escaped above
