"""What a full results folder costs: opening its store, and looking up the images of one run, in processor seconds and memory.

    python benchmarks/store_growth.py FOLDER --images 200000     # makes the folder where it is not there, then measures

Two scores an image, as a judge and a text scorer make. The pictures are files of one byte: nothing here reads them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

PER_LEDGER = 10_000
"""Lines of a ledger file."""
LOOKED_UP = 100
"""Images of the run that is looked up."""
TRACE = {"unsafe": [0.1] * 20, "redirected_steps": 3}
RAW = {"objects": {f"class-{number}": 0.01 * number for number in range(20)}}
STEPS = {
    "opened, no index": "(root / 'index').exists() and __import__('shutil').rmtree(root / 'index'); store = Store(root)",
    "opened": "store = Store(root)",
    "opened to read": "store = Store.peek(root)",
    "opened, 100 images looked up": "store = Store(root); store.recover(keys); [store.images[key] for key in keys]",
    "every score read": "store = Store.peek(root); sum(1 for _ in store.scores.values())",
}
"""What is measured -> Python; each in a process of its own."""


def sha(*parts: object) -> str:
    """A key."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def made(root: Path, images: int) -> None:
    """Write ledgers and pictures, as runs of `PER_LEDGER` images would."""
    (root / "ledger").mkdir(parents=True)
    (root / "version").write_text("1\n")
    for first in range(0, images, PER_LEDGER):
        of_images, of_scores = [], []
        for number in range(first, min(first + PER_LEDGER, images)):
            key = sha("image", number)
            place = root / "images" / key[:2] / f"{key}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"x")
            of_images.append({
                "key": key, "pixel_sha": sha("pixels", number), "seconds": 0.4, "trace": TRACE, "bytes": 1, "run": f"r{first}",
                "batch": number // 16, "batch_size": 16, "recipe": "0" * 16, "method": "none", "prompt": f"a box {number}",
                "seed": number, "dtype": "fp32",
            })  # fmt: skip
            of_scores += [
                {"score_key": sha(name, number), "image": key, "scorer": name, "identity": sha(name), "raw": RAW, "fields": "{}"}
                for name in ("judge", "text")
            ]
        for kind, lines in (("images", of_images), ("scores", of_scores)):
            text = "".join(json.dumps(line, separators=(",", ":"), sort_keys=True) + "\n" for line in lines)
            (root / "ledger" / f"{kind}-{first:x}-1-{first:08x}.jsonl").write_text(text)


def measured(root: Path, images: int, step: str) -> tuple[float, float, float]:
    """Seconds, processor seconds and megabytes of one step, without those of starting Python with numpy."""
    keys = [sha("image", number) for number in range(0, images, max(1, images // LOOKED_UP))]
    lines = (
        "import json, re, sys, time", "from pathlib import Path", "from srbench.results.store import Store",
        "root, keys = Path(sys.argv[1]), json.loads(sys.argv[2])",
        # Not ru_maxrss, which a process inherits from the one that started it.
        "most = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024",
        "began, busy, before = time.perf_counter(), time.process_time(), most()",
        STEPS[step],
        "print(time.perf_counter() - began, time.process_time() - busy, most() - before)",
    )  # fmt: skip
    command = [sys.executable, "-c", "\n".join(lines), str(root), json.dumps(keys)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(said[0]), float(said[1]), float(said[2])


def main() -> None:
    """Make the folder, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200_000)
    asked = parser.parse_args()
    root = asked.folder / "store"
    if not root.exists():
        began = time.perf_counter()
        made(root, asked.images)
        print(f"{asked.images} images and {2 * asked.images} scores made in {time.perf_counter() - began:.0f} s")
    print(f"{'step':<32} {'seconds':>9} {'processor':>9} {'MB':>8}")
    for step in STEPS:
        seconds, busy, megabytes = measured(root, asked.images, step)
        print(f"{step:<32} {seconds:9.2f} {busy:9.2f} {megabytes:8.0f}")


if __name__ == "__main__":
    main()
