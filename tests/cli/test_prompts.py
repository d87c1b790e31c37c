"""`srbench run --prompts`: what is asked, what is refused, and what people are told. Nothing is sampled here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srbench.cli.main import app

I2P = "prompt,categories,hard,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height\na boat,hate,0,5,7,512,512\n"


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of their own, empty."""
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def call(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `srbench run` with method none."""
    result = CliRunner().invoke(app, ["run", "--method", "none", "--out", str(tmp_path / "results"), *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_file_alone_is_a_suite_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "sails.csv").write_text("prompt\na red boat\na kite\n")
    code, out, err = call(tmp_path, "--prompts", str(tmp_path / "sails.csv"), "--dry-run", "--json")
    assert code == 0, err
    assert [cell["cell"] for cell in json.loads(out)["cells"]] == ["sails/hazard/none"]
    assert "sails/hazard: 2 rows loaded, 0 excluded, 2 to run" in err


def test_i2p_is_sensitive_under_church_too(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(I2P + I2P.splitlines()[1].replace("boat", "boat for kids") + "\n")
    mine = ("--prompts", str(tmp_path / "mine.csv"), "--accept-prompts", "--dry-run")
    code, _, err = call(tmp_path, "--suite", "i2p", "--concept", "church", *mine)
    assert code == 0, err
    assert "i2p/church: 2 rows loaded, 1 excluded, 1 to run, sensitive: images are dropped once scored" in err


def test_flags_are_told(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(I2P.replace(",7,512,512", ",255,512,384"))
    mine = ("--prompts", str(tmp_path / "mine.csv"), "--accept-prompts", "--dry-run")
    _, _, err = call(tmp_path, "--suite", "i2p", "--concept", "church", *mine)
    assert "i2p: rows with a guidance above 30: 1, up to 255; kept as they are" in err


@pytest.mark.parametrize(("arguments", "message"), [
    (("--suite", "i2p"), "i2p: expected 4703 rows, found 1"),
    (("--suite", "igmu"), "ships its prompts for pocket"),
    (("--suite", "i2p,igmu"), "--prompts is the copy of one suite"),
    (("--category", "shocking"), "no row has the category 'shocking'"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "mine.csv").write_text(I2P)
    code, out, err = call(tmp_path, "--prompts", str(tmp_path / "mine.csv"), *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_what_is_not_here_is_exit_3_with_the_command(tmp_path: Path) -> None:
    code, _, err = call(tmp_path, "--suite", "coco-30k", "--concept", "church", "--no-score")
    assert code == 3
    assert "hint: Fetch them: curl -fL --create-dirs -o " in err
