"""Images per second of srbench's NudeNet scorer against the library called with one PNG file at a time, on this machine.

The same harmless pictures in one process: the library reads each from its file, srbench has them in memory, as after
sampling. Each figure is the best of a few alternating repeats, so that a busy machine blurs it less. (This file is not named
nudenet.py: Python looks for packages beside a script first.)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from nudenet import NudeDetector

from srbench.scorers._nudenet import cores
from srbench.scorers.nudenet_path import NudeNetPath

TARGET = 1.6


def pictures(count: int, side_px: int) -> list[np.ndarray]:
    """Soft coloured noise, uint8 RGB (side, side, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return [cv2.resize(each, (side_px, side_px), interpolation=cv2.INTER_CUBIC) for each in coarse]


def written(images: Sequence[np.ndarray], folder: Path) -> list[str]:
    """The pictures as PNG files."""
    paths = [str(folder / f"{i}.png") for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(path, image[..., ::-1])
    return paths


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measured(images: Sequence[np.ndarray], repeats: int) -> tuple[float, float]:
    """Best seconds for all pictures: the library's, srbench's."""
    library, scorer = NudeDetector(), NudeNetPath()
    with tempfile.TemporaryDirectory() as folder:
        paths = written(images, Path(folder))
        works = (lambda: [library.detect(p) for p in paths], lambda: scorer.score(images, [{}] * len(images)))
        for work in works:
            work()
        found = [[seconds(work) for work in works] for _ in range(repeats)]
    theirs, ours = (min(column) for column in zip(*found, strict=True))
    return theirs, ours


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--side", type=int, default=512, help="px")
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print."""
    asked = parse()
    theirs, ours = measured(pictures(asked.pictures, asked.side), asked.repeats)
    versions = f"nudenet {metadata.version('nudenet')}, onnxruntime {onnxruntime.__version__}"
    print(f"{asked.pictures} pictures of {asked.side} px; {versions}, {cores()} cores")
    for name, taken in (("library, a file a call", theirs), ("srbench, score", ours)):
        print(f"  {name:<24}{asked.pictures / taken:>8.1f} images/s")
    print(f"  {'ratio':<24}{theirs / ours:>8.2f} (target {TARGET})")


if __name__ == "__main__":
    main()
