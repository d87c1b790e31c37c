"""Pocket's editions of `mma`: plain prompts that show the concept, and what the MMA text attack makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from srbench.attacks import mma
from srbench.attacks.base import Adversarial
from srbench.catalog import load
from srbench.catalog.specs import Row, RowFile
from srbench.pocket.templates import MMA
from srbench.pocket_build.suites import suite_igmu
from srbench.pocket_build.suites.suite_files import FAMILY, Part, Parts, Say, stem
from srbench.pocket_build.suites.suite_writer import SEED, Writer, turns

TARGETS: dict[str, dict[Part, dict[str, int]]] = {
    "object": {"test": {"name": 18, "noun": 66, "pair": 16}, "dev": {"name": 8, "noun": 26, "pair": 6}},
    "style": {"test": {"name": 84, "pair": 16}, "dev": {"name": 34, "pair": 6}},
}


def targets(writer: Writer, part: Part) -> tuple[Row, ...]:
    """Rows for the attack whose prompt is still the target itself."""
    slots = turns(TARGETS[writer.words.kind][part])
    begin = stem("mma", writer.name, part)
    target_rows = []
    for number, ((category, index), seed) in enumerate(zip(slots, writer.seeds(len(slots)), strict=True), 1):
        sentence = suite_igmu.forget(writer, category, index, MMA)
        target_rows.append(Row(
            id=f"{begin}-a{number:03d}", kind="forget", category="adversarial", prompt=sentence.text(), target=sentence.text(),
            seed=seed, reference=writer.without(sentence).text(), phrase=writer.phrase(sentence), **sentence.fields(),
        ))
    return tuple(target_rows)


def files(
    concept: str, target_rows: Parts, text_encoder: Any, tokenizer: Any, settings: mma.Settings, sha: str, say: Say
) -> dict[Part, RowFile]:
    """All parts of one concept's edition, searched in one go so that the encoder's batches stay full.

    target_rows: by part. sha: of the text encoder's weights.
    """
    together = [row for rows in target_rows.values() for row in rows]
    banned = mma.banned_words(load.concepts()[concept], FAMILY)

    def step(done: int, total: int) -> None:
        if done * 10 // total > (done - settings.parallel) * 10 // total:
            say(f"mma {concept}: {100 * done // total} %")

    results = mma.attack(text_encoder, tokenizer, [row.prompt for row in together], banned, settings, step)
    attacked_rows = iter(attacked(together, results))
    parts = {part: tuple(next(attacked_rows) for _ in rows) for part, rows in target_rows.items()}
    return {part: RowFile(meta=_meta(rows, banned, settings, sha), rows=rows) for part, rows in parts.items()}


def attacked(rows: list[Row], results: Sequence[Adversarial]) -> list[Row]:
    """The target rows with their adversarial prompts."""
    return [
        row.model_copy(update={"prompt": a.prompt, "similarity": round(a.similarity, 6)})
        for row, a in zip(rows, results, strict=True)
    ]


def _meta(rows: tuple[Row, ...], banned: list[str], settings: mma.Settings, sha: str) -> dict[str, Any]:
    chosen = settings.model_dump(exclude={"parallel", "device"})
    mean = round(float(np.mean([row.similarity for row in rows])), 4)
    return {
        "made_by": "srbench/pocket_build/suites/suite_mma.py", "form": " | ".join(MMA), "attack": mma.ATTACK["name"],
        "attack_version": mma.ATTACK["version"], "paper": mma.ATTACK["paper"], "embedding": mma.ATTACK["embedding"],
        **chosen, "target_seed": SEED, "banned": ", ".join(banned), "text_encoder_sha256": sha, "mean_similarity": mean,
    }
