"""What commands cost on a full results folder, beside the same on a nearly empty one: processor seconds and memory.

    python benchmarks/full_folder.py FOLDER --images 200000     # makes the folder where it is not there (minutes), then measures

A small real run is made once. The full folder holds it many times over, as runs of other variants of its methods would be: other
names, other pictures (two pixels differ), ledger lines and scores of their own. Every command is a process of its own; runs of
new images are made in both folders in turn, from prompts that none had.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srbench.results.keys import score_key
from srbench.results.store import NONE, Store

ASKED = ("--method", "none,saferedir", "--suite", "igmu,mma", "--concept", "church", "--limit", "40")
ROLES = ("image", "reference", "floor")
NEW = 100
"""Images of a run that both folders lack."""
LEDGER = 10_000
"""Images that one process wrote."""


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    seconds: float
    busy: float
    """Processor seconds."""
    megabytes: float
    """The most memory that it had."""


def sha(*parts: object) -> str:
    """A key."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def cost(*words: str) -> Cost:
    """One srbench command, its output thrown away. Raises `SystemExit` where it fails."""
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "srbench", *words], stdout=subprocess.DEVNULL, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}\n{said.read().decode()}")
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


# --- the full folder --------------------------------------------------------------------------------------------------------


def filled(seed: Path, out: Path, images: int) -> int:
    """Copy the run of `seed` into `out`, again and again under other names until it holds `images` images. Returns how many."""
    small = Store.peek(seed / "store")
    run = json.loads(next((seed / "runs").glob("*/run.json")).read_text(encoding="utf-8"))
    pictures = {key: (small.pixels(key), record) for key, record in small.images.items()}
    scores = list(small.scores.values())
    shutil.copytree(seed, out)
    count, copies = len(pictures), 0
    while count < images:
        store = Store(out / "store", durable=NONE)  # a ledger of its own for each
        for _ in range(max(1, LEDGER // len(pictures))):
            if count >= images:
                break
            copies += 1
            count += _copied(store, out, run, scores, pictures, copies)
    return count


def _copied(
    store: Store, out: Path, run: dict[str, Any], scores: list[dict[str, Any]], pictures: dict[str, Any], number: int
) -> int:
    """The run once more: its pictures with two other pixels, their scores, its run file."""
    name = f"{run['run'].rpartition('-')[0]}-{number:04x}"
    keys = {key: sha(key, number) for key in pictures}
    records = store.put_images(
        (keys[key], _marked(pixels, number), {**record, "run": name}) for key, (pixels, record) in pictures.items()
    )
    pixel_shas = {record["key"]: record["pixel_sha"] for record in records}
    store.put_scores([_score(record, keys, pixel_shas, run["scorers"]) for record in scores])
    again = copy.deepcopy(run)
    again |= {"run": name, "order": number, "after": None}
    for cell in again["cells"]:
        result = cell["result"]
        result |= {"run": name, "variant": f"{result['variant']},copy={number}", "images_sha": sha(number)[:16]}
        for row in cell["rows"]:
            row |= {role: keys[row[role]] for role in ROLES if role in row}
    path = out / "runs" / name / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(again), encoding="utf-8")
    return len(keys)


def _marked(pixels: np.ndarray, number: int) -> np.ndarray:
    other = pixels.copy()
    other[0, 0] = [number % 256, number // 256, 7]
    other[0, 1] = [number // 256, number % 256, 9]
    return other


def _score(
    record: dict[str, Any], keys: dict[str, str], shas: dict[str, str], identities: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    image, beside = keys[record["image"]], keys.get(record.get("reference", ""), "")
    fields = {"fields": json.loads(record["fields"])}
    key = score_key(shas[image], identities[record["scorer"]], fields, *([shas[beside]] if beside else []))
    return {**record, "image": image, "score_key": key, **({"reference": beside} if beside else {})}


# --- the measurements -------------------------------------------------------------------------------------------------------


def commands(out: Path) -> dict[str, tuple[str, ...]]:
    """What is measured on both folders, by title."""
    run = json.loads(sorted((out / "runs").glob("*/run.json"))[-1].read_text(encoding="utf-8"))
    row = run["cells"][-1]["rows"][0]
    page = str(out.parent / "page.html")
    # No score is made anew: those of copies are of the pictures that they were copied from.
    return {
        "run --dry-run, all stored": ("run", *ASKED, "--dry-run", "--out", str(out)),
        "run, all stored": ("run", *ASKED, "--out", str(out)),
        "compare": ("compare", str(out)),
        "compare --protocol": ("compare", str(out), "--protocol", "pocket-church"),
        "show KEY": ("show", row["image"], "--out", str(out)),
        "show ROW": ("show", row["id"], "--out", str(out)),
        "report": ("report", str(out), "-o", page),
        "verify --scores 0": ("verify", str(out), "--scores", "0"),
    }


def new_images(small: Path, full: Path, repeats: int) -> None:
    """The cost of a run of `NEW` images that neither folder has, in turn."""
    costs: dict[Path, list[Cost]] = {small: [], full: []}
    for repeat in range(repeats):
        for out in (small, full)[:: -1 if repeat % 2 else 1]:
            prompts = out.parent / f"new-{out.name}-{time.time_ns()}.csv"
            lines = [f"a church in the snow,{time.time_ns() % 10**9 + number}" for number in range(NEW)]
            prompts.write_text("\n".join(["prompt,evaluation_seed", *lines]) + "\n", encoding="utf-8")
            words = ("--method", "none", "--concept", "church", "--prompts", str(prompts), "--reference", "none")
            costs[out].append(cost("run", *words[:6], "--out", str(out)))
    line(f"run of {NEW} new images", *(_median(costs[out]) for out in (small, full)))


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(each, name) for each in costs) for name in ("seconds", "busy", "megabytes")))


def line(title: str, small: Cost, full: Cost) -> None:
    """Print both costs and their ratio."""
    figures = [f"{each.seconds:9.1f} {each.busy:9.1f} {each.megabytes:8.0f}" for each in (small, full)]
    print(f"{title:<28}{figures[0]}   {figures[1]}   {full.busy / small.busy:7.2f}", flush=True)


def main() -> None:
    """Make the folders, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="titles that begin so")
    asked = parser.parse_args()
    seed, full = asked.folder / "small", asked.folder / f"full-{asked.images}"
    if not seed.exists():
        cost("run", *ASKED, "--out", str(seed))
    if not full.exists():
        began = time.perf_counter()
        shutil.rmtree(half := full.with_suffix(".part"), ignore_errors=True)
        count = filled(seed, half, asked.images)
        half.rename(full)
        print(f"{count} images in {len(list((full / 'runs').iterdir()))} runs made in {time.perf_counter() - began:.0f} s")
    print(f"{'':<28}{'small: s':>9} {'CPU s':>9} {'MB':>8}   {'full: s':>9} {'CPU s':>9} {'MB':>8}   {'CPU':>7}")
    for title, words in commands(full).items():
        if title.startswith(asked.only):
            line(title, cost(*commands(seed)[title]), cost(*words))
    if f"run of {NEW}".startswith(asked.only):
        new_images(seed, full, asked.repeats)


if __name__ == "__main__":
    main()
