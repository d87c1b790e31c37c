"""Training pairs from IGMU's published prompts (2506.02761), and the rows that they come from: these are not counted when the
redirector is tested.

A seed splits the prompts: of every class 40 % train, 10 % choose the best state, and the rest is left for the test.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from srbench.catalog import load, screen, sources
from srbench.catalog.specs import ConceptSpec, ConceptWords, Row
from srbench.errors import UsageError
from srbench.methods.phrases import words_of
from srbench.methods.saferedir.pairs import Pair, PairSet, Used

SUITE, FAMILY = "igmu", "sd"
"""Its prompts are English, whatever model reads them: the edition of Stable Diffusion serves the other families too."""
TRAIN_PERCENT, HELD_PERCENT = 40, 10


def igmu_pairs(concepts: Sequence[ConceptSpec], family: str, seed: int, copy: Path | None, accept: bool) -> PairSet:
    """Pairs and concept-free prompts around each concept, and the rows that were used.

    copy: the user's folder with forgot.json and retain.json; None is where the suite is kept. In sensitive concepts' rows
    whatever names a minor is dropped first, the classes girl and boy by key. Raises as `sources.rows` does, and `UsageError`
    for a concept that IGMU has no prompts for.
    """
    pair_sets = [_of_concept(concept, family, seed, copy, accept) for concept in concepts]
    out = PairSet(dropped=sum(pairs.dropped for pairs in pair_sets))
    for pairs in pair_sets:
        out.train += pairs.train
        out.held += pairs.held
        out.benign_train += pairs.benign_train
        out.benign_held += pairs.benign_held
    if len(concepts) > 1:
        _part(out, [words_of(concept, family) for concept in concepts])
    used = [pairs.used for pairs in pair_sets]
    out.used = Used(
        SUITE, tuple(sha for one in used for sha in one.files), tuple(i for one in used for i in one.train),
        tuple(i for one in used for i in one.held), tuple(sorted({p for one in used for p in one.prompts})),
    )  # fmt: skip
    return out


def _of_concept(concept: ConceptSpec, family: str, seed: int, copy: Path | None, accept: bool) -> PairSet:
    suite = load.named("suite", SUITE, load.suites())
    if concept.name not in {candidate.concept for candidate in suite.editions if candidate.family == FAMILY}:
        hint = 'Give --pairs FILE with {"unsafe", "safe"} a line.'
        raise UsageError(f"concept '{concept.name}' needs a pairs file: IGMU has no prompts for it on {family}", hint)
    edition = load.edition(suite, FAMILY, concept.name, "test")
    read = sources.rows(suite, edition, sources.Given(prompts=copy, accept=accept))
    rows = read.rows
    if screen.sensitive(concept, suite.of(edition), rows, read.others):
        rows = screen.admissible(rows, read.others)
    train, held_out = split(rows, seed)
    paired, words = edition.paired, words_of(concept, family)
    out = PairSet(dropped=len(read.rows) - len(rows))
    out.train, out.held = (_pairs(part, paired, words) for part in (train, held_out))
    out.benign_train, out.benign_held = (_benign(part) for part in (train, held_out))
    ids = [tuple(row.id for row in part) for part in (train, held_out)]
    texts = {text for row in (*train, *held_out) for text in (row.prompt, row.reference) if text}
    out.used = Used(SUITE, read.sha256, ids[0], ids[1], tuple(sorted(map(load.fingerprint, texts))))
    return out


def split(rows: Iterable[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to train with and rows to choose the best state by; the others are left for the test.

    Each class is split. A forget row, its reference and the retain row of that text stay together, as do rows with the same
    prompt.
    """
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        shared = row.reference or row.prompt
        groups.setdefault(row.category, {}).setdefault(shared, []).append(row)
    train: list[Row] = []
    held_out: list[Row] = []
    for group in groups.values():
        order = sorted(group, key=lambda text: hashlib.sha256(f"{seed}|{text}".encode()).hexdigest())
        first, second = (round(len(order) * percent / 100) for percent in (TRAIN_PERCENT, TRAIN_PERCENT + HELD_PERCENT))
        train += [row for text in order[:first] for row in group[text]]
        held_out += [row for text in order[first:second] for row in group[text]]
    return train, held_out


def _pairs(rows: Iterable[Row], paired: bool, words: ConceptWords) -> list[Pair]:
    """Forget rows with their safe side: the published partner, or, where the suite pairs nothing, the prompt with the concept's
    words replaced by their counterparts. Rows without either are left out."""
    sides = [(row.prompt, row.reference if paired else replaced(row.prompt, words)) for row in rows if row.kind == "forget"]
    return [Pair(unsafe=unsafe, safe=safe) for unsafe, safe in sides if safe and safe != unsafe]


def _benign(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row.prompt for row in rows if row.kind == "retain"))


def replaced(prompt: str, words: ConceptWords) -> str:
    """The prompt with each of the concept's words, plurals too, replaced by its counterpart: "Old churches" -> "Old houses"."""

    def other(match: re.Match[str]) -> str:
        safe = counterparts[match[1].lower()] + ("s" if match[2] else "")
        return safe[0].upper() + safe[1:] if match[1][0].isupper() else safe

    counterparts = {word.lower(): safe for word, safe in words.counterparts.items()}
    if not counterparts:
        return prompt
    longest_first = sorted(counterparts, key=len, reverse=True)
    return re.sub(rf"\b({'|'.join(map(re.escape, longest_first))})(e?s)?\b", other, prompt, flags=re.IGNORECASE)


def _part(pairs: PairSet, vocabularies: Sequence[ConceptWords]) -> None:
    """Drop safe sides that name any of the concepts: IGMU's retain prompts for churches are partly of parachutes."""
    words = sorted({word for one in vocabularies for word in (*one.names, *one.words)}, key=len, reverse=True)
    named = re.compile(rf"\b({'|'.join(map(re.escape, words))})(e?s)?\b", flags=re.IGNORECASE)
    pairs.train, pairs.held = ([p for p in part if not named.search(p.safe)] for part in (pairs.train, pairs.held))
    pairs.benign_train, pairs.benign_held = (
        [text for text in part if not named.search(text)] for part in (pairs.benign_train, pairs.benign_held)
    )


def of_copy(path: Path) -> bool:
    """Whether the user's path is a copy of IGMU, which is a folder; own pairs are a file."""
    return path.is_dir()
