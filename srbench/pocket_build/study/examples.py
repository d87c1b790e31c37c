"""Example rows that travel with committed summaries: `python -m srbench.pocket_build.study.examples RESULTS FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from srbench.report.examples import write

IMAGES = 96
"""Pictures that are committed at most, shared evenly by the concepts and suites."""


METHODS, SUITES = ("saferedir", "saferedir-upstream"), ("igmu", "mma")
"""Whose pictures are among them, beside the untouched backbone's: with every baseline there would be no room for a second row."""


def main(folder: Path, path: Path) -> None:
    """Write the examples of `folder`'s local runs."""
    from srbench.report.gather import ReportOptions, gathered

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    options = ReportOptions(images=IMAGES, methods=METHODS, suites=SUITES, defaults=True)
    say(f"{path}: {write(path, gathered(folder, options, say).rows)} rows")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
