"""Runs an attack from its options to its file: `srbench attack` for Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from srbench.attacks import search, targets
from srbench.backbones import choose
from srbench.backbones.loader import Opener, open_backbone
from srbench.catalog import load, plugins, prompts
from srbench.catalog.settings import check_count, check_seed, options
from srbench.engine.devices import device_of
from srbench.errors import UsageError, did_you_mean
from srbench.methods.base import Tell

Say = Callable[[str], None]
Telling = Callable[[str], AbstractContextManager[Tell]]


@dataclass(frozen=True)
class AttackOptions:
    """Options of an attack, in the command line's words."""

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
    budget: str | None = None
    """One of the attack's own; None: the one of its settings, or its default."""
    checkpoints: Path = Path("results") / "store" / "checkpoints"
    """Where checkpoints below are kept."""


def attack(arguments: AttackOptions, say: Say, telling: Telling, opener: Opener = open_backbone) -> search.Attacked:
    """Attack every target and write the file.

    Raises `SrbenchError` where the request is wrong or something is missing, or where every target failed.
    """
    check_count(arguments.limit, "--limit", "Leave it out for all targets.")
    check_seed(arguments.seed)
    spec = choose.chosen(arguments.backbone)
    (concept,) = load.concepts_of(spec, [arguments.concept])
    targets.refuse_sensitive(spec, concept)
    cls, device = plugins.load("attacks", arguments.name), device_of(arguments.device)
    search.check_out(arguments.name, arguments.out)
    attack_settings = [setting for setting in arguments.settings if "." not in setting.partition("=")[0]]
    attack_settings += _budget(arguments.name, arguments.budget, attack_settings)
    fixed = {"seed": arguments.seed} | ({"device": device} if "device" in cls.Settings.model_fields else {})
    request = targets.AttackRequest(
        name=arguments.name, concept=concept.name, suite=arguments.suite, targets=arguments.targets, method=arguments.method,
        on=arguments.on, pairs=arguments.pairs, limit=arguments.limit, out=arguments.out,
        settings=options(cls.Settings, attack_settings, **fixed),
        method_settings=tuple(setting for setting in arguments.settings if setting not in attack_settings),
        part="dev" if arguments.dev else "test", plain=arguments.with_targets, checkpoints=arguments.checkpoints,
        columns=tuple(prompts.chosen_columns(arguments.columns, (*prompts.COLUMNS, *prompts.PAIR)).items()),
    )  # fmt: skip
    rows, source, excluded = targets.targets_of(request, spec, concept, say)
    say(f"{source}: {len(rows)} targets to attack, {excluded} excluded")
    pairs = targets.pairs_of(request, spec, concept, say)
    with telling(f"{arguments.name}/{concept.name}") as tell:
        setup = search.prepared(request, opener(spec, "fp32", device), concept, pairs, tell)
        if setup.on.checkpoint:
            say(f"checkpoint {setup.on.name}: {setup.on.checkpoint.passport.line()}")
        result = search.search(request, setup, rows, source, lambda done, total: tell("search", done, total, ""), say)
    return result


def _budget(name: str, budget: str | None, settings: Sequence[str]) -> list[str]:
    """The budget as a setting. Raises `UsageError` for one that the attack does not have, or that is said twice."""
    if budget is None:
        return []
    known = plugins.plugins("attacks")[name].meta.get("budgets", {})
    if budget not in known:
        raise UsageError(
            f"--budget {budget}: {name} has {'no such budget' if known else 'one budget, its settings'}",
            did_you_mean(budget, known) if known else "Leave --budget out; --set OPTION=VALUE changes a setting.",
        )
    if any(setting.partition("=")[0] == "budget" for setting in settings):
        raise UsageError("the budget is given twice, by --budget and by --set", "Leave one out.")
    return [f"budget={budget}"]
