"""`srbench show method NAME`: what a method is, its presets, and every option with its default, range and meaning."""

from __future__ import annotations

import ast
import inspect
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from srbench.analysis.costs import costs
from srbench.catalog import plugins
from srbench.cli import console
from srbench.errors import UsageError, did_you_mean
from srbench.results.run_files import newest
from srbench.tables.costs import added_of

KINDS = ("method", "attack", "scorer")
WIDEST = 110
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
    yield "acts while sampling (--method)" if meta["kind"] == "inference" else "makes a checkpoint (--on, srbench erase)"
    families = ["any" if family == "*" else family for family in meta["families"]]
    yield f"backbones: {', '.join(families)}"
    if preset and preset in meta.get("published", []):
        yield "constants: published, on pocket too"
    if preset and preset in meta.get("unfitted", []):
        yield "constants on pocket: scaled from the published ones, fitted to no rows"
    for name, changes in meta["presets"].items():
        said = ", ".join(f"{key}={value}" for key, value in changes.items()) or "the defaults"
        yield f"preset {name}: {said}"
    names = [preset] if preset else list(meta["presets"])
    for family, of_presets in meta.get("fitted", {}).items():
        for name in names:
            for kind, changes in of_presets.get(name, {}).items():
                yield f"on {family}, for {kind}s: {', '.join(f'{key}={value}' for key, value in changes.items())}"
    cells = newest(results, console.say) if results.is_dir() else []
    for cost in costs([cell for cell in cells if not cell.variant]):
        if cost.method in names:
            added = added_of(cost)
            prepared = "" if cost.prepare_seconds is None else f"{cost.prepare_seconds:.1f} s to make, "
            time = "" if added is None else f"{added.value} ms an image more, "
            yield f"cost of {cost.method} on {cost.backbone}, {cost.source}: {prepared}{time}{cost.cells} cells"


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
