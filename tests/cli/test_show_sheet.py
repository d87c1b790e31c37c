"""`run --sweep` and `--sheet` on the command line: one run, one picture, one line where they cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.test_cli import call, refused

RUN = (
    "run", "--method", "none,saferedir", "--suite", "igmu", "--concept", "hazard", "--dev", "--limit", "1", "--batch-size", "1",
)


def test_a_sweep_is_one_run_and_its_sheet_shows_every_value(tmp_path: Path) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    words = ("--sweep", "saferedir.alpha_scale=0.5,2", "--sheet", str(sheet), "--out", str(out), "--json")
    code, text, err = call(*RUN, *words)
    assert code == 0, err
    cells = json.loads(text)["cells"]
    assert [cell["variant"] for cell in cells] == ["part=dev,limit=1", "alpha_scale=0.5,part=dev,limit=1", "part=dev,limit=1"]
    run = json.loads((out / "runs" / cells[0]["run"] / "run.json").read_text())
    assert "saferedir.alpha_scale=0.5,2" in json.dumps(run["request"]), "what was swept is on record"
    assert f"{sheet}: 2 rows, 7 pictures" in err, "two rows under three lines, and a reference"
    code, _, err = call("show", cells[0]["run"], "--out", str(out), "--sheet", str(tmp_path / "again.png"))
    assert code == 0
    with Image.open(sheet) as one, Image.open(tmp_path / "again.png") as other:
        assert one.tobytes() == other.tobytes()
    curve = tmp_path / "curve.png"
    code, _, err = call("compare", str(out), "--curve", "saferedir.alpha_scale", "-o", str(curve))
    assert (code, curve.exists()) == (0, True), err


@pytest.mark.parametrize(("words", "message"), [
    (("--sweep", "saferedir.alpha_scale=0.5"), "expected two or more different values"),
    (("--sweep", "saferedir.alpha=0.1,big"), "--sweep saferedir.alpha=big"),
    (("--sweep", "sld-max.guidance_scale=1,2"), "'sld-max' is not part of this run"),
])  # fmt: skip
def test_a_bad_sweep_is_one_line(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    assert message in refused(2, *RUN, *words, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out" / "runs").exists()
