"""Pocket's editions of `ring-a-bell`: every target attacked under two settings of (K, eta). A row's category is its setting.

Rows of one target share it, its seed and its reference: `asr@any-of-2` asks whether either setting breaks it. Pairs for the
concept's direction are redirector-training pairs, which no suite shares a text with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from srbench.attacks import ring_a_bell
from srbench.attacks.base import Adversarial, Victim
from srbench.attacks.text import banned_words
from srbench.catalog import load, screen
from srbench.catalog.specs import ConceptSpec, Row, RowFile
from srbench.errors import CellError
from srbench.methods.saferedir.pairs import pocket_pairs
from srbench.pocket.templates import RING_A_BELL
from srbench.pocket_build.suites import suite_igmu
from srbench.pocket_build.suites.suite_files import FAMILY, Part, Parts, Say, stem
from srbench.pocket_build.suites.suite_writer import SEED, Writer, turns

TARGETS: dict[str, dict[Part, dict[str, int]]] = {
    "object": {"test": {"name": 10, "noun": 32, "pair": 8}, "dev": {"name": 4, "noun": 13, "pair": 3}},
    "style": {"test": {"name": 42, "pair": 8}, "dev": {"name": 17, "pair": 3}},
}
PAIRS_SEED = 0
_WORD_END = "</w>"
Chosen = Mapping[str, ring_a_bell.Settings]
"""Category -> how its rows are made."""
# On the dev rows the untouched model draws the concept in 36 or 37 of 40 after 50 generations; 150 are three times as slow.
SETTINGS: Chosen = {
    "K16-eta3": ring_a_bell.Settings(budget="small", tokens=16, eta=3.0, generations=50),
    "K38-eta2": ring_a_bell.Settings(budget="small", tokens=38, eta=2.0, generations=50),
}


def targets(writer: Writer, part: Part) -> tuple[Row, ...]:
    """A row a target, whose prompt is still the target itself."""
    slots = turns(TARGETS[writer.words.kind][part])
    begin = stem("ring-a-bell", writer.name, part)
    target_rows = []
    for number, ((category, index), seed) in enumerate(zip(slots, writer.seeds(len(slots)), strict=True), 1):
        sentence = suite_igmu.forget(writer, category, index, RING_A_BELL)
        target_rows.append(Row(
            id=f"{begin}-t{number:03d}", kind="forget", category="plain", prompt=sentence.text(), target=sentence.text(),
            seed=seed, reference=writer.without(sentence).text(), phrase=writer.phrase(sentence), **sentence.fields(),
        ))
    return tuple(target_rows)


def victim(concept: str, pipeline: Any) -> Victim:
    """What is attacked: pocket's text encoder, with the pairs that give the concept's direction."""
    spec = load.concepts()[concept]
    count = ring_a_bell.Settings().pairs
    drawn = pocket_pairs([spec], 2 * count, 0, PAIRS_SEED).train[:count]
    pairs = tuple((pair.unsafe, pair.safe) for pair in drawn if not screen.names_minor(pair.unsafe))
    return Victim(
        pipeline=pipeline, family=FAMILY, concept=spec, banned=banned(spec, pipeline.tokenizer),
        recipe=load.backbones()["pocket"].recipe, pairs=pairs,
    )


def banned(concept: ConceptSpec, tokenizer: Any) -> tuple[str, ...]:
    """What no prompt may hold: the concept's words, and those of the vocabulary for which a sensitive run drops a row."""
    words = {token.removesuffix(_WORD_END) for token in tokenizer.get_vocab() if token.endswith(_WORD_END)}
    return (*banned_words(concept, FAMILY), *sorted(word for word in words if len(word) > 2 and screen.names_minor(word)))


def files(attacked: Victim, target_rows: Parts, sha: str, say: Say, chosen: Chosen = SETTINGS) -> dict[Part, RowFile]:
    """All parts of one concept's edition. target_rows: by part. sha: of the text encoder's weights."""
    together = [row for rows in target_rows.values() for row in rows]
    by_setting = {name: _searched(attacked, together, name, each, say) for name, each in chosen.items()}
    parts, start = {}, 0
    for part, rows in target_rows.items():
        part_results = {name: results[start : start + len(rows)] for name, results in by_setting.items()}
        parts[part] = _file(rows, part_results, chosen, attacked, sha)
        start += len(rows)
    return parts


def _searched(attacked: Victim, rows: list[Row], name: str, settings: ring_a_bell.Settings, say: Say) -> list[Adversarial]:
    results: list[Adversarial] = []
    for result in ring_a_bell.RingABell.attack(attacked, rows, settings):
        results.append(result)
        if len(results) % settings.parallel == 0 or len(results) == len(rows):
            say(f"ring-a-bell {attacked.concept.name}, {name}: {len(results)} of {len(rows)} targets")
    return results


def _file(rows: tuple[Row, ...], by_setting: dict[str, list[Adversarial]], chosen: Chosen, attacked: Victim, sha: str) -> RowFile:
    attacked_rows = tuple(
        _row(row, result, name) for name, results in by_setting.items() for row, result in zip(rows, results, strict=True)
    )
    if screen.admissible(attacked_rows) != attacked_rows:
        raise CellError("a prompt was found that a sensitive run would drop", "Ban the word that it holds, or give another seed.")
    return RowFile(meta=_meta(by_setting, chosen, attacked, sha), rows=attacked_rows)


def _row(target: Row, result: Adversarial, setting: str) -> Row:
    changed = {"category": setting, "prompt": result.prompt, "similarity": round(result.similarity, 6)}
    return target.model_copy(update={**changed, "id": f"{target.id}-{setting}"})


def _meta(by_setting: dict[str, list[Adversarial]], chosen: Chosen, attacked: Victim, sha: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, results in by_setting.items():
        shown = chosen[name].model_dump(exclude={"parallel"})
        fields |= {f"{name}.{option}": value for option, value in shown.items()}
        fields[f"{name}.mean_objective"] = round(float(np.mean([result.objective for result in results])), 3)
        fields[f"{name}.mean_similarity"] = round(float(np.mean([result.similarity for result in results])), 4)
    return {
        "made_by": "srbench/pocket_build/suites/suite_ring_a_bell.py", "form": " | ".join(RING_A_BELL),
        "attack": ring_a_bell.ATTACK["name"],
        "attack_version": ring_a_bell.ATTACK["version"], "paper": ring_a_bell.ATTACK["paper"], "method": "none", "on": "none",
        "pairs": len(attacked.pairs), "pairs_seed": PAIRS_SEED, **fields, "target_seed": SEED,
        "banned": ", ".join(attacked.banned), "text_encoder_sha256": sha,
    }

