"""`srbench list`: what exists, read from literal metadata and YAML; no plug-in is imported."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

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


class Line(NamedTuple):
    """One name as a terminal shows it."""

    name: str
    text: str
    group: str = ""
    """What it stands below."""


NARROWEST, WIDEST = 60, 120
"""Characters a line, whatever the terminal says; in a pipe the second."""
FIRST = "here, first editions, whose rows stay as they were"
GROUPS = {"inference": "while sampling (--method)", "weight": "as checkpoints (--on; --method is short for none on it)"}


def _method_lines(paper: bool) -> list[Line]:
    """Presets by what they are, those of one method on one line."""
    presets: dict[str, list[str]] = {}
    for preset, (name, _) in sorted(plugins.presets().items()):
        presets.setdefault(name, []).append(preset)
    lines = []
    for name, members in presets.items():
        meta = plugins.plugins("methods")[name].meta
        source = f" [{meta['paper'] or 'no paper'}]" if paper else ""
        lines.append(Line(", ".join(sorted(members, key=len)), meta["title"] + source, GROUPS[meta["kind"]]))
    return lines


def _suite_lines() -> list[Line]:
    """Suites of which an edition is here first; each with its editions by family."""
    lines = []
    for name, suite in load.suites().items():
        editions = [each for each in suite.editions if each.part == "test"]
        here = [each for each in editions if sources.at_hand(suite, each)]
        away = [each for each in editions if each not in here]
        parts = [suite.title, *([_editions(here)] if here else []), *([f"not here: {_editions(away)}"] if away and here else [])]
        parts += [_editions(away)] if away and not here else []
        group = "not here (srbench fetch --suite NAME)" if not here else "here" if not name.endswith("-v1") else FIRST
        lines.append(Line(name, "; ".join(parts[group == FIRST :]), group))
    return lines


def _editions(editions: Sequence[Edition]) -> str:
    """Family with its concepts and their rows."""
    families: dict[str, list[str]] = {}
    for each in editions:
        families.setdefault(each.family, []).append(f"{each.concept} {each.rows}")
    return "; ".join(f"{family}: {', '.join(concepts)}" for family, concepts in families.items())


def _baseline_lines() -> list[Line]:
    return [
        Line(name, spec.title, "here" if places.at_hand(spec) else "not here (srbench fetch --on NAME)")
        for name, spec in load.baselines().items()
    ]


def _protocol_lines() -> list[Line]:
    return [
        Line(name, f"{each.title}: {each.cannot}" if each.cannot else each.title, "cannot be applied" if each.cannot else "")
        for name, each in load.protocols().items()
    ]


def lines_of(kind: str, paper: bool = False) -> list[Line]:
    """What a terminal shows of a kind, in groups; what is here, or can be used, comes first."""
    if kind == "methods":
        lines = _method_lines(paper)
    elif kind in OF_TERMINAL:
        lines = OF_TERMINAL[kind]()
    else:
        lines = [Line(name, title) for name, title in KINDS[kind]().items()]
    order = [*GROUPS.values(), "here", FIRST, ""]
    return sorted(lines, key=lambda line: order.index(line.group) if line.group in order else len(order))


def wrapped(lines: Sequence[Line], width: int) -> Iterator[str]:
    """The lines for so many characters: names on the left, or above their text where they are long."""
    indent = min(max((len(line.name) for line in lines), default=0), width // 3)
    group = ""
    for line in lines:
        if line.group != group:
            group = line.group
            yield f"  {group}:"
        head, text = f"    {line.name}", line.text
        if len(line.name) > indent:
            yield from textwrap.wrap(line.name, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
            head = ""
        margin = " " * (6 + indent)
        body = textwrap.wrap(text, max(20, width - len(margin)), break_on_hyphens=False) or [""]
        yield f"{head:<{len(margin)}}{body[0]}".rstrip()
        yield from (f"{margin}{more}" for more in body[1:])


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


OF_TERMINAL: dict[str, Callable[[], list[Line]]] = {
    "suites": _suite_lines, "baselines": _baseline_lines, "protocols": _protocol_lines,
}  # fmt: skip
"""Kinds with groups of their own, beside methods."""


def show(kind: str | None, as_json: bool, paper: bool = False) -> int:
    """Print names with what they are, of one kind or of all. paper: methods with their papers."""
    if kind is not None and kind not in KINDS:
        raise UsageError(f"there is no kind '{kind}'", did_you_mean(kind, KINDS))
    if paper and kind != "methods":
        raise UsageError("--paper is for methods", "srbench list methods --paper")
    kinds = [kind] if kind else list(KINDS)
    dangling = chain.from_iterable(load.dangling(name) for name in kinds if name in load.KINDS)
    for line in dict.fromkeys(error.line for error in dangling):
        if f"left out: {line}" not in load.left_out():  # that is said when the command ends
            console.say(line)
    if as_json:
        console.write_json({name: KINDS[name]() for name in kinds})
        return 0
    width = min(max(shutil.get_terminal_size((WIDEST, 1)).columns, NARROWEST), WIDEST)
    for number, name in enumerate(kinds):
        if number:
            console.line("")
        console.line(name)
        lines = lines_of(name, paper)
        for text in wrapped(lines, width):
            console.line(text)
        if not lines:
            console.line("  (none yet)")
    return 0
