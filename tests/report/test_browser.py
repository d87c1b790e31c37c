"""The report in a real browser: it opens from disk, filters, unveils, and nothing leaves the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srbench.catalog import load
from srbench.report.build import encoded
from srbench.results.strips import Strip
from tests.report.conftest import HOSTILE, Made, rows
from tests.report.test_film_strip import put

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Opened:
    """A page with all that it said and asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_context(**options).new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def quiet(self) -> None:
        """No error, and no request but for the file itself."""
        assert self.said == []
        assert [url for url in self.asked if not url.startswith("data:")] == self.asked[:1]
        assert self.asked[0].startswith("file:")

    def rows(self) -> list[str]:
        return self.page.eval_on_selector_all("#gallery .row:not([hidden])", "rows => rows.map(row => row.textContent)")


@pytest.fixture
def written(made: Made, tmp_path: Path) -> Path:
    """A report with a hostile prompt among others."""
    given = rows(4)
    given[2]["prompt"] = HOSTILE
    made.run(given)
    path = tmp_path / "report.html"
    path.write_bytes(encoded(made.html()))
    return path


@pytest.mark.parametrize("options", [
    {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    {"viewport": {"width": 360, "height": 740}},
], ids=["light", "dark", "phone"])  # fmt: skip
def test_opens_and_filters(browser: Any, written: Path, options: dict[str, Any]) -> None:
    opened = Opened(browser, written, **options)
    page = opened.page
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#count").text_content() == "8 of 8 rows"
    page.select_option("select[name=which]", "failed")
    assert len(opened.rows()) == 1
    page.select_option("select[name=which]", "flipped")
    assert len(opened.rows()) == 3
    page.select_option("select[name=which]", "")
    page.fill("input[name=text]", "CAT 2")
    assert ["a cat 2" in text for text in opened.rows()] == [True]
    page.fill("input[name=text]", "<script>")
    assert len(opened.rows()) == 1
    page.click("button[type=reset]")
    playwright.expect(page.locator("#count")).to_have_text("8 of 8 rows")
    page.uncheck("input[name=method][value=saferedir]")
    assert page.locator("#gallery .shot[data-method=saferedir]:visible").count() == 0
    assert page.locator("#gallery .shot[data-method=none]:visible").count() == 8
    assert page.locator("svg").first.bounding_box()["width"] > 200
    opened.quiet()


def test_a_number_of_the_map_opens_its_rows(browser: Any, written: Path) -> None:
    opened = Opened(browser, written)
    page = opened.page
    number = page.locator('.map a[data-of=saferedir][data-metric=fsr]')
    assert number.get_attribute("title") == "saferedir on hazard × igmu: fsr 75.0 % [60.0, 99.0], n 4"
    number.press("Enter")
    dialog = page.locator("#cell")
    playwright.expect(dialog).to_be_visible()
    assert "4 rows, 1 of them against the method; 4 with pictures" in (page.locator("#cell-about").text_content() or "")
    lines = page.locator("#cell .line")
    assert [text.split(" ")[0] for text in lines.all_text_contents()][:2] == ["seen", "gone"]
    assert "judge 0.97" in (lines.first.text_content() or "")
    assert lines.first.locator(".shot").count() == 3, "reference, none and the method"
    assert lines.first.locator(".trace").count() == 1
    assert HOSTILE in (lines.nth(2).locator("bdi").first.text_content() or "")
    page.keyboard.press("Escape")
    playwright.expect(dialog).to_be_hidden()
    assert number.evaluate("link => link === document.activeElement"), "the focus comes back"
    assert page.evaluate("window.hacked") is None
    opened.quiet()


def test_two_methods_are_shown_side_by_side_where_they_differ(browser: Any, written: Path) -> None:
    opened = Opened(browser, written, viewport={"width": 390, "height": 844})
    page = opened.page
    tally = page.locator("#tally")
    assert tally.text_content() == (
        "Of 4 rows none is better on 0, saferedir on 3; both do well on 0 and badly on 1. "
        "3 rows to look at, 3 of them with pictures."
    )
    flip = page.locator("#flip")
    assert "1 of 3; none: seen, saferedir: gone; saferedir is better" in (flip.text_content() or "")
    assert flip.locator(".shot").count() == 2
    page.focus("input[name=at]")
    page.keyboard.press("ArrowRight")
    assert "2 of 3" in (flip.text_content() or "")
    page.click("button[name=after]")
    assert "3 of 3" in (flip.text_content() or "")
    page.select_option("select[name=metric]", "retain_accuracy")
    assert "both do well on 4 and badly on 0" in (tally.text_content() or "")
    assert flip.text_content() == ""
    assert page.locator("input[name=at]").is_disabled()
    page.select_option("select[name=one]", "saferedir")
    assert page.locator("select[name=two]").input_value() == "none", "never the same on both sides"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.quiet()


def test_a_summary_says_that_its_rows_are_not_here(browser: Any, written: Path, tmp_path: Path) -> None:
    text = written.read_text(encoding="utf-8")
    start = text.index('id="verdicts">') + len('id="verdicts">')
    path = tmp_path / "bare.html"
    path.write_text(f"{text[:start]}{{}}{text[text.index('</script>', start):]}", encoding="utf-8")
    page = Opened(browser, path).page
    page.locator(".map a").first.click()
    assert "it is a summary" in (page.locator("#cell-about").text_content() or "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_no_serious_finding(browser: Any, written: Path, scheme: str) -> None:
    page = Opened(browser, written, color_scheme=scheme, bypass_csp=True).page
    for details in page.locator("details").all():
        details.evaluate("each => each.open = true")
    found = _violations(page, None)
    page.locator(".map a").first.click()
    assert found + _violations(page, "#cell") == []


def _violations(page: Any, within: str | None) -> list[tuple[str, str, str]]:
    """What axe-core finds: impact, rule and the first element."""
    violations = axe.Axe().run(page, context=within).response["violations"]
    return [(each["impact"], each["id"], each["nodes"][0]["html"][:200]) for each in violations]


def test_colours_follow_the_scheme(browser: Any, written: Path) -> None:
    seen = set()
    for scheme in ("light", "dark"):
        page = Opened(browser, written, color_scheme=scheme).page
        seen.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        seen.add(page.evaluate("getComputedStyle(document.querySelector('.plots svg text')).fill"))
    assert len(seen) == 4


def test_the_keyboard_reaches_everything(browser: Any, written: Path) -> None:
    page = Opened(browser, written).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("input[name=text]")
    page.keyboard.type("cat 1")
    assert page.locator("#gallery .row:visible").count() == 1


def test_a_link_shows_a_filtered_row(browser: Any, written: Path) -> None:
    page = Opened(browser, written).page
    page.fill("input[name=text]", "nothing like it")
    page.locator("a", has_text="in the gallery").first.click()
    playwright.expect(page.locator("#count")).to_have_text("8 of 8 rows")


def test_a_veil_lifts_by_click_and_key(browser: Any, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = load.concepts()
    concepts = {**real, "hazard": real["hazard"].model_copy(update={"sensitive": True})}
    monkeypatch.setattr(load, "concepts", lambda: concepts)
    made.run(rows(2), keep=True)
    path = tmp_path / "report.html"
    path.write_bytes(encoded(made.html()))
    opened = Opened(browser, path)
    veil = opened.page.locator("#gallery .veil").first
    blur = "button => getComputedStyle(button.parentElement.querySelector('img')).filter"
    assert "blur" in veil.evaluate(blur)
    veil.click()
    assert veil.evaluate(blur) == "none"
    assert veil.get_attribute("aria-pressed") == "true"
    veil.press("Enter")
    assert "blur" in veil.evaluate(blur)
    assert opened.page.locator("#gallery .veiled").count() == opened.page.locator("#gallery .veil").count()
    opened.quiet()


def test_without_scripts_all_is_shown_and_veils_stay(browser: Any, written: Path) -> None:
    opened = Opened(browser, written, java_script_enabled=False)
    assert opened.page.locator("#gallery .row:visible").count() == 8
    assert not opened.page.locator("#tools").is_visible()
    assert not opened.page.locator("#compare").is_visible()
    assert not opened.page.get_by_text("Choose a number").is_visible()


@pytest.mark.parametrize("width", [360, 1400])
def test_a_film_scrolls_in_itself_and_numbers_stand_below_frames(browser: Any, made: Made, tmp_path: Path, width: int) -> None:
    made.run(rows(4))
    put(made, "f1", none=Strip(tuple(range(1, 25)), 24), saferedir=Strip((1, 2, 3), 3, acted=(1, 2)))
    path = tmp_path / "report.html"
    path.write_bytes(encoded(made.html()))
    opened = Opened(browser, path, viewport={"width": width, "height": 800})
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    film = page.locator(".film").first
    assert film.evaluate("it => it.scrollWidth > it.clientWidth")
    film.focus()
    page.keyboard.press("ArrowRight")
    for _ in range(50):  # it scrolls smoothly
        if film.evaluate("it => it.scrollLeft") > 0:
            break
        page.wait_for_timeout(100)
    assert film.evaluate("it => it.scrollLeft") > 0
    edges = """films => films.map(it => it.querySelector("img").getBoundingClientRect().right
        - it.querySelector("li:last-child").getBoundingClientRect().right)"""  # at one moment: it may still be scrolling
    assert all(abs(apart) < 1 for apart in page.eval_on_selector_all(".film", edges))
    opened.quiet()
