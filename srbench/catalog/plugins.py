"""Finds methods, scorers and attacks, and reads their literal metadata without importing them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from srbench.catalog.contracts import GUIDE, check
from srbench.catalog.resolve import entry_points
from srbench.errors import ForeignError, UsageError, did_you_mean
from srbench.faults import contained, module_of, place_of
from srbench.files import printable, read_bytes

KINDS = {"methods": "METHOD", "scorers": "SCORER", "attacks": "ATTACK"}
DECORATORS = {"methods": "@base.method(METHOD)", "scorers": "@base.scorer(SCORER)", "attacks": "@base.register(ATTACK)"}
PACKAGE = Path(__file__).resolve().parent.parent
LARGEST_FILE = 2**24
"""Bytes of a plug-in's module."""
PARTS = {
    "inference": ("Options", "prepare", "applied"),
    "weight": ("Options", "erase"),
    "image": ("Options", "identity", "score"),
    "pair": ("Options", "identity", "score"),
    "set": ("Options", "identity", "features", "reduce"),
    "attacks": ("Settings", "attack"),
}
"""Kind of plug-in -> attributes that its registered class must have."""


@dataclass(frozen=True)
class Plugin:
    """A module and the literal dict it declares."""

    module: str
    meta: dict[str, Any]


@dataclass(frozen=True)
class LeftOut:
    """A plug-in that cannot be used, and why; the others still work."""

    names: frozenset[str]
    """Names that a user may type for it: its entry point, module, name and presets, as far as they can be read."""
    error: UsageError


@dataclass(frozen=True)
class Read:
    """All plug-ins of a kind."""

    plugins: dict[str, Plugin]
    left_out: tuple[LeftOut, ...]
    contested: dict[str, UsageError]
    """Names that two plug-ins claim, and the error for whatever uses them: which of the two is meant cannot be known."""


SESSION = "this session"
"""In place of a module: for plug-ins registered in this process, such as in a notebook."""
_SESSION: dict[str, dict[str, tuple[Plugin, type]]] = {kind: {} for kind in KINDS}
_LEFT_OUT: list[LeftOut] = []
"""Of all kinds read so far."""


# --- one file ---------------------------------------------------------------------------------------------------------


def literal(path: Path, variable: str) -> Any:
    """The value assigned to `variable` at a module's top level, or None where there is none.

    Raises `UsageError` for a file that cannot be read or is not Python, for a value that is not a literal, and where there is
    more than one.
    """
    found = []
    for node in _statements(path, variable):
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        if any(isinstance(target, ast.Name) and target.id == variable for target in targets):
            found.append(value)
    if len(found) > 1:
        lines = " and ".join(str(value.lineno) for value in found[:2])
        raise UsageError(f"{variable} in {path}: it is assigned twice (lines {lines})", "Keep one of them.")
    return _written_out(found[0], f"{variable} in {path}") if found else None


def _statements(path: Path, variable: str) -> list[ast.stmt]:
    data = read_bytes(path, "Reinstall or remove the plug-in.", LARGEST_FILE)
    if variable.encode() not in data:  # most files of a room are no plug-ins: parsing them would be the most of `srbench list`
        return []
    try:
        return ast.parse(data, path.name).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UsageError(f"{path}: not Python ({printable(str(error).splitlines()[0])}{line})", "Mend the plug-in.") from error


def _written_out(value: ast.expr, where: str) -> Any:
    try:
        read_out = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        hint = "It is read without importing the module: write every value out."
        raise UsageError(f"{where} (line {value.lineno}): not a literal", hint) from error
    for node in ast.walk(value):
        keys = [key for key in node.keys if isinstance(key, ast.Constant)] if isinstance(node, ast.Dict) else []
        for number, key in enumerate(keys):
            if any(key.value == before.value for before in keys[:number]):
                problem = f"key '{printable(str(key.value))}' is there twice"
                raise UsageError(f"{where} (line {key.lineno}): {problem}", "Keep one of them.")
    return read_out


# --- all of them ------------------------------------------------------------------------------------------------------


def _own_files(kind: str) -> dict[str, Path]:
    files = {f"srbench.{kind}.{p.stem}": p for p in (PACKAGE / kind).glob("*.py") if p.stem != "__init__"}
    packages = {f"srbench.{kind}.{p.parent.name}": p for p in (PACKAGE / kind).glob("*/__init__.py")}
    return files | packages


def _foreign_entries(kind: str) -> list[tuple[str, str]]:
    """(entry point, module) of every installed plug-in, without duplicates."""
    entries = entry_points(f"srbench.{kind}")
    # Not `entry.module`, which raises where the value is not well-formed: one such package would end every command.
    return sorted({(entry.name, entry.value.split(":")[0].split("[")[0].strip()) for entry in entries})


def file_of(module: str) -> Path:
    """The file of a module, found without importing anything. Raises `UsageError` where there is none."""
    hint = "Reinstall or remove it."
    try:
        first, *rest = module.split(".")
        spec, name = importlib.util.find_spec(first), first
        for part in rest:  # find_spec of a dotted name would import the parent package
            name = f"{name}.{part}"
            spec = PathFinder.find_spec(name, spec.submodule_search_locations) if spec else None
    except (ImportError, ValueError, AttributeError) as error:
        raise UsageError(f"module {module} cannot be found ({error})", hint) from error
    if spec is None or not spec.has_location or spec.origin is None or not spec.origin.endswith(".py"):
        raise UsageError(f"module {module} cannot be found, or is not a Python file", hint)
    return Path(spec.origin)


@cache
def read(kind: str) -> Read:
    """Plug-ins of a kind (`methods`, `scorers`, `attacks`): srbench's own, installed ones, and those of this session.

    Where two claim one name, preset or metric, an installed one is left out, and the name is contested. Raises `UsageError` only
    where srbench's own or those of this session do.
    """
    by_name: dict[str, Plugin] = {}
    left_out: list[LeftOut] = []
    for module, path in sorted(_own_files(kind).items()):
        meta = literal(path, KINDS[kind])
        if meta is not None:
            _add(by_name, Plugin(module, check(kind, meta, f"{KINDS[kind]} in {path}")), kind)
    own, installed = list(by_name.values()), dict[str, Plugin]()
    for entry, module in _foreign_entries(kind):
        if any(plugin.module == module for plugin in (*own, *installed.values())):
            continue  # a second entry point of the same module
        plugin = _foreign(kind, entry, module)
        if isinstance(plugin, Plugin):
            installed[f"{entry} = {module}"] = plugin
        else:
            left_out.append(plugin)
    contested: dict[str, UsageError] = {}
    for entry, plugin in installed.items():
        clashes = _clashes(kind, plugin, [*own, *installed.values()])
        contested |= clashes
        if clashes:
            error = next(iter(clashes.values()))
            left_out.append(LeftOut(_names(entry.split(" = ")[0], plugin.module, plugin.meta), error))
        else:
            by_name[plugin.meta["name"]] = plugin
    for plugin, _ in _SESSION[kind].values():
        _add(by_name, plugin, kind)
    _LEFT_OUT.extend(left_out)
    return Read(dict(sorted(by_name.items())), tuple(left_out), contested)


def register(kind: str, cls: type) -> None:
    """Register a class under `cls.meta` for the rest of this process, as if it were an installed plug-in.

    It replaces a class registered before under the same name. Raises `UsageError` where the metadata or the class is
    incomplete, or where another plug-in has its name, a preset or a metric.
    """
    where = f"{KINDS[kind]} of {cls.__qualname__}"
    meta = check(kind, getattr(cls, "meta", None), where)
    plugin = Plugin(SESSION, meta)
    check_parts(kind, plugin, cls)
    before = _SESSION[kind].pop(meta["name"], None)
    forget()
    try:
        for _, name in sorted(_claims(plugin)):
            _check_uncontested(kind, name)
        _add(dict(plugins(kind)), plugin, kind)
    except UsageError:
        if before is not None:
            _SESSION[kind][meta["name"]] = before
            forget()
        raise
    cls.meta = meta  # type: ignore[attr-defined]  # any class that is registered
    _SESSION[kind][meta["name"]] = (plugin, cls)
    forget()


def unregister(kind: str, name: str) -> None:
    """Undo `register` for a name."""
    _SESSION[kind].pop(name, None)
    forget()


def forget() -> None:
    """Clear the caches, so that plug-ins are read again."""
    _LEFT_OUT.clear()
    read.cache_clear()
    presets.cache_clear()


def _clashes(kind: str, plugin: Plugin, others: Iterable[Plugin]) -> dict[str, UsageError]:
    """Names that a plug-in and one of the others claim -> the error. Of a metric, also the name of the other one."""
    clashes: dict[str, UsageError] = {}
    for other in others:
        common = sorted(_claims(plugin) & _claims(other)) if other is not plugin else []
        for what, name in common:
            first, second = sorted([plugin.module, other.module], key=lambda module: (not module.startswith("srbench."), module))
            error = UsageError(f"{kind}: {what} '{name}' is declared by {first} and {second}", "Remove one of the two.")
            clashes |= {name: error, **({other.meta["name"]: error} if what == "metric" else {})}
    return clashes


def _check_uncontested(kind: str, *names: str) -> None:
    """Raise `UsageError` where two plug-ins claim one of these names."""
    for name in names:
        if name in read(kind).contested:
            raise read(kind).contested[name]


def _add(by_name: dict[str, Plugin], new: Plugin, kind: str) -> None:
    """Add a plug-in to `by_name`. Raises `UsageError` where its name, a preset or a metric is taken."""
    for other in by_name.values():
        for what, name in sorted(_claims(new) & _claims(other)):
            raise UsageError(f"{kind}: {what} '{name}' is declared by {other.module} and {new.module}", "Remove one of the two.")
    by_name[new.meta["name"]] = new


def _claims(plugin: Plugin) -> set[tuple[str, str]]:
    """(what, name) of everything that only one plug-in may be called."""
    presets, metrics = plugin.meta.get("presets", {}), plugin.meta.get("metrics", {})
    return {("name", plugin.meta["name"]), *(("preset", each) for each in presets), *(("metric", each) for each in metrics)}


def _foreign(kind: str, entry: str, module: str) -> Plugin | LeftOut:
    meta: Any = None
    try:
        path = file_of(module)
        meta = literal(path, KINDS[kind])
        if meta is None:
            raise UsageError(f"{path}: no {KINDS[kind]} in it", f"Write {KINDS[kind]} = {{...}} at the module's top level.")
        return Plugin(module, check(kind, meta, f"{KINDS[kind]} in {path}"))
    except UsageError as error:
        return LeftOut(_names(entry, module, meta), UsageError(f"plug-in '{printable(entry)}': {error.message}", error.hint))


def _names(entry: str, module: str, meta: Any) -> frozenset[str]:
    metadata = meta if isinstance(meta, dict) else {}
    presets = metadata.get("presets")
    names = [entry, module, metadata.get("name"), *(presets if isinstance(presets, dict) else ())]
    return frozenset(name for name in names if isinstance(name, str))


def plugins(kind: str) -> dict[str, Plugin]:
    """Plug-ins of a kind by name. Raises `UsageError` as `read` does."""
    return read(kind).plugins


def left_out() -> list[str]:
    """A line for each plug-in left out, of the kinds read so far."""
    return list(dict.fromkeys(f"left out: {each.error.line}" for each in _LEFT_OUT))  # of two that clash, one line


def known(kind: str, name: str) -> Plugin:
    """A plug-in by name. Raises `UsageError` with the closest name, or with the reason why the plug-in cannot be used."""
    _check_uncontested(kind, name)
    if name not in plugins(kind):
        raise _unknown(kind, name, plugins(kind))
    return plugins(kind)[name]


def _unknown(kind: str, name: str, names: Iterable[str]) -> UsageError:
    """The error for an unknown name: why its plug-in was left out, else the closest of `names`."""
    for plugin in read(kind).left_out:
        if name in plugin.names:
            return plugin.error
    return UsageError(f"unknown {kind.removesuffix('s')} '{name}'", did_you_mean(name, names))


@cache
def presets() -> dict[str, tuple[str, dict[str, Any]]]:
    """CLI name of a method -> (method name, option values)."""
    return {
        preset: (name, dict(values))
        for name, plugin in plugins("methods").items()
        for preset, values in plugin.meta["presets"].items()
    }


def preset(name: str) -> tuple[str, dict[str, Any]]:
    """Method and option values behind a CLI name. Raises `UsageError` with the closest name, or where two claim the name."""
    if name not in presets():
        raise _unknown("methods", name, presets())
    _check_uncontested("methods", name, presets()[name][0])
    return presets()[name]


def values(name: str, family: str, kind: str) -> dict[str, Any]:
    """A preset's option values for a kind of concept on a backbone family.

    Values fitted on the family's dev editions override the preset's: `METHOD["fitted"][family][preset][kind]`.
    """
    method, options = preset(name)
    fitted = plugins("methods")[method].meta.get("fitted", {})
    return options | fitted.get(family, {}).get(name, {}).get(kind, {})


def load(kind: str, name: str) -> Any:
    """Import a plug-in's module and return the registered class.

    Raises `UsageError` with the closest name, and `ForeignError` where the module cannot be imported or registers something
    other than its file declares.
    """
    plugin = known(kind, name)
    if plugin.module == SESSION:
        return _SESSION[kind][name][1]
    with contained(f"{kind.removesuffix('s')} '{name}': module {plugin.module} cannot be imported", plugin.module):
        importlib.import_module(plugin.module)
    cls = importlib.import_module(f"srbench.{kind}.base").REGISTRY.get(name)
    if cls is None:
        problem = f"{file_of(plugin.module)}: nothing is registered under its name '{name}'"
        raise ForeignError(problem, f"Put `{DECORATORS[kind]}` above its class.")
    if not _within(module_of(cls), plugin.module):
        problem = f"'{name}' of {plugin.module}: a class of {module_of(cls)} is registered under its name"
        raise ForeignError(problem, "Remove one of the two.")
    difference = _difference(kind, plugin.meta, cls.meta)
    if difference:
        problem = f"{place_of(cls)}: what it registers as '{name}' is not what its file declares ({difference})"
        raise ForeignError(problem, f"Write `{DECORATORS[kind]}`, and leave {KINDS[kind]} as it is written.")
    cls.meta = plugin.meta
    check_parts(kind, plugin, cls)
    return cls


def check_parts(kind: str, plugin: Plugin, cls: Any) -> None:
    """Raise `ForeignError` where a class lacks an attribute that its contract requires (`PARTS`), or its options do not fit."""
    name = plugin.meta["name"]
    lacking = [each for each in PARTS[plugin.meta.get("kind", kind)] if not callable(getattr(cls, each, None))]
    if lacking:
        raise ForeignError(f"{place_of(cls)}: '{name}' has no {lacking[0]}", f"Add it to its class. {GUIDE}")
    part = "Settings" if kind == "attacks" else "Options"
    options, base = getattr(cls, part), getattr(importlib.import_module(f"srbench.{kind}.base"), part)
    where = place_of(options if module_of(options) == module_of(cls) else cls)
    if not (isinstance(options, type) and issubclass(options, base)):
        problem = f"{where}: {part} of '{name}' does not derive from base.{part}"
        raise ForeignError(problem, f"Write `class {part}(base.{part}):`.")
    fields = options.model_fields  # type: ignore[attr-defined]  # each `base` is a pydantic model
    without = [each for each, field in fields.items() if field.is_required()]
    if without:
        problem = f"{where}: option '{without[0]}' of '{name}' has no default"
        raise ForeignError(problem, f"Give every option of `{part}` a default.")
    absent = [each for each in ("seed", "parallel") if kind == "attacks" and each not in fields]
    if absent:
        raise ForeignError(f"{where}: {part} of '{name}' has no `{absent[0]}`", f"Every attack needs it. {GUIDE}")


def _difference(kind: str, declared: dict[str, Any], registered: Any) -> str:
    """The first key in which registered metadata is not what the file declares, with both values; empty where there is none."""
    try:
        filled = check(kind, registered, "it")
    except UsageError as error:
        return error.message
    for key in sorted({*declared, *filled}):
        if declared.get(key) != filled.get(key):
            return printable(f"key '{key}' is {filled.get(key)!r:.80}, and {declared.get(key)!r:.80} in {KINDS[kind]}")
    return ""


def _within(module: str, declared: str) -> bool:
    """Whether a class's module belongs to the plug-in: to its module, or for an installed plug-in to its package."""
    shipped = declared.startswith("srbench.")
    return module == declared or module.startswith(f"{declared if shipped else declared.split('.')[0]}.")
