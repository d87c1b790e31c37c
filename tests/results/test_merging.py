"""`srbench merge`: nothing is lost, nothing is there twice, and what two folders hold differently is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from srbench.cli.main import app
from srbench.errors import SrbenchError, UsageError
from srbench.results import merging
from srbench.results.merging import Merged
from srbench.results.store import Store

KEYS = [f"{i:064x}" for i in range(1, 7)]
DAY = "20250101T000000"


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def folder(root: Path, pictures: dict[int, int], run: str = "", **marks: Any) -> Path:
    """A results folder with an image and a score for each number; pictures: number -> seed of its pixels."""
    store = Store(root / "store")
    store.put_images([
        (KEYS[i], picture(seed), {"method": "none", "seconds": 0.1, "trace": {}, **marks}) for i, seed in pictures.items()
    ])
    store.put_scores([
        {"score_key": KEYS[i], "image": KEYS[i], "identity": KEYS[5], "scorer": "s", "fields": "{}", "raw": {"x": float(seed)}}
        for i, seed in pictures.items()
    ])
    if run:
        (root / "runs" / run).mkdir(parents=True)
        data = {"schema": 1, "run": run, "order": 1, "after": None, "started": f"{run}Z", "of": str(root), "cells": []}
        (root / "runs" / run / "run.json").write_text(json.dumps(data))
    return root


def merge(*sources: Path, into: Path) -> Merged:
    return merging.merge(sources, into, lambda line: None, lambda *_: None)


def pixels(root: Path) -> dict[str, list[int]]:
    store = Store.peek(root / "store")
    return {key: store.pixels(key).ravel().tolist() for key in store.images}


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, 4)), st.sets(st.integers(0, 4)))
def test_everything_of_both_is_there_once_in_whichever_order(
    tmp_path_factory: pytest.TempPathFactory, one: set[int], two: set[int]
) -> None:
    root = tmp_path_factory.mktemp("merge")
    a, b = folder(root / "a", {i: i for i in one}), folder(root / "b", {i: i for i in two})
    first = merge(a, b, into=root / "ab")
    merge(b, a, into=root / "ba")
    assert pixels(root / "ab") == pixels(root / "ba") == pixels(a) | pixels(b)
    assert dict(Store.peek(root / "ab" / "store").scores) == {KEYS[i]: score(i) for i in one | two}
    assert (first.images, first.there, first.conflicts) == (len(one | two), len(one & two), [])
    again = merge(a, b, into=root / "ab")
    assert (again.images, again.scores) == (0, 0)


def score(i: int) -> dict[str, Any]:
    return {"score_key": KEYS[i], "image": KEYS[i], "identity": KEYS[5], "scorer": "s", "fields": "{}", "raw": {"x": float(i)}}


def test_sources_stay_as_they_are(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", {0: 0}, DAY), folder(tmp_path / "b", {1: 1}, "20250102T000000")
    before = {path: path.read_bytes() for each in (a, b) for path in each.rglob("*") if path.is_file()}
    merge(a, b, into=tmp_path / "c")
    assert {path: path.read_bytes() for each in (a, b) for path in each.rglob("*") if path.is_file()} == before
    assert {path.name for path in (tmp_path / "c" / "runs").iterdir()} == {DAY, "20250102T000000"}


def test_other_pixels_under_one_key_are_named_and_the_first_stay(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", {0: 0}, DAY), folder(tmp_path / "b", {0: 9}, DAY)
    done = merge(a, b, into=tmp_path / "c")
    assert [line[:40] for line in done.conflicts] == [
        f"image {KEYS[0][:12]} has other pixels in {b}"[:40], f"run {DAY} is another one in {b}; the one"[:40],
    ]  # fmt: skip
    assert pixels(tmp_path / "c") == pixels(a)


def test_a_sensitive_picture_stays_behind_and_the_scores_of_a_dropped_one_come(tmp_path: Path) -> None:
    kept = folder(tmp_path / "kept", {0: 0}, sensitive=True, kept=True)
    dropped = folder(tmp_path / "dropped", {1: 1}, sensitive=True)
    Store(dropped / "store").drop([KEYS[1]])
    done = merge(kept, dropped, into=tmp_path / "c")
    store = Store.peek(tmp_path / "c" / "store")
    assert (done.secret, done.images, done.scores) == (1, 2, 2)
    assert [path.name for path in (tmp_path / "c").rglob("*.png")] == []
    assert [store.dropped(key) for key in store.images] == [True, True]


def test_what_one_folder_calls_sensitive_is_sensitive(tmp_path: Path) -> None:
    plain, marked = folder(tmp_path / "plain", {0: 0}), folder(tmp_path / "marked", {0: 0}, sensitive=True, kept=True)
    merge(plain, marked, into=tmp_path / "c")
    record = Store.peek(tmp_path / "c" / "store").images[KEYS[0]]
    assert (record["sensitive"], record["kept"], record["awaits"]) == (True, True, [])


def test_a_damaged_picture_is_named_and_not_copied(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {0: 0, 1: 1})
    path = Store.peek(a / "store").image_path(KEYS[0])
    path.write_bytes(path.read_bytes()[:60])
    result = CliRunner().invoke(app, ["merge", str(a), "--out", str(tmp_path / "c")])
    assert result.exit_code == 1
    assert f"damaged: {path}" in result.stderr
    assert list(pixels(tmp_path / "c")) == [KEYS[1]]


def test_a_merge_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = folder(tmp_path / "a", {i: i for i in range(5)})
    monkeypatch.setattr(merging, "BATCH", 2)
    monkeypatch.setattr(Store, "put_scores", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        merge(a, into=tmp_path / "c")
    monkeypatch.undo()
    done = merge(a, into=tmp_path / "c")
    assert (done.images, done.scores) == (0, 5)
    assert pixels(tmp_path / "c") == pixels(a)


def test_checkpoints_vectors_and_what_studies_made_come_too(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {0: 0})
    Store(a / "store").put_feature("f" * 64, "e" * 64, np.ones(4, np.float32))
    for place in ("store/checkpoints/uce-box-1", "studies/step/123"):
        (a / place).mkdir(parents=True)
        (a / place / "card.json").write_text("{}")
    done = merge(a, into=tmp_path / "c")
    assert (done.vectors, done.checkpoints, done.made_by_studies) == (1, 1, 1)
    assert (tmp_path / "c" / "studies" / "step" / "123" / "card.json").read_text() == "{}"


def test_what_is_no_results_folder_is_refused(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {0: 0})
    (tmp_path / "empty").mkdir()
    for source, into in ((tmp_path / "empty", tmp_path / "c"), (tmp_path / "nothing", tmp_path / "c"), (a, a)):
        with pytest.raises(UsageError):
            merge(source, into=into)
    assert not (tmp_path / "c").exists()


def test_runs_of_several_folders_are_ordered_by_their_dates(tmp_path: Path) -> None:
    """Each folder counts its own runs: the third of January is not newer than the first of June."""
    from srbench.results.run_files import local_files, newest_first, read_run

    early = tmp_path / "p"
    for day in (1, 2, 3):
        folder(early, {}, f"2025010{day}T000000")
    late = folder(tmp_path / "q", {}, "20250601T000000")
    said: list[str] = []
    merge(early, late, into=tmp_path / "c")
    files = local_files(tmp_path / "c")
    ordered = newest_first(((path, read_run(path)) for path in files), said.append)
    assert ordered[0][0].parent.name == "20250601T000000"
    assert said == []


def test_scores_of_other_pixels_do_not_come(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", {0: 0, 1: 1}), folder(tmp_path / "b", {0: 9})
    store = Store(b / "store")
    store.put_scores([{**score(9 % 6), "score_key": "f" * 64, "image": KEYS[0]}])
    merge(a, b, into=tmp_path / "c")
    assert {record["score_key"] for record in Store.peek(tmp_path / "c" / "store").scores.values()} == {KEYS[0], KEYS[1]}


def test_a_picture_that_lost_its_ledger_line_comes_too(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {0: 0, 1: 1})
    for path in (a / "store" / "ledger").glob("images-*"):
        path.unlink()
    assert merge(a, into=tmp_path / "c").images == 2
    assert pixels(tmp_path / "c") == {KEYS[i]: picture(i).ravel().tolist() for i in (0, 1)}


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_picture_that_is_damaged_in_the_target_is_mended(tmp_path: Path, how: str) -> None:
    a, c = folder(tmp_path / "a", {0: 0, 1: 1}), folder(tmp_path / "c", {0: 0})
    path = Store.peek(c / "store").image_path(KEYS[0])
    path.write_bytes(path.read_bytes()[:50]) if how == "cut" else path.unlink()
    assert merge(a, into=c).images == 2
    assert pixels(c) == pixels(a)


def test_of_two_samples_of_one_image_the_one_on_disk_comes(tmp_path: Path) -> None:
    """The ledger's last line may be of the pixels that were written over."""
    a = folder(tmp_path / "a", {0: 0})
    path = Store.peek(a / "store").image_path(KEYS[0])
    first = path.read_bytes()
    Store(a / "store").put_images([(KEYS[0], picture(7), {"method": "none", "seconds": 0.1, "trace": {}})])
    path.write_bytes(first)
    merge(a, into=tmp_path / "c")
    assert pixels(tmp_path / "c") == {KEYS[0]: picture(0).ravel().tolist()}


def test_a_damaged_run_file_is_named_and_keeps_no_sound_one_out(tmp_path: Path) -> None:
    bad, good = folder(tmp_path / "bad", {0: 0}, DAY), folder(tmp_path / "good", {1: 1}, DAY)
    path = bad / "runs" / DAY / "run.json"
    path.write_bytes(path.read_bytes()[:20])
    done = merge(bad, good, into=tmp_path / "c")
    assert (done.runs, len(done.damaged)) == (1, 1)


@pytest.mark.parametrize("damage", ["no card", "changed", "link"])
def test_a_checkpoint_that_is_not_whole_is_named_and_keeps_no_sound_one_out(tmp_path: Path, damage: str) -> None:
    bad, good = folder(tmp_path / "bad", {0: 0}), folder(tmp_path / "good", {1: 1})
    for root in (bad, good):
        place = root / "store" / "checkpoints" / "uce-box-1"
        place.mkdir(parents=True)
        (place / "unet.safetensors").write_bytes(b"weights")
        sha = hashlib.sha256(b"weights").hexdigest()
        (place / "card.json").write_text(json.dumps({"files": {"unet.safetensors": sha}}))
    place = bad / "store" / "checkpoints" / "uce-box-1"
    if damage == "no card":
        (place / "card.json").unlink()
    elif damage == "changed":
        (place / "unet.safetensors").write_bytes(b"other")
    else:
        (place / "more").symlink_to(tmp_path)
    done = merge(bad, good, into=tmp_path / "c")
    assert (done.checkpoints, len(done.damaged)) == (1, 1)


@pytest.mark.parametrize("inside", ["a/store", "a/runs/x", "."])
def test_folders_that_lie_in_each_other_are_refused(tmp_path: Path, inside: str) -> None:
    a = folder(tmp_path / "a", {0: 0})
    with pytest.raises(UsageError, match="lie in each other"):
        merge(a, into=tmp_path / inside)


def test_nothing_is_written_before_every_folder_is_checked(tmp_path: Path) -> None:
    a, newer = folder(tmp_path / "a", {0: 0}), folder(tmp_path / "newer", {1: 1})
    (newer / "store" / "version").write_text("999")
    with pytest.raises(UsageError, match="newer srbench"):
        merge(a, newer, into=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_disk_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = folder(tmp_path / "a", {0: 0})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(merging, "write_atomic", full)
    with pytest.raises(SrbenchError, match="No space left"):
        merge(a, into=tmp_path / "c")
