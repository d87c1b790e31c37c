"""An attack from what was asked for to its file: `srbench attack` for Python."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from srbench.attacks import search, targets
from srbench.backbones import choose
from srbench.backbones.loader import Opener, open_backbone
from srbench.catalog import load, plugins, prompts
from srbench.catalog.settings import check_seed, options
from srbench.engine.devices import device_of
from srbench.errors import UsageError
from srbench.methods.base import Tell

Say = Callable[[str], None]
Telling = Callable[[str], AbstractContextManager[Tell]]


@dataclass(frozen=True)
class AttackOptions:
    """What an attack is asked for, in the command line's words."""

    name: str
    concept: str
    backbone: str = "pocket"
    suite: str | None = None
    targets: Path | None = None
    dev: bool = False
    limit: int | None = None
    """Targets."""
    method: str = "none"
    on: str = "none"
    pairs: Path | None = None
    out: Path = Path("attack.json")
    seed: int = 0
    device: str = "auto"
    settings: tuple[str, ...] = ()
    """`OPTION=VALUE` of the attack, `NAME.OPTION=VALUE` of the method and the checkpoint."""
    with_targets: bool = False
    columns: tuple[str, ...] = ()
    """`FIELD=COLUMN` each."""
    checkpoints: Path = Path("results") / "store" / "checkpoints"
    """Where checkpoints below are kept."""


def attack(asked: AttackOptions, say: Say, telling: Telling, opener: Opener = open_backbone) -> search.Attacked:
    """Attack every target and write the file.

    Raises `SrbenchError` where the request is wrong or something is missing, or where every target failed.
    """
    if asked.limit is not None and asked.limit < 1:
        raise UsageError(f"--limit {asked.limit}: expected 1 or more", "Leave it out for all targets.")
    check_seed(asked.seed)
    spec = choose.chosen(asked.backbone)
    (concept,) = load.concepts_of(spec, [asked.concept])
    targets.refuse_sensitive(spec, concept)
    cls, device = plugins.load("attacks", asked.name), device_of(asked.device)
    search.check_out(asked.name, asked.out)
    own = [setting for setting in asked.settings if "." not in setting.partition("=")[0]]
    fixed = {"seed": asked.seed} | ({"device": device} if "device" in cls.Settings.model_fields else {})
    request = targets.AttackRequest(
        asked.name, concept.name, asked.suite, asked.targets, asked.method, asked.on, asked.pairs, asked.limit, asked.out,
        options(cls.Settings, own, **fixed), tuple(s for s in asked.settings if s not in own), "dev" if asked.dev else "test",
        asked.with_targets, asked.checkpoints,
        columns=tuple(prompts.chosen_columns(asked.columns, (*prompts.COLUMNS, *prompts.PAIR)).items()),
    )  # fmt: skip
    rows, source, excluded = targets.targets_of(request, spec, concept, say)
    say(f"{source}: {len(rows)} targets to attack, {excluded} excluded")
    pairs = targets.pairs_of(request, spec, concept, say)
    with telling(f"{asked.name}/{concept.name}") as tell:
        made = search.prepared(request, opener(spec, "fp32", device), concept, pairs, tell)
        if made.on.checkpoint:
            say(f"checkpoint {made.on.name}: {made.on.checkpoint.passport.line()}")
        found = search.search(request, made, rows, source, lambda done, total: tell("search", done, total, ""))
    return found
