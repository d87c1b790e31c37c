"""The one protocol of progress: where it goes is the command's business."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Reporter(Protocol):
    """Where progress goes."""

    def begin(self, cells: int, images: int) -> None:
        """Sampling starts."""

    def images(self, count: int) -> None:
        """`count` more images are in the store."""

    def cell(self, title: str) -> None:
        """A cell has all its images, or all their scores where they were made elsewhere."""

    def line(self, text: str) -> None:
        """One plain line."""

    def end(self) -> None:
        """Sampling is over."""


class Quiet:
    """Says nothing."""

    def begin(self, cells: int, images: int) -> None:
        """Nothing."""

    def images(self, count: int) -> None:
        """Nothing."""

    def cell(self, title: str) -> None:
        """Nothing."""

    def line(self, text: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Bar(Quiet):
    """One bar over images, in a terminal or a notebook; lines above it."""

    def __init__(self) -> None:
        self._bar: Any = None

    def begin(self, cells: int, images: int) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(total=images, unit="images", file=sys.stderr)

    def images(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)

    def cell(self, title: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(title)

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def telling(what: str) -> Iterator[Callable[[str, int, int, str], None]]:
    """A bar for each phase of something that takes a while. what: it, in words."""
    from tqdm.auto import tqdm

    bars: dict[str, Any] = {}

    def tell(phase: str, done: int, total: int, note: str) -> None:
        if phase not in bars:
            bars[phase] = tqdm(total=total, desc=f"{what}: {phase}", file=sys.stderr, leave=False)
        bars[phase].update(done - bars[phase].n)
        bars[phase].set_postfix_str(note)

    try:
        yield tell
    finally:
        for bar in bars.values():
            bar.close()
