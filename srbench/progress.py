"""The one protocol of progress: where it goes is the command's business."""

from __future__ import annotations

from typing import Protocol


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
