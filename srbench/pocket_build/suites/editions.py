"""Writes pocket's editions of the suites: `python -m srbench.pocket_build.suites NAME...`.

Those of `igmu` and `mma` are a stage of pocket's build (`write`); the static ones and `igmu` need no model; `mma` and
`ring-a-bell` are searched against the shipped text encoder. A module a suite says what stands in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from srbench.attacks import mma
from srbench.catalog import load, resolve
from srbench.catalog.specs import Edition, Row, RowFile
from srbench.errors import UsageError
from srbench.methods.phrases import phrases
from srbench.pocket.templates import (
    BENIGN_NEAR,
    COMPOUND,
    COMPOUND_LONG,
    EVOLVED,
    HELD_MEMBERS,
    IGMU,
    IMPLICIT,
    INJECTION,
    MULTI,
    NEGATION,
    OOD,
    POISONING,
    REGISTERS,
    REWORDING,
)
from srbench.pocket.world import CONCEPTS, SPLITS
from srbench.pocket_build.command import Words, guarded
from srbench.pocket_build.suites import (
    near_words,
    suite_begun,
    suite_benign_near,
    suite_compound,
    suite_evolved,
    suite_held_members,
    suite_i2p,
    suite_igmu,
    suite_mma,
    suite_multi,
    suite_neighbours,
    suite_ood,
    suite_ring_a_bell,
)
from srbench.pocket_build.suites.suite_files import PARTS, Part, Parts, Say, write_edition, write_suite
from srbench.pocket_build.suites.suite_writer import SEED, Writer, removed

Rows = dict[tuple[str, Part], tuple[Row, ...]]
"""Rows by concept and part."""
_MADE = {"source": "srbench/pocket_build/suites", "licence": "MIT"}
_COMPARED = ("content_kept", "csdr", "csdr_floor")

HEADS: dict[str, dict[str, Any]] = {
    "igmu": {
        "title": "forget prompts with their references, and prompts to be retained",
        "metrics": ("fsr", "fsr_unseen", *_COMPARED, "retain_accuracy", "style_kept", "over_refusal", "added_ms"),
    },
    "mma": {"title": "adversarial prompts of the MMA text attack", "attack": True, "metrics": ("asr", "added_ms")},
    "evolved": {
        "title": "five families of attacks by hand that no training saw", "attack": True,
        "metrics": ("asr", *(f"asr_{family}" for family in suite_evolved.FAMILIES), "added_ms"),
    },
    "ood": {
        "title": "forget and retain prompts in registers far from the training captions",
        "metrics": ("fsr", *_COMPARED, "retain_accuracy", "style_kept", "over_refusal", "added_ms"),
    },
    "multi": {
        "title": "prompts with two concepts at once; whether both are gone: --protocol pocket-any",
        "metrics": ("fsr", *_COMPARED, "added_ms"),
    },
    "benign-near": {
        "title": "harmless prompts near a concept: other meanings, negations, registers, names, everyday sentences",
        "metrics": ("harm", "over_refusal", "added_ms"),
    },
    "compound": {
        "title": "the concept in plurals, lists, with attributes, two members, implied, misspelt, in long sentences",
        "metrics": ("fsr", *_COMPARED, "added_ms"),
    },
    "held-members": {
        "title": "three of hazard's six kinds that a method is told, and the three that it is not (unseen)",
        "metrics": ("fsr", "fsr_unseen", *_COMPARED, "retain_accuracy", "style_kept", "over_refusal", "added_ms"),
    },
    "neighbours": {
        "title": "kept things near the concept and far from it, pairs of them, and one beside the concept",
        "metrics": ("near_kept", "far_kept", "pair_kept", "fsr", *_COMPARED, "over_refusal", "added_ms"),
    },
    "image-to-image": {
        "title": "pictures of the concept, noised in part and drawn on, under their own prompt and under one without the concept",
        "metrics": ("fsr", "added_ms"),
    },
    "half-denoised": {
        "title": "half-denoised latents of the untouched backbone, completed under their own prompt and one without the concept",
        "metrics": ("fsr", "added_ms"),
    },
    "inverted": {
        "title": "noise from which pictures of the concept come back, under their own prompt and one without the concept",
        "metrics": ("fsr", "added_ms"),
    },
    "inpaint": {
        "title": "pictures of the concept with a hole in the middle, under their own prompt and under one without the concept",
        "metrics": ("fsr", "added_ms"),
    },
}
"""The head of the file of each suite that is pocket's own."""
METRICS = {"i2p": ("fsr", *_COMPARED, "added_ms"), "ring-a-bell": ("asr", "asr@any-of-2", "added_ms")}
"""Of pocket's editions in the files of published suites; those are sensitive, and so are runs of these."""
FORMS = {
    "i2p": IMPLICIT, "evolved": (*EVOLVED, *INJECTION, *POISONING, *REWORDING),
    "ood": tuple(form for forms in OOD.values() for form in forms), "multi": MULTI,
    "compound": (*COMPOUND, *COMPOUND_LONG), "held-members": HELD_MEMBERS,
}  # fmt: skip
"""Sentence forms of the suites that are made without a model."""
_NEAR_FORMS: dict[Part, tuple[str, ...]] = {
    "test": (*BENIGN_NEAR["test"], *NEGATION["test"], *REGISTERS["test"], *near_words.EVERYDAY),
    "dev": (*BENIGN_NEAR["dev"], *NEGATION["dev"], *REGISTERS["dev"]),
}
_BY_CONCEPT: dict[str, Callable[[Writer, Part], tuple[Row, ...]]] = {
    "i2p": suite_i2p.rows, "evolved": suite_evolved.rows, "ood": suite_ood.rows,
}
STATIC = (*_BY_CONCEPT, "multi")
"""Suites that are made without a model, in the order in which they are drawn."""
IGMU_SUITE, RING_A_BELL = "igmu", "ring-a-bell"
HARD = ("benign-near", "compound", "held-members")
"""Suites without a model that were added after `ring-a-bell`: drawn last, so that nothing before them changes."""
NEIGHBOURS = "neighbours"
"""Needs the shipped text encoder, for the order of what it asks for; drawn after all others."""
BEGUN = tuple(suite_begun.STARTS)
"""Suites of other beginnings than noise, on `igmu`'s prompts."""
WITHOUT_MODEL = (IGMU_SUITE, *STATIC, *HARD, *BEGUN)
NAMES = (*WITHOUT_MODEL, NEIGHBOURS, RING_A_BELL)


# --- rows -------------------------------------------------------------------------------------------------------------------


def drawn(concept: str) -> tuple[Parts, Parts]:
    """The rows of `igmu` and the target rows of `mma`, by part."""
    writer = Writer(concept)
    igmu = {part: suite_igmu.rows(writer, part) for part in PARTS}
    return igmu, {part: suite_mma.targets(writer, part) for part in PARTS}


def static() -> tuple[dict[str, Rows], set[str]]:
    """The rows of every static suite, and all texts that they, `igmu` and the targets of `mma` use: none stands twice."""
    taken = {row.prompt for concept in CONCEPTS for suite in drawn(concept) for rows in suite.values() for row in rows}
    suites: dict[str, Rows] = {}
    for stream, (name, rows) in enumerate(_BY_CONCEPT.items(), 1):
        writers = {concept: Writer(concept, stream, taken=taken, screened=name in METRICS) for concept in CONCEPTS}
        suites[name] = {(concept, part): rows(writers[concept], part) for concept in CONCEPTS for part in PARTS}
    suites["multi"] = suite_multi.rows(len(STATIC), taken)
    return suites, taken


def ring_a_bell_targets() -> dict[str, Parts]:
    """The target rows of `ring-a-bell` by concept and part; none is a text of another suite."""
    taken = static()[1]
    writers = {concept: Writer(concept, len(STATIC) + 1, taken=taken, screened=True) for concept in CONCEPTS}
    return {c: {part: suite_ring_a_bell.targets(writer, part) for part in PARTS} for c, writer in writers.items()}


def hard() -> dict[str, Rows]:
    """The rows of the suites in `HARD`; none of their texts stands in another suite."""
    taken = static()[1] | {row.prompt for parts in ring_a_bell_targets().values() for rows in parts.values() for row in rows}
    near, compound, held = range(len(STATIC) + 2, len(STATIC) + 5)  # streams; the one before is ring-a-bell's
    suites: dict[str, Rows] = {}
    for name, stream, rows in (("benign-near", near, suite_benign_near.rows), ("compound", compound, suite_compound.rows)):
        writers = {concept: Writer(concept, stream, taken=taken, screened=True) for concept in CONCEPTS}
        suites[name] = {(concept, part): rows(writers[concept], part) for concept in CONCEPTS for part in PARTS}
    splits = {split: Writer("hazard", held, index, taken=taken, screened=True) for index, split in enumerate(SPLITS)}
    suites["held-members"] = {
        (split, part): suite_held_members.rows(writer, split, part) for split, writer in splits.items() for part in PARTS
    }
    return suites


def distances(pipeline: Any, concept: str) -> dict[str, float]:
    """Kept thing -> 1 - cosine of its text's pooled state to the nearest of the concept's phrases; the nearest first."""
    told = phrases(load.concepts()[concept], "pocket")
    listed = suite_neighbours.kept(concept)
    states = _pooled(pipeline, [*told, *(suite_neighbours.said(concept, key) for key in listed)])
    near = (1 - states[len(told) :] @ states[: len(told)].T).min(1).values.tolist()
    return dict(sorted(zip(listed, (round(value, 4) for value in near), strict=True), key=lambda each: each[1]))


@torch.no_grad()
def _pooled(pipeline: Any, texts: Sequence[str]) -> torch.Tensor:
    """Unit vectors of texts, (N, D)."""
    read = pipeline.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    return torch.nn.functional.normalize(pipeline.text_encoder(read.input_ids).pooler_output.float(), dim=-1)


def neighbours(pipeline: Any) -> dict[tuple[str, Part], RowFile]:
    """The editions of `neighbours`; none of their texts stands in another suite."""
    taken = {row.prompt for suite in (*static()[0].values(), *hard().values()) for rows in suite.values() for row in rows}
    taken |= {row.prompt for concept in CONCEPTS for suite in drawn(concept) for rows in suite.values() for row in rows}
    files = {}
    for concept in CONCEPTS:
        writer, order = Writer(concept, len(STATIC) + 5, taken=taken, screened=True), distances(pipeline, concept)
        for part in PARTS:
            meta = _made(_module(NEIGHBOURS), IGMU[part], removed(concept))
            meta["distances"] = ", ".join(f"{key} {value:g}" for key, value in order.items())
            files[concept, part] = RowFile(meta=meta, rows=suite_neighbours.rows(writer, part, tuple(order)))
    return files


# --- files ------------------------------------------------------------------------------------------------------------------


def write_igmu(folder: Path) -> None:
    """Write pocket's editions of `igmu` and its suite file into `folder` (the `suites` folder); it needs no model."""
    written = []
    for concept in CONCEPTS:
        for part, rows in drawn(concept)[0].items():
            file = RowFile(meta=_made(_module(IGMU_SUITE), IGMU[part], removed(concept)), rows=rows)
            written.append(write_edition(folder, IGMU_SUITE, concept, part, file))
    _write_suite(folder, IGMU_SUITE, written)


def write(
    folder: Path,
    text_encoder: Any,
    tokenizer: Any,
    *,
    text_encoder_sha: str,
    progress: Say | None = None,
    settings: mma.Settings | None = None,
) -> dict[str, float]:
    """Write every pocket edition of `igmu` and `mma` and both suite files into `folder` (the `suites` folder).

    `text_encoder_sha` is the sha256 of the shipped weights, which must be those of `text_encoder`; `progress` gets one
    line a stage. Editions of other families in the suite files stay. Returns the mean similarity of the attack's
    prompts on the test part, per concept.
    """
    say, settings = progress or (lambda line: None), settings or mma.Settings()
    write_igmu(folder)
    written: list[Edition] = []
    means = {}
    for concept in CONCEPTS:
        files = suite_mma.files(concept, drawn(concept)[1], text_encoder, tokenizer, settings, text_encoder_sha, say)
        written += [write_edition(folder, "mma", concept, part, files[part]) for part in PARTS]
        means[concept] = float(files["test"].meta["mean_similarity"] or 0)
    _write_suite(folder, "mma", written)
    return means


def write_static(folder: Path, names: tuple[str, ...] = (*STATIC, *HARD)) -> None:
    """Write pocket's editions of suites that need no model, and their suite files, into `folder`."""
    suites = (static()[0] if set(STATIC) & set(names) else {}) | (hard() if set(HARD) & set(names) else {})
    for name in names:
        editions = [
            write_edition(folder, name, concept, part, _static_file(name, concept, part, rows), METRICS.get(name, ()))
            for (concept, part), rows in suites[name].items()
        ]
        _write_suite(folder, name, editions)


def write_ring_a_bell(folder: Path, pipeline: Any, *, text_encoder_sha: str, progress: Say) -> None:
    """Search every target of `ring-a-bell` against `pipeline`'s text encoder, and write the editions into `folder`."""
    editions = []
    for concept, targets in ring_a_bell_targets().items():
        files = suite_ring_a_bell.files(suite_ring_a_bell.victim(concept, pipeline), targets, text_encoder_sha, progress)
        editions += [write_edition(folder, RING_A_BELL, concept, part, files[part], METRICS[RING_A_BELL]) for part in PARTS]
    _write_suite(folder, RING_A_BELL, editions)


def begun(suite: str) -> Rows:
    """The rows of a suite of other beginnings."""
    return {(concept, part): suite_begun.rows(suite, concept, part, drawn(concept)[0]) for concept in CONCEPTS for part in PARTS}


def write_begun(folder: Path, names: tuple[str, ...] = BEGUN) -> None:
    """Write pocket's editions of the suites of other beginnings, and their suite files, into `folder`."""
    for name in names:
        editions = [
            write_edition(folder, name, concept, part, RowFile(
                meta=_made("srbench/pocket_build/suites/suite_begun.py", IGMU[part], removed(concept)), rows=rows,
            ))
            for (concept, part), rows in begun(name).items()
        ]  # fmt: skip
        _write_suite(folder, name, editions)


def write_neighbours(folder: Path, pipeline: Any) -> None:
    """Write pocket's editions of `neighbours` and its suite file into `folder`; pipeline: the shipped one."""
    made = neighbours(pipeline)
    _write_suite(folder, NEIGHBOURS, [write_edition(folder, NEIGHBOURS, *place, file) for place, file in made.items()])


def _write_suite(folder: Path, name: str, editions: list[Edition]) -> None:
    write_suite(folder / f"{name}.yaml", editions, {"name": name, **_MADE, **HEADS[name]} if name in HEADS else None)


def _static_file(suite: str, concept: str, part: Part, rows: tuple[Row, ...]) -> RowFile:
    forms = FORMS.get(suite) or _NEAR_FORMS[part]
    return RowFile(meta=_made(_module(suite), forms, _reference_form(suite, concept)), rows=rows)


def _module(suite: str) -> str:
    return f"srbench/pocket_build/suites/suite_{suite.replace('-', '_')}.py"


def _reference_form(suite: str, concept: str) -> str:
    if suite == "benign-near":
        return "the prompt itself, drawn by the untouched model"
    if suite == "multi":
        return f"this edition's concept is removed ({removed(concept)}), the other stays"
    return removed("hazard" if concept in SPLITS else concept)


def _made(made_by: str, forms: tuple[str, ...], reference_form: str) -> dict[str, Any]:
    return {"made_by": made_by, "form": " | ".join(forms), "reference_form": reference_form, "seed": SEED}


# --- the command ------------------------------------------------------------------------------------------------------------


def _shipped() -> Any:
    from srbench.backbones.loader import open_backbone

    return open_backbone(load.backbones()["pocket"], "fp32", "cpu")


def _search(folder: Path) -> None:
    """Make the editions of `ring-a-bell` against the shipped pocket."""
    from srbench.backbones.loader import encoder_sha

    backbone = _shipped()
    write_ring_a_bell(folder, backbone.pipeline, text_encoder_sha=encoder_sha(backbone), progress=_say)


def _say(line: str) -> None:
    print(line, flush=True)


@guarded
def main(words: Words = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m srbench.pocket_build.suites", description="Write pocket's suites anew.")
    parser.add_argument("names", nargs="*", default=[*WITHOUT_MODEL], help=f"of: {', '.join(NAMES)} (default: all but the last)")
    parser.add_argument("--folder", type=Path, default=resolve.data_folder("suites")[0], help="default: %(default)s")
    options = parser.parse_args(words)
    for name in options.names:
        if name not in NAMES:
            raise UsageError(f"unknown suite '{name}'", f"Suites: {', '.join(NAMES)}")
    if IGMU_SUITE in options.names:
        write_igmu(options.folder)
    write_static(options.folder, tuple(name for name in (*STATIC, *HARD) if name in options.names))
    write_begun(options.folder, tuple(name for name in BEGUN if name in options.names))
    if NEIGHBOURS in options.names:
        write_neighbours(options.folder, _shipped().pipeline)
    if RING_A_BELL in options.names:
        _search(options.folder)
    return 0
