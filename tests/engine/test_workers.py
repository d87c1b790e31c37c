"""Several workers on one store: the same images as one process makes, each once, and a worker that dies is not silent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from srbench.cli.main import app
from srbench.engine.devices import Runtime
from srbench.engine.workers import APART, Crew, Job, shares
from srbench.results.store import Store
from srbench.testing.tiny import tiny_pipeline

PROMPTS = ["a box red", "a box blue", "a ball", "a toy", "old", "wet", "a crate"]


def words(folder: Path, out: Path) -> list[str]:
    command = ["run", "--method", "none", "--backbone", str(folder), "--concept", "church", "--no-score", "--batch-size", "2"]
    return [*command, "--prompts", str(folder.parent / "mine.txt"), "--out", str(out)]


@pytest.fixture
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process and in those that are started."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_one_thread")
def test_two_workers_make_what_one_process_makes(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    (tmp_path / "mine.txt").write_text("\n".join(PROMPTS))
    alone = CliRunner().invoke(app, words(tmp_path / "model", tmp_path / "alone"))
    together = CliRunner().invoke(app, [*words(tmp_path / "model", tmp_path / "both"), "--gpus", "cpu,cpu"])
    assert alone.exit_code == 0, alone.stderr
    assert together.exit_code == 0, together.stderr
    one, two = Store(tmp_path / "alone" / "store"), Store(tmp_path / "both" / "store")
    assert len(one.images) == len(PROMPTS)
    assert {key: record["pixel_sha"] for key, record in two.images.items()} == {
        key: record["pixel_sha"] for key, record in one.images.items()
    }
    written = [line for path in (tmp_path / "both/store/ledger").glob("images-*") for line in path.read_text().splitlines()]
    assert len(written) == len(PROMPTS), "an image was made twice"
    assert {record["batch"] // APART for record in two.images.values()} == {0, 1}, "one of the two did nothing"
    assert len({record["run"] for record in two.images.values()}) == 1
    (saved,) = (json.loads(path.read_text()) for path in (tmp_path / "both").glob("runs/*/run.json"))
    assert saved["runtime"]["devices"] == ["cpu", "cpu"]
    assert f"{len(PROMPTS)}/{len(PROMPTS)} images" in together.stderr


def test_shares_are_disjoint_and_hold_every_key() -> None:
    keys = [f"{i:02}" for i in range(11)]
    parts = shares(keys, 3)
    assert sorted(key for part in parts for key in part) == keys
    assert {len(part) for part in parts} == {3, 4}


def test_workers_that_end_early_say_why(world: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """One knows why, the other dies of an error that nobody expected; no image of theirs is taken for made."""
    gone = world.spec.model_copy(update={"source": "nobody/nothing"})
    jobs = [
        Job(world.request(device=device), spec, "r", Runtime(), frozenset({key}), number, 2)
        for number, (device, spec, key) in enumerate([("cpu", gone, "a"), ("cuda:99", world.spec, "b")])
    ]
    crew = Crew(world)
    crew.run([replace(job, request=replace(job.request, backbone="toy")) for job in jobs])
    assert crew.failed["a"] == (
        "cpu: backbone 'toy' is not on this machine (nobody/nothing). Fetch it: hf download nobody/nothing"
    )
    assert crew.failed["a"] in world.lines
    assert crew.failed["b"].startswith("cuda:99: sampling: ")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["images", "failed"])
def test_what_a_worker_says_arrives(kind: str, world: Any) -> None:
    from multiprocessing import Pipe

    crew = Crew(world)
    ours, theirs = Pipe(duplex=False)
    crew._ends[ours] = 0
    theirs.send((kind, {"x": "why"} if kind == "failed" else 3))
    theirs.close()
    crew._hear(ours)
    crew._hear(ours)
    assert not crew._ends
    assert crew.failed == ({"x": "why"} if kind == "failed" else {})
    assert ("images 3" in world.lines) == (kind == "images")


@pytest.mark.slow
def test_a_sensitive_run_of_two_workers_is_not_sampled_again(tmp_path: Path) -> None:
    """A worker's ledger lines may stand behind its parent's that the same images were dropped."""
    command = [sys.executable, "-m", "srbench", "run", "--method", "none", "--suite", "i2p", "--concept", "church"]
    command += ["--limit", "2", "--gpus", "cpu,cpu", "--out", str(tmp_path)]
    said = [
        subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        ).stderr for _ in range(2)
    ]  # fmt: skip
    assert "6 images of sensitive cells were scored and dropped" in said[0], said[0]
    assert "0 images to sample, 6 in the store" in said[1], said[1]
    assert not list(tmp_path.rglob("*.png"))
