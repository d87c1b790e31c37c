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


# --- columns ------------------------------------------------------------------------------------------------------------

TWO = "prompt,adv_prompt,evaluation_seed\na red boat,a red boat zxq,4\na kite,a kite zxq,5\n"
LONG = "a red boat on the sea and a house in the snow, " * 10


def test_which_columns_were_read_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text(TWO)
    code, _, err = call(tmp_path, "--prompts", str(tmp_path / "two.csv"), "--dry-run")
    assert code == 0, err
    read = "two.csv (CSV with commas), read: prompt, seed = evaluation_seed; not read: adv_prompt"
    assert f"two: {read}; --column prompt=adv_prompt reads another\n" in err


def test_another_column_is_another_variant(tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text(TWO)
    mine = ("--prompts", str(tmp_path / "two.csv"), "--column", "prompt=adv_prompt", "--column", "seed=", "--dry-run")
    code, out, err = call(tmp_path, *mine)
    assert code == 0, err
    assert "read: prompt = adv_prompt; not read: prompt, evaluation_seed" in err
    assert "2 images" in out


@pytest.mark.parametrize(("column", "message"), [
    ("prompt=adv_promt", "Did you mean 'adv_prompt'"), ("promt=adv_prompt", "Did you mean 'prompt'"),
    ("adv_prompt", "expected FIELD=COLUMN"),
    ("unsafe=adv_prompt", "there is no field 'unsafe'"),
])  # fmt: skip
@pytest.mark.parametrize("command", ["run", "score"])
def test_a_wrong_column_is_one_line(tmp_path: Path, column: str, message: str, command: str) -> None:
    (tmp_path / "two.csv").write_text(TWO)
    first = {"run": ["run"], "score": ["score", str(tmp_path), "--as", "flat", "--protocol", "pocket-church"]}[command]
    asked = [*first, "--prompts", str(tmp_path / "two.csv"), "--column", column, "--out", str(tmp_path / "results")]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") <= 2


def test_columns_belong_to_a_file_of_one_s_own(tmp_path: Path) -> None:
    code, _, err = call(tmp_path, "--suite", "igmu", "--column", "prompt=x", "--dry-run")
    assert code == 2
    assert "Add --prompts FILE" in err


def test_no_column_hides_a_text_from_the_filter_of_a_sensitive_run(tmp_path: Path) -> None:
    text = I2P.splitlines()
    (tmp_path / "mine.csv").write_text(f"{text[0]}, note\n{text[1]}, x\n{text[1]}, a child on a swing\n")
    mine = ("--prompts", str(tmp_path / "mine.csv"), "--accept-prompts", "--dry-run")
    code, _, err = call(tmp_path, "--suite", "i2p", "--concept", "church", *mine)
    assert code == 0, err
    assert "i2p/church: 2 rows loaded, 1 excluded, 1 to run, sensitive" in err
    (tmp_path / "own.json").write_text(json.dumps([{"prompt": "a boat"}, {"prompt": "a kite", "about": "nsfw; a child"}]))
    code, _, err = call(tmp_path, "--prompts", str(tmp_path / "own.json"), "--dry-run")
    assert "own/hazard: 2 rows loaded, 1 excluded, 1 to run, sensitive" in err, "a text beside the rows makes it so"


def test_prompts_that_are_cut_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text(f'id,prompt,negative_prompt\na1,a boat,x\na2,"{LONG}","{LONG}"\n')
    code, _, err = call(tmp_path, "--prompts", str(tmp_path / "long.csv"), "--dry-run")
    assert code == 0, err
    assert "long: prompts longer than 77 tokens, cut there by the encoder: 1 (a2); kept as they are" in err
    assert "long: negative prompts longer than 77 tokens, cut there by the encoder: 1 (a2)" in err
    assert "Token indices sequence length" not in err


def test_a_file_in_another_encoding_says_so(tmp_path: Path) -> None:
    (tmp_path / "west.csv").write_bytes("prompt\ncafé by the sea\n".encode("cp1252"))
    code, _, err = call(tmp_path, "--prompts", str(tmp_path / "west.csv"), "--dry-run")
    assert code == 0, err
    assert "west.csv is not UTF-8: read as Windows-1252" in err
