"""`srbench attack`: adversarial prompts, or embeddings, against a backbone as it is defended, written as a row file."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srbench.backbones import choose
from srbench.backbones.loader import open_backbone
from srbench.catalog import load, plugins, prompts
from srbench.catalog.settings import check_seed, shown, validated
from srbench.cli.console import say
from srbench.cli.progress import telling
from srbench.errors import OK, SOME_FAILED, UsageError, did_you_mean


@dataclass(frozen=True)
class Asked:
    """The command's options as typed."""

    name: str
    backbone: str
    concept: str
    suite: str | None
    targets: Path | None
    dev: bool
    limit: int | None
    method: str
    on: str
    pairs: Path | None
    out: Path
    seed: int
    device: str
    settings: Sequence[str]
    with_targets: bool = False
    columns: Sequence[str] = ()


def options(cls: Any, settings: Sequence[str], **fixed: Any) -> Any:
    """`OPTION=VALUE` strings as a settings object of `cls`. Raises `UsageError` naming the option."""
    given: dict[str, str] = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign:
            raise UsageError(f"--set {shown(setting)}: expected OPTION=VALUE", "Example: --set steps=30")
        if name not in cls.model_fields:
            raise UsageError(f"there is no option '{shown(name)}'", did_you_mean(name, cls.model_fields))
        if given.get(name, value) != value:
            raise UsageError(f"--set {shown(name)}: two values for it", "Leave one of them out.")
        given[name] = value
    return validated(cls, {**fixed, **given})


def attack(asked: Asked) -> int:
    """Attack every target and write the file."""
    from srbench.attacks import search, targets
    from srbench.engine.devices import device_of

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
        asked.with_targets, columns=tuple(prompts.chosen_columns(asked.columns, (*prompts.COLUMNS, *prompts.PAIR)).items()),
    )  # fmt: skip
    rows, source, excluded = targets.targets_of(request, spec, concept, say)
    say(f"{source}: {len(rows)} targets to attack, {excluded} excluded")
    pairs = targets.pairs_of(request, spec, concept, say)
    with telling(f"{asked.name}/{concept.name}") as tell:
        made = search.prepared(request, open_backbone(spec, "fp32", device), concept, pairs, tell)
        if made.on.checkpoint:
            say(f"checkpoint {made.on.name}: {made.on.checkpoint.passport.line()}")
        found = search.search(request, made, rows, source, lambda done, total: tell("search", done, total, ""))
    _report(asked, cls.meta, found)
    return SOME_FAILED if found.failed else OK


def _report(asked: Asked, meta: dict[str, Any], found: Any) -> None:
    for why, count in Counter(found.failed).most_common():
        say(f"{count} targets are left out: {why}")
    if found.resumed:
        say(f"{found.resumed} of them were there already")
    first, last = ([each.history[i] for each in found.found] for i in (0, -1))
    mean = sum(each.similarity for each in found.found) / len(found.found)
    say(f"objective, {meta['better']} is better: {sum(first) / len(first):.5g} -> {sum(last) / len(last):.5g}")
    if meta["output"] == "embedding":
        say(f"{len(found.found)} embeddings: {asked.out.with_suffix('.safetensors')}; what they are: {asked.out}")
        return
    say(f"{len(found.found)} prompts, mean similarity to their targets {mean:.3f}: {asked.out}")
    run = ("srbench", "run", "--backbone", asked.backbone, "--concept", asked.concept, "--prompts", str(asked.out))
    say(f"run them: {shlex.join(run)}")
