"""`srbench fetch`."""

from __future__ import annotations

from collections.abc import Callable

from srbench import fetching
from srbench.cli import console
from srbench.cli.console import say
from srbench.cli.progress import telling
from srbench.engine.fetch import ROUNDS, FetchOptions, missing
from srbench.errors import MISSING, OK


def fetch(options: FetchOptions, dry_run: bool, as_json: bool, line: Callable[[str], None] = console.line) -> int:
    """Fetch what is missing, round after round; exit 3 where something is still missing.

    line: where the list of what would be fetched goes.
    """
    done: list[str] = []
    for _ in range(ROUNDS):
        lacking = missing(options)
        wanted = [each for each in lacking.downloads if each.name not in done]
        if len(wanted) > 1:
            say(f"{len(wanted)} to fetch: {', '.join(each.name for each in wanted)}")
        sizes = list(map(fetching.sized, wanted))
        if dry_run or not sizes:
            break
        fetching.check_space(sizes)
        for each in sizes:
            say(f"{each.download.name}: {_size(each)}")
            with telling(each.download.name.rpartition("/")[2]) as tell:
                path = fetching.fetch(each.download, tell)
            say(f"here: {path}")
            done.append(each.download.name)
    if as_json:
        console.write_json({
            "fetched": done, "by_hand": list(lacking.by_hand),
            "to_fetch": [{"name": each.download.name, "bytes": each.size, "command": each.download.command()} for each in sizes],
        })  # fmt: skip
    elif dry_run:
        _told(sizes, line)
    for by_hand in lacking.by_hand:
        say(f"not here, and nothing fetches it: {by_hand}")
    if not (done or sizes or lacking.by_hand):
        say("nothing is missing")
    return MISSING if lacking.by_hand else OK


def _size(sized: fetching.Sized) -> str:
    files = f"{sized.files} files, " if sized.files > 1 else ""
    return files + ("size unknown" if sized.size is None else fetching.in_bytes(sized.size))


def _told(sizes: list[fetching.Sized], line: Callable[[str], None]) -> None:
    for each in sizes:
        line(f"{_size(each):>22}  {each.download.name}")
    known = sum(each.size or 0 for each in sizes)
    unknown = sum(each.size is None for each in sizes)
    if sizes:
        line(f"{fetching.in_bytes(known)} in all{f', and {unknown} of unknown size' if unknown else ''}")
