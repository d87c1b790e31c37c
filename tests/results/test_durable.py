"""When images are synced to the disk: whatever is chosen, no ledger line comes before its file is as safe as it was asked for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from srbench.errors import UsageError
from srbench.results import store as stores
from srbench.results.store import BATCH, DURABLE, EACH, NONE, Store

KEYS = [f"{number:064x}" for number in (1, 2, 2 + 16**62)]
"""Two folders."""


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed, in order: the last part of each path."""
    said: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted(handle: int) -> None:
        said.append(f"sync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        fsync(handle)

    def moved(before: Path, after: Path) -> None:
        said.append(f"rename {Path(after).name}")
        replace(before, after)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", moved)
    return said


def put(root: Path, durable: str, synced: list[str]) -> list[str]:
    """What happens when a batch of three images is put."""
    store = Store(root, durable=durable)
    synced.clear()
    store.put_images([
        (key, np.full((4, 4, 3), number, np.uint8), {"seconds": 1.0, "trace": {}}) for number, key in enumerate(KEYS)
    ])  # fmt: skip
    assert set(Store.peek(root).images) == set(KEYS)
    return list(synced)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")
def test_each_image_is_synced_before_it_has_its_name(tmp_path: Path, synced: list[str]) -> None:
    said = put(tmp_path, EACH, synced)
    for key in KEYS:
        at = said.index(f"rename {key}.png")
        assert said[at - 1].startswith(f"sync .{key}.png."), said
    assert said[-2].startswith("sync images-"), "the ledger comes last"
    assert said[-1] == "sync ledger"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")
def test_a_batch_is_synced_before_its_ledger_lines(tmp_path: Path, synced: list[str]) -> None:
    said = put(tmp_path, BATCH, synced)
    ledger = next(number for number, what in enumerate(said) if what.startswith("sync images-"))
    files = [said.index(f"sync {key}.png") for key in KEYS]
    assert max(said.index(f"rename {key}.png") for key in KEYS) < min(files), "all are written before the first is synced"
    assert max(files) < ledger
    folders = {key[:2] for key in KEYS}
    assert len(folders) == 2
    assert all(max(files) < said.index(f"sync {name}") < ledger for name in folders)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")
def test_nothing_is_synced_where_that_is_asked_for(tmp_path: Path, synced: list[str]) -> None:
    assert [what for what in put(tmp_path, NONE, synced) if what.startswith("sync ")] == []


def test_an_image_without_its_bytes_is_sampled_again(tmp_path: Path) -> None:
    """A power cut after the rename and before the sync: a name without content, and no ledger line."""
    store = Store(tmp_path, durable=BATCH)
    path = store.image_path(KEYS[0])
    path.parent.mkdir(parents=True)
    path.touch()
    again = Store(tmp_path, durable=BATCH)
    again.recover([KEYS[0]])
    assert KEYS[0] not in again.images
    assert not path.exists(), "it is set aside"


def test_only_these_words_are_known(world: object, tmp_path: Path) -> None:
    from srbench.engine.options import resolve
    from srbench.engine.request import RunOptions

    assert DURABLE == ("each", "batch", "none") == (stores.EACH, stores.BATCH, stores.NONE)
    with pytest.raises(UsageError, match="unknown --durable 'often'"):
        resolve(RunOptions(backbone="toy", methods=("none",), suites=("toys",), durable="often", out=tmp_path), lambda line: None)
