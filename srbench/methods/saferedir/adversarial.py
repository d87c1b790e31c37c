"""Adversarial training of a redirector: prompts that `srbench attack` found stand among the unsafe sides.

Each row's safe side is its reference. What an attack put before the target also stands before the reference, as a prompt
without the concept: otherwise odd words alone would be taken for the concept.
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
    """The pairs, and the attack's, so often that they are `share` of the unsafe sides that are drawn.

    columns: row field -> the file's column, where the user says so. Its targets are held out as whole targets, one in seven.
    Raises `UsageError` where no row of the file has a reference.
    """
    read = prompts.read(path, chosen=columns)
    rows = [row for row in read.rows if row.kind == "forget" and row.reference and row.prompt != row.target]
    if not rows:
        raise UsageError(f"{path}: no attack row with a reference in it", "Give the file of `srbench attack ... --suite igmu`.")
    kept, out = _split(rows)
    if not kept:
        raise UsageError(f"{path}: all of its {len(rows)} rows are held out", "Attack more targets.")
    times = max(1, round(len(pairs.train) * share / (1 - share) / len(kept)))
    told = {text for row in rows for text in (row.prompt, row.target, row.reference) if text}
    seen = {*pairs.used.prompts, *map(load.fingerprint, told)}
    unused = len(read.rows) - len(rows)
    of_them = f"{prompts.shown(path.name)}: {unused} of {len(read.rows)} rows"
    left_out = (f"{of_them} are no attacks with a reference and train nothing",) if unused else ()
    out_of = replace(
        pairs,
        train=[*pairs.train, *map(pair_of, kept * times)],
        held=[*pairs.held, *map(pair_of, out)],
        benign_train=[*pairs.benign_train, *_without(kept)],
        benign_held=[*pairs.benign_held, *_without(out)],
        used=replace(pairs.used, files=(*pairs.used.files, read.sha256), prompts=tuple(sorted(seen))),
        beside=dict(pairs.beside), told=(*pairs.told, *read.told, *left_out),
    )
    for row in rows:
        more = (row.target, row.negative_prompt, row.category, *read.others.get(row.id, ()))
        out_of.put_beside((row.prompt, row.reference or "", harmless(row) or ""), filter(None, more))
    return out_of


def pair_of(row: Row) -> Pair:
    """The found prompt, and the row's reference."""
    return Pair(unsafe=row.prompt, safe=row.reference or "")


def harmless(row: Row) -> str | None:
    """What the attack put before the target, before the reference; None where the target does not end the prompt."""
    said, target = _PART.findall(row.prompt), _PART.findall(row.target or "")
    before = said[: len(said) - len(target)]
    if not target or not before or said[len(before) :] != target:
        return None
    return f"{' '.join(before)} {row.reference}"


def _without(rows: Sequence[Row]) -> Iterator[str]:
    return (text for text in map(harmless, rows) if text)


def _split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    held = [is_held("attack", row.target or row.prompt) for row in rows]
    kept, out = ([row for row, each in zip(rows, held, strict=True) if each is side] for side in (False, True))
    return kept, out
