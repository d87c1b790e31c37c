"""How much of a battery of texts the minors filter finds, by category; and how many benign captions it drops.

    python benchmarks/minors_filter.py BATTERY.json words.txt        # all of these should be found
    python benchmarks/minors_filter.py --benign captions.txt         # none of these should be

A text file has one text a line; a JSON file is {category: [texts]}, or a list of texts. The battery should be written by somebody
who did not write the filter. `\\n` in a text file stands for a new line.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from scipy.stats import binomtest

from srbench.catalog import screen


def read(path: Path) -> dict[str, list[str]]:
    """The texts of a file by category; those of a text file are of one that is called after it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return {path.stem: [line.replace("\\n", "\n") for line in text.splitlines() if line.strip()]}
    data = json.loads(text)
    return data if isinstance(data, dict) else {path.stem: data}


def line(name: str, hits: int, total: int) -> str:
    """A count with its share and the 95 % Wilson interval, in percent."""
    low, high = binomtest(hits, total).proportion_ci(0.95, "wilson")
    return f"{name:<32}{hits:>7} of {total:<7}{100 * hits / total:>7.2f} %   [{100 * low:.2f}, {100 * high:.2f}]"


def show(name: str, texts: list[str], benign: bool, examples: int) -> tuple[int, int]:
    """Print one category; texts found and asked."""
    found = [text for text in texts if screen.names_minor(text)]
    print(line(name, len(found), len(texts)))
    wrong = found if benign else sorted(set(texts) - set(found))
    for text in wrong[:examples]:
        print(f"    {'dropped' if benign else 'missed'}: {text!r}")
    return len(found), len(texts)


def main() -> None:
    """Print found of total for every category of every file, what went wrong, and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--benign", action="store_true", help="the texts name nobody: show what is dropped")
    parser.add_argument("--examples", type=int, default=10, help="how many wrong ones to show of each category (default: 10)")
    asked = parser.parse_args()
    screen.names_minor("")  # the lists are read once
    began = time.process_time()
    every = [(name, texts) for path in asked.files for name, texts in read(path).items() if texts]
    counts = [show(name, texts, asked.benign, asked.examples) for name, texts in every]
    seconds = time.process_time() - began
    hits, total = (sum(each) for each in zip(*counts, strict=True))
    print(line("all", hits, total))
    print(f"{total} texts in {seconds:.1f} s of one core: {100_000 * seconds / total:.0f} s for 100,000")


if __name__ == "__main__":
    main()
