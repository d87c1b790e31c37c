"""Progress of a run on stderr: two bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from srbench.cli.console import console, say
from srbench.files import printable
from srbench.progress import pace

Tell = Callable[[str, int, int, str], None]

PLAIN_EVERY_SECONDS = 10.0


class Plain:
    """Lines for logs and pipes."""

    def __init__(self) -> None:
        self.total = self.done = self.cells = self.cells_done = 0
        self.began = self.printed_at = 0.0

    def begin(self, cells: int, images: int) -> None:
        self.total, self.cells, self.began = images, cells, time.monotonic()
        self.done, self.printed_at = 0, 0.0  # a run may sample twice

    def images(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.printed_at > PLAIN_EVERY_SECONDS or self.done == self.total:
            self.printed_at = now
            left = f"{(self.total - self.done) * (now - self.began) / self.done:.0f} s left" if self.done else ""
            self.line(", ".join(filter(None, (f"{self.done}/{self.total} images", pace(self.done, now - self.began), left))))

    def cell(self, title: str) -> None:
        self.cells_done += 1
        self.line(f"{title}: done")

    def line(self, text: str) -> None:
        say(text)

    def end(self) -> None:
        pass


class Bars:
    """A bar over cells above a bar over images, with their pace and the time left."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        class Speed(TextColumn):
            """The pace of images."""

            def render(self, task: Any) -> Any:
                task.fields["rate"] = pace(1, 1 / task.speed) if task.speed and task.fields.get("unit") else ""
                return super().render(task)

        self.progress = Progress(
            TextColumn("{task.description:<24}", markup=False), BarColumn(), MofNCompleteColumn(),
            Speed("{task.fields[rate]}", markup=False), TimeRemainingColumn(), console=console(stderr=True), transient=True,
        )

    def begin(self, cells: int, images: int) -> None:
        for task in self.progress.task_ids:  # of an earlier sampling of the same run
            self.progress.remove_task(task)
        self.cell_task = self.progress.add_task("cells", total=cells, rate="", unit="")
        self.image_task = self.progress.add_task("images", total=images, rate="", unit="images")
        self.progress.start()

    def images(self, count: int) -> None:
        self.progress.update(self.image_task, advance=count)

    def cell(self, title: str) -> None:
        self.progress.update(self.cell_task, advance=1, description=f"cells ({printable(title)})"[:24])

    def line(self, text: str) -> None:
        self.progress.console.print(printable(text))

    def end(self) -> None:
        self.progress.stop()


@contextmanager
def telling(title: str) -> Iterator[Tell]:
    """Progress of something that is made: a bar where stderr is a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(phase: str, done: int, total: int, note: str) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], description=printable(f"{title}: {phase} {note}".strip()), completed=done, total=total)

        yield tell


def _lines(title: str) -> Tell:
    printed_at: dict[str, float] = {}

    def tell(phase: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if done == total or now - printed_at.get(phase, now - PLAIN_EVERY_SECONDS) >= PLAIN_EVERY_SECONDS:
            printed_at[phase] = now
            say(f"{title}: {phase} {done}/{total} {note}".rstrip())

    return tell


def reporter() -> Plain | Bars:
    """Bars where stderr is a terminal, else lines."""
    return Bars() if sys.stderr.isatty() else Plain()
