"""`srbench report`."""

from __future__ import annotations

from pathlib import Path

from srbench.cli.main import say
from srbench.errors import UsageError
from srbench.files import write_atomic
from srbench.report.build import Asked, encoded, gathered, page
from srbench.results.sensitive import left_line


def report(folder: Path, out: Path, asked: Asked) -> int:
    """Write the report of `folder` to one HTML file."""
    if asked.images < 0:
        raise UsageError(f"--images {asked.images}: expected 0 or more", "0 leaves the pictures out.")
    if out.is_dir():
        raise UsageError(f"{out}: is a folder", f"Name a file: -o {out / 'report.html'}")
    if left := left_line(folder):
        say(left)
    found = gathered(folder, asked, say)
    data = encoded(page(found))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, data)
    except OSError as error:
        raise UsageError(f"{out}: cannot write here ({error.strerror})", "Choose another -o.") from error
    pictures = sum(row.embedded for row in found.rows)
    say(f"{out}: {len(found.sources)} results, {pictures} pictures, {len(data) / 1e6:.1f} MB")
    return 0
