"""A working directory whose spec files are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from srbench.catalog import load


def forget() -> None:
    """Specs are read again."""
    for read in load.KINDS.values():
        read.cache_clear()


@contextmanager
def reading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Read the specs in `folder` as those of the working directory; afterwards all is as before."""
    monkeypatch.chdir(folder)
    forget()
    yield folder
    monkeypatch.undo()
    forget()
