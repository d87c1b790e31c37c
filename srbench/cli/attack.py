"""`srbench attack`: adversarial prompts, or embeddings, against a backbone as it is defended, written as a row file."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

from srbench.attacks import command
from srbench.attacks.command import AttackOptions
from srbench.catalog import plugins
from srbench.cli.console import say
from srbench.cli.progress import telling
from srbench.errors import OK, SOME_FAILED


def attack(asked: AttackOptions) -> int:
    """Attack every target, write the file, and say how it went."""
    found = command.attack(asked, say, telling)
    _report(asked, plugins.known("attacks", asked.name).meta, found)
    return SOME_FAILED if found.failed else OK


def _report(asked: AttackOptions, meta: dict[str, Any], found: Any) -> None:
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
    run = ["srbench", "run", "--backbone", asked.backbone, "--concept", asked.concept, "--prompts", str(asked.out)]
    own = [setting for setting in asked.settings if "." in setting.partition("=")[0]]
    if own:  # without them it would be another victim, or none
        methods = dict.fromkeys(("none", asked.method))
        run += ["--method", ",".join(methods), *(["--on", asked.on] if asked.on != "none" else [])]
        run += [word for setting in own for word in ("--set", setting)]
    say(f"run them: {shlex.join(run)}")
