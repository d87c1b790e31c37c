"""`srbench attack`: adversarial prompts, or embeddings, against a backbone as it is defended, written as a row file."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

from srbench.attacks import command, lessons
from srbench.attacks.command import AttackOptions
from srbench.catalog import plugins
from srbench.cli.console import say
from srbench.cli.progress import telling
from srbench.errors import OK, SOME_FAILED
from srbench.results.run_files import newest


def attack(options: AttackOptions) -> int:
    """Attack every target, write the file, and say how it went."""
    result = command.attack(options, say, telling)
    _report(options, plugins.known("attacks", options.name).meta, result)
    return SOME_FAILED if result.failed else OK


def relearn(options: AttackOptions, steps: str, other: bool) -> int:
    """Teach checkpoints again, run the suite on each step of the way, and show how the concept comes back."""
    from srbench.cli import output
    from srbench.cli.run import run
    from srbench.tables.compare import relearned_of

    planned = lessons.planned(options, steps, other)
    code = run(planned, False)
    every = newest(planned.out, say)
    output.print_tables(relearned_of([cell for cell in every if lessons.is_of(cell, planned)]), None, False)
    return code


def _report(options: AttackOptions, meta: dict[str, Any], result: Any) -> None:
    for why, count in Counter(result.failed).most_common():
        say(f"{count} targets are left out: {why}")
    if result.resumed:
        say(f"{result.resumed} of them were there already")
    first, last = ([each.history[i] for each in result.found if each.history] for i in (0, -1))
    mean = sum(each.similarity for each in result.found) / len(result.found)
    if first:  # an attack need not keep a history
        say(f"objective, {meta['better']} is better: {_digits(sum(first) / len(first))} -> {_digits(sum(last) / len(last))}")
    if meta["output"] == "embedding":
        say(f"{len(result.found)} embeddings: {options.out.with_suffix('.safetensors')}; what they are: {options.out}")
        return
    say(f"{len(result.found)} prompts, mean similarity to their targets {mean:.3f}: {options.out}")
    run = ["srbench", "run", "--backbone", options.backbone, "--concept", options.concept, "--prompts", str(options.out)]
    victim_settings = [setting for setting in options.settings if "." in setting.partition("=")[0]]
    if victim_settings:  # without them it would be another victim, or none
        methods = dict.fromkeys(("none", options.method))
        run += ["--method", ",".join(methods), *(["--on", options.on] if options.on != "none" else [])]
        run += [word for setting in victim_settings for word in ("--set", setting)]
    say(f"run them: {shlex.join(run)}")


def _digits(value: float) -> str:
    """Five digits, without an exponent for large numbers."""
    return f"{value:.5g}" if abs(value) < 1e5 else f"{value:.0f}"
