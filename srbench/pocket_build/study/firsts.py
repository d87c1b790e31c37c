"""A picture of first rows: a column for each kind of row, a line for each method."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from srbench.analysis.records import CellRecord
from srbench.catalog.specs import Row
from srbench.results.store import Store

LABEL_PX, GAP_PX, FONT_PX = 74, 4, 11
Kinds = Sequence[tuple[str, str]]
"""Suites and categories of rows."""


def first_rows(
    cells: Mapping[tuple[str, str], CellRecord], kinds: Kinds, beside: Sequence[str], store: Store,
    heading: Callable[[str, Row], str], side: int, top: int,
) -> bytes | None:
    """The first row of each kind, whatever it shows, under each of some methods, as a PNG; None where a cell is missing.

    cells: suite and label -> rows. heading: a suite and a row -> the text above it. top, side: of headings and a picture, px.
    """  # fmt: skip
    if not {(suite, name) for suite, _ in kinds for name in beside} <= cells.keys():
        return None
    sheet = Image.new("RGB", (LABEL_PX + len(kinds) * (side + GAP_PX), top + len(beside) * (side + GAP_PX)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_PX)
    for y, name in enumerate(beside):
        pen.text((2, top + y * (side + GAP_PX) + GAP_PX), name, "black", font)
    for x, (suite, kind) in enumerate(kinds):
        row = next(each.row for each in cells[suite, "none"].rows if each.row.category == kind)
        left = LABEL_PX + x * (side + GAP_PX)
        pen.multiline_text((left, 2), heading(suite, row), "black", font)
        for y, name in enumerate(beside):
            (image,) = (each.image for each in cells[suite, name].rows if each.row.id == row.id)
            if image is not None:
                shown = Image.fromarray(store.pixels(image.key)).resize((side, side), Image.Resampling.LANCZOS)
                sheet.paste(shown, (left, top + y * (side + GAP_PX)))
    data = io.BytesIO()
    sheet.save(data, "PNG", optimize=True)
    return data.getvalue()
