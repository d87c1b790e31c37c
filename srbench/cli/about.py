"""`srbench show method NAME`: what a method is, its equation, its presets, where it fails, and every option with its meaning."""

from __future__ import annotations

import ast
import inspect
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from srbench.analysis.costs import costs
from srbench.analysis.origin import backbone_text
from srbench.analysis.results import ResultCell
from srbench.analysis.weakest import Weakest, weakest
from srbench.catalog import plugins
from srbench.cli import console
from srbench.errors import UsageError, did_you_mean
from srbench.results.records import silent
from srbench.results.run_files import committed, newest
from srbench.tables.costs import added_of
from srbench.tables.numbers import NOT_RESOLVED, Shown, digits

KINDS = ("method", "attack", "scorer")
WIDEST = 110
POCKET = "pocket"
"""The bundled backbone."""
HARD = "pocket-hard"
"""The folder of summaries in which every method of the headline table met pocket's harder suites."""
WORST = (
    "Of each concept the worst rate of forgetting, and of what stays the one furthest from none's (harm: from 0). What they are: "
    "docs/reading-tables.md."
)
_BOUNDS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}


def show(kind: str, name: str, results: Path) -> int:
    """Print what a method, an attack or a scorer is, and what it cost in a results folder.

    Raises `UsageError` for a name that there is not.
    """
    plural = f"{kind}s"
    if kind == "method" and name in plugins.presets():
        plugin, preset = plugins.preset(name)[0], name
    elif name in plugins.plugins(plural):
        plugin, preset = name, ""
    else:
        known = plugins.presets() if kind == "method" else plugins.plugins(plural)
        raise UsageError(f"there is no {kind} '{name}'", did_you_mean(name, known))
    width = min(shutil.get_terminal_size((WIDEST, 1)).columns, WIDEST)
    for line in _lines(plural, plugin, preset, results, max(width, 60)):
        console.line(line)
    return 0


def _lines(plural: str, plugin: str, preset: str, results: Path, width: int) -> Iterator[str]:
    meta, cls = plugins.plugins(plural)[plugin].meta, plugins.load(plural, plugin)
    yield f"{preset or plugin}: {meta['title']}"
    if meta.get("paper"):
        yield f"paper: {meta['paper']} (https://arxiv.org/abs/{meta['paper']})"
    if plural == "methods":
        yield from _of_method(meta, preset, results)
        if {POCKET, "*"} & set(meta["families"]):
            yield from _failing([preset] if preset else list(meta["presets"]), results, width)
    kind: type[BaseModel] = cls.Settings if hasattr(cls, "Settings") else cls.Options
    values = plugins.presets()[preset][1] if preset else {}
    described = list(options(kind, values))
    if not described:
        yield "no options"
        return
    yield ""
    yield f"options (--set {'' if plural == 'attacks' else f'{preset or plugin}.'}OPTION=VALUE):"
    for head, text in described:
        yield f"  {head}"
        yield from textwrap.wrap(text, width, initial_indent="      ", subsequent_indent="      ")


def _of_method(meta: dict[str, Any], preset: str, results: Path) -> Iterator[str]:
    """Where a method acts, which backbones it takes, its presets, and what it cost in a folder's results."""
    if meta.get("equation"):
        yield "equation:"
        yield from (f"  {line}" for line in meta["equation"])
    yield "acts while sampling (--method)" if meta["kind"] == "inference" else "makes a checkpoint (--on, srbench erase)"
    families = ["any" if family == "*" else family for family in meta["families"]]
    yield f"backbones: {', '.join(families)}"
    if preset and preset in meta.get("published", []):
        yield "constants: published, on pocket too"
    if preset and preset in meta.get("unfitted", []):
        yield "constants on pocket: scaled from the published ones, fitted to no rows"
    for name, changes in meta["presets"].items():
        yield f"preset {name}: {', '.join(settings(changes)) or 'the defaults'}"
    names = [preset] if preset else list(meta["presets"])
    for family, of_presets in meta.get("fitted", {}).items():
        for name in names:
            for kind, changes in of_presets.get(name, {}).items():
                of = f"{name} on {family}" if len(names) > 1 else f"on {family}"
                yield f"{of}, for {kind}s: {', '.join(settings(changes))}"
    cells = newest(results, console.say) if results.is_dir() else []
    for cost in costs([cell for cell in cells if not cell.variant]):
        if cost.method in names:
            prepared = [] if cost.prepare_seconds is None else [f"{cost.prepare_seconds:.1f} s to make"]
            said = ", ".join([*prepared, *_added(added_of(cost)), f"{cost.cells} cell{'s' if cost.cells != 1 else ''}"])
            yield f"cost of {cost.method} on {cost.backbone}, {cost.source}: {said}"


def _added(time: Shown | None) -> list[str]:
    """What a method adds to an image's time, in words."""
    if time is None:
        return []
    return [f"added time not resolved ({time.interval})" if time.value == NOT_RESOLVED else f"{time.value} ms an image more"]


def _failing(names: Sequence[str], results: Path, width: int) -> Iterator[str]:
    """For each concept where a method does worst on pocket, from committed results."""
    methods = [name for name in names if name != "none"]
    places = committed(results, silent) if results.is_dir() else {}
    absent = []
    for name in methods:
        place, cells = _newest(name, places)
        if not cells:
            absent.append(name)
            continue
        yield ""
        yield f"where {name} fails on {backbone_text(cells[0])}, from {results / place}, in percent:"
        found = weakest(name, cells)
        for concept in dict.fromkeys(each.concept for each in found):
            yield f"  {concept}: {'; '.join(_rate(each) for each in found if each.concept == concept)}"
        if not found:
            yield "  nowhere: no rate is short of perfect"
    if len(absent) < len(methods):
        yield from textwrap.wrap(WORST, width)
    if absent:
        yield ""
        yield f"where it fails on pocket: {results} has no committed result of {', '.join(absent)}"


def _newest(name: str, places: Mapping[str, Sequence[ResultCell]]) -> tuple[str, list[ResultCell]]:
    """The folder and the cells of the backbone there, `none`'s too, that a method is judged by: `HARD`, else the newest run."""
    of_pocket = {place: [cell for cell in cells if cell.backbone == POCKET] for place, cells in places.items()}
    own = [(place == HARD, cell.run, place, cell) for place, cells in of_pocket.items() for cell in cells
           if cell.label == name and not cell.variant]  # fmt: skip
    if not own:
        return "", []
    _, _, place, newest_cell = max(own, key=lambda each: each[:3])
    return place, [cell for cell in of_pocket[place] if backbone_text(cell) == backbone_text(newest_cell)]


def _rate(each: Weakest) -> str:
    metric = each.metric
    counted = f"n {metric.n}" if metric.scored in (0, metric.n) else f"n {metric.scored}/{metric.n}"
    beside = "" if each.none is None else f", none {digits(each.none)}"
    return f"{each.name} {digits(metric.value or 0.0)} on {each.suite} ({counted}{beside})"


def settings(values: Mapping[str, Any]) -> list[str]:
    """`OPTION=VALUE` each; a text with blanks, or none in it, is in quotes."""
    return [f"{name}={_plain(value)}" for name, value in values.items()]


def _plain(value: Any) -> str:
    return repr(value) if isinstance(value, str) and (not value or " " in value) else str(value)


def options(kind: type[BaseModel], values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each option with its value and range, and what its docstring says. values: a preset's own."""
    said = _docstrings(kind)
    for name, field in kind.model_fields.items():
        default = values.get(name, field.get_default(call_default_factory=True))
        yield f"{name} = {default!r}{_range(field)}", said.get(name, "")


def _range(field: FieldInfo) -> str:
    """The values that an option takes, as far as its type says."""
    choices = [each for each in get_args(field.annotation) if isinstance(each, str)]
    if choices and all(isinstance(each, str) for each in get_args(field.annotation)):
        return f"  ({', '.join(choices)})"
    bounds = [
        f"{word} {getattr(each, name)}" for each in field.metadata for name, word in _BOUNDS.items() if hasattr(each, name)
    ]  # fmt: skip
    return f"  ({', '.join(bounds)})" if bounds else ""


def _docstrings(kind: type[BaseModel]) -> dict[str, str]:
    """Option -> the text that stands below it in its class, or in the class that it is inherited from."""
    found: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        if not (issubclass(cls, BaseModel) and cls is not BaseModel):
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        except (OSError, TypeError, SyntaxError):
            continue  # of a session, or compiled
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                found[field.target.id] = " ".join(ast.literal_eval(text.value).split())  # type: ignore[attr-defined]  # as checked
    return found


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
