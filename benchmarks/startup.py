"""How fast `import srbench`, `srbench --help` and `srbench list` are, beside what Python and torch cost alone on this machine."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = Path(sys.executable).with_name("srbench")
SRBENCH = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-c", "from srbench.cli.main import main; main()"]
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    "import srbench": [sys.executable, "-c", "import srbench"],
    "srbench --help": [*SRBENCH, "--help"],
    "srbench list": [*SRBENCH, "list"],
}
TARGET_SECONDS = {"import srbench": 0.2, "srbench --help": 0.2, "srbench list": 0.4}


def seconds(command: list[str]) -> float:
    """Wall time of one process. Raises `CalledProcessError` where it fails."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Measure each command `--repeats` times after one warm-up; print the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    best = {name: min([seconds(command) for _ in range(repeats + 1)][1:]) for name, command in COMMANDS.items()}
    bare, torch = best["python -c pass"], best["python -c 'import torch'"]
    print(f"best of {repeats}{'':<17}{'seconds':>9}{'x python':>10}{'of torch':>10}  target")
    for name, value in best.items():
        target = TARGET_SECONDS.get(name)
        verdict = "" if target is None else f"  {target} s: {'reached' if value <= target else 'missed'}"
        print(f"{name:<26}{value:>9.3f}{value / bare:>10.1f}{value / torch:>10.2f}{verdict}")


if __name__ == "__main__":
    main()
