"""`kill -9` at any moment, then the same command: the same rows, the same pixels, nothing stored sampled again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from srbench.results.store import Store

COMMAND = (
    "run", "--method", "none,saferedir", "--suite", "igmu", "--concept", "hazard", "--dev", "--limit", "3", "--batch-size", "2",
    "--no-score",
)


def start(out: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "srbench", *COMMAND, "--out", str(out)], env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def stored(out: Path) -> dict[str, int]:
    """Image files by key with the time they were written."""
    return {p.stem: p.stat().st_mtime_ns for p in (out / "store" / "images").glob("*/*.png") if not p.name.startswith(".")}


def kill_when(process: subprocess.Popen[bytes], out: Path, count: int, deadline_seconds: float = 240) -> None:
    """Kill -9 once `count` images are stored, or let the run end if it is faster."""
    until = time.monotonic() + deadline_seconds
    while process.poll() is None and len(stored(out)) < count and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(random.Random(count).random() * 0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()


def pixels(out: Path) -> dict[str, str]:
    return {key: record["pixel_sha"] for key, record in Store(out / "store").images.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole")
    process = start(out)
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said.decode()
    return out


def test_killed_again_and_again_it_ends_in_the_same_place(whole: Path, tmp_path: Path) -> None:
    before: dict[str, int] = {}
    for count in (1, 9):
        kill_when(start(tmp_path), tmp_path, count)
        now = stored(tmp_path)
        assert {k: now[k] for k in before} == before, "a stored image was written again"
        before = now
    process = start(tmp_path)
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said.decode()
    after = stored(tmp_path)
    assert {k: after[k] for k in before} == before, "a stored image was sampled again"
    assert pixels(tmp_path) == pixels(whole)
    assert _rows(tmp_path) == _rows(whole)


def _rows(out: Path) -> list[object]:
    run = sorted((out / "runs").glob("*/run.json"))[-1]
    return [cell["rows"] for cell in json.loads(run.read_text())["cells"]]
