"""`srbench list`: what exists, read from literal metadata and YAML; no plug-in is imported."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from srbench.backbones import places
from srbench.catalog import load, plugins, sources
from srbench.catalog.specs import Edition, SuiteSpec
from srbench.cli import console
from srbench.errors import UsageError, did_you_mean

Entries = dict[str, str]


def _methods() -> Entries:
    metas = {name: plugin.meta for name, plugin in plugins.plugins("methods").items()}
    return {
        preset: _with_options(f"[{metas[name]['kind']}] {metas[name]['title']}", values)
        for preset, (name, values) in sorted(plugins.presets().items())
    }


def _with_options(title: str, values: dict[str, Any]) -> str:
    options = ", ".join(f"{k}={v}" for k, v in values.items())
    return f"{title} ({options})" if options else title


def _suites() -> Entries:
    entries = {}
    for name, suite in load.suites().items():
        editions = ", ".join(_edition(suite, each) for each in suite.editions if each.part == "test")
        entries[name] = f"{suite.title} [{editions}]"
    return entries


def _edition(suite: SuiteSpec, edition: Edition) -> str:
    """Family, concept and rows, and whether the prompts are not on this machine."""
    return f"{edition.family}/{edition.concept} {edition.rows}{'' if sources.at_hand(suite, edition) else ' (not here)'}"


def _baselines() -> Entries:
    entries = {}
    for name, spec in load.baselines().items():
        fetch = places.command(spec) or spec.source
        entries[name] = f"{spec.title} [{'here' if places.at_hand(spec) else f'not here: {fetch}'}]"
    return entries


def _protocols() -> Entries:
    return {name: f"[cannot be applied] {p.title}: {p.cannot}" if p.cannot else p.title for name, p in load.protocols().items()}


def _plugin_titles(kind: str) -> Callable[[], Entries]:
    return lambda: {name: plugin.meta["title"] for name, plugin in plugins.plugins(kind).items()}


def _spec_titles(specs: Callable[[], dict[str, Any]]) -> Callable[[], Entries]:
    return lambda: {name: spec.title for name, spec in specs().items()}


KINDS: dict[str, Callable[[], Entries]] = {
    "methods": _methods,
    "suites": _suites,
    "concepts": _spec_titles(load.concepts),
    "backbones": _spec_titles(load.backbones),
    "scorers": _plugin_titles("scorers"),
    "protocols": _protocols,
    "attacks": _plugin_titles("attacks"),
    "baselines": _baselines,
    "layouts": _spec_titles(load.layouts),
}


def show(kind: str | None, as_json: bool) -> int:
    """Print names with a line each, of one kind or of all."""
    if kind is not None and kind not in KINDS:
        raise UsageError(f"there is no kind '{kind}'", did_you_mean(kind, KINDS))
    by_kind = {name: KINDS[name]() for name in ([kind] if kind else KINDS)}
    dangling = chain.from_iterable(load.dangling(name) for name in by_kind if name in load.KINDS)
    for line in dict.fromkeys(error.line for error in dangling):
        if f"left out: {line}" not in load.left_out():  # that is said when the command ends
            console.say(line)
    if as_json:
        console.write_json(by_kind)
        return 0
    for name, entries in by_kind.items():
        console.line(name)
        width = max(map(len, entries), default=0)
        for entry, title in entries.items():
            console.line(f"  {entry:<{width}}  {title}")
        if not entries:
            console.line("  (none yet)")
    return 0
