"""The store: what was written is found again, whatever happened in between."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench.engine.keys import KEY_VERSION
from srbench.engine.store import Store, pixel_sha
from srbench.errors import SrbenchError, UsageError

KEYS = [f"{i:064x}" for i in range(1, 6)]


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def filled(root: Path, count: int = 3) -> Store:
    store = Store(root)
    store.put_images([(KEYS[i], picture(i), {"method": "none", "seconds": 0.1, "trace": {}}) for i in range(count)])
    return store


def test_pixels_come_back_bit_for_bit(tmp_path: Path) -> None:
    filled(tmp_path)
    again = Store(tmp_path)
    assert set(again.images) == set(KEYS[:3])
    for i in range(3):
        assert np.array_equal(again.pixels(KEYS[i]), picture(i))
        assert again.images[KEYS[i]]["pixel_sha"] == pixel_sha(picture(i))


def test_the_ledger_is_rebuilt_from_the_images(tmp_path: Path) -> None:
    before = filled(tmp_path).images
    for path in (tmp_path / "ledger").glob("*.jsonl"):
        path.unlink()
    assert Store(tmp_path).images == before
    assert Store(tmp_path).images == before, "and is written again"


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_torn_ledger_loses_nothing(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("store")
    before = filled(root).images
    path = next((root / "ledger").glob("images-*.jsonl"))
    path.write_bytes(path.read_bytes()[:-cut] if cut else path.read_bytes())
    assert Store(root).images == before


def test_a_damaged_ledger_line_is_named_and_left_out(tmp_path: Path) -> None:
    before = filled(tmp_path).images
    path = next((tmp_path / "ledger").glob("images-*.jsonl"))
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:20] + b"\xff\xfe"
    path.write_bytes(b"\n".join(lines))
    said: list[str] = []
    assert Store(tmp_path, said.append).images == before
    assert len(said) == 1
    assert "line 2" in said[0]


def test_a_truncated_png_is_set_aside_and_missing(tmp_path: Path) -> None:
    store = filled(tmp_path)
    path = store.image_path(KEYS[0])
    path.write_bytes(path.read_bytes()[:60])
    said: list[str] = []
    again = Store(tmp_path, said.append)
    assert KEYS[0] not in again.images
    assert set(again.images) == set(KEYS[1:3])
    assert (tmp_path / "damaged" / path.name).exists(), "nothing is deleted"
    assert len(said) == 1
    assert Store(tmp_path, said.append).images == again.images


def test_a_png_under_another_name_is_never_served(tmp_path: Path) -> None:
    store = filled(tmp_path)
    wrong = store.image_path(KEYS[4])
    wrong.parent.mkdir(exist_ok=True)
    wrong.write_bytes(store.image_path(KEYS[0]).read_bytes())
    assert KEYS[4] not in Store(tmp_path).images


def test_a_deleted_png_is_missing_and_said(tmp_path: Path) -> None:
    filled(tmp_path).image_path(KEYS[1]).unlink()
    said: list[str] = []
    assert KEYS[1] not in Store(tmp_path, said.append).images
    assert "sampled again" in said[0]


def test_a_dropped_image_keeps_its_record(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.drop([KEYS[0]])
    again = Store(tmp_path)
    assert again.dropped(KEYS[0])
    assert again.images[KEYS[0]]["pixel_sha"] == pixel_sha(picture(0))
    assert not again.image_path(KEYS[0]).exists()
    with pytest.raises(SrbenchError):
        again.pixels(KEYS[0])


def test_scores_come_back(tmp_path: Path) -> None:
    score = {"score_key": KEYS[0], "image": KEYS[1], "identity": KEYS[2], "scorer": "s", "fields": "{}", "raw": {"x": 1.0}}
    Store(tmp_path).put_scores([score])
    assert Store(tmp_path).scores[KEYS[0]] == score


def test_a_newer_key_version_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "version").write_text(f"{KEY_VERSION + 1}\n")
    for open_store in (Store, Store.peek):
        with pytest.raises(UsageError, match="newer srbench"):
            open_store(tmp_path)


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("mine")
    with pytest.raises(UsageError, match="in the way"):
        Store(tmp_path / "results" / "store")
    assert (tmp_path / "results").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere; the CLI test covers it with an injected error")
def test_a_read_only_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot write"):
        Store(tmp_path / "store")
    tmp_path.chmod(0o700)


def test_no_space_left_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, 1)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SrbenchError, match="No space left"):
        store.put_images([(KEYS[1], picture(1), {})])
    monkeypatch.undo()
    again = Store(tmp_path)
    assert set(again.images) == {KEYS[0]}
    assert not list((tmp_path / "images").glob("*/.*")), "no temporary file stays"


def test_peek_changes_nothing_on_disk(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "ledger").joinpath("images-0.jsonl").write_text("{torn")
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    assert set(Store.peek(tmp_path).images) == set(KEYS[:3])
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before
    assert Store.peek(tmp_path / "absent").images == {}
