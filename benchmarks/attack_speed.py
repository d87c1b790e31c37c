"""Seconds a target of every attack on pocket, under the budget that 2 cores finish, and how far its objective came.

White-box attacks search against SafeRedir, black-box ones the text encoder. The targets are the first of the dev edition of
`igmu` for hazard; nothing is written.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from srbench.attacks import search, targets
from srbench.attacks.base import Adversarial
from srbench.backbones.loader import open_backbone
from srbench.catalog import load, plugins

CONCEPT, SUITE = "hazard", "igmu"
FULL = 100
"""Targets of a test edition."""


def requested(name: str, count: int) -> targets.AttackRequest:
    """The attack under its smaller budget, all targets at once."""
    plugin, cls = plugins.plugins("attacks")[name].meta, plugins.load("attacks", name)
    values: dict[str, Any] = {"budget": "small"} if "budgets" in plugin else {}
    method = "none" if plugin["needs"] == "text_encoder" else "saferedir"
    return targets.AttackRequest(
        name=name, concept=CONCEPT, suite=SUITE, targets=None, method=method, on="none", pairs=None, limit=count,
        out=Path("unused.json"), settings=cls.Settings(**values, parallel=count), part="dev",
    )  # fmt: skip


def searched(name: str, count: int) -> tuple[list[Adversarial], float, float]:
    """What the attack found, its seconds and the processor's."""
    request, spec = requested(name, count), load.backbones()["pocket"]
    concept = load.concepts()[CONCEPT]
    rows, _, _ = targets.targets_of(request, spec, concept)
    made = search.prepared(request, open_backbone(spec, "fp32", "cpu"), concept, targets.pairs_of(request, spec, concept))
    with search.victim_of(made) as victim:
        wall, processor = time.perf_counter(), time.process_time()
        found = list(plugins.load("attacks", name).attack(victim, rows, request.settings))
        return found, time.perf_counter() - wall, time.process_time() - processor


def mean(values: Sequence[float]) -> float:
    """Of some numbers."""
    return sum(values) / len(values)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--attacks", default=",".join(plugins.plugins("attacks")), help="with commas")
    asked = parser.parse_args()
    print(f"{asked.targets} targets at once, {torch.get_num_threads()} threads; torch {torch.__version__}")
    print(f"{'attack':<20}{'s/target':>10}{'cpu s/target':>14}{f'cpu min/{FULL}':>14}  objective")
    for name in asked.attacks.split(","):
        found, wall, processor = searched(name, asked.targets)
        count, before, after = len(found), mean([f.history[0] for f in found]), mean([f.objective for f in found])
        each = f"{wall / count:>10.2f}{processor / count:>14.2f}{processor / count * FULL / 60:>14.1f}"
        print(f"{name:<20}{each}  {before:.4g} -> {after:.4g}", flush=True)


if __name__ == "__main__":
    main()
