"""Names of checkpoints with what was done to them: `esd-x#1` is made with seed 1, `esd-x~32` is taught again for 32 steps.

`esd-x#0..2` stands for three of them; `esd-x~32:other` is taught other things than the concept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from srbench.analysis.lineage import FORM, OnName, lineage
from srbench.backbones.deployed import NAME as BACKBONE
from srbench.backbones.places import path_of
from srbench.catalog import load, plugins
from srbench.engine.prepare import check_settings
from srbench.errors import UsageError
from srbench.files import kind_of_path

MOST_SEEDS = 100
MOST_STEPS = 100_000
RELEARN = "relearn"
"""What `--set` calls how a checkpoint is taught again."""
_RANGE = re.compile(r"(?P<before>.+?)#(?P<first>\d+)\.\.(?P<last>\d+)(?P<after>(?:~.*)?)")


def taken_apart(name: str) -> OnName:
    """A name of `--on`. A file or folder of just that name is a path, whatever it looks like.

    Raises `UsageError` for more steps than anybody would take.
    """
    known = name == "none" or name in plugins.presets() or name in load.baselines()
    if known or not FORM.fullmatch(name) or kind_of_path(path_of(name)) != "nothing":
        return OnName(name)
    own = lineage(name)
    if own.steps > MOST_STEPS:
        raise UsageError(f"--on {name}: {own.steps} steps of teaching it again", f"Give at most {MOST_STEPS}.")
    return own


def check_settings_of_run(settings: Sequence[str], methods: Sequence[str], on: Sequence[str]) -> list[str]:
    """Refuse a `--set` for what is not part of a run of these methods on these checkpoints. Returns the presets among them."""
    under = [taken_apart(name) for name in on]
    presets = [name for name in (*methods, *(own.base for own in under)) if name in plugins.presets()]
    lessons = [RELEARN] if any(own.steps for own in under) else []
    check_settings(settings, presets, (*plugins.plugins("scorers"), BACKBONE, *lessons))
    return presets


def expanded(names: Sequence[str]) -> tuple[str, ...]:
    """The names with every range of seeds written out, each once. Raises `UsageError` for a range that is none."""
    return tuple(dict.fromkeys(each for name in names for each in _of_range(name)))


def _of_range(name: str) -> list[str]:
    match = _RANGE.fullmatch(name)
    if match is None or kind_of_path(path_of(name)) != "nothing":
        return [name]
    first, last = int(match["first"]), int(match["last"])
    if not first <= last < first + MOST_SEEDS:
        raise UsageError(f"--on {name}: no range of seeds", f"Write the smaller one first, and at most {MOST_SEEDS}: esd-x#0..2")
    return [f"{match['before']}#{seed}{match['after']}" for seed in range(first, last + 1)]


def with_seeds(settings: Sequence[str], names: Sequence[str]) -> None:
    """Raises `UsageError` where a seed is given by a name and by a setting."""
    for name in names:
        own = taken_apart(name)
        if own.seed is not None and any(setting.partition("=")[0] == f"{own.base}.seed" for setting in settings):
            raise UsageError(f"--on {name} and --set both give {own.base}.seed", "Leave one of the two out.")
