"""`srbench run --sweep METHOD.OPTION=V1,V2,...`: one plan that holds a variant for each value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from srbench.backbones.loader import Backbone
from srbench.catalog import load, plugins
from srbench.catalog.settings import shown
from srbench.engine.plan import Cell, RunRequest, plan
from srbench.engine.prepare import options_of
from srbench.errors import ForeignError, UsageError, did_you_mean
from srbench.methods.base import Tell, quiet

EXAMPLE = "Example: --sweep saferedir.alpha_scale=0.5,1,2"
NONE = ("none", "none")
"""Method and checkpoint of the untouched backbone."""


@dataclass(frozen=True)
class Sweep:
    """An option with the values that it is to have in turn."""

    method: str
    """A preset, or a method for all of its presets."""
    option: str
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """As `--set` names it."""
        return f"{self.method}.{self.option}"

    @property
    def settings(self) -> tuple[str, ...]:
        """One `--set` for each value."""
        return tuple(f"{self.name}={value}" for value in self.values)


def parsed(text: str) -> Sweep:
    """What was typed. Raises `UsageError` for another form, an empty value, a single one, or an unknown method."""
    match = re.fullmatch(r"([\w+-]+)\.([\w-]+)=(.*)", text, re.DOTALL)
    if match is None:
        raise UsageError(f"--sweep {shown(text)}: expected METHOD.OPTION=V1,V2,...", EXAMPLE)
    values = tuple(value.strip() for value in match[3].split(","))
    if not all(values):
        raise UsageError(f"--sweep {shown(text)}: an empty value", EXAMPLE)
    if len(set(values)) < max(2, len(values)):
        hint = "Give each value once." if len(values) > 1 else "One value is --set."
        raise UsageError(f"--sweep {shown(text)}: expected two or more different values", hint)
    known = {*plugins.presets(), *plugins.plugins("methods")}
    if match[1] not in known:
        raise UsageError(f"--sweep {shown(text)}: '{match[1]}' is no method", did_you_mean(match[1], known))
    return Sweep(match[1], match[2], values)


def plan_sweep(request: RunRequest, text: str, backbone: Backbone, tell: Tell = quiet, make: bool = True) -> list[Cell]:
    """The cells of every value, each once: those that the option does not touch, and values that mean the same, come once.

    Raises `UsageError` before anything is made or sampled, as `plan` does.
    """
    sweep = parsed(text)
    _check(request, sweep, backbone)
    cells: dict[tuple[str, ...], Cell] = {}
    for setting in sweep.settings:
        for cell in plan(replace(request, settings=(*request.settings, setting)), backbone, tell, make):
            place = (cell.concept.name, cell.suite.name, cell.method, cell.on)
            blocked = cell.blocked is not None and any(_is_of(name, sweep.method) for name in (cell.method, cell.on))
            cells.setdefault((*place, setting if blocked else cell.variant), cell)
    return _in_order(list(cells.values()))


def _in_order(cells: Sequence[Cell]) -> list[Cell]:
    """By concept and suite, as `plan` has them; the untouched backbone first."""
    places = list(dict.fromkeys((cell.concept.name, cell.suite.name) for cell in cells))
    return sorted(cells, key=lambda cell: (places.index((cell.concept.name, cell.suite.name)), (cell.method, cell.on) != NONE))


def _check(request: RunRequest, sweep: Sweep, backbone: Backbone) -> None:
    """Try every value before the first checkpoint is made."""
    swept = [name for name in (*request.methods, *request.on) if _is_of(name, sweep.method)]
    if not swept:
        raise UsageError(f"--sweep {sweep.name}: '{sweep.method}' is not part of this run", "Give it to --method or --on.")
    if any(given.partition("=")[0] == sweep.name for given in request.settings):
        raise UsageError(f"--sweep and --set both give {sweep.name}", "Leave one of the two out.")
    for preset in swept:
        for concept in load.concepts_of(backbone.spec, request.concepts):
            for setting in sweep.settings:
                _try(preset, setting, (*request.settings, setting), backbone.spec.family, concept.kind)


def _is_of(name: str, method: str) -> bool:
    return name in plugins.presets() and method in (name, plugins.preset(name)[0])


def _try(preset: str, setting: str, settings: Sequence[str], family: str, kind: str) -> None:
    try:
        options_of(preset, settings, family, kind)
    except ForeignError:
        return  # the preset cannot be used at all: its cells say so
    except UsageError as error:
        why = re.sub(r"^--set [^:]*: ", "", error.message)
        raise UsageError(f"--sweep {shown(setting)}: {why}", error.hint) from error
