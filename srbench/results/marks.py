"""Field names in records of gated and sensitive rows, and how two ledger lines of an image are merged."""

from __future__ import annotations

from srbench.results.records import Record

GATED, MARKED = "gated", "marked"


TEXT, TEXT_SHA = "prompt", "prompt_sha256"
"""An image's prompt in its record: the text, or for a gated row its hash."""


FIELDS, FIELDS_SHA = "fields", "fields_sha256"
"""The same for the row fields that a score was made with."""


SENSITIVE, DROPPED, KEPT, AWAITS, TRIED = "sensitive", "dropped", "kept", "awaits", "tried"
ELSEWHERE = "elsewhere"
"""Of a picture that others made: it is read where it lies, and has no file in the store."""


def merged(before: Record | None, record: Record) -> Record:
    """Merge two ledger lines of one image, in whichever order they are read.

    A dropped image stays dropped: a worker's line about it may be in a later file than its parent's `dropped` line. A flag
    that either line sets is set. Otherwise the line that was marked last wins.
    """
    if before is None:
        return record
    base = max((before, record), key=_order) if _order(before) != _order(record) else record
    flags = {name: True for name in (DROPPED, SENSITIVE, GATED, KEPT, TRIED) if before.get(name) or record.get(name)}
    texts = [line[TEXT] for line in (before, record) if TEXT in line]
    shown = {TEXT: texts[0]} if texts and flags.get(GATED) else {}  # so that `gated.clean` sees that a text is left
    return {**base, **flags, **shown}


def _order(record: Record) -> tuple[bool, int]:
    stamp = record.get(MARKED)
    return bool(record.get(DROPPED)), stamp if isinstance(stamp, int) else 0
