"""`srbench report`."""

from __future__ import annotations

from pathlib import Path

from srbench.cli.console import say
from srbench.errors import UsageError
from srbench.outputs import REPORT, check_file, write_file
from srbench.report.build import encoded, page
from srbench.report.gather import ReportOptions, gathered
from srbench.results.sensitive import left_line


def report(folder: Path, out: Path, options: ReportOptions) -> int:
    """Write the report of `folder` to one HTML file."""
    if options.images < 0:
        raise UsageError(f"--images {options.images}: expected 0 or more", "0 leaves the pictures out.")
    check_file(out, REPORT)
    if left := left_line(folder):
        say(left)
    content = gathered(folder, options, say)
    data = encoded(page(content))
    write_file(out, data, REPORT)
    pictures = sum(row.embedded for row in content.rows)
    say(f"{out}: {len(content.sources)} results, {pictures} pictures, {len(data) / 1e6:.1f} MB")
    return 0
