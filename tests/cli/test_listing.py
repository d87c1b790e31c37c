"""`srbench list`: it fits a terminal; where a data file of the user's is wrong, the others are shown, and a line says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srbench.cli import listing
from srbench.cli.main import app
from tests.spec_files import forget, reading

LAYOUT = "name: mine\ntitle: t\nsource: s\npatterns: ['(?P<case>.+)']\n"
PROTOCOL = "name: seen\ntitle: t\nsource: s\nscorer: pocket-juge\nfield: objects\nclasses: [church]\nthreshold: 0.5\n"
SUITE = """\
name: boats
title: t
source: s
licence: l
metrics: [fsr]
editions:
- {family: pocket, concept: church, rows: unverified, files: [{file: prompts.csv}], metrics: [fsrr]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose specs are read."""
    for kind in ("layouts", "protocols", "suites"):
        (tmp_path / kind).mkdir()
    with reading(tmp_path, monkeypatch) as own:
        yield own


def command(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    forget()
    return result.exit_code, result.stdout, result.stderr


def test_good_files_are_listed_and_a_bad_one_is_a_line(folder: Path) -> None:
    (folder / "layouts" / "mine.yaml").write_text(LAYOUT)
    (folder / "layouts" / "bad.yaml").write_text(LAYOUT.replace("title", "titel"))
    code, listed, said = command("list", "layouts")
    assert code == 0, "as for a plug-in that is left out"
    assert "  mine" in listed
    assert "  igmu" in listed
    assert [line for line in said.splitlines() if "left out" in line and "bad.yaml:2: key 'titel': is not known" in line]


def test_what_needs_a_bad_file_fails_with_its_line(folder: Path) -> None:
    (folder / "suites" / "boats.yaml").write_text(SUITE.replace("title", "titel"))
    code, _, said = command("run", "--suite", "boats", "--concept", "church", "--method", "none", "--dry-run")
    assert code == 2
    assert "boats.yaml:2: key 'titel': is not known" in said
    assert "unknown suite" not in said


@pytest.mark.parametrize("asked", [("list", "protocols"), ("list", "suites"), ("list",), ("doctor",)])
def test_names_that_nothing_has_are_a_line_each(folder: Path, asked: tuple[str, ...]) -> None:
    (folder / "protocols" / "seen.yaml").write_text(PROTOCOL)
    (folder / "suites" / "boats.yaml").write_text(SUITE)
    _, _, said = command(*asked)
    assert ("seen.yaml:4: key 'scorer': unknown scorer 'pocket-juge'" in said) is ("suites" not in asked)
    assert ("boats.yaml:7: key 'editions.0.metrics.0': unknown metric 'fsrr'" in said) is ("protocols" not in asked)


def test_they_end_a_run_before_it_begins(folder: Path) -> None:
    text = PROTOCOL.replace("pocket-juge", "pocket-judge").replace("[church]", "[curch]")
    (folder / "protocols" / "seen.yaml").write_text(text)
    code, _, said = command("run", "--suite", "igmu", "--protocol", "seen", "--concept", "church", "--dry-run")
    assert code == 2
    assert "seen.yaml:6: key 'classes': scorer 'pocket-judge' has no class 'curch' in 'objects'" in said
    assert "Did you mean 'church'?" in said


# --- lines -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["20", "60", "80", "100", "400"])
@pytest.mark.parametrize("kind", ["methods", "suites", "baselines", "protocols", "concepts"])
def test_no_line_is_longer_than_the_terminal_and_every_name_is_there(
    kind: str, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    code, listed, _ = command("list", kind)
    assert code == 0
    lines = listed.splitlines()
    assert max(map(len, lines)) <= min(max(int(columns), listing.NARROWEST), listing.WIDEST)
    said = " ".join(listed.split())
    assert all(name in said for name in listing.KINDS[kind]())


def test_methods_stand_by_what_they_are_with_their_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    _, listed, _ = command("list", "methods", "--paper")
    sampling, weights = listed.index("while sampling"), listed.index("as checkpoints")
    assert sampling < listed.index("safree") < weights < listed.index("uce")
    assert "[2308.14761]" in listed
    assert "[no paper]" in listed
    assert "[2308.14761]" not in command("list", "methods")[1]


def test_what_is_here_stands_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    _, listed, _ = command("list", "suites")
    assert listed.index("here:") < listed.index("igmu") < listed.index("not here (srbench fetch") < listed.index("coco-30k")


def test_papers_are_of_methods() -> None:
    code, _, said = command("list", "suites", "--paper")
    assert code == 2
    assert "--paper is for methods" in said


def test_a_long_name_stands_above_its_text() -> None:
    lines = [listing.Line("a" * 50, "words " * 30), listing.Line("b", "short")]
    shown = list(listing.wrapped(lines, 60))
    assert shown[0].strip() == "a" * 50
    assert all(len(line) <= 60 for line in shown)
