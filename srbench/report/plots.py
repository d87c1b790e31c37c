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
WIDTH, BAR, LEGEND, LETTER = 4.7, 0.27, 0.185, 0.072
"""Inches of a plot, of a bar, of a line in a legend and of a letter beside a bar; the page scales plots to their column."""
TOP, RIGHT, BOTTOM, LEFT = 0.1, 0.1, 0.45, 0.55
"""Inches around the axes, with room for ticks and labels: a layout engine draws every plot twice to find them."""
STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
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
            axes.plot(*place, marker=series.marker, markersize=8, label=_label(series.name), **shared)
        axes.set(xlim=(-4, 104), ylim=(-4, 104), xlabel=f"{x}, %  →  better", ylabel=f"{y}, %  →  better")
        figure.legend(loc="lower center", ncols=2, fontsize=8.5, handletextpad=0.4)

    summary = "; ".join(f"{s.name}: {_text(across)} across, {_text(up)} up" for s, across, up in points)
    legend = LEGEND * (_halved(points) + 0.5)
    return _plot(name, title, f"Scatter plot of {y} against {x}. {summary}.", 3.6, paint, below=legend)


def bars(name: str, title: str, values: Sequence[tuple[Series, Metric]], rate: bool) -> Plot:
    """One bar per method with its interval. rate: percent, from 0 to 100."""

    def paint(figure: Figure, axes: Axes) -> None:
        measured = [(place, series, metric) for place, (series, metric) in enumerate(values) if metric.value is not None]
        places = [place for place, _, _ in measured]
        lengths = [metric.value or 0.0 for _, _, metric in measured]
        axes.barh(places, lengths, height=0.62, color=[series.colour for _, series, _ in measured], alpha=0.85)
        spreads = [_spread(metric) or [[math.nan], [math.nan]] for _, _, metric in measured]  # nothing is drawn there
        around = [[spread[side][0] for spread in spreads] for side in (0, 1)]
        axes.errorbar(lengths, places, xerr=around, color=INK, linewidth=1.1, capsize=2.5, linestyle="none")
        for place in set(range(len(values))) - set(places):
            axes.text(0, place, " n/a", va="center", color=MUTED)
        axes.set_yticks(range(len(values)), [_cut(series.name) for series, _ in values])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(len(values) - 0.5, -0.5)
        if rate:
            axes.set_xlim(0, 104)

    summary = "; ".join(f"{series.name}: {_text(metric)}" for series, metric in values)
    left = 0.1 + LETTER * max((len(_cut(series.name)) for series, _ in values), default=0)
    return _plot(name, title, f"Bar chart. {summary}.", 0.5 + BAR * len(values), paint, left=left)


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
        figure.legend(loc="lower center", ncols=2, fontsize=8.5, handletextpad=0.5)

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
    name: str, title: str, description: str, height: float, paint: Callable[[Figure, Axes], None], left: float = LEFT,
    below: float = 0.0,
) -> Plot:  # fmt: skip
    """name: unique on the page. height: inches without `below`, the inches for a legend. left: inches left of the axes."""
    import matplotlib  # half a second
    from matplotlib.figure import Figure

    text, whole = io.StringIO(), height + below
    # The salt makes ids differ between plots, but not between runs.
    settings: Any = {**STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH, whole))
        bottom = below + (BOTTOM if below else BOTTOM / 2)  # a plot without a legend has no label under its axis either
        box = (left / WIDTH, bottom / whole, 1 - (left + RIGHT) / WIDTH, 1 - (bottom + TOP) / whole)
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
