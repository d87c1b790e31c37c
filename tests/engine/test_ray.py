"""Runs on Ray: the same images as one process makes, each once, with an actor or the driver killed in the middle.

One Ray is started for all tests of this file, in this process: commands that are invoked here find it and leave it running.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from srbench.cli.main import app
from srbench.engine import cluster
from srbench.engine.sampler import APART
from srbench.results.store import Store
from srbench.testing.tiny import tiny_pipeline
from tests.hands import HAS_RAY

pytestmark = HAS_RAY
PROMPTS = ["a box red", "a box blue", "a ball", "a toy", "old", "wet", "a crate", "a box old", "a box wet", "a toy red"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
WITHIN_SECONDS = 600.0


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """A Ray of two cores, and one thread here and in its actors: so many threads round otherwise."""
    before, threads = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    cluster.start_here(2)
    cluster._ours.clear()  # no command ends it
    yield
    cluster._ours.append(None)
    cluster.leave()
    torch.set_num_threads(threads)
    os.environ.pop("OMP_NUM_THREADS")
    os.environ.update({} if before is None else {"OMP_NUM_THREADS": before})


def words(folder: Path, out: Path, batch_size: int = 1) -> list[str]:
    command = ["run", "--method", "none", "--backbone", str(folder / "model"), "--concept", "church", "--sample-only"]
    return [*command, "--batch-size", str(batch_size), "--prompts", str(folder / "mine.txt"), "--out", str(out)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and prompts, with what one process makes of them in `alone`."""
    folder = tmp_path_factory.mktemp("ray")
    tiny_pipeline().save_pretrained(folder / "model")
    (folder / "mine.txt").write_text("\n".join(PROMPTS))
    done = CliRunner().invoke(app, words(folder, folder / "alone"))
    assert done.exit_code == 0, done.stderr
    return folder


def pixels(out: Path) -> dict[str, str]:
    return {key: record["pixel_sha"] for key, record in Store.peek(out / "store").images.items()}


def lines(out: Path) -> list[str]:
    """The key of every line of the images' ledgers."""
    return [json.loads(line)["key"] for path in (out / "store/ledger").glob("images-*") for line in path.read_text().splitlines()]


def saved(out: Path) -> dict[str, Any]:
    (path,) = out.glob("runs/*/run.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def when(ready: Callable[[], bool], do: Callable[[], None]) -> threading.Thread:
    """Do something beside the test as soon as something is so."""

    def wait() -> None:
        until = time.monotonic() + WITHIN_SECONDS
        while not ready() and time.monotonic() < until:
            time.sleep(0.005)
        do()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def actors(out: Path) -> list[int]:
    """Processes that have written a ledger here: its name says which."""
    return [int(path.name.split("-")[-2]) for path in (out / "store" / "ledger").glob("images-*")]


@pytest.mark.slow
def test_two_cpu_actors_make_what_one_process_makes(tiny: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*words(tiny, tmp_path), "--gpus", "cpu,cpu"])
    assert done.exit_code == 0, done.stderr
    assert pixels(tmp_path) == pixels(tiny / "alone")
    assert sorted(lines(tmp_path)) == sorted(pixels(tmp_path)), "an image was made twice"
    records = Store.peek(tmp_path / "store").images.values()
    assert {record["batch"] // APART for record in records} <= {1, 2}
    assert saved(tmp_path)["runtime"]["devices"] == ["cpu", "cpu"]
    assert sum(each["images"] for each in saved(tmp_path)["actors"]) == len(PROMPTS)
    assert os.getpid() not in actors(tmp_path), "the driver has sampled"
    assert f"{len(PROMPTS)}/{len(PROMPTS)} images" in done.stderr


def test_on_a_cluster_with_an_actor_killed_in_mid_chunk(tiny: Path, tmp_path: Path) -> None:
    killer = when(lambda: bool(lines(tmp_path)), lambda: os.kill(actors(tmp_path)[0], signal.SIGKILL))
    done = CliRunner().invoke(app, [*words(tiny, tmp_path), "--ray", "auto"])
    killer.join()
    assert done.exit_code == 0, done.stderr
    assert "ray: room for 2 actors on 1 nodes, 1 cores each" in done.stderr
    assert "has died (" in done.stderr, done.stderr
    assert pixels(tmp_path) == pixels(tiny / "alone")
    assert sorted(lines(tmp_path)) == sorted(pixels(tmp_path)), "an image was made twice"
    assert not list((tmp_path / "store").rglob("*probe*")), "probes of nodes are taken away"


def test_the_same_command_again_asks_nobody(tiny: Path) -> None:
    out = tiny / "alone"
    before = sorted((out / "store" / "ledger").iterdir())
    done = CliRunner().invoke(app, [*words(tiny, out), "--ray", "auto"])
    assert done.exit_code == 0, done.stderr
    assert f"0 images to sample, {len(PROMPTS)} in the store" in done.stderr
    assert sorted((out / "store" / "ledger").iterdir()) == before


def test_an_actor_that_cannot_load_the_backbone(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver says another hash than the actors find: as on nodes with another revision."""
    from srbench.engine import team

    monkeypatch.setattr(team, "refuse_strangers", lambda *given: None)
    real = team.Given
    monkeypatch.setattr(team, "Given", lambda *given: replace(real(*given), sha256="0" * 64))
    done = CliRunner().invoke(app, [*words(tiny, tmp_path), "--ray", "auto"])
    assert done.exit_code == 3
    last = done.stderr.splitlines()[-2:]
    assert last[0].startswith("error: no actor is left: other weights of 'model'"), done.stderr
    assert last[1] == "hint: Fetch the same revision on every node."


@pytest.mark.slow
def test_a_grid_of_pocket_with_scores_is_the_same_on_two_actors(tmp_path: Path) -> None:
    """Stacked methods, two suites, checkpoints made by the actors; numbers and all."""
    command = ["run", "--method", "none,saferedir,sld-max", "--on", "none,uce", "--suite", "igmu,mma", "--concept", "church"]
    command += ["--limit", "2", "--json", "--out"]
    alone, spread = (CliRunner().invoke(app, [*command, str(tmp_path / name), *more]) for name, more in
                     (("alone", []), ("spread", ["--ray", "auto"])))  # fmt: skip
    assert (alone.exit_code, spread.exit_code) == (0, 0), spread.stderr
    assert pixels(tmp_path / "spread") == pixels(tmp_path / "alone")
    one, two = (
        [{name: metric for name, metric in cell["metrics"].items() if name != "added_ms"} for cell in cells]
        for cells in (json.loads(each.stdout)["cells"] for each in (alone, spread))
    )
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_driver_that_is_killed_goes_on_with_the_same_command(name: str, tiny: Path, tmp_path: Path) -> None:
    """Its actors end with it; a Ray of its own, too."""
    command = [sys.executable, "-m", "srbench", *words(tiny, tmp_path), "--gpus", "cpu,cpu"]
    process = subprocess.Popen(command, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    when(lambda: bool(lines(tmp_path)), lambda: process.send_signal(getattr(signal, name))).join()
    _, err = process.communicate(timeout=WITHIN_SECONDS)
    assert "Traceback" not in err
    if name == "SIGTERM":
        assert process.returncode == 130
        assert err.splitlines()[-1].startswith("interrupted; go on with: srbench run ")
    until = time.monotonic() + WITHIN_SECONDS
    while any(map(running, actors(tmp_path))) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(running, actors(tmp_path))), "an actor outlives its driver"
    stored = pixels(tmp_path)
    done = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True, check=False, timeout=WITHIN_SECONDS)
    assert done.returncode == 0, done.stderr
    assert f"{len(PROMPTS) - len(stored)} images to sample, {len(stored)} in the store" in done.stderr
    assert pixels(tmp_path) == pixels(tiny / "alone")
    assert sorted(lines(tmp_path)) == sorted(pixels(tmp_path)), "an image was made twice"


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_sensitive_run_of_two_actors_is_not_sampled_again(tmp_path: Path) -> None:
    """An actor's ledger lines may stand behind the driver's that the same images were dropped."""
    command = ["run", "--method", "none", "--suite", "i2p", "--concept", "church", "--limit", "2", "--gpus", "cpu,cpu"]
    said = [CliRunner().invoke(app, [*command, "--out", str(tmp_path)]).stderr for _ in range(2)]
    assert "6 images of sensitive cells were scored and dropped" in said[0], said[0]
    assert "0 images to sample, 6 in the store" in said[1], said[1]
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.slow
def test_a_search_of_two_actors_whose_driver_is_killed_ends_at_the_bytes_of_one_process(tmp_path: Path) -> None:
    """The driver alone writes `FILE.part`: it goes on from there, now on a cluster, with an actor killed."""
    small = ("--set", "tokens=4", "--set", "steps=2", "--set", "topk=8", "--set", "batch=4", "--set", "parallel=2")
    command = ["attack", "mma", "--concept", "church", "--suite", "igmu", "--dev", "--limit", "12", *small, "--out"]
    alone = CliRunner().invoke(app, [*command, str(tmp_path / "alone.json")])
    assert alone.exit_code == 0, alone.stderr
    part, spread = tmp_path / "spread.json.part", [*command, str(tmp_path / "spread.json")]
    run = [sys.executable, "-m", "srbench", *spread, "--gpus", "cpu,cpu"]
    process = subprocess.Popen(run, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    when(lambda: len(known(part)) > 2, process.kill).join()
    _, err = process.communicate(timeout=WITHIN_SECONDS)
    assert process.returncode == -signal.SIGKILL, err
    before = known(part)
    assert 2 < len(before) < 13
    killer = when(lambda: bool(searching()) and len(known(part)) > len(before), lambda: os.kill(searching()[0], signal.SIGKILL))
    done = CliRunner().invoke(app, [*spread, "--ray", "auto"])
    killer.join()
    assert done.exit_code == 0, done.stderr
    assert "ray: room for 2 actors on 1 nodes, 1 cores each" in done.stderr
    assert "has died (" in done.stderr, done.stderr
    assert f"{len(before) - 1} of them were there already" in done.stderr
    assert (tmp_path / "spread.json").read_bytes() == (tmp_path / "alone.json").read_bytes()
    assert not part.exists()


def known(part: Path) -> list[str]:
    """The lines of a `FILE.part`, which goes when the search has ended."""
    try:
        return part.read_text().splitlines()
    except OSError:
        return []


def searching() -> list[int]:
    """Processes of actors of this test's Ray: its workers are children of what this process has started."""
    parents = {int(path.name): _parent(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
    ours = {os.getpid()}
    for _ in range(4):
        ours |= {pid for pid, parent in parents.items() if parent in ours}
    return [pid for pid in sorted(ours) if b"ray::Actor" in _command_line(pid)]


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
