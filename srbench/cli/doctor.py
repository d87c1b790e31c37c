"""`srbench doctor`."""

from __future__ import annotations

from itertools import chain

from srbench.catalog import load
from srbench.cli import console
from srbench.engine.doctor import DoctorOptions, Finding, examined
from srbench.errors import MISSING, OK


def doctor(options: DoctorOptions, as_json: bool) -> int:
    """Print every finding as it is made; exit 3 if something is wrong with what the run needs."""
    findings = []
    for finding in examined(options):
        findings.append(finding)
        if not as_json:
            console.line(f"{_mark(finding)}  {finding.name}: {finding.detail}")
            console.out().flush()
    for error in chain.from_iterable(map(load.dangling, load.KINDS)):
        console.say(error.line)
    if as_json:
        console.write_json({each.name: {"ok": each.ok, "needed": each.needed, "detail": each.detail} for each in findings})
    return MISSING if any(each.needed and not each.ok for each in findings) else OK


def _mark(finding: Finding) -> str:
    if finding.ok:
        return "ok "
    return "BAD" if finding.needed else "-  "
