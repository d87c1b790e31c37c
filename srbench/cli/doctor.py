"""`srbench doctor`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

from srbench.catalog import load
from srbench.cli import console
from srbench.engine.doctor import DoctorOptions, Finding, examined
from srbench.errors import MISSING, OK


def doctor(options: DoctorOptions, as_json: bool) -> int:
    """Print every finding as it is made; exit 3 if something is wrong with what the run needs.

    What is not here and no run needs is counted at the end, unless everything is asked for.
    """
    findings, counted = [], Counter[str]()
    for finding in examined(options):
        findings.append(finding)
        kind = finding.name.partition(" ")[0]
        if not (finding.ok or finding.needed or options.everything) and kind in COUNTED:
            counted[kind] += 1
        elif not as_json:
            console.line(f"{_mark(finding)}  {finding.name}: {finding.detail}")
            console.out().flush()
    for error in chain.from_iterable(map(load.dangling, load.KINDS)):
        console.say(error.line)
    if as_json:
        console.write_json({each.name: {"ok": each.ok, "needed": each.needed, "detail": each.detail} for each in findings})
    else:
        _print_end(options, findings, counted)
    return MISSING if any(each.needed and not each.ok for each in findings) else OK


COUNTED = ("backbone", "suite", "baseline", "scorer")


def _print_end(options: DoctorOptions, findings: Sequence[Finding], counted: Mapping[str, int]) -> None:
    """How many other things are not here, and the one command that fetches what the run lacks."""
    if counted:
        kinds = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counted.items())
        console.line(f"-    not on this machine, of all there is: {kinds}; srbench doctor --all names them")
    if options.run and any(each.needed and not each.ok and each.name.startswith("run ") for each in findings):
        named = {"backbone": options.backbone, "method": ",".join(options.methods), "suite": ",".join(options.suites),
                 "concept": ",".join(options.concepts)}  # fmt: skip
        words = [word for name, value in named.items() if value for word in (f"--{name}", value)]
        words += [word for setting in options.settings for word in ("--set", setting)]
        console.line(f"what can be fetched of it: {shlex.join(['srbench', 'fetch', *words])}")


def _mark(finding: Finding) -> str:
    if finding.ok:
        return "ok "
    return "BAD" if finding.needed else "-  "
