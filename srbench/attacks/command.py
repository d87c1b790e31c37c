"""Runs an attack from its options to its file: `srbench attack` for Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from srbench.attacks import search, targets
from srbench.attacks.base import Attack
from srbench.attacks.party import Party
from srbench.backbones import choose
from srbench.backbones.loader import Opener, open_backbone
from srbench.catalog import load, plugins, prompts
from srbench.catalog.settings import check_count, check_seed, options
from srbench.engine import cluster
from srbench.engine.devices import device_of, devices_of
from srbench.engine.options import by_actors, check_spread, reached, runtime_of
from srbench.engine.team import team_of
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
    gpus: str | None = None
    ray: str | None = None
    """The cluster whose actors search: its address, `auto` or `local`."""
    ray_gpus: float | None = None
    """Cards of an actor."""
    ray_cpus: float | None = None
    """Cores of an actor."""
    checkpoints: Path = Path("results") / "store" / "checkpoints"
    """Where checkpoints below are kept."""


def attack(arguments: AttackOptions, say: Say, telling: Telling, opener: Opener = open_backbone) -> search.Attacked:
    """Attack every target and write the file, here or by actors.

    Raises `SrbenchError` where the request is wrong or something is missing, or where every target failed.
    """
    try:
        return _attack(arguments, say, telling, opener)
    finally:
        cluster.leave()


def _attack(arguments: AttackOptions, say: Say, telling: Telling, opener: Opener) -> search.Attacked:
    check_count(arguments.limit, "--limit", "Leave it out for all targets.")
    check_seed(arguments.seed)
    check_spread(arguments.gpus, arguments.device, arguments.ray, (arguments.ray_gpus, arguments.ray_cpus), None)
    spec = choose.chosen(arguments.backbone)
    (concept,) = load.concepts_of(spec, [arguments.concept])
    targets.refuse_sensitive(spec, concept)
    cls = plugins.load("attacks", arguments.name)
    devices = devices_of(arguments.gpus) if arguments.gpus is not None else ()
    spread = by_actors(arguments, devices, _plug_ins(arguments))
    # Cards are the actors'.
    device = "cpu" if spread else devices[0] if devices else device_of(arguments.device)
    search.check_out(arguments.name, arguments.out)
    request = _request(arguments, cls, concept.name, device)
    rows, source, excluded = targets.targets_of(request, spec, concept, say)
    say(f"{source}: {len(rows)} targets to attack, {excluded} excluded")
    pairs = targets.pairs_of(request, spec, concept, say)
    how = runtime_of(arguments, devices, reached(arguments, arguments.ray) if arguments.ray is not None else None)
    backbone = opener(spec, "fp32", device)
    with telling(f"{arguments.name}/{concept.name}") as tell, team_of(Party, request, backbone, how, say) as party:
        setup = (party.prepared if party else partial(search.prepared, request, backbone))(concept, pairs, tell)
        if setup.on.checkpoint:
            say(f"checkpoint {setup.on.name}: {setup.on.checkpoint.passport.line()}")

        def progress(done: int, total: int) -> None:
            tell("search", done, total, "")

        actors = partial(party.search, progress=progress) if party else None
        return search.search(request, setup, rows, source, progress, say, actors)


def _request(arguments: AttackOptions, cls: type[Attack], concept: str, device: str) -> targets.AttackRequest:
    """The options, parsed."""
    attack_settings = [setting for setting in arguments.settings if "." not in setting.partition("=")[0]]
    attack_settings += _budget(arguments.name, arguments.budget, attack_settings)
    fixed = {"seed": arguments.seed} | ({"device": device} if "device" in cls.Settings.model_fields else {})
    return targets.AttackRequest(
        name=arguments.name, concept=concept, suite=arguments.suite, targets=arguments.targets, method=arguments.method,
        on=arguments.on, pairs=arguments.pairs, limit=arguments.limit, out=arguments.out,
        settings=options(cls.Settings, attack_settings, **fixed),
        method_settings=tuple(setting for setting in arguments.settings if setting not in attack_settings),
        part="dev" if arguments.dev else "test", plain=arguments.with_targets, checkpoints=arguments.checkpoints,
        columns=tuple(prompts.chosen_columns(arguments.columns, (*prompts.COLUMNS, *prompts.PAIR)).items()),
    )  # fmt: skip


def _plug_ins(arguments: AttackOptions) -> list[tuple[str, str]]:
    """Kind and name of the plug-ins that actors would import."""
    presets = [name for name in (arguments.method, arguments.on) if name in plugins.presets()]
    return [("attacks", arguments.name), *(("methods", plugins.preset(name)[0]) for name in presets)]


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
