"""The store: what was written is found again, whatever happened in between."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from srbench.errors import SrbenchError, UsageError
from srbench.files import temporary_for
from srbench.results.keys import KEY_VERSION
from srbench.results.store import CHUNK, Store, pixel_sha

KEYS = [f"{i:064x}" for i in range(1, 6)]


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def filled(root: Path, count: int = 3) -> Store:
    store = Store(root)
    store.put_images([(KEYS[i], picture(i), {"method": "none", "seconds": 0.1, "trace": {}}) for i in range(count)])
    return store


def recovered(root: Path, warn: Any = lambda line: None) -> Store:
    """A store whose images were compared with their files, as those of a plan are."""
    store = Store(root, warn)
    store.recover(KEYS)
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
    assert recovered(root).images == before


def test_a_damaged_ledger_line_is_named_and_left_out(tmp_path: Path) -> None:
    before = filled(tmp_path).images
    path = next((tmp_path / "ledger").glob("images-*.jsonl"))
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:20] + b"\xff\xfe"
    path.write_bytes(b"\n".join(lines))
    said: list[str] = []
    assert recovered(tmp_path, said.append).images == before
    assert len(said) == 1
    assert "line 2" in said[0]


def test_a_truncated_png_is_set_aside_and_missing(tmp_path: Path) -> None:
    store = filled(tmp_path)
    path = store.image_path(KEYS[0])
    path.write_bytes(path.read_bytes()[:60])
    said: list[str] = []
    again = recovered(tmp_path, said.append)
    assert KEYS[0] not in again.images
    assert set(again.images) == set(KEYS[1:3])
    assert (tmp_path / "damaged" / path.name).exists(), "nothing is deleted"
    assert len(said) == 1
    assert recovered(tmp_path).images == again.images


def test_a_png_under_another_name_is_never_served(tmp_path: Path) -> None:
    store = filled(tmp_path)
    wrong = store.image_path(KEYS[4])
    wrong.parent.mkdir(exist_ok=True)
    wrong.write_bytes(store.image_path(KEYS[0]).read_bytes())
    assert KEYS[4] not in Store(tmp_path).images


def test_a_deleted_png_is_missing_and_said(tmp_path: Path) -> None:
    filled(tmp_path).image_path(KEYS[1]).unlink()
    said: list[str] = []
    assert KEYS[1] not in recovered(tmp_path, said.append).images
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


def test_opening_looks_at_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored is what ledgers say: the cost of a start does not grow with the pictures."""
    store = filled(tmp_path)
    looked: list[str] = []
    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **more: (looked.append(self.name), real(self, **more))[1])
    again = Store(tmp_path)
    assert set(again.images) == set(KEYS[:3])
    assert not [name for name in looked if name.endswith(".png")]
    again.recover(KEYS[:1])
    assert {name for name in looked if name.endswith(".png")} == {store.image_path(KEYS[0]).name}


def test_a_picture_without_a_line_is_found_when_it_is_planned(tmp_path: Path) -> None:
    """A process that was killed between the two leaves it; it is not sampled again."""
    filled(tmp_path)
    (ledger,) = (tmp_path / "ledger").glob("images-*")
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:1]))
    again = Store(tmp_path)
    assert set(again.images) == set(KEYS[:1])
    again.recover([KEYS[1], KEYS[4]])
    assert set(again.images) == set(KEYS[:2])
    assert set(Store(tmp_path).images) == set(KEYS[:2]), "its line is written"


def test_of_a_store_for_reading_pictures_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    filled(tmp_path).image_path(KEYS[1]).unlink()
    before = sorted(path for path in tmp_path.rglob("*"))
    store = Store.peek(tmp_path)
    store.recover(KEYS)
    assert set(store.images) == {KEYS[0], KEYS[2]}
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_peek_changes_nothing_on_disk(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "ledger").joinpath("images-0.jsonl").write_text("{torn")
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    assert set(Store.peek(tmp_path).images) == set(KEYS[:3])
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")) == before
    assert Store.peek(tmp_path / "absent").images == {}


# --- what is read is checked ------------------------------------------------------------------------------------------


def _png(path: Path, pixels: np.ndarray, record: dict[str, object] | str) -> None:
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text(CHUNK, record if isinstance(record, str) else json.dumps(record))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG", pnginfo=chunk)


def _record(i: int, sha: str) -> dict[str, object]:
    return {"key": KEYS[i], "pixel_sha": sha, "seconds": 0.1, "trace": {}}


@pytest.mark.parametrize("record", [
    "", "{", "[]", "[" * 5000, '{"key": NaN}', "{}", json.dumps({**_record(0, "0" * 64)}),
    json.dumps({**_record(0, pixel_sha(np.zeros((8, 8, 3), np.uint8))), "seconds": "1"}),
])  # fmt: skip
def test_a_png_with_any_record_is_set_aside(record: str, tmp_path: Path) -> None:
    store = filled(tmp_path, 0)
    _png(store.image_path(KEYS[0]), np.zeros((8, 8, 3), np.uint8), record)
    said: list[str] = []
    assert Store(tmp_path, said.append).images == {}
    assert len(said) == 1
    assert (tmp_path / "damaged" / f"{KEYS[0]}.png").exists()


def test_foreign_pixels_are_refused_when_they_are_read(tmp_path: Path) -> None:
    store = filled(tmp_path)
    path, when = store.image_path(KEYS[0]), store.image_path(KEYS[0]).stat().st_mtime_ns
    opened, peeked = Store(tmp_path), Store.peek(tmp_path)
    _png(path, picture(9), _record(0, pixel_sha(picture(9))))
    os.utime(path, ns=(when, when))
    with pytest.raises(SrbenchError, match="other pixels than the ledger says"):
        peeked.pixels(KEYS[0])
    assert path.exists(), "a store for reading only moves nothing"
    with pytest.raises(SrbenchError, match="other pixels than the ledger says"):
        opened.pixels(KEYS[0])
    assert KEYS[0] not in opened.images
    assert not path.exists()


def test_a_picture_of_absurd_size_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path)
    monkeypatch.setattr("srbench.results.store.MAX_PIXELS", 63)
    with pytest.raises(SrbenchError, match="8 x 8 px"):
        store.pixels(KEYS[0])


def test_two_processes_that_made_one_image_agree_on_what_is_there(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    extra = {"seconds": 0.1, "trace": {}}
    second.put_images([(KEYS[0], picture(1), extra)])
    first.put_images([(KEYS[0], picture(0), extra)])  # its picture is the one that stays, its ledger is the older one
    said: list[str] = []
    again = Store(tmp_path, said.append)
    assert np.array_equal(again.pixels(KEYS[0]), picture(0))
    assert again.images[KEYS[0]]["pixel_sha"] == pixel_sha(picture(0))
    assert said == []


def test_what_was_dropped_stays_so_in_whatever_order_ledgers_are_read(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.drop([KEYS[0]])
    (made,) = (tmp_path / "ledger").glob("images-*")
    lines = made.read_text().splitlines(keepends=True)
    made.write_text("".join(lines[:-1]))
    (tmp_path / "ledger" / "images-0.jsonl").write_text(lines[-1])  # as if an earlier clock had named it
    said: list[str] = []
    assert Store(tmp_path, said.append).dropped(KEYS[0])
    assert said == []


@pytest.mark.parametrize("made", [
    np.zeros((2, 2), np.float32), np.zeros(3, np.int32), np.array([np.nan], np.float32), np.zeros(0, np.float32),
    np.array(1.0), np.array(["x"]),
])  # fmt: skip
def test_what_is_no_vector_of_finite_numbers_is_made_again(made: np.ndarray, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_feature(KEYS[0], KEYS[1], made)
    assert store.feature(KEYS[0], KEYS[1]) is None


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"PK\x03\x04" * 9, b"\x93NUMPY\x01\x00\xff\xff{" + b"'a':" * 99, bytes(999)])
def test_any_file_in_a_vectors_place_is_made_again(data: bytes, tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.feature_path(KEYS[0], KEYS[1])
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    assert store.feature(KEYS[0], KEYS[1]) is None


# --- temporary files and names ----------------------------------------------------------------------------------------


def _dead() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_temporary_files_of_dead_processes_go_and_those_of_others_stay(tmp_path: Path) -> None:
    filled(tmp_path / "store")
    folder = tmp_path / "store" / "images" / "00"
    mine = temporary_for(folder / "x.png").name
    dead, parent = _dead(), os.getppid()
    gone = [mine.replace(f"-{os.getpid()}-", f"-{dead}-"), f".old.png.{dead}.tmp", ".far.png.elsewhere-1-0123abcd.tmp"]
    stay = [mine, mine.replace(f"-{os.getpid()}-", f"-{parent}-"), ".near.png.elsewhere-1-0123abce.tmp", f".old.png.{parent}.tmp"]
    run = tmp_path / "runs" / "x"
    run.mkdir(parents=True)
    for name in (*gone, *stay):
        (folder / name).write_bytes(b"half")
    (run / gone[0]).write_bytes(b"half")
    os.utime(folder / gone[2], (0, 0))
    said: list[str] = []
    Store.peek(tmp_path / "store", said.append)
    assert said == []
    Store(tmp_path / "store", said.append)
    assert said == ["4 temporary files of processes that have ended were removed"]
    assert {path.name for path in folder.iterdir() if path.name.endswith(".tmp")} == set(stay)
    assert not list(run.iterdir())


def test_ledgers_of_equal_processes_at_one_moment_have_names_of_their_own(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    stores = [Store(tmp_path) for _ in range(20)]
    for i, store in enumerate(stores):
        store.put_images([(f"{i:064x}", picture(i), {"seconds": 0.1, "trace": {}})])
    assert len(list((tmp_path / "ledger").glob("images-*"))) == 20
    assert len(Store(tmp_path).images) == 20


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "Free some space"), (errno.EDQUOT, "Free some space"), (errno.EIO, "Look at")]
)
def test_only_a_full_disk_asks_for_space(number: int, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, 1)

    def broken(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(SrbenchError) as caught:
        store.put_images([(KEYS[1], picture(1), {"seconds": 0.1, "trace": {}})])
    assert caught.value.hint.startswith(hint)
    assert os.strerror(number) in caught.value.message


def test_after_a_failed_write_the_next_line_begins_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, 1)
    extra = {"seconds": 0.1, "trace": {}}
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(SrbenchError):
            store.put_images([(KEYS[1], picture(1), extra)])
    store._image_ledger.path.parent.joinpath("images-0.jsonl").write_text('{"torn')
    store.put_images([(KEYS[2], picture(2), extra)])
    assert set(Store(tmp_path).images) == {KEYS[0], KEYS[2]}
