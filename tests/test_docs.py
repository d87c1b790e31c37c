"""README and docs/: links lead somewhere, commands exist with these options, and the site builds without a warning."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import typer

from srbench.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
GROUP: Any = typer.main.get_command(app)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ENDS = ("|", ">", ">>", "&", "&&", ";", "2>/dev/null", "2>&1")
"""What a shell command goes on with after srbench's part."""


def links(page: Path) -> Iterator[str]:
    """Links of a page that are no addresses, without the part behind `#`."""
    text = re.sub(r"^    .*$", "", page.read_text(encoding="utf-8"), flags=re.M)
    return (link.partition("#")[0] for link in LINK.findall(text) if "://" not in link and not link.startswith("#"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every srbench command of a page, in indented lines and in the text, behind `srbench`."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^    (?:\$ |\.venv/bin/)?srbench (.*)$|`(?:\.venv/bin/)?srbench ([^`]+)`", text, flags=re.M):
        words = shlex.split(re.sub(r"<[^>]*>", "X", "".join(line)), comments=True)
        end = next((place for place, word in enumerate(words) if word in ENDS), len(words))
        if words and "..." not in " ".join(words[:end]):
            yield words[:end]


def all_commands() -> list[tuple[str, list[str]]]:
    return [(page.name, words) for page in PAGES for words in commands(page)]


def of_command(given: str | list[str]) -> str:
    return given if isinstance(given, str) else " ".join(given)


@pytest.mark.parametrize(("page", "words"), all_commands(), ids=of_command)
def test_a_command_can_be_read(page: str, words: list[str]) -> None:
    """It exists, with these options. Not whether it runs: that takes hours, a network or a card."""
    name, rest = words[0], words[1:]
    if name.startswith("-"):
        assert name in ("--help", "--version", "--install-completion")
        return
    group = GROUP
    if name == "new" and rest:
        group, name, rest = GROUP.commands["new"], rest[0], rest[1:]
    assert name in group.commands, f"{page}: there is no command '{name}'"
    try:
        group.commands[name].make_context(name, list(rest))
    except typer.BadParameter as error:
        if type(error).__name__ != "MissingParameter":  # `srbench show` in the text
            raise


def test_the_commands_are_found() -> None:
    assert len(all_commands()) > 150


def test_a_newcomer_reads_readme_in_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a warning."""
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_the_site_builds_without_a_warning_and_asks_no_network_for_anything(site: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]
    assert len(pages) >= 40
    assert not [found for page in pages for found in re.findall(r'(?:src|srcset)="https?://[^"]+', page)]
    assert not [found for page in pages for found in re.findall(r'<link[^>]+stylesheet[^>]+https?://[^>]+', page)]
    methods = (site / "reference" / "methods.html").read_text(encoding="utf-8")
    assert "2601.08623" in methods
    assert "alpha_scale" in methods


def test_the_site_is_read_without_its_colours_and_by_the_keyboard(site: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium is installed")
    found = set()
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme, page in product(("light", "dark"), ("index.html", "extending.html", "store.html")):
            tab = browser.new_context(color_scheme=scheme, bypass_csp=True).new_page()
            tab.goto((site / page).as_uri())
            violations = axe.Axe().run(tab).response["violations"]
            found |= {(scheme, page, each["impact"], each["id"], each["nodes"][0]["html"][:200]) for each in violations}
        browser.close()
    assert found == set()
