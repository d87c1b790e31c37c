"""`srbench list` and `srbench doctor` where a data file of the user's is wrong: the others are shown, and a line says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

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
