"""The sheet of failures: which rows stand on it, and what stands beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srbench.analysis.records import CellRecord, ImageRecord, RowRecord, Timing
from srbench.catalog.specs import Row
from srbench.pocket_build.study import pictures
from srbench.results.store import Store

KEYS = {name: f"{number}" * 64 for number, name in enumerate(("none", "reference", "gone", "seen", "acted"))}


def _image(name: str, vangogh: float = 0.1, steps: int = 0, scored: bool = True) -> ImageRecord:
    style = {"noto": 1 - vangogh, "vangogh": vangogh}
    scores = {"pocket-judge": {"style": style}} if scored else {}
    return ImageRecord(KEYS[name], name, Timing(0.1, "r", 0), {"redirected_steps": steps}, scores)


def _cell(method: str, *rows: RowRecord) -> CellRecord:
    return CellRecord(
        backbone="pocket", concept="vangogh", concept_kind="style", suite="igmu", attack=False, method=method, on="none",
        variant="", protocol="pocket-vangogh", dtype="fp32", rows_sha="r", run="1", source="local", n_loaded=len(rows),
        n_excluded=0, metrics=("fsr", "over_refusal"), decides=True, rows=rows, described_by=("pocket-judge", "pocket-clip"),
    )


def _row(name: str, kind: Any = "forget") -> Row:
    return Row(id=name, kind=kind, category="noun", prompt=f"a {name}", reference="a cat" if kind == "forget" else None)


@pytest.fixture
def cells() -> list[CellRecord]:
    drawn = {
        "gone": _image("gone"), "seen": _image("seen", 0.9), "unscored": _image("seen", scored=False),
        "acted": _image("acted", steps=3), "left": _image("gone"),
    }
    rows = {name: _row(name, "retain" if name in ("acted", "left") else "forget") for name in drawn}
    plain = [
        RowRecord(row, _image("none"), _image("reference") if row.reference else None) for row in rows.values()
    ]  # fmt: skip
    return [_cell("none", *plain), _cell("saferedir", *(RowRecord(rows[name], image) for name, image in drawn.items()))]


@pytest.fixture
def found(cells: list[CellRecord]) -> list[pictures.Failure]:
    return pictures.failures(cells)


def test_rows_that_fail_or_can_not_be_judged_are_named_with_what_stands_beside_them(found: list[pictures.Failure]) -> None:
    assert [(failure.row.id, failure.metrics) for failure in found] == [
        ("seen", ("fsr",)), ("unscored", ("fsr",)), ("acted", ("over_refusal",)),
    ]  # fmt: skip
    assert found[0].images == (KEYS["none"], KEYS["reference"], KEYS["seen"])
    assert found[2].images == (KEYS["none"], None, KEYS["acted"])


def test_the_sheet_shows_every_failure(found: list[pictures.Failure], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    made = {"trace": {}, "seconds": 0.1}
    store.put_images([(key, np.full((64, 64, 3), 40 * n, np.uint8), made) for n, key in enumerate(KEYS.values())])
    pictures.draw_failures(found, store, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert {tuple(np.full(3, 40 * n)) for n in (0, 1, 3, 4)} <= {tuple(pixel) for pixel in sheet.reshape(-1, 3).tolist()}


def test_pictures_of_rows_are_drawn_only_where_every_concept_was_run(cells: list[CellRecord]) -> None:
    assert pictures.at_hand(cells, ("vangogh",))
    assert not pictures.at_hand(cells, ("vangogh", "hazard"))
