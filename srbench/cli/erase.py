"""`srbench erase`: an unlearned checkpoint in a folder of its own."""

from __future__ import annotations

from srbench.cli.console import say
from srbench.cli.progress import telling
from srbench.engine import erasing
from srbench.engine.erasing import EraseOptions


def erase(options: EraseOptions) -> int:
    """Run a weight method, write its checkpoint, and print its passport."""
    erasing.erase(options, say, telling)
    return 0
