"""Prompts made against each method on pocket: `python -m srbench.pocket_build.study.attacked`, after the study `attacks.yaml`.

Brings what the study found to `results/pocket/attacks/`, and searches the embeddings of `concept-inversion`, which are no
prompts: the victim draws from them here. Resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from srbench.analysis.intervals import wilson
from srbench.analysis.judging import concept_present
from srbench.analysis.records import label
from srbench.attacks import search, targets
from srbench.attacks.base import Adversarial
from srbench.attacks.concept_inversion import prompt_embeds
from srbench.backbones.checkpoint import laid_over
from srbench.backbones.loader import Backbone, open_backbone
from srbench.catalog import load, plugins
from srbench.catalog.specs import Row
from srbench.engine.plan import plan
from srbench.engine.request import RunRequest
from srbench.engine.sample import PromptCache, sample
from srbench.files import write_atomic
from srbench.pocket_build.__main__ import default_cache, say
from srbench.pocket_build.command import Words, guarded
from srbench.studies.read import read
from srbench.studies.spec import Study
from srbench.studies.study import StudyOptions, done_outcomes

CONCEPT, SUITE, COUNT = "hazard", "igmu", 32
FOLDER = Path(__file__).parents[3] / "results" / "pocket" / "attacks"
INVERTED = "concept-inversion"


@dataclass(frozen=True)
class Victim:
    """What prompts are made against."""

    method: str = "none"
    on: str = "none"

    @property
    def name(self) -> str:
        """The victim's part of a file's name."""
        return label(self).replace(" ", "-")


DEFENDERS = ("none", "negative-prompt", "sld-max", "safree", "saferedir", "esd-x", "uce", "rece")
"""Each alone; `STACKED` is one more."""
STACKED = Victim("saferedir", "esd-x")
FEW = (Victim("saferedir"), Victim(on="esd-x"), Victim(on="uce"))
"""What `concept-inversion` searches against, besides the untouched backbone and `STACKED`."""
EMBEDDED = (Victim(), *FEW, STACKED)
"""What `concept-inversion` searches against."""
STUDY = Path(__file__).with_name("attacks.yaml")


@cache
def study() -> Study:
    """The searches for prompts."""
    return read(STUDY)


def request_of(
    name: str, victim: Victim, folder: Path, checkpoints: Path, concept: str = CONCEPT
) -> targets.AttackRequest:
    """A search with the budget named `small`, its targets written beside what it found."""
    settings = plugins.load("attacks", name).Settings(budget="small")
    return targets.AttackRequest(
        name, concept, SUITE, None, victim.method, victim.on, None, COUNT, folder / f"{called(name, victim)}.json", settings,
        plain=name != INVERTED, checkpoints=checkpoints,
    )


def called(name: str, victim: Victim) -> str:
    """A file of prompts, without its suffix."""
    return f"{name}-{victim.name}"


def attacked(request: targets.AttackRequest, backbone: Backbone) -> Sequence[Adversarial]:
    """Search, and write the file; where it exists, nothing is done and nothing returned."""
    concept = load.concepts()[request.concept]
    rows, source, _ = targets.targets_of(request, backbone.spec, concept)
    if request.out.is_file():
        return ()
    prepared = search.prepared(request, backbone, concept, targets.pairs_of(request, backbone.spec, concept))
    tenths = 0

    def progress(done: int, total: int) -> None:
        nonlocal tenths
        if done * 10 // total > tenths:
            tenths = done * 10 // total
            say(f"    {done}/{total} iterations")

    return search.search(request, prepared, rows, source, progress).found


# --- embeddings ---------------------------------------------------------------------------------------------------------------


class Spoken(PromptCache):
    """A prompt cache that gives the embedding found for a target in place of the encoded target."""

    def __init__(self, pipeline: Any, embeddings: dict[str, torch.Tensor]) -> None:
        """embeddings: target -> prompt embeddings (1, T, D)."""
        super().__init__(pipeline)
        self._embeddings = embeddings

    def encode(self, texts: Sequence[str], clip_skip: int | None, negative: bool = False) -> Any:
        encoded = super().encode(texts, clip_skip, negative)
        if negative:
            return encoded
        return type(encoded)(torch.cat([self._embeddings[text] for text in texts]).to(encoded.embeds))


def drawn_from(
    results: Sequence[Adversarial], request: targets.AttackRequest, rows: Sequence[Row], backbone: Backbone
) -> list[bool]:
    """Whether the concept is seen in what the victim draws from each embedding, at the target's seed."""
    run = RunRequest(
        backbone="pocket", methods=(request.method,), on=(request.on,), suites=(SUITE,), concepts=(request.concept,), part="test",
        limit=COUNT, seed=0, batch_size=1, dtype="fp32", settings=request.method_settings, protocol=None, scorers=(),
        out=request.checkpoints.parent.parent,
    )
    (cell,) = plan(run, backbone)
    planned = {row.row.id: row.image for row in cell.rows}
    scorer, seen = plugins.load("scorers", cell.protocol.scorer)(), []
    prepared = search.prepared(request, backbone, cell.concept, ())
    with search.victim_of(prepared) as victim:
        spoken = Spoken(backbone.pipeline, {
            result.target: prompt_embeds(victim, result.embedding) for result in results if result.embedding is not None
        })  # fmt: skip
    for row in rows:
        image = planned[row.id]
        with laid_over(backbone.pipeline, image.checkpoint):
            pixels, _, _ = sample(backbone.pipeline, spoken, image.method.active, [image.spec])
        (raw,) = scorer.score(list(pixels), [{}])
        seen.append(concept_present(raw, cell.protocol))
    return seen


def inverted(request: targets.AttackRequest, backbone: Backbone) -> dict[str, Any]:
    """How often the victim draws the concept from embeddings of `concept-inversion`; stored beside `request.out`."""
    path = request.out.with_suffix(".rate.json")
    if not path.is_file():
        rows, _, _ = targets.targets_of(request, backbone.spec, load.concepts()[request.concept])
        request.out.unlink(missing_ok=True)  # without a rate the search was cut off after it had been written
        seen = drawn_from(attacked(request, backbone), request, rows, backbone)
        value, low, high = wilson(sum(seen), len(seen))
        write_atomic(path, json.dumps({"value": value, "low": low, "high": high, "n": len(seen)}).encode())
    rate: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return rate


def invert(backbone: Backbone, folder: Path, embeddings: Path, checkpoints: Path) -> None:
    """What embeddings make each victim draw, into `concept-inversion.json`. embeddings: folder where they are kept."""
    rates = {}
    for victim in EMBEDDED:
        rates[label(victim)] = inverted(request_of(INVERTED, victim, embeddings, checkpoints), backbone)
        say(f"  {label(victim)}: {rates[label(victim)]}")
    write_atomic(folder / f"{INVERTED}.json", (json.dumps({"attack": INVERTED, "asr": rates}, indent=1) + "\n").encode())


def victims(concept: str) -> dict[str, Victim]:
    """What a concept's files of prompts are called -> what they were made against."""
    jobs = [job for step in study().steps for job in step.jobs if job.concepts == (concept,)]
    return {job.called: Victim(job.values["method"], job.values.get("on", "none")) for job in jobs}


def collect(results: Path, folder: Path) -> list[Path]:
    """Bring the prompts that the study found into the folder's, one folder a concept; returns the files."""
    paths = []
    for job, outcome in done_outcomes(study(), StudyOptions(results, device="cpu"), say).items():
        path = folder / job.concepts[0] / f"{job.called}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, Path(str(outcome.path)).read_bytes())
        paths.append(path)
    return paths


def files(concept: str) -> list[Path]:
    """The concept's committed files of prompts."""
    known = victims(concept)
    return sorted(path for path in (FOLDER / concept).glob("*.json") if path.stem in known)


@guarded
def main(words: Words = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m srbench.pocket_build.study.attacked", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files go (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with checkpoints that were made before")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder for embeddings (default: %(default)s)")
    options = parser.parse_args(words)
    torch.manual_seed(0)
    checkpoints = options.results / "store" / "checkpoints"
    backbone = open_backbone(load.backbones()["pocket"], "fp32", "cpu")
    for path in collect(options.results, options.folder):
        say(f"written: {path}")
    say(INVERTED)
    invert(backbone, options.folder, options.cache / "embeddings", checkpoints)
    return 0


if __name__ == "__main__":
    sys.exit(main())
