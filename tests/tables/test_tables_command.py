"""`srbench tables` and `make paper-tables`."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srbench.cli.main import app
from srbench.outputs import MARKER
from srbench.tables.formats import ENDINGS
from srbench.tables.papers.spec import published

SLOW_IMPORTS = ("torch", "transformers", "diffusers", "pandas", "scipy", "onnxruntime")


def call(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    result = CliRunner().invoke(app, ["tables", *arguments], env={"COLUMNS": ""})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(autouse=True)
def _in_the_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)


def test_without_a_name_every_table_is_printed_under_its_name() -> None:
    code, out, _ = call()
    assert code == 0
    assert all(f"   {name}\n" in out.replace(" \n", "\n") for name in published())


def test_a_named_table_alone() -> None:
    code, out, _ = call("saferedir-alpha", "--format", "md")
    assert code == 0
    assert out.startswith("## SafeRedir by alpha scale\n")
    assert out.count("\n## ") == 0


def test_pocket_prints_its_edition() -> None:
    code, out, _ = call("saferedir-alpha", "--pocket", "--format", "md")
    assert code == 0
    assert out.count("## SafeRedir by alpha scale: pocket, ") == 3
    assert "| alpha scale 2.0 | 100 <sub>[96.3, 100]</sub> |" in out


def test_a_table_without_a_pocket_edition_says_why() -> None:
    code, out, _ = call("unlearndiffatk-tench", "--pocket", "--format", "md")
    assert code == 0
    assert "no concept of pocket stands for tench" in out


@pytest.mark.parametrize(("arguments", "expected"), [
    (("saferedir-alhpa",), "Did you mean 'saferedir-alpha'?"),
    (("--format", "latx"), "Did you mean 'latex'?"),
    (("-o", "Makefile/there"), "cannot write here"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_a_hint(arguments: tuple[str, ...], expected: str) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert expected in err
    assert len(err.splitlines()) == 2


def test_a_folder_gets_one_file_a_table_and_format(tmp_path: Path) -> None:
    assert call("-o", str(tmp_path))[:2] == (0, "")
    assert call("-o", str(tmp_path), "--pocket", "--format", "md")[0] == 0
    expected = {f"{name}.{end}" for name in published() for end in ENDINGS.values()}
    assert {path.name for path in tmp_path.iterdir()} == {MARKER} | expected | {f"{name}-pocket.md" for name in published()}
    assert call("-o", str(tmp_path))[0] == 0  # they are our own
    (tmp_path / f"{min(published())}.md").write_text("edited")
    code, _, err = call("-o", str(tmp_path))
    assert code == 2
    assert "was changed since srbench tables wrote it" in err
    assert all(path.stat().st_size for path in tmp_path.iterdir())


def test_without_results_everything_is_not_run(tmp_path: Path) -> None:
    code, out, err = call("saferedir-alpha", "--pocket", "--format", "csv", "--results", str(tmp_path / "absent"))
    assert code == 0
    assert "not a results folder" in err
    assert {(line["value"], line["reason"]) for line in csv.DictReader(io.StringIO(out))} == {("", "not run")}


def test_json_and_plain_are_those_of_compare() -> None:
    assert json.loads(call("saferedir-alpha", "--json")[1]) == json.loads(call("saferedir-alpha", "--format", "json")[1])
    plain = call("saferedir-alpha", "--plain")[1]
    assert plain == call("saferedir-alpha")[1], "a pipe is plain"
    assert not set("─╌") & set(plain)
    assert max(map(len, plain.splitlines())) <= 100


def test_nothing_slow_is_imported(repository: Path) -> None:
    script = (
        "import json, sys\n"
        "from typer.testing import CliRunner\n"
        "from srbench.cli.main import app\n"
        "result = CliRunner().invoke(app, ['tables', '--pocket'])\n"
        "assert result.exit_code == 0, result.output\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True, timeout=60)
    assert not {name for name in json.loads(done.stdout) if name in SLOW_IMPORTS}


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_names_commands_that_exist(repository: Path) -> None:
    done = subprocess.run(["make", "-n", "paper-tables"], cwd=repository, capture_output=True, text=True, check=True)
    commands = [line.split("srbench ")[1].split() for line in done.stdout.splitlines() if "/srbench tables" in line]
    assert [command[1:] for command in commands] == [["-o", "results/tables"], ["--pocket", "-o", "results/tables"], ["--pocket"]]
    assert "results/tables" not in subprocess.run(
        ["git", "ls-files", "results"], cwd=repository, capture_output=True, text=True, check=False
    ).stdout
