"""`srbench report`."""

from __future__ import annotations

from pathlib import Path

from srbench.cli.console import say
from srbench.errors import UsageError
from srbench.outputs import REPORT, check_file, write_file
from srbench.report.build import Asked, encoded, gathered, page
from srbench.results.sensitive import left_line


def report(folder: Path, out: Path, asked: Asked) -> int:
    """Write the report of `folder` to one HTML file."""
    if asked.images < 0:
        raise UsageError(f"--images {asked.images}: expected 0 or more", "0 leaves the pictures out.")
    check_file(out, REPORT)
    if left := left_line(folder):
        say(left)
    found = gathered(folder, asked, say)
    data = encoded(page(found))
    write_file(out, data, REPORT)
    pictures = sum(row.embedded for row in found.rows)
    say(f"{out}: {len(found.sources)} results, {pictures} pictures, {len(data) / 1e6:.1f} MB")
    return 0
