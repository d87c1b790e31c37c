"""`srbench run --sweep METHOD.OPTION=V1,V2,...`: one plan with a variant for each value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from srbench.backbones.deployed import NAME, changes_of, scheduler_of
from srbench.backbones.loader import Backbone
from srbench.catalog import load, plugins
from srbench.catalog.settings import shown
from srbench.engine.onnames import taken_apart
from srbench.engine.prepare import options_of
from srbench.engine.request import RunRequest
from srbench.errors import ForeignError, UsageError, did_you_mean

EXAMPLE = "Example: --sweep saferedir.alpha_scale=0.5,1,2"


@dataclass(frozen=True)
class Sweep:
    """An option and its values."""

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
    """Parse a `--sweep`. Raises `UsageError` for another form, an empty value, a single one, or an unknown method."""
    match = re.fullmatch(r"([\w+-]+)\.([\w-]+)=(.*)", text, re.DOTALL)
    if match is None:
        raise UsageError(f"--sweep {shown(text)}: expected METHOD.OPTION=V1,V2,...", EXAMPLE)
    values = tuple(value.strip() for value in match[3].split(","))
    if not all(values):
        raise UsageError(f"--sweep {shown(text)}: an empty value", EXAMPLE)
    if len(set(values)) < max(2, len(values)):
        hint = "Give each value once." if len(values) > 1 else "One value is --set."
        raise UsageError(f"--sweep {shown(text)}: expected two or more different values", hint)
    names = {*plugins.presets(), *plugins.plugins("methods"), NAME}
    if match[1] not in names:
        raise UsageError(f"--sweep {shown(text)}: '{match[1]}' is no method", did_you_mean(match[1], names))
    return Sweep(match[1], match[2], values)


def check_values(request: RunRequest, sweep: Sweep, backbone: Backbone) -> None:
    """Check every value before the first checkpoint is made. Raises `UsageError` for a bad one."""
    bases = dict.fromkeys(taken_apart(name).base for name in request.on)
    swept = [name for name in (*request.methods, *bases) if is_of(name, sweep.method)]
    if not swept and sweep.method != NAME:
        raise UsageError(f"--sweep {sweep.name}: '{sweep.method}' is not part of this run", "Give it to --method or --on.")
    if any(setting.partition("=")[0] == sweep.name for setting in request.settings):
        raise UsageError(f"--sweep and --set both give {sweep.name}", "Leave one of the two out.")
    for setting in sweep.settings if sweep.method == NAME else ():
        scheduler_of(backbone.scheduler, changes_of((*request.settings, setting), backbone.spec.family))
    for preset in swept:
        for concept in load.concepts_of(backbone.spec, request.concepts):
            for setting in sweep.settings:
                _try(preset, setting, (*request.settings, setting), backbone.spec.family, concept.kind)


def is_of(name: str, method: str) -> bool:
    return name in plugins.presets() and method in (name, plugins.preset(name)[0])


def _try(preset: str, setting: str, settings: Sequence[str], family: str, kind: str) -> None:
    try:
        options_of(preset, settings, family, kind)
    except ForeignError:
        return  # the preset cannot be used at all; its cells are blocked
    except UsageError as error:
        why = re.sub(r"^--set [^:]*: ", "", error.message)
        raise UsageError(f"--sweep {shown(setting)}: {why}", error.hint) from error
