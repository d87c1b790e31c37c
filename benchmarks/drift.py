"""How far pixels and decisions move when the same rows are sampled at another batch size or in bf16.

Everything is compared with fp32 at the default batch size, where equal pixels are promised in any order.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from throughput import Silent

from srbench.analysis.judging import concept_present
from srbench.backbones.loader import open_backbone
from srbench.catalog import load
from srbench.engine.plan import plan
from srbench.engine.request import Cell, RunRequest
from srbench.engine.run import execute
from srbench.errors import SrbenchError
from srbench.results.store import Store

LOUD = 16
"""Levels of 255 from which a difference is called large."""
VARIANTS = (("fp32", 16), ("fp32", 4), ("fp32", 1), ("bf16", 16))
"""(dtype, batch size); the first is what the others are compared with."""


def run(asked: argparse.Namespace, dtype: str, batch_size: int, out: Path) -> tuple[list[Cell], Store]:
    """Sample and score the rows once."""
    backbone = open_backbone(load.named("backbone", asked.backbone, load.backbones()), dtype, "cpu")
    request = RunRequest(
        backbone=asked.backbone, methods=tuple(asked.methods.split(",")), on=("none",), suites=(asked.suite,),
        concepts=(asked.concept,), part="test", limit=asked.limit, seed=0, batch_size=batch_size, dtype=dtype, settings=(),
        protocol=None, scorers=(), out=out,
    )
    cells = plan(request, backbone)
    store = Store(out / "store")
    done = execute(request, backbone, cells, store, Silent())
    if done.exit_code:
        raise SrbenchError(f"the {dtype} run at batch {batch_size} failed")
    return cells, store


def decisions(cells: list[Cell], store: Store) -> list[tuple[np.ndarray, bool]]:
    """Pixels (H, W, 3) int and the judge's decision, row by row in the order of the plan."""
    # By pixels: images with equal ones share their scores.
    raws = {(store.images[r["image"]]["pixel_sha"], r["scorer"]): r["raw"] for r in store.scores.values()}
    found = []
    for cell in cells:
        for planned in cell.rows:
            key = planned.image.key
            raw = raws[store.images[key]["pixel_sha"], cell.protocol.scorer]
            found.append((store.pixels(key).astype(int), concept_present(raw, cell.protocol)))
    return found


def compared(first: list[tuple[np.ndarray, bool]], other: list[tuple[np.ndarray, bool]]) -> dict[str, Any]:
    """What is different between two lists of equal rows."""
    most = np.array([np.abs(a - b).max() for (a, _), (b, _) in zip(first, other, strict=True)])  # (rows,)
    flips = sum(a != b for (_, a), (_, b) in zip(first, other, strict=True))
    return {
        "rows": len(most), "equal": int((most == 0).sum()), "median": float(np.median(most)), "most": int(most.max()),
        "loud": int((most >= LOUD).sum()), "flips": flips,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="pocket")
    parser.add_argument("--suite", default="igmu")
    parser.add_argument("--concept", default="hazard")
    parser.add_argument("--methods", default="none,saferedir", help="with commas")
    parser.add_argument("--limit", type=int, default=32, help="rows per kind; their reference images come on top")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print."""
    asked = parse()
    found = {}
    for dtype, batch_size in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            found[dtype, batch_size] = decisions(*run(asked, dtype, batch_size, Path(folder)))
    print(f"against {VARIANTS[0][0]} at batch {VARIANTS[0][1]}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"  {'':<16}{'rows':>6}{'equal':>7}{'median level':>14}{'largest':>9}{f'>= {LOUD}':>8}{'decisions changed':>19}")
    for dtype, batch_size in VARIANTS[1:]:
        row = compared(found[VARIANTS[0]], found[dtype, batch_size])
        print(
            f"  {f'{dtype}, batch {batch_size}':<16}{row['rows']:>6}{row['equal']:>7}{row['median']:>14.1f}{row['most']:>9}"
            f"{row['loud']:>8}{row['flips']:>19}"
        )


if __name__ == "__main__":
    main()
