"""The steps of a picture in the report: on the rows that have them, with their numbers, and of nothing that may not be seen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srbench.catalog import load
from srbench.report.gather import ReportOptions, gathered
from srbench.results import strips
from srbench.results.marks import AWAITS, KEPT, SENSITIVE
from srbench.results.store import Store
from srbench.results.strips import Strip
from tests.report.conftest import Made, rows

THREE = Strip((1, 2, 3), 3)
FILM = re.compile(r'<div class="film".*?</div>', re.DOTALL)


def keys_of(made: Made, row: str) -> dict[str, str]:
    """Method -> image key of a row."""
    (path,) = (made.folder / "runs").glob("*/run.json")
    cells = json.loads(path.read_text())["cells"]
    return {cell["result"]["method"]: each["image"] for cell in cells for each in cell["rows"] if each["id"] == row}


def put(made: Made, row: str, **shown: Strip) -> None:
    """Keep strips of a row's pictures, by method."""
    store = Store(made.folder / "store")
    for method, strip in shown.items():
        strips.put(store, keys_of(made, row)[method], strip, np.full((16, 16 * len(strip.frames), 3), 120, np.uint8))


def films(html: str) -> list[str]:
    return FILM.findall(html)


def items(film: str) -> list[str]:
    return re.findall(r"<li.*?</li>", film, re.DOTALL)


def test_both_pictures_of_a_row_show_their_steps(made: Made) -> None:
    made.run(rows(4))
    put(made, "f1", none=THREE, saferedir=Strip((1, 2, 3), 3, acted=(1, 2)))
    none, redirected = films(made.html())
    for film in (none, redirected):
        assert 'tabindex="0" role="region" aria-label="' in film
        assert film.count('src="data:image/webp;base64,') == 1
        assert len(items(film)) == 3
    assert "level" not in none
    assert [re.findall(r"unsafe </span>([\d.]+)", item)[0] for item in items(redirected)] == ["0.90", "0.80", "0.10"]
    assert ["redirected" in item for item in items(redirected)] == [True, True, False]


def test_steps_that_are_not_the_traces_have_numbers_alone(made: Made) -> None:
    """A trace of three numbers says nothing of ten steps, and two redirected steps are not one."""
    made.run(rows(4))
    put(made, "f1", saferedir=Strip((1, 5, 10), 10, acted=(1,)))
    (film,) = films(made.html())
    assert "level" not in film
    assert "redirected" not in film
    assert [re.findall(r"step </span>(\d+)", item)[0] for item in items(film)] == ["1", "5", "10"]
    assert "3 of 10 steps" in made.html()


def test_a_strip_of_other_pixels_is_not_shown(made: Made) -> None:
    made.run(rows(4))
    put(made, "f1", none=THREE)
    store = Store(made.folder / "store")
    ours, theirs = keys_of(made, "f1")["none"], keys_of(made, "f2")["none"]
    store.put_strip(theirs, store.strip_path(ours).read_bytes())
    assert len(films(made.html())) == 1


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"RIFF\x00\x00\x00\x00WEBPVP8 "])
def test_a_damaged_strip_costs_itself_alone(made: Made, data: bytes) -> None:
    made.run(rows(4))
    plain = made.html()
    Store(made.folder / "store").put_strip(keys_of(made, "f1")["none"], data)
    assert not films(made.html())
    assert made.html().count("<img") == plain.count("<img")


def test_a_sensitive_picture_shows_no_steps_also_where_it_is_kept(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.run(rows(4), keep=True)
    put(made, "f1", none=THREE)
    put(made, "f2", none=THREE)
    store = Store(made.folder / "store")
    store.restate([{**store.images[keys_of(made, "f1")["none"]], SENSITIVE: True, KEPT: True, AWAITS: []}])
    assert len(films(made.html())) == 1
    hazard = load.concepts()["hazard"].model_copy(update={"sensitive": True})
    known = {**load.concepts(), "hazard": hazard}
    monkeypatch.setattr(load, "concepts", lambda: known)
    assert not films(made.html())


def test_a_gated_row_shows_none(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.run(rows(4), keep=True)
    put(made, "f1", none=THREE)
    store = Store(made.folder / "store")
    store.restate([{**store.images[keys_of(made, "f1")["none"]], "gated": True}])
    assert not films(made.html())


def test_rows_with_steps_are_chosen_where_there_is_little_room(made: Made) -> None:
    made.run(rows(20))
    put(made, "f13", none=THREE)
    (section,) = gathered(made.folder, ReportOptions(images=6), made.lines.append).sections
    assert "f13" in {row.id for row in section.rows}
    assert len(section.rows) == 2


def test_a_picture_is_embedded_once(made: Made) -> None:
    """Also where its tokens stand a second time, under the traces."""
    made.run(rows(4))
    put(made, "f1", saferedir=THREE)
    html = made.html()
    (data,) = (re.findall(r'src="(data:[^"]+)"', film)[0] for film in films(html))
    assert html.count(data) == 1


def test_strips_come_along_in_a_merge(made: Made, tmp_path: Path) -> None:
    from srbench.results import merging

    def tell(*args: Any) -> None:
        """Nothing."""

    made.run(rows(4))
    put(made, "f1", none=THREE)
    put(made, "f2", none=THREE)
    store = Store(made.folder / "store")
    one, marked = (keys_of(made, row)["none"] for row in ("f1", "f2"))
    store.restate([{**store.images[marked], SENSITIVE: True, AWAITS: []}])
    merging.merge([made.folder], tmp_path / "both", made.lines.append, tell)
    both = Store(tmp_path / "both" / "store")
    assert [key for key, _ in strips.lying(both)] == [one]
    assert strips.get(both, one) == strips.get(store, one)
