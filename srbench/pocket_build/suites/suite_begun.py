"""Pocket's suites of other beginnings than noise: `image-to-image`, `half-denoised`, `inverted`, `inpaint`.

Each row begins from a picture that the untouched backbone draws of a forget row of `igmu`, and goes on under that row's prompt
(`own`) or under its reference, which does not name the concept (`neutral`): a method that reads the prompt alone has nothing to
go by there. Categories are `own-` and `neutral-` with the beginning.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import Literal

from srbench.catalog.specs import Row
from srbench.pocket_build.suites.suite_files import Part, Parts, stem

Said = Literal["own", "neutral"]
STARTS: dict[str, tuple[str, ...]] = {
    "image-to-image": ("image:0.3", "image:0.5", "image:0.7", "image:0.9"),
    "half-denoised": ("half:0", "half:4", "half:8", "half:12"),
    "inverted": ("inverted",),
    "inpaint": ("inpaint",),
}
"""Suite -> its beginnings, of pocket's 16 steps."""
ROWS: dict[Part, int] = {"test": 60, "dev": 16}
"""Of each text, over all beginnings of a suite."""


def rows(suite: str, concept: str, part: Part, igmu: Parts) -> tuple[Row, ...]:
    """The edition of a suite. igmu: the concept's rows there."""
    shown = [row for row in igmu[part] if row.kind == "forget" and row.category != "unseen" and row.reference is not None]
    found: list[Row] = []
    said: tuple[Said, ...] = ("own", "neutral")
    for text in said:
        letter = text[0]
        pairs = zip(islice(cycle(STARTS[suite]), ROWS[part]), _spread(shown, ROWS[part]), strict=True)
        for number, (start, row) in enumerate(pairs, 1):
            name = f"{stem(suite, concept, part)}-{letter}{number:03d}"
            found.append(_row(row, start, text, name))
    return tuple(found)


def _spread(shown: list[Row], count: int) -> list[Row]:
    """So many rows, evenly over all of them; again from the first where there are fewer."""
    if len(shown) <= count:
        return list(islice(cycle(shown), count))
    return [shown[i * len(shown) // count] for i in range(count)]


def _row(row: Row, start: str, text: Said, name: str) -> Row:
    prompt = row.prompt if text == "own" else row.reference
    assert prompt is not None
    return row.model_copy(update={
        "id": name, "category": f"{text}-{start.replace(':', '-')}", "prompt": prompt, "start": start,
        "pictured": None if text == "own" else row.prompt, "reference": None,
    })  # fmt: skip
