"""The protocol for reporting progress, and the reporters of calls from Python."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any, Protocol

from srbench.files import printable

LOG_EVERY_SECONDS = 10.0
"""Between two updates of a bar outside a terminal, where every update is a line of its own."""
PAGE_EVERY_SECONDS = 0.2
"""Between two updates of a notebook's bar."""


def pace(done: int, seconds: float) -> str:
    """Images per second, or where that is less than one, seconds per image; empty before the first."""
    if done <= 0:
        return ""
    rate = done / max(seconds, 1e-9)
    return f"{rate:.1f} images/s" if rate >= 1 else f"{1 / rate:.1f} s an image"


def counted(count: int, thing: str) -> str:
    """`1 image`, `2 images`; of `folder of studies` the first word gets the s."""
    first, of, rest = thing.partition(" ")
    return f"{count} {first}{'' if count == 1 else 's'}{of}{rest}"


def span(seconds: float) -> str:
    """A length of time for people: `45 s`, `12 min`, `3 h 20 min`, `2 days 4 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 36:
        return f"{hours} h" + (f" {rest} min" if rest else "")
    days, left = divmod(round(minutes / 60), 24)
    return f"{days} day{'s' * (days > 1)}" + (f" {left} h" if left else "")


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

    @contextmanager
    def telling(self, what: str) -> Iterator[Callable[[str, int, int, str], None]]:
        """Nothing."""
        yield lambda phase, done, total, note: None


class Bars(Quiet):
    """Bars of tqdm on stderr, with lines above them: for scripts."""

    def __init__(self) -> None:
        self._bar: Any = None

    def begin(self, cells: int, images: int) -> None:
        self._bar = _bar(total=images, unit="images")

    def images(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)

    def cell(self, title: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(title, refresh=False)

    def line(self, text: str) -> None:
        if self._bar is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.write(text, file=sys.stderr)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @contextmanager
    def telling(self, what: str) -> Iterator[Callable[[str, int, int, str], None]]:
        """A bar for each phase of a long task, one after the other. what: the task, in words."""
        bars: dict[str, Any] = {}

        def tell(phase: str, done: int, total: int, note: str) -> None:
            if phase not in bars:
                for other in bars.values():
                    other.close()
                bars[phase] = _bar(total=total, desc=f"{what}: {phase}", leave=False)
            bars[phase].set_postfix_str(note, refresh=False)
            bars[phase].update(done - bars[phase].n)

        try:
            yield tell
        finally:
            for bar in bars.values():
                bar.close()


def _bar(**more: Any) -> Any:
    from tqdm import tqdm

    return tqdm(file=sys.stderr, mininterval=0.1 if sys.stderr.isatty() else LOG_EVERY_SECONDS, **more)


@dataclass
class _State:
    """The task in progress: what it is (`images`, or a phase), and how far it is."""

    what: str
    total: int
    done: int = 0
    note: str = ""
    began: float = field(default_factory=time.monotonic)

    def text(self, ended: bool = False) -> str:
        """Progress and time on one line; empty where no task is in progress. ended: the task is over."""
        if not self.total:
            return ""
        seconds = max(time.monotonic() - self.began, 1e-9)
        left = f"{(self.total - self.done) * seconds / self.done:.0f} s left" if self.done else ""
        pace = f"in {seconds:.0f} s" if ended or self.done == self.total else left
        return ", ".join(filter(None, [f"{self.what} {self.done}/{self.total}", pace, printable(self.note)]))


class Page(Quiet):
    """One output of a notebook's cell, redrawn in place: lines, and a bar below them while a task is in progress.

    It is plain HTML without widgets, so that it looks the same in every notebook, also in a stored one.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._display: Any = None
        self._state = _State("", 0)
        self._drawn = 0.0

    def begin(self, cells: int, images: int) -> None:
        self._state = _State("images", images)
        self._draw()

    def images(self, count: int) -> None:
        self._state.done += count
        self._draw(at_once=self._state.done == self._state.total)

    def cell(self, title: str) -> None:
        self._state.note = title
        self._draw()

    def line(self, text: str) -> None:
        self._lines.append(printable(text))
        self._draw()

    def end(self) -> None:
        if self._state.total:
            self._state.note = "" if self._state.done == self._state.total else "stopped"
            self._lines.append(self._state.text(ended=True))
        self._state = _State("", 0)
        self._draw()

    @contextmanager
    def telling(self, what: str) -> Iterator[Callable[[str, int, int, str], None]]:
        """A bar for the current phase. what: the task, in words."""

        def tell(phase: str, done: int, total: int, note: str) -> None:
            began = self._state.began if self._state.what == f"{what}: {phase}" else time.monotonic()
            self._state = _State(f"{what}: {phase}", total, done, note, began)
            self._draw(at_once=done in (0, total))

        try:
            yield tell
        finally:
            self._state = _State("", 0)
            if self._display is not None:
                self._draw()

    def _draw(self, at_once: bool = True) -> None:
        now = time.monotonic()
        if not at_once and now - self._drawn < PAGE_EVERY_SECONDS:
            return
        self._drawn = now
        bundle = {"text/plain": "\n".join(filter(None, [*self._lines, self._state.text()])), "text/html": self._html()}
        if self._display is None:
            from IPython.display import display

            self._display = display(bundle, raw=True, display_id=True)
        else:
            self._display.update(bundle, raw=True)

    def _html(self) -> str:
        lines = escape("\n".join(self._lines))
        style = "white-space: pre-wrap; opacity: .75; font-size: smaller; margin: 0"
        state = self._state
        bar = f'<progress value="{state.done}" max="{state.total}"></progress> {escape(state.text())}' if state.total else ""
        return f'<div style="{style}">{lines}</div>{bar}'


def reporter(progress: bool) -> Quiet:
    """The reporter for calls from Python. progress: whether to report at all."""
    if not progress:
        return Quiet()
    if not _in_notebook():
        return Bars()
    _let_tqdm_complain()
    return Page()


def _let_tqdm_complain() -> None:
    """Import `tqdm.auto` with its one warning hidden: that a notebook has no widgets. Nothing here needs them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tqdm.auto  # noqa: F401  # for the warning


def _in_notebook() -> bool:
    """Whether this process is a notebook's: its IPython shell has a kernel then."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
