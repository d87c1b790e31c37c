"""`srbench compare` end to end: two names, filters, order, formats, pipes; and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from srbench.tables.formats import FORMATS
from tests.cli.test_cli import call, refused
from tests.report.conftest import Made, rows

BOXES = set("─│┃━╌┄┌┐└┘├┤┬┴┼")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """`none` draws the concept on all 6 forget rows, the others on the first."""
    (tmp_path / "results").mkdir()
    found = Made(tmp_path / "results")
    found.run(rows(6), methods=("none", "saferedir", "safree"))
    return found


def later(made: Made, run: str, **fields: Any) -> None:
    """The same run once more under another name; fields: of its results."""
    data = json.loads(next(made.folder.glob("runs/*/run.json")).read_text())
    for cell in data["cells"]:
        cell["result"] |= {"run": run, **fields}
    path = made.folder / "runs" / run / "run.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**data, "run": run}))


def committed(made: Made, **more: Any) -> None:
    """The run's results as a summary without rows. more: fields of results that stand there besides."""
    data = json.loads(next(made.folder.glob("runs/*/run.json")).read_text())
    for path in made.folder.glob("runs/*/run.json"):
        path.unlink()
    (made.folder / "pocket").mkdir()
    cells = [{"result": cell["result"]} for cell in data["cells"]]
    cells += [{"result": cell["result"] | more} for cell in cells if more]
    (made.folder / "pocket" / "hazard.json").write_text(json.dumps({"schema": 1, "run": "pocket", "cells": cells}))


def compared(made: Made, *words: str) -> Any:
    code, out, err = call("compare", str(made.folder), *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_two_names_say_what_changed_and_which_rows_flipped(made: Made) -> None:
    code, out, _ = call("compare", str(made.folder), "none", "saferedir")
    assert code == 0
    assert "from none to saferedir" in out
    assert "fsr: 0 rows lost, 5 gained" in out
    assert f"srbench show f1 --out {made.folder}" in out
    (found,) = compared(made, "none", "saferedir")["comparisons"]
    fsr, tests = found["metrics"]["fsr"], [each for each in found["metrics"].values() if "p" in each["difference"]]
    assert fsr["difference"]["p"] == 2 * 0.5**5, "five of six rows"
    assert fsr["difference"]["p_holm"] == min(1, len(tests) * 2 * 0.5**5), "the smallest of one family"
    assert f"over the {len(tests)} tests of this table" in " ".join(out.split())
    assert fsr["gained"] == [f"f{i}" for i in range(1, 6)]
    assert fsr["lost"] == []
    assert fsr["difference"]["test"] == "mcnemar"


def test_the_second_name_less_the_first(made: Made) -> None:
    both = [compared(made, *names)["comparisons"][0] for names in (("none", "safree"), ("safree", "none"))]
    forward, back = (each["metrics"]["fsr"] for each in both)
    assert forward["difference"]["value"] == -back["difference"]["value"] > 0
    assert forward["gained"] == back["lost"]


def test_each_hinted_command_finds_its_row(made: Made) -> None:
    _, out, _ = call("compare", str(made.folder), "none", "saferedir")
    hints = [line.split("srbench ")[1].split() for line in out.splitlines() if "srbench show" in line]
    assert hints
    assert call(*hints[0])[0] == 0


def test_a_run_is_compared_with_the_same_methods_of_another(made: Made) -> None:
    first = next(made.folder.glob("runs/*")).name
    later(made, "20990101T000000-000000")
    found = compared(made, first, "20990101T000000-000000")["comparisons"]
    assert [(each["a"]["method"], each["b"]["method"]) for each in found] == [(m, m) for m in ("none", "saferedir", "safree")]
    assert all(each["paired"] and each["metrics"]["fsr"]["difference"]["value"] == 0 for each in found)
    assert {(each["a"]["run"], each["b"]["run"]) for each in found} == {(first, "20990101T000000-000000")}


def test_a_method_on_a_checkpoint_is_named_in_three_ways(made: Made) -> None:
    later(made, "20990101T000000-000000", on="esd-x")
    for name in ("saferedir@esd-x", "saferedir on esd-x"):
        (found,) = compared(made, "saferedir", name)["comparisons"]
        assert found["b"]["method"] == "saferedir on esd-x"
    assert compared(made, "none", "esd-x")["comparisons"][0]["b"]["method"] == "esd-x"


def test_the_defaults_are_meant_where_a_method_has_several_lines(made: Made) -> None:
    later(made, "20990101T000000-000000", variant="cooldown=2")
    (found,) = compared(made, "none", "saferedir")["comparisons"]
    assert found["b"]["method"] == "saferedir"
    (found,) = compared(made, "none", "saferedir (cooldown=2)")["comparisons"]
    assert found["b"]["method"] == "saferedir (cooldown=2)"


def test_committed_results_are_compared_without_a_test(made: Made) -> None:
    committed(made)
    (found,) = compared(made, "none", "saferedir")["comparisons"]
    assert not found["paired"]
    assert found["metrics"]["fsr"]["difference"]["test"] == "intervals"
    assert "untested" in call("compare", str(made.folder), "none", "saferedir")[1]


@pytest.mark.parametrize("words", [("--sensitivity",), (), ("--attacks",)])
def test_committed_results_hold_no_raw_scores_to_judge_anew(made: Made, words: tuple[str, ...]) -> None:
    committed(made)
    said = refused(3, "compare", str(made.folder), "--protocol", "pocket-hazard", *words)
    assert f"{made.folder}: the results there hold no raw scores" in said
    assert "Run first: srbench run --method" in said


def test_two_names_leave_committed_files_of_attacks_out_unless_they_are_named(made: Made) -> None:
    committed(made, suite="uda", made_against="unlearndiffatk against none")

    def suites(*words: str) -> list[str]:
        return [each["suite"] for each in compared(made, "none", "saferedir", *words)["comparisons"]]

    assert "uda" not in suites()
    assert len(suites()) == 1
    assert suites("--suite", "uda") == ["uda"]
    assert len(suites("--all")) == 2
    cells = compared(made, "--suite", "uda")["cells"]
    assert {cell["suite"] for cell in cells} == {"uda"}


@pytest.mark.parametrize("form", ["md", "csv", "latex", "html"])
def test_two_names_in_every_format(made: Made, form: str) -> None:
    code, out, _ = call("compare", str(made.folder), "none", "saferedir", "--format", form)
    assert code == 0
    assert "safree" not in out
    assert "diff" in out


@pytest.mark.parametrize("form", [None, *FORMATS])
@pytest.mark.parametrize("words", [
    (), ("none", "saferedir"), ("--baseline", "none"), ("--attacks",), ("--costs",),
    ("--sensitivity", "--protocol", "pocket-hazard"),
])  # fmt: skip
def test_every_table_is_there_in_every_format(made: Made, words: tuple[str, ...], form: str | None) -> None:
    code, out, err = call("compare", str(made.folder), *words, *(("--format", form) if form else ()))
    assert code == 0, err
    assert "saferedir" in out
    if form == "json":
        assert json.loads(out)


@pytest.mark.parametrize(("words", "code", "message"), [
    (("--sensitivity",), 2, "takes one --protocol"),
    (("none",), 2, "expected two names behind the results folder, or none"),
    (("none", "saferedr"), 2, "Did you mean 'saferedir'?"),
    (("none", "none"), 2, "no concept and suite have results of"),
    (("none", "saferedir", "--baseline", "none"), 2, "two names stand alone"),
    (("--baseline", "sld"), 2, "no result is of 'sld'"),
    (("--sort", "frs"), 2, "Did you mean 'fsr'?"),
    (("--on", "esd"), 2, "no result has on 'esd'"),
    (("--backbone", "sd14"), 2, "no result has backbone 'sd14'"),
    (("--curve", "saferedir.alpha_scale"), 2, "--curve and -o go together"),
    (("-o", "x.png"), 2, "--curve and -o go together"),
    (("--format", "htm"), 2, "Did you mean 'html'?"),
])  # fmt: skip
def test_bad_words_are_one_line(made: Made, words: tuple[str, ...], code: int, message: str) -> None:
    assert message in refused(code, "compare", str(made.folder), *words)


def test_forgetting_the_folder_is_said() -> None:
    assert "srbench compare results/ none" in refused(2, "compare", "none", "saferedir")


def test_filters_by_checkpoint_and_backbone(made: Made) -> None:
    later(made, "20990101T000000-000000", on="esd-x")
    assert {cell["on"] for cell in compared(made, "--on", "esd-x")["cells"]} == {"esd-x"}
    assert len(compared(made, "--backbone", "pocket", "--on", "none", "--method", "none,safree")["cells"]) == 2
    later(made, "20990101T000000-000001", suite="mma", on="none")
    assert "no result fits all" in refused(2, "compare", str(made.folder), "--on", "esd-x", "--suite", "mma")


def test_a_baseline_gives_every_other_line_its_difference(made: Made) -> None:
    found = {cell["method"]: cell["metrics"] for cell in compared(made, "--baseline", "none")["cells"]}
    assert "fsr_diff" not in found["none"]
    diffs = [found[method]["fsr_diff"] for method in ("saferedir", "safree")]
    assert [diff["value"] for diff in diffs] == pytest.approx([100 * 5 / 6] * 2)
    tests = [metric["p"] for metrics in found.values() for metric in metrics.values() if "p" in metric]
    assert [diff["p_holm"] for diff in diffs] == pytest.approx([min(1, len(tests) * 2 * 0.5**5)] * 2), "one family a table"
    assert "fsr" in call("compare", str(made.folder), "--baseline", "none")[1]


def test_sorted_the_best_comes_first(made: Made) -> None:
    assert [cell["method"] for cell in compared(made, "--sort", "fsr")["cells"]][-1] == "none"
    out = call("compare", str(made.folder), "--sort", "fsr")[1].splitlines()
    first = [line.split()[0] for line in out if line.startswith(("none", "saferedir", "safree"))]
    assert first.index("none") == 2


def test_a_curve_is_drawn_from_what_was_swept(made: Made, tmp_path: Path) -> None:
    later(made, "20990101T000000-000000", variant="alpha_scale=0.5")
    path = tmp_path / "curve.png"
    code, out, err = call("compare", str(made.folder), "--curve", "saferedir.alpha_scale", "-o", str(path))
    assert (code, out) == (0, "")
    assert "at 0.5, 2.0; 1 panel" in err
    with Image.open(path) as image:
        assert image.format == "PNG"


# --- terminals and pipes ----------------------------------------------------------------------------------------------


def in_process(made: Made, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, its output in a pipe."""
    code = f"from srbench.cli.main import app; app({['compare', str(made.folder), *words]!r})"
    base = {"PATH": "/usr/bin:/bin", "HOME": str(made.folder)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, env=base | environment, check=False)


@pytest.mark.parametrize("words", [(), ("none", "saferedir")])
def test_a_pipe_gets_neither_colour_nor_boxes(made: Made, words: tuple[str, ...]) -> None:
    done = in_process(made, *words)
    out = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in out
    assert not BOXES & set(out)
    assert "×" in out
    assert max(map(len, out.splitlines())) <= 100


def test_a_pipe_that_takes_only_ascii_gets_it(made: Made) -> None:
    done = in_process(made, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "hazard x igmu" in done.stdout.decode("ascii")


@pytest.mark.parametrize("width", ["60", "80"])
def test_a_narrow_pipe_is_as_wide_as_it_says(made: Made, width: str) -> None:
    out = in_process(made, "--baseline", "none", COLUMNS=width).stdout.decode()
    assert max(map(len, out.splitlines())) <= int(width)
    assert "…" not in out
    assert "fsr" in out


@pytest.mark.parametrize(("words", "environment", "escapes", "boxes"), [
    ((), {}, True, True), (("--plain",), {}, False, False), ((), {"NO_COLOR": "1"}, True, True),
])  # fmt: skip
def test_a_terminal_is_asked_before_it_is_coloured(
    made: Made, words: tuple[str, ...], environment: dict[str, str], escapes: bool, boxes: bool
) -> None:
    """FORCE_COLOR makes rich take a pipe for a terminal."""
    out = in_process(made, *words, FORCE_COLOR="1", TERM="xterm-256color", **environment).stdout.decode()
    assert ("\x1b[" in out) is escapes
    assert bool(BOXES & set(out)) is boxes
    assert "\x1b[3" not in out or not environment, "bold and dim are no colours"


@pytest.mark.parametrize("words", [["none", "saferedir"], ["--baseline", "none"], ["--sort", "fsr", "--format", "html"]])
def test_comparing_imports_no_torch(made: Made, words: list[str]) -> None:
    code = (
        "import sys; from srbench.cli.main import app\n"
        f"try: app({['compare', str(made.folder), *words]!r})\nexcept SystemExit as e: assert not e.code\n"
        "print([m for m in ('torch', 'diffusers', 'transformers', 'pandas') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip().endswith("[]")
