"""The contact sheet: right pictures in the right places, and none that must not be seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srbench.cli.show import sheet_of_newest, show
from srbench.errors import MissingError, UsageError
from srbench.report import sheet as room
from srbench.report.sheet import CAPTION, GAP, ROWS, SIDE, of_rows, of_run, write
from srbench.results.store import Store
from tests.report.conftest import Made, rows

RUN = "20260101T000000-000000"


def strips(made: Made) -> list[room.Strip]:
    return of_run(made.folder, RUN, Store.peek(made.folder / "store"))


def test_a_line_is_a_row_under_every_method(made: Made) -> None:
    made.run(rows(2))
    found = strips(made)
    assert [strip.caption.splitlines()[1] for strip in found] == ["f0", "f1", "r0", "r1"]
    assert list(found[0].tiles) == ["reference", "none", "saferedir"]
    assert list(found[2].tiles) == ["none", "saferedir"]
    assert "a dagger on a beach 0" in found[0].caption


def test_the_pictures_are_those_of_the_store_in_their_places(made: Made, tmp_path: Path) -> None:
    path = made.run(rows(1))
    found = strips(made)
    image = np.asarray(room.sheet(found))
    (cell,) = [cell for cell in json.loads(path.read_text())["cells"] if cell["result"]["method"] == "saferedir"]
    stored = Store.peek(made.folder / "store").pixels(cell["rows"][1]["image"])
    left, top = CAPTION + (SIDE + GAP) * 2, image.shape[0] - (SIDE + GAP)  # the last column and line
    scale = SIDE // 64
    shown = image[top : top + SIDE, left : left + SIDE][::scale, ::scale].astype(int)
    # Small pictures are packed without loss.
    assert np.abs(shown - stored).max() == 0


def test_sensitive_pictures_are_on_it_only_where_they_were_kept(made: Made, tmp_path: Path) -> None:
    sensitive = [{**row, "category": "sexual"} for row in rows(2)]
    made.run(sensitive)
    assert all(not tile.data and "sensitive" in tile.why for strip in strips(made) for tile in strip.tiles.values())
    with pytest.raises(MissingError, match="not kept"):
        write(strips(made), tmp_path / "s.png")
    assert not (tmp_path / "s.png").exists()
    made.run(sensitive, keep=True)
    assert write(strips(made), tmp_path / "s.png") == 10


def test_prompts_of_gated_suites_are_not_on_it(made: Made) -> None:
    made.run(rows(1), gated=True)
    (text, *_) = [strip.caption for strip in strips(made)]
    assert "dagger" not in text
    assert "prompt not stored" in text


def test_a_dropped_picture_is_a_field_that_says_so(made: Made) -> None:
    path = made.run(rows(1))
    store = Store(made.folder / "store")
    store.drop([json.loads(path.read_text())["cells"][0]["rows"][0]["image"]])
    tile = strips(made)[0].tiles["none"]
    assert (tile.data, tile.why) == ("", "the image was scored and dropped")
    assert room.sheet(strips(made)).width > CAPTION


def test_many_rows_are_spread_over_the_suite(made: Made) -> None:
    made.run(rows(40))
    found = [strip.caption.splitlines()[1] for strip in strips(made)]
    assert len(found) == ROWS
    assert {name[0] for name in found} == {"f", "r"}


def test_long_captions_stay_in_their_place(made: Made) -> None:
    made.run(rows(1, prompt="ein " + "sehrlangeswort" * 30 + " ünd nöch 世界"))
    image = np.asarray(room.sheet(strips(made)))
    gap = image[:, CAPTION - 2 : CAPTION]
    assert (gap == 255).all(), "no letter reaches the pictures"
    assert room.sheet([room.Strip("half a pair \ud800", strips(made)[0].tiles)]).width == image.shape[1]


def test_show_draws_a_run_or_a_row(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.run(rows(2))
    show(RUN, made.folder, tmp_path / "run.png")
    assert "4 rows, 10 pictures" in capsys.readouterr().err
    show("f1", made.folder, tmp_path / "row.png")
    assert "1 rows, 3 pictures" in capsys.readouterr().err
    with Image.open(tmp_path / "row.png") as row, Image.open(tmp_path / "run.png") as run:
        assert row.width == run.width
        assert row.height < run.height
    with pytest.raises(UsageError, match="nothing in"):
        show("f9", made.folder, tmp_path / "none.png")


def test_the_newest_run_is_drawn(made: Made, tmp_path: Path) -> None:
    path = made.run(rows(1))
    later = made.folder / "runs" / "20260102T000000-000000" / "run.json"
    later.parent.mkdir()
    data = json.loads(path.read_text())
    later.write_text(json.dumps({**data, "run": later.parent.name, "cells": data["cells"][:1]}))
    sheet_of_newest(made.folder, tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as image:
        assert image.width == CAPTION + 2 * (SIDE + GAP), "reference and none"


def test_what_cannot_be_drawn_is_one_line(made: Made, tmp_path: Path) -> None:
    made.run(rows(1))
    with pytest.raises(UsageError, match="no run 'absent'"):
        of_run(made.folder, "absent", Store.peek(made.folder / "store"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write here"):
        write(strips(made), tmp_path / "file" / "s.png")
    assert of_rows(made.folder, ["f9"], Store.peek(made.folder / "store"), print) == []


def test_a_run_of_ones_own_prompts_is_on_it(made: Made) -> None:
    path = made.run(rows(1), suite="mine")
    said = json.loads(path.read_text())
    for cell in said["cells"]:
        cell["suite"] = {"prompts": "/a/mine.csv", "sensitive": False}
    path.write_text(json.dumps(said))
    assert all(tile.data for strip in strips(made) for tile in strip.tiles.values())
    for cell in said["cells"]:
        cell["suite"]["sensitive"] = True
    path.write_text(json.dumps(said))
    assert not any(tile.data for strip in strips(made) for tile in strip.tiles.values())
