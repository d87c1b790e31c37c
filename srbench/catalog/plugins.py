"""Finds methods, scorers and attacks, and reads their literal metadata without importing them."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from srbench.errors import UsageError, did_you_mean

KINDS = {"methods": "METHOD", "scorers": "SCORER", "attacks": "ATTACK"}
PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Plugin:
    """A module and the literal dict it declares."""

    module: str
    meta: dict[str, Any]


def literal(path: Path, variable: str) -> dict[str, Any] | None:
    """The dict literal assigned to `variable` at a module's top level, or None where there is none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == variable for t in node.targets):
            return ast.literal_eval(node.value)
    return None


def _own_files(kind: str) -> dict[str, Path]:
    files = {f"srbench.{kind}.{p.stem}": p for p in (PACKAGE / kind).glob("*.py") if p.stem != "__init__"}
    packages = {f"srbench.{kind}.{p.parent.name}": p for p in (PACKAGE / kind).glob("*/__init__.py")}
    return files | packages


def _foreign_files(kind: str) -> dict[str, Path]:
    found = {}
    for entry in importlib.metadata.entry_points(group=f"srbench.{kind}"):
        spec = importlib.util.find_spec(entry.module)
        if spec is None or spec.origin is None:
            raise UsageError(f"plug-in '{entry.name}': module {entry.module} cannot be found", "Reinstall or remove it.")
        found[entry.module] = Path(spec.origin)
    return found


@cache
def plugins(kind: str) -> dict[str, Plugin]:
    """Plug-ins of a kind (`methods`, `scorers`, `attacks`) by name. Raises `UsageError` where a name is taken twice."""
    found: dict[str, Plugin] = {}
    for module, path in sorted((_own_files(kind) | _foreign_files(kind)).items()):
        meta = literal(path, KINDS[kind])
        if meta is None:
            continue
        if meta["name"] in found:
            raise UsageError(f"{kind}: '{meta['name']}' is declared by {found[meta['name']].module} and {module}", "Remove one.")
        found[meta["name"]] = Plugin(module, meta)
    return dict(sorted(found.items()))


@cache
def presets() -> dict[str, tuple[str, dict[str, Any]]]:
    """CLI name of a method -> (method name, option values)."""
    return {
        preset: (name, dict(values))
        for name, plugin in plugins("methods").items()
        for preset, values in plugin.meta["presets"].items()
    }


def preset(name: str) -> tuple[str, dict[str, Any]]:
    """Method and option values behind a CLI name. Raises `UsageError` with the closest name."""
    if name not in presets():
        raise UsageError(f"unknown method '{name}'", did_you_mean(name, presets()))
    return presets()[name]


def values(name: str, family: str, kind: str) -> dict[str, Any]:
    """A preset's option values for a kind of concept on a backbone family.

    Those fitted on the family's dev editions come last: `METHOD["fitted"][family][preset][kind]`, where there are any.
    """
    method, given = preset(name)
    fitted = plugins("methods")[method].meta.get("fitted", {})
    return given | fitted.get(family, {}).get(name, {}).get(kind, {})


def load(kind: str, name: str) -> Any:
    """Import a plug-in's module and return the registered class. Raises `UsageError` with the closest name."""
    known = plugins(kind)
    if name not in known:
        raise UsageError(f"unknown {kind.removesuffix('s')} '{name}'", did_you_mean(name, known))
    importlib.import_module(known[name].module)
    registry = importlib.import_module(f"srbench.{kind}.base").REGISTRY
    return registry[name]
