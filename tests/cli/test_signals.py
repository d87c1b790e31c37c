"""Signals: the command ends in good order with exit 130, one line and no traceback, and the same command goes on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTS_WITHIN_SECONDS = 600.0
"""On a machine that is busy with other things."""


def started(out: Path, *more: str) -> subprocess.Popen[str]:
    """A run that has begun to sample, in a process of its own which hears Ctrl-C."""
    command = [
        *(sys.executable, "-m", "srbench", "run", "--method", "none", "--suite", "igmu", "--concept", "church"),
        *("--limit", "40", "--batch-size", "1", "--out", str(out), *more),
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    until = time.monotonic() + STARTS_WITHIN_SECONDS
    while not list(out.glob("store/images/*/*.png")):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(f"no picture yet: {process.communicate()}")
        time.sleep(0.05)
    return process


def python(script: str) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own."""
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    "name", ["SIGTERM", "SIGINT", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGUSR1", "SIGHUP"))]
)
def test_a_signal_ends_a_run_in_good_order(tmp_path: Path, name: str) -> None:
    out = tmp_path / "a folder"
    process = started(out)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("interrupted; go on with: srbench run ")
    assert shlex.split(last.partition(": ")[2])[-1] == str(out)
    images = list(out.glob("store/images/*/*.png"))
    known = [json.loads(line) for file in out.glob("store/ledger/images-*") for line in file.read_text().splitlines()]
    assert {path.stem for path in images} == {record["key"] for record in known}  # the batch was finished


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no groups of processes here")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_actors_end_with_the_run_and_say_nothing(tmp_path: Path, name: str) -> None:
    process = started(tmp_path / "out", "--gpus", "cpu,cpu")
    os.killpg(process.pid, getattr(signal, name))
    _, err = process.communicate(timeout=300)  # returns when nobody has the pipes any more
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("interrupted; go on with: ")


def test_a_second_signal_ends_at_once_and_an_ignored_one_stays_ignored(tmp_path: Path) -> None:
    script = (
        "import signal, time\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from srbench.cli import signals\n"
        "signals.listen()\n"
        "signal.raise_signal(signal.SIGHUP)\n"
        "print('on', flush=True)\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "finally:\n"
        "    print('tidy', flush=True)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print('never', flush=True)\n"
    )
    done = python(script)
    assert (done.returncode, done.stdout, done.stderr) == (130, "on\ntidy\n", "")


def test_signals_of_a_scheduler_let_the_work_finish_its_step_however_often_they_come() -> None:
    """SLURM sends what `--signal` names, and SIGTERM when the time is over; Ctrl-C after them ends at once."""
    script = (
        "import signal\n"
        "from srbench import stopping\n"
        "from srbench.cli import signals\n"
        "signals.listen()\n"
        "try:\n"
        "    with stopping.patient():\n"
        "        for name in ('SIGUSR1', 'SIGTERM', 'SIGTERM'):\n"
        "            signal.raise_signal(getattr(signal, name))\n"
        "        print('finished', flush=True)\n"
        "        stopping.check()\n"
        "        print('never', flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    print('in good order', signals.heard(), flush=True)\n"
        "with stopping.patient():\n"
        "    signal.raise_signal(signal.SIGINT)\n"
    )
    done = python(script)
    assert (done.returncode, done.stdout, done.stderr) == (130, "finished\nin good order True\n", "")


def test_an_interrupt_that_is_lost_in_a_destructor_comes_again() -> None:
    script = (
        "import signal, time\n"
        "from srbench.cli import signals\n"
        "signals.listen()\n"
        "class Lost:\n"
        "    def __del__(self):\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "try:\n"
        "    Lost()\n"
        "    time.sleep(30)\n"
        "except KeyboardInterrupt:\n"
        "    print('heard')\n"
    )
    done = python(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard\n", "")


def test_an_interrupt_during_an_import_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from srbench.__main__ import main; main()"
    done = python(script)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
