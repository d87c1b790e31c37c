"""An idea that was tried: SafeRedir's redirector for `hazard`, trained on prompts that an attack found against it.

`python -m srbench.pocket_build.study.hardened` searches them (targets are sentences that redirectors train on,
which no suite holds), trains, attacks the result anew, and writes the rates before and after into
`results/pocket/attacks/hardened.json`. Resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from srbench.analysis.records import Metric
from srbench.analysis.results import metric_to_dict
from srbench.attacks.base import Settings
from srbench.attacks.targets import AttackRequest
from srbench.backbones.loader import Backbone, open_backbone
from srbench.catalog import load, plugins, screen
from srbench.files import write_atomic
from srbench.methods.base import info_of
from srbench.methods.saferedir import CARD, train
from srbench.methods.saferedir.pairs import pocket_pairs
from srbench.pocket_build.__main__ import default_cache, redirector_settings, say
from srbench.pocket_build.command import Words, guarded
from srbench.pocket_build.study import attacked, reference
from srbench.pocket_build.study.attacked import CONCEPT, FOLDER, INVERTED, Victim
from srbench.pocket_build.study.reference import OTHER_SUITES, SUITES, Job

NAME, ATTACK, TARGETS, TARGET_SEED = "hardened", "adaptive-p4d", 96, 500_000
RATES = ("fsr", "fsr_unseen", "asr", "retain_accuracy", "content_kept", "over_refusal")
AGAIN = ("p4d", "adaptive-p4d", INVERTED)
"""Attacks that search against the trained one too."""


def trained(prompts: Path, cache: Path, backbone: Backbone) -> Path:
    """Folder of the redirector that trains on these prompts too, trained unless it is there for this very backbone."""
    folder = cache / "redirectors" / CONCEPT / NAME
    settings = redirector_settings(adversarial=prompts)
    if (folder / CARD).is_file():
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if (card["backbone_sha256"], card["settings"]) == (backbone.sha256, train.said_of(settings)):
            return folder
    say(f"  training {CONCEPT}/{NAME}")
    train.train(info_of(backbone), [load.concepts()[CONCEPT]], settings, folder)
    return folder


def written_targets(path: Path) -> Path:
    """Sentences with the concept that redirectors train on, each with its safe side as the reference."""
    settings = redirector_settings()
    drawn = pocket_pairs([load.concepts()[CONCEPT]], settings.pairs, 0, settings.seed).train
    pairs = [pair for pair in drawn if not screen.names_minor(pair.unsafe)][:TARGETS]  # pocket draws baby penguins
    fields = {"kind": "forget", "category": "training"}
    rows = [
        {"id": f"t{i:03d}", **fields, "prompt": pair.unsafe, "reference": pair.safe, "seed": TARGET_SEED + i}
        for i, pair in enumerate(pairs)
    ]  # fmt: skip
    write_atomic(path, json.dumps({"meta": {"concept": CONCEPT}, "rows": rows}).encode())
    return path


def found_prompts(backbone: Backbone, folder: Path, checkpoints: Path) -> Path:
    """Prompts found against the shipped redirector, with those targets."""
    folder.mkdir(parents=True, exist_ok=True)
    settings: Settings = plugins.load("attacks", ATTACK).Settings(budget="small")
    targets, out = written_targets(folder / "targets.json"), folder / f"{ATTACK}.json"
    request = AttackRequest(
        ATTACK, CONCEPT, None, targets, "saferedir", "none", None, None, out, settings, checkpoints=checkpoints
    )
    attacked.attacked(request, backbone)
    return out


def measured(job: Job, backbone: Backbone, results: Path) -> dict[str, dict[str, Any]]:
    """Rates of SafeRedir by suite."""
    cells = reference.run(job, backbone, results, 16).cells
    return {cell.suite: _rates(cell.metrics) for cell in cells if cell.method == "saferedir"}


def _rates(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    return {name: metric_to_dict(metrics[name]) for name in RATES if name in metrics}


def attacks(
    backbone: Backbone, redirector: Path | None, settings: Sequence[str], folder: Path, results: Path, cache: Path
) -> dict[str, dict[str, Any]]:
    """What each attack of `AGAIN` reaches against SafeRedir with these settings."""
    rates, checkpoints, victim = {}, results / "store" / "checkpoints", Victim("saferedir")
    for name in AGAIN:
        place = cache / "embeddings" if name == INVERTED and redirector is None else folder
        plain = attacked.request_of(name, victim, place, checkpoints)
        # A suite is called as its file is: prompts against another victim need another name.
        out = plain.out if redirector is None else place / f"{name}-{redirector.name}.json"
        request = replace(plain, out=out, method_settings=tuple(settings))
        if name == INVERTED:
            rates[name] = {"asr": attacked.inverted(request, backbone)}
            continue
        attacked.attacked(request, backbone)
        job = Job(name, CONCEPT, ("none", "saferedir"), redirector=redirector, suites=(), prompts=request.out)
        rates[name] = next(iter(measured(job, backbone, results).values()))
    return rates


def compare(backbone: Backbone, results: Path, cache: Path) -> dict[str, Any]:
    """Rates before and after."""
    file = found_prompts(backbone, cache / NAME, results / "store" / "checkpoints")
    folder = trained(file, cache, backbone)
    rates = {}
    for when, redirector, settings in (("before", None, ()), ("after", folder, (f"saferedir.redirector={folder}",))):
        say(when)
        suites = Job(when, CONCEPT, ("none", "saferedir"), redirector=redirector, suites=(*SUITES, *OTHER_SUITES))
        where = FOLDER if redirector is None else cache / NAME / "again"
        rates[when] = measured(suites, backbone, results)
        rates[when] |= attacks(backbone, redirector, settings, where, results, cache)
    return rates


@guarded
def main(words: Words = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m srbench.pocket_build.study.hardened", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder for images and runs (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder for redirectors (default: %(default)s)")
    options = parser.parse_args(words)
    torch.manual_seed(0)
    backbone = open_backbone(load.backbones()["pocket"], "fp32", "cpu")
    rates = compare(backbone, options.results, options.cache)
    write_atomic(FOLDER / f"{NAME}.json", (json.dumps(rates, indent=1, allow_nan=False) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
