"""The report: complete, one file, nothing foreign runs in it, nothing sensitive is in it that was not kept."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from srbench.analysis.results import ResultCell
from srbench.catalog import load, screen
from srbench.cli.main import app
from srbench.report import examples
from srbench.report.build import encoded, page
from srbench.report.embed import packed
from srbench.report.gallery import spread
from srbench.report.gather import ReportOptions, gathered
from srbench.report.plots import Series, tradeoff
from srbench.report.sources import Source, usual
from srbench.results.store import Store
from tests.report.conftest import HOSTILE, Made, rows

VOID = {"meta", "link", "img", "br", "input"}
SECTIONS = ("summary", "suites", "protocols", "gallery", "traces", "costs", "judges", "provenance")


class Outline(HTMLParser):
    """Elements with attributes, ids, and whether every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


def _text(html: str) -> str:
    """What a reader sees."""
    return unescape(re.sub(r"<[^>]+>", " ", html))


def test_structure(made: Made) -> None:
    made.run(rows())
    html = made.html()
    outline = Outline(html)
    assert outline.open == []
    ids = [attrs["id"] for _, attrs in outline.found if attrs.get("id")]
    assert len(ids) == len(set(ids))
    assert set(SECTIONS) <= set(ids)
    assert {attrs["href"][1:] for attrs in outline.all("a") if attrs["href"]} <= set(ids)
    assert all(attrs.get("alt") for attrs in outline.all("img"))
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert "<title" in svg or "aria-label" in svg
    assert made.html() == html  # the same results give the same bytes


def test_it_says_what_a_newcomer_asks(made: Made) -> None:
    made.run(rows(12))
    text = _text(made.html())
    assert "saferedir; most forgotten (fsr): 91.7 %" in text
    assert "+12 ms an image" in text
    assert re.search(r"yes\. saferedir against none: \+91\.7 points .* on the same 12 rows \(exact McNemar", text)
    assert re.search(r"test, p = 0\.00\d+, Holm-corrected\)", text), "2 * 0.5^11, times the tests of this wall"
    assert "saferedir lets the concept through (the judge: dagger 0.97), row f0." in text
    assert "unsafe probability by step: first 0.90, highest 0.90, last 0.10; 2 of 3 steps redirected" in text
    assert "threshold of the judge" in text
    assert "pocket-judge (objects): the concept is there if" in text


def test_nothing_is_loaded_from_elsewhere(made: Made) -> None:
    made.run(rows())
    html = made.html()
    outline = Outline(html)
    for _, attrs in outline.found:
        for name in ("src", "href", "action", "poster", "data", "srcset"):
            value = attrs.get(name) or ""
            assert value == "" or value.startswith(("data:", "#")), value[:80]
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for a in outline.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src 'sha256-" in policy
    assert "unsafe-inline' script" not in policy


def test_hostile_texts_stay_texts(made: Made) -> None:
    hostile = [{**row, "id": f"{HOSTILE}{i}", "category": HOSTILE} for i, row in enumerate(rows(3, HOSTILE))]
    made.run(hostile, methods=("none", "saferedir"))
    path = next(made.folder.glob("runs/*/run.json"))
    data = json.loads(path.read_text())
    data["cells"][1]["result"] |= {"method": HOSTILE, "variant": HOSTILE}
    data["cells"].append({"result": {**data["cells"][0]["result"], "concept": HOSTILE, "suite": HOSTILE}, "rows": []})
    path.write_text(json.dumps(data))
    html = made.html()
    outline = Outline(html)
    assert [script.get("type") for script in outline.all("script")] == ["application/json", None]
    assert outline.open == []
    assert not [attrs for _, attrs in outline.found if "onerror" in attrs]
    assert "<b>" not in html
    assert "{{ 7 * 7 }}" in html  # no text is a template
    assert "window.hacked" in html


def test_half_a_surrogate_pair_does_not_stop_it(made: Made) -> None:
    path = made.run(rows(2))
    data = json.loads(path.read_text())
    data["cells"][1]["result"]["variant"] = "strength=\ud83d\x00"
    data["cells"][1]["rows"][0]["row"]["prompt"] = "\ud83d"
    path.write_text(json.dumps(data))
    html = encoded(made.html()).decode("utf-8")
    assert "strength=\\ud83d" in html
    assert "<bdi>\\ud83d</bdi>" in html


def test_a_damaged_row_costs_its_cells_pictures_and_nothing_else(made: Made) -> None:
    path = made.run(rows(2))
    data = json.loads(path.read_text())
    data["cells"][1]["rows"][0]["row"]["kind"] = "foreign"
    path.write_text(json.dumps(data))
    page = gathered(made.folder, ReportOptions(), made.lines.append)
    assert {picture.method for row in page.rows for picture in row.pictures} == {"none", "reference"}
    assert {source.cell.method for source in page.sources} == {"none", "saferedir"}
    assert any("1 list of rows is damaged" in line and "cells[1]" in line for line in made.lines)


def test_an_svg_escapes_its_labels() -> None:
    from srbench.analysis.records import Metric

    half = Metric("higher", 50.0, 40.0, 60.0, 10, 10)
    svg = tradeoff("p", HOSTILE, [(Series(HOSTILE, 0), half, half), (Series("_$x^$", 1), half, half)], "x", "y").svg
    assert "<script" not in svg
    assert "<img" not in svg
    assert "_$x^$" in svg
    assert re.findall(r"#[0-9a-f]{6}", svg) == []  # every colour is the page's


def test_five_hundred_large_pictures_stay_below_15_mb(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = np.random.default_rng(0).normal(0, 14, (512, 512, 3))
    x, y = np.meshgrid(np.linspace(0, 9, 512), np.linspace(0, 7, 512))
    smooth = np.stack([np.sin(x + y), np.cos(x * y / 9), np.sin(x - y)], -1) * 90 + 128
    data = packed(np.clip(smooth + noisy, 0, 255).astype(np.uint8))
    assert 500 * len(data) < 13_000_000
    made.run(rows(84))  # two methods and a reference: 3 x 84 + 2 x 84 pictures
    html = encoded(made.html(images=500))
    assert 300 < html.count(b"data:image/webp") <= 505
    assert len(html) < 15_000_000


def test_small_pictures_keep_every_pixel() -> None:
    import base64
    import io

    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 64, (64, 64, 3)).astype(np.uint8)
    head, _, data = packed(pixels).partition(",")
    assert head == "data:image/webp;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")), pixels)


@pytest.fixture
def sensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The concept hazard is declared sensitive."""
    real = load.concepts()
    concepts = {**real, "hazard": real["hazard"].model_copy(update={"sensitive": True})}
    monkeypatch.setattr(load, "concepts", lambda: concepts)


@pytest.mark.usefixtures("sensitive")
def test_sensitive_pictures_are_not_in_it_unless_kept(made: Made) -> None:
    made.run(rows(), keep=False)
    html = made.html()
    assert "data:image" not in html
    assert "images were not kept" in html


@pytest.mark.usefixtures("sensitive")
def test_kept_sensitive_pictures_are_veiled(made: Made) -> None:
    made.run(rows(), keep=True)
    html = made.html()
    pictures = re.findall(r"<img [^>]*>", html)
    assert pictures
    assert html.count('class="veil"') == len(pictures) == html.count('class="frame veiled"')
    assert all("sensitive picture" in picture for picture in pictures)


def test_what_cannot_be_told_is_sensitive(made: Made) -> None:
    made.run(rows(), suite="gone-suite")
    found = gathered(made.folder, ReportOptions(), made.lines.append)
    assert all(source.sensitive for source in found.sources)
    assert "data:image" not in page(found)


def test_a_sexual_word_makes_a_cell_sensitive(made: Made) -> None:
    made.run(rows(2, f"a {screen.SEXUAL_WORDS[0]} dagger"))
    assert "data:image" not in made.html()


def test_gated_rows_show_no_text(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from srbench.results import stored

    given = rows(2, "a secret prompt")
    known = {row["id"]: row for row in given}
    real = stored.rows_of

    def joined(cell: Any, entry: Any, known_rows: Any = None) -> Any:
        return real(cell, {"rows": [{**e, "row": known[e["id"]]} for e in entry["rows"]]})

    monkeypatch.setattr(stored, "rows_of", joined)
    made.run(given, gated=True, keep=True)
    html = made.html()
    assert "secret" not in html
    assert "gated suite: text not shown" in html


def test_dropped_pictures_and_a_store_that_is_gone(made: Made) -> None:
    made.run(rows())
    store = Store(made.folder / "store")
    store.drop(list(store.images))
    html = made.html()
    assert "data:image" not in html
    assert "the image was scored and dropped" in html
    assert "exact McNemar test" in html  # the scores are there all the same
    import shutil

    shutil.rmtree(made.folder / "store")
    html = made.html()
    assert "data:image" not in html
    assert "most forgotten" in html
    assert not (made.folder / "store").exists()


def test_summaries_alone(repository: Path, tmp_path: Path) -> None:
    """As in a fresh clone, whatever was run in this one."""
    shutil.copytree(repository / "results" / "pocket", tmp_path / "pocket")
    lines: list[str] = []
    found = gathered(tmp_path, ReportOptions(concepts=("hazard",), images=0), lines.append)
    html = page(found)
    Outline(html)
    text = _text(html)
    assert "their intervals do not meet" in text
    assert "saferedir takes:" in text
    assert "Needs the rows of local runs" in text


def test_examples_travel_with_summaries(made: Made, tmp_path: Path) -> None:
    made.run(rows())
    found = gathered(made.folder, ReportOptions(), made.lines.append)
    folder = tmp_path / "fresh" / "pocket"
    folder.mkdir(parents=True)
    path = next(made.folder.glob("runs/*/run.json"))
    run = json.loads(path.read_text())
    summary = {**run, "cells": [{"result": cell["result"]} for cell in run["cells"]]}
    (folder / "hazard.json").write_text(json.dumps(summary))
    assert examples.write(folder / examples.NAME, found.rows) == len(found.rows) > 0
    fresh = Made(tmp_path / "fresh")
    html = fresh.html()
    assert "lets the concept through" in html
    assert "data:image/webp" in html
    assert fresh.lines == []

    text = (folder / examples.NAME).read_text()
    (folder / examples.NAME).write_text(text.replace("data:image/webp;base64,", "https://example.invalid/") + "{broken\n")
    html = fresh.html()
    assert "example.invalid" not in html
    assert any("is damaged and was left out" in line for line in fresh.lines)

    summary["cells"][0]["result"]["run"] = summary["cells"][1]["result"]["run"] = "20270101T000000-000000"
    (folder / "hazard.json").write_text(json.dumps(summary))
    (folder / examples.NAME).write_text(text)
    assert "data:image" not in fresh.html()  # pictures of another run say nothing of these numbers


def test_examples_are_of_methods_as_they_are(made: Made, tmp_path: Path) -> None:
    made.run(rows(), methods=("none", "saferedir", "saferedir-upstream"))
    path = next(made.folder.glob("runs/*/run.json"))
    run = json.loads(path.read_text())
    run["cells"][1]["result"]["variant"] = run["cells"][1]["variant"] = "cooldown=2"
    path.write_text(json.dumps(run))

    def drawn(options: ReportOptions) -> set[str]:
        return {each.method for row in gathered(made.folder, options, made.lines.append).rows for each in row.pictures}

    assert {"saferedir (cooldown=2)", "saferedir-upstream"} <= drawn(ReportOptions())
    assert drawn(ReportOptions(defaults=True)) == drawn(ReportOptions()) - {"saferedir (cooldown=2)"}


@pytest.mark.usefixtures("sensitive")
def test_no_sensitive_row_becomes_an_example(made: Made, tmp_path: Path) -> None:
    made.run(rows(), keep=True)
    found = gathered(made.folder, ReportOptions(), made.lines.append)
    assert examples.write(tmp_path / "examples.jsonl", found.rows) == 0


def test_filters_and_choice_of_rows(made: Made) -> None:
    made.run(rows(30), slips=5)
    found = gathered(made.folder, ReportOptions(images=60), made.lines.append)
    assert sum(row.embedded for row in found.rows) <= 60 + 3
    assert sum(row.failed for row in found.rows) == 5
    assert any(row.kind == "retain" for row in found.rows)
    flipped = [int(row.id[1:]) for row in found.rows if row.flipped]
    assert flipped == sorted(flipped)
    assert len({picture.method for row in found.rows for picture in row.pictures}) == 3
    only = gathered(made.folder, ReportOptions(methods=("saferedir",)), made.lines.append)
    assert {source.cell.method for source in only.sources} == {"none", "saferedir"}
    assert spread(range(10), 3) == [1, 5, 8]
    assert spread([1], 3) == [1]


def test_a_damaged_run_is_named_and_left_out(made: Made) -> None:
    made.run(rows())
    broken = made.folder / "runs" / "20270101T000000-000000" / "run.json"
    broken.parent.mkdir()
    broken.write_text("{")
    assert "saferedir" in made.html()
    assert any("damaged run file" in line for line in made.lines)


def _call(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["report", *arguments])
    return result.exit_code, result.stderr


def test_the_command(made: Made, tmp_path: Path) -> None:
    made.run(rows())
    out = tmp_path / "new" / "report.html"
    code, err = _call(str(made.folder), "-o", str(out))
    assert code == 0, err
    assert re.search(r"report\.html: 2 results, \d+ pictures, \d+\.\d MB", err)
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert _call(str(made.folder), "-o", str(tmp_path))[0] == 2
    assert "is a folder" in _call(str(made.folder), "-o", str(tmp_path))[1]
    assert _call(str(tmp_path / "none"), "-o", str(out))[0] == 2
    (tmp_path / "empty").mkdir()
    code, err = _call(str(tmp_path / "empty"), "-o", str(out))
    assert code == 3
    assert "srbench run" in err
    code, err = _call(str(made.folder), "-o", str(out), "--method", "safredir")
    assert code == 2
    assert "Did you mean 'saferedir'?" in err
    assert _call(str(made.folder), "-o", str(out), "--images", "-1")[0] == 2


def test_kept_is_read_from_the_run() -> None:
    source = Source.__new__(Source)
    object.__setattr__(source, "run", {"request": {}})
    assert not source.kept


def test_committed_files_of_attacks_are_left_out_unless_their_suite_is_asked_for() -> None:
    def source(kind: str, suite: str, made: str = "") -> Source:
        cell = ResultCell(
            "pocket", "hazard", suite, "none", "none", "", "pocket-hazard", "fp32", "0", "r", kind, 1, 0, 1, 1, 0, {},
            made_against=made,
        )  # fmt: skip
        return Source(cell, {}, {})

    said: list[str] = []
    mine, theirs = source("local", "my-attack", "p4d against uce"), source("committed", "p4d-uce", "p4d against uce")
    found = [source("committed", "mma", "mma against none"), mine, theirs, source("committed", "igmu")]
    assert usual(found, said.append) == [each for each in found if each is not theirs]
    assert said == ["1 committed cells of attacks are left out; `srbench compare --attacks` shows them"]
    assert usual(found[:2], said.append) == found[:2]


def test_prompts_of_ones_own_are_in_the_gallery(made: Made) -> None:
    path = made.run(rows(1, "a dagger on a chair of mine"), suite="mine")
    said = json.loads(path.read_text())
    for cell in said["cells"]:
        cell["suite"] = {"attack": False, "metrics": ["fsr"], "prompts": "/a/mine.csv", "sensitive": False}
    path.write_text(json.dumps(said))
    html = made.html()
    assert "a dagger on a chair of mine" in html
    assert "data:image/" in html


@pytest.mark.parametrize("count", [4, 20])
def test_the_comparison_of_two_opens_on_a_pair_with_pictures_to_look_at(made: Made, count: int) -> None:
    path = made.run(rows(count), methods=("none", "saferedir", "sld-weak", "sld-max"), slips=0)
    data = json.loads(path.read_text())
    for plain, row in list(zip(*(data["cells"][number]["rows"] for number in (0, 2)), strict=True))[:3]:
        row["image"] = plain["image"]  # sld-weak lets three through
    path.write_text(json.dumps(data))
    (form,) = [each for each in Outline(made.html()).all("form") if each.get("id") == "pair"]
    assert (form["data-metric"], "sld-weak" in (form["data-one"], form["data-two"])) == ("fsr", True)
    assert "none" not in (form["data-one"], form["data-two"])


def test_where_no_two_methods_differ_it_opens_beside_the_untouched_model(made: Made) -> None:
    made.run(rows(4), methods=("none", "saferedir", "sld-weak"), slips=1)
    (form,) = [each for each in Outline(made.html()).all("form") if each.get("id") == "pair"]
    assert form["data-one"] == "none"


def test_a_row_without_a_category_has_no_empty_part(made: Made) -> None:
    given = rows(1)
    given[0]["category"] = ""
    made.run(given)
    abouts = re.findall(r'<p class="about.*?</p>', made.html())
    assert len(abouts) == 2
    assert not [each for each in abouts if re.search(r"·\s*·", _text(each))]
