"""`srbench report`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from srbench.cli.console import say
from srbench.cli.progress import telling
from srbench.errors import OK, SOME_FAILED, UsageError
from srbench.outputs import REPORT, check_file, write_file
from srbench.report.build import encoded, page
from srbench.report.gather import ReportOptions, gathered
from srbench.results.sensitive import left_line

if TYPE_CHECKING:
    from srbench.report.leaderboard import Asked, Leaderboard

RESULTS, IMAGES = Path("results"), 500
PAGE, LEADERBOARD = Path("report.html"), Path("leaderboard.html")


@dataclass(frozen=True)
class PageOptions:
    """What was asked for; None where it was not."""

    folders: tuple[Path, ...]
    out: Path | None
    methods: tuple[str, ...]
    suites: tuple[str, ...]
    concepts: tuple[str, ...]
    images: int | None
    leaderboard: bool
    verify: bool


def written(options: PageOptions) -> int:
    """Write the page that was asked for. Raises `UsageError` for options that it does not have."""
    chosen = (options.methods, options.suites, options.concepts)
    if options.leaderboard:
        from srbench.report.leaderboard import Asked

        if options.images is not None:
            raise UsageError("--images: a leaderboard has no pictures", "Leave it out.")
        return leaderboard(options.folders, options.out or LEADERBOARD, Asked(*chosen, options.verify))
    if not options.verify:
        raise UsageError("--no-verify: goes with --leaderboard", "A report judges nothing again; leave it out.")
    if len(options.folders) > 1:
        count = len(options.folders)
        raise UsageError(f"a report is of one results folder, not of {count}", "Add --leaderboard for a page of many.")
    images = IMAGES if options.images is None else options.images
    return report(next(iter(options.folders), RESULTS), options.out or PAGE, ReportOptions(*chosen, images))


def leaderboard(folders: Sequence[Path], out: Path, asked: Asked) -> int:
    """Write one page of several people's results; 1 where something of them could not be used."""
    from srbench.report import leaderboard as room

    check_file(out, REPORT)
    with telling("judging again") as tell:
        content = room.leaderboard(folders, asked, lambda name, done, total: tell(name, done, total, "rows"))
    for name, why in content.left_out:
        say(f"{name}: left out: {why}")
    data = encoded(room.page(content))
    write_file(out, data, REPORT)
    say(f"{out}: {_summary(content)}, {len(data) / 1e6:.1f} MB")
    return SOME_FAILED if content.left_out else OK


def _summary(content: Leaderboard) -> str:
    from srbench.scoring.claims import DIFFERS, VERIFIED

    results, people, broken = len(content.entries), len(content.contributors), content.count(DIFFERS)
    text = f"{results} result{'s' * (results != 1)} of {people} contributor{'s' * (people != 1)}"
    if not content.verify:
        return f"{text}, none judged again"
    text = f"{text}, {content.count(VERIFIED)} verified"
    return f"{text}, {broken} that do{'es' * (broken == 1)} not hold" if broken else text


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
