"""Progress of a run on stderr: two bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

PLAIN_EVERY_SECONDS = 10.0


class Plain:
    """Lines for logs and pipes."""

    def __init__(self) -> None:
        self.total = self.done = self.cells = self.cells_done = 0
        self.began = self.told = 0.0

    def begin(self, cells: int, images: int) -> None:
        self.total, self.cells, self.began = images, cells, time.monotonic()

    def images(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.told > PLAIN_EVERY_SECONDS or self.done == self.total:
            self.told = now
            rate = self.done / max(now - self.began, 1e-9)
            left = (self.total - self.done) / max(rate, 1e-9)
            self.line(f"{self.done}/{self.total} images, {rate:.1f} images/s, {left:.0f} s left")

    def cell(self, title: str) -> None:
        self.cells_done += 1
        self.line(f"{title}: sampled")

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        pass


class Bars:
    """A bar over cells above a bar over images, with images/s and the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        class Speed(TextColumn):
            """Images per second."""

            def render(self, task: Any) -> Any:
                task.fields["rate"] = f"{task.speed:.1f} images/s" if task.speed and task.fields.get("unit") else ""
                return super().render(task)

        self.progress = Progress(
            TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), Speed("{task.fields[rate]}"),
            TimeRemainingColumn(), console=Console(stderr=True), transient=True,
        )

    def begin(self, cells: int, images: int) -> None:
        self.cell_task = self.progress.add_task("cells", total=cells, rate="", unit="")
        self.image_task = self.progress.add_task("images", total=images, rate="", unit="images")
        self.progress.start()

    def images(self, count: int) -> None:
        self.progress.update(self.image_task, advance=count)

    def cell(self, title: str) -> None:
        self.progress.update(self.cell_task, advance=1, description=f"cells ({title})"[:24])

    def line(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False)

    def end(self) -> None:
        self.progress.stop()


def reporter() -> Plain | Bars:
    """Bars where stderr is a terminal, else lines."""
    return Bars() if sys.stderr.isatty() else Plain()
