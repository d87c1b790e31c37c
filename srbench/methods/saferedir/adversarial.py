"""Adversarial training of a redirector: prompts that `srbench attack` found are added to the unsafe sides.

Each row's safe side is its reference. For prefix attacks the same prefix is also put before the reference, as a prompt without
the concept: otherwise the detector would learn to react to the odd prefix instead of the concept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from srbench.catalog import load, prompts
from srbench.catalog.specs import Row
from srbench.errors import UsageError
from srbench.methods.saferedir.pairs import Pair, PairSet, is_held

_PART = re.compile(r"\w+|[^\w\s]")


def with_attacks(pairs: PairSet, path: Path, share: float, columns: prompts.Columns | None = None) -> PairSet:
    """The pairs and the attack's rows, repeated until these are `share` of the unsafe sides that are drawn.

    columns: row field -> the file's column, where the user says so. Whole targets are held out, one in seven.
    Raises `UsageError` where no row of the file has a reference.
    """
    read = prompts.read(path, chosen=columns)
    rows = [row for row in read.rows if row.kind == "forget" and row.reference and row.prompt != row.target]
    if not rows:
        raise UsageError(f"{path}: no attack row with a reference in it", "Give the file of `srbench attack ... --suite igmu`.")
    train, held_out = _split(rows)
    if not train:
        raise UsageError(f"{path}: all of its {len(rows)} rows are held out", "Attack more targets.")
    times = max(1, round(len(pairs.train) * share / (1 - share) / len(train)))
    texts = {text for row in rows for text in (row.prompt, row.target, row.reference) if text}
    seen = {*pairs.used.prompts, *map(load.fingerprint, texts)}
    unused = len(read.rows) - len(rows)
    of_them = f"{prompts.shown(path.name)}: {unused} of {len(read.rows)} rows"
    left_out = (f"{of_them} are no attacks with a reference and train nothing",) if unused else ()
    combined = replace(
        pairs,
        train=[*pairs.train, *map(pair_of, train * times)],
        held=[*pairs.held, *map(pair_of, held_out)],
        benign_train=[*pairs.benign_train, *_without(train)],
        benign_held=[*pairs.benign_held, *_without(held_out)],
        used=replace(pairs.used, files=(*pairs.used.files, read.sha256), prompts=tuple(sorted(seen))),
        beside=dict(pairs.beside), told=(*pairs.told, *read.told, *left_out),
    )
    for row in rows:
        more = (row.target, row.negative_prompt, row.category, *read.others.get(row.id, ()))
        combined.put_beside((row.prompt, row.reference or "", harmless(row) or ""), filter(None, more))
    return combined


def pair_of(row: Row) -> Pair:
    """The found prompt, and the row's reference."""
    return Pair(unsafe=row.prompt, safe=row.reference or "")


def harmless(row: Row) -> str | None:
    """The reference with the attack's prefix before it; None where the prompt does not end in the target."""
    words, target = _PART.findall(row.prompt), _PART.findall(row.target or "")
    before = words[: len(words) - len(target)]
    if not target or not before or words[len(before) :] != target:
        return None
    return f"{' '.join(before)} {row.reference}"


def _without(rows: Sequence[Row]) -> Iterator[str]:
    return (text for text in map(harmless, rows) if text)


def _split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    flags = [is_held("attack", row.target or row.prompt) for row in rows]
    train, held_out = ([row for row, is_out in zip(rows, flags, strict=True) if is_out is side] for side in (False, True))
    return train, held_out
