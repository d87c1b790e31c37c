"""What happens to a results folder when everything around it goes wrong. Counts are printed, and nothing may be lost."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from srbench.backbones.foreign import read_file
from srbench.errors import UsageError
from srbench.results.store import Store

pytestmark = pytest.mark.slow
RUN = (
    "run", "--method", "none,saferedir", "--suite", "igmu", "--concept", "hazard", "--dev", "--limit", "4", "--batch-size", "4",
)  # fmt: skip
KILLS, PROCESSES = 20, (2, 4)
UNFORESEEN = ("Traceback", "--debug shows where it happened", "This is a fault")


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    """The run in a process of its own, on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "srbench", *RUN, "--out", str(out), *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and what was said; a traceback is a failure of the campaign."""
    _, said = process.communicate(timeout=900)
    assert not any(sign in said for sign in UNFORESEEN), said[-2000:]
    return process.returncode, said


def pixels(out: Path) -> dict[str, str]:
    """Image key -> hash of the pixels."""
    return {key: record["pixel_sha"] for key, record in Store.peek(out / "store").images.items()}


def numbers(out: Path) -> list[Any]:
    """Metrics of the newest run but for times."""
    data = json.loads(max((out / "runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime_ns).read_text())
    metrics = [cell["result"]["metrics"] for cell in data["cells"]]
    return [{name: value for name, value in each.items() if name != "added_ms"} for each in metrics]


def written(out: Path) -> int:
    return len([path for path in (out / "store" / "images").glob("*/*.png") if not path.name.startswith(".")])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole")
    assert ended(start(out))[0] == 0
    return out


def report(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}")


def test_kills_at_random_moments(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance, images, survived = random.Random(0), len(pixels(whole)), 0
    for number in range(KILLS):
        out = tmp_path / str(number)
        process, at = start(out), chance.randrange(1, images + 2)
        until = time.monotonic() + 300
        while process.poll() is None and written(out) < at and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.5)
        process.kill()
        process.communicate()
        before = {path: path.stat().st_mtime_ns for path in (out / "store" / "images").glob("*/*.png")}
        assert ended(start(out))[0] == 0
        assert {path: path.stat().st_mtime_ns for path in before} == before, "a stored image was sampled again"
        survived += pixels(out) == pixels(whole) and numbers(out) == numbers(whole)
        shutil.rmtree(out)
    report(capsys, f"kills at random moments: {KILLS} tried, {survived} with the same pixels and numbers")
    assert survived == KILLS


@contextmanager
def disk(place: Path, size: str) -> Iterator[Path]:
    """A disk of its own. Skips where none may be mounted."""
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("no disk may be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.mark.parametrize("size", ["40k", "96k", "160k", "200k"])
def test_full_disks(size: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with disk(tmp_path / "disk", size) as place:
        code, said = ended(start(place / "out"))
        assert code in (1, 2), said
        assert "space" in said.casefold(), said
        subprocess.run(["mount", "-o", "remount,size=20m", str(place)], check=True)
        assert ended(start(place / "out"))[0] == 0
        same = pixels(place / "out") == pixels(whole) and numbers(place / "out") == numbers(whole)
    report(capsys, f"a disk of {size} that fills up, then has space: {'same' if same else 'OTHER'} pixels and numbers")
    assert same


def test_a_read_only_disk(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with disk(tmp_path / "disk", "20m") as place:
        shutil.copytree(whole, place / "out")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        code, said = ended(start(place / "out"))
        reads = subprocess.run(
            [sys.executable, "-m", "srbench", "compare", str(place / "out")], capture_output=True, text=True, check=False
        )
    report(capsys, f"a read-only disk: run ends with {code} in one line, compare reads it with {reads.returncode}")
    assert (code, reads.returncode) == (2, 0), said
    assert "Traceback" not in reads.stderr


@pytest.mark.parametrize("count", PROCESSES)
def test_processes_on_one_folder(count: int, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = [ended(process)[0] for process in [start(tmp_path) for _ in range(count)]]
    assert codes == [0] * count
    assert ended(start(tmp_path))[0] == 0
    runs = len(list((tmp_path / "runs").glob("*/run.json")))
    same = pixels(tmp_path) == pixels(whole) and numbers(tmp_path) == numbers(whole)
    report(capsys, f"{count} processes on one folder: {runs - 1} of {count} runs written, {'same' if same else 'OTHER'} numbers")
    assert same
    assert runs == count + 1


# --- pickles ----------------------------------------------------------------------------------------------------------


class Calls:
    """A pickle that calls something when it is opened."""

    def __init__(self, call: Any, *given: Any) -> None:
        self.call, self.given = call, given

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.given


def hostile(mark: Path) -> Iterator[tuple[str, Any]]:
    """Objects that would write `mark` when a pickle of them is opened."""
    command = f"touch {mark}"
    calls = {
        "system": Calls(os.system, command), "open": Calls(open, str(mark), "w"),
        "exec": Calls(exec, f"open({str(mark)!r}, 'w')"),
        "eval": Calls(eval, f"open({str(mark)!r}, 'w')"), "popen": Calls(os.popen, command), "mkdir": Calls(os.mkdir, str(mark)),
        "check": Calls(subprocess.check_call, ["touch", str(mark)]),
    }  # fmt: skip
    tensor = torch.ones(2)
    for name, call in calls.items():
        yield name, call
        yield f"{name} among tensors", {"a.weight": tensor, "b": call}
        yield f"{name} in a wrapper", {"state_dict": {"a.weight": tensor}, "optimizer": call}
        yield f"{name} in a list", [tensor, call]


def test_pickles_are_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark, tried, refused = tmp_path / "executed", 0, 0
    for name, made in hostile(mark):
        for protocol in range(5):
            path = tmp_path / f"{tried}{('.pt', '.bin', '.ckpt', '.pth')[tried % 4]}"
            if tried % 2 and protocol > 1:
                torch.save(made, path, pickle_protocol=protocol)
            else:
                path.write_bytes(pickle.dumps(made, protocol=protocol))
            tried += 1
            with suppress(UsageError):
                read_file(path)
                refused -= 1
            refused += 1
            assert not mark.exists(), name
    report(capsys, f"hostile pickles: {tried} tried, {refused} refused, none executed")
    assert (tried, refused) == (140, 140)
