"""The words that records of pictures say of gated and sensitive rows, and one record of two lines."""

from __future__ import annotations

from srbench.results.records import Record

GATED, MARKED = "gated", "marked"


TEXT, TEXT_SHA = "prompt", "prompt_sha256"
"""What an image's record says of its prompt: the text, or of a gated row its hash."""


FIELDS, FIELDS_SHA = "fields", "fields_sha256"
"""The same for the row fields that a score was made with."""


SENSITIVE, DROPPED, KEPT, AWAITS, TRIED = "sensitive", "dropped", "kept", "awaits", "tried"


def merged(known: Record | None, record: Record) -> Record:
    """One record of two ledger lines about one picture, in whichever order they are read.

    Dropping is final: a worker's line of the picture may stand in a later file than its parent's that it was dropped. Flags
    that one line raises no other lowers. Else what was marked last counts.
    """
    if known is None:
        return record
    base = max((known, record), key=_order) if _order(known) != _order(record) else record
    flags = {name: True for name in (DROPPED, SENSITIVE, GATED, KEPT, TRIED) if known.get(name) or record.get(name)}
    texts = [each[TEXT] for each in (known, record) if TEXT in each]
    shown = {TEXT: texts[0]} if texts and flags.get(GATED) else {}  # a text that is left somewhere has to be found
    return {**base, **flags, **shown}


def _order(record: Record) -> tuple[bool, int]:
    stamp = record.get(MARKED)
    return bool(record.get(DROPPED)), stamp if isinstance(stamp, int) else 0
