"""`srbench erase` and `--on` from the command line, on the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srbench.backbones.checkpoint import CARD
from srbench.cli.main import app
from srbench.outputs import MARKER

RUN = ("run", "--suite", "mma", "--concept", "church", "--dev", "--limit", "1", "--batch-size", "1")


def call(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def church(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UCE on church: closed form, seconds."""
    folder = tmp_path_factory.mktemp("erased") / "my-uce"
    code, out, err = call("erase", "uce", "--concept", "church", "--out", str(folder))
    assert (code, out) == (0, "")
    assert "tensors" in err
    assert f"use it with --on {folder}" in err
    return folder


def test_a_checkpoint_is_a_folder_with_its_card(church: Path) -> None:
    card = json.loads((church / CARD).read_text())
    assert (card["preset"], card["concept"], card["backbone"]) == ("uce", "church", "pocket")
    assert card["passport"]["changed"] > 0
    assert 0 < card["passport"]["relative_change"] < 1
    assert card["machine"]["threads"] >= 1  # training with another number of threads gives another checkpoint
    assert sorted(path.name for path in church.iterdir()) == [MARKER, CARD, "unet.safetensors"]


def test_it_runs_under_a_method_and_shows_its_passport(church: Path, tmp_path: Path) -> None:
    code, out, err = call(*RUN, "--method", "none,saferedir", "--on", f"none,{church}", "--json", "--out", str(tmp_path))
    assert code == 0, err
    cells = json.loads(out)["cells"]
    sha = json.loads((church / CARD).read_text())["passport"]["sha256"]
    places = {(method, on) for method in ("none", "saferedir") for on in ("none", f"my-uce@{sha[:8]}")}
    assert {(c["method"], c["on"]) for c in cells} == places
    assert f"checkpoint my-uce@{sha[:8]}: srbench (safetensors)" in err
    stacked = next(c for c in cells if c["method"] == "saferedir" and c["on"] != "none")
    assert "p_holm" in stacked["metrics"]["asr_gain"]


@pytest.mark.parametrize(("arguments", "expected"), [
    (("erase", "saferedir", "--concept", "church"), "acts while sampling: there is nothing to erase"),
    (("erase", "uec", "--concept", "church"), "Did you mean 'uce'?"),
    (("erase", "uce", "--concept", "chuch"), "Did you mean 'church'?"),
    (("erase", "uce", "--concept", "church", "--set", "lamb=1"), "Did you mean 'lam'?"),
    (("erase", "uce", "--concept", "church", "--set", "lam=0"), "uce.lam"),
    (("train", "concept-inversion", "--concept", "church,hazard"), "several concepts at once"),
    (("train", "uce", "--concept", "church"), "'uce' is not trained"),
    ((*RUN, "--method", "uce", "--on", "esd-x"), "cannot be stacked on 'esd-x'"),
    ((*RUN, "--on", "safree"), "acts while sampling and is no checkpoint"),
    ((*RUN, "--on", "uec"), "Did you mean 'uce'?"),
    ((*RUN, "--on", "advunlearn-church"), "advunlearn-church"),
])
def test_bad_words_exit_2_in_one_line(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    code, out, err = call(*arguments, "--out", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith(("error:", "hint:"))]
    assert 1 <= len(lines) <= 2
    assert expected in "\n".join(lines)
    assert not (tmp_path / "out" / "runs").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear diary")
    code, _, err = call("erase", "uce", "--concept", "church", "--out", str(tmp_path))
    assert code == 2
    assert "holds diary.txt, which srbench erase did not write" in err
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_a_dry_run_says_what_would_be_made_first(tmp_path: Path) -> None:
    code, out, err = call(*RUN, "--method", "none", "--on", "none,uce", "--dry-run", "--json", "--out", str(tmp_path))
    assert code == 0, err
    assert [cell["blocked"] for cell in json.loads(out)["cells"]] == [False, True]
    assert "uce is not made yet for church" in err
    assert not (tmp_path / "store" / "checkpoints").exists()


# --- several concepts at once ----------------------------------------------------------------------------------------------


def test_a_joint_checkpoint_is_for_each_of_its_concepts(tmp_path: Path) -> None:
    folder = tmp_path / "both"
    code, _, err = call("erase", "uce", "--concept", "church,hazard", "--out", str(folder))
    assert code == 0, err
    card = json.loads((folder / CARD).read_text())
    assert (card["concept"], card["concepts"]) == ("church+hazard", ["church", "hazard"])
    assert {"a church", "a hazard"} <= set(card["measured"]["phrases"])
    run = ("run", "--suite", "mma", "--method", "none", "--on", str(folder), "--dry-run", "--out", str(tmp_path / "results"))
    for concept in ("church", "hazard"):
        assert call(*run, "--concept", concept)[0] == 0
    _, _, err = call(*run, "--concept", "vangogh")
    assert "was made for concept 'church+hazard', not 'vangogh'" in err


def test_a_run_makes_one_checkpoint_for_all_concepts(tmp_path: Path) -> None:
    run = ("run", "--suite", "mma", "--method", "none", "--on", "uce", "--dev", "--limit", "1", "--batch-size", "1", "--json")
    code, out, err = call(*run, "--concept", "church,hazard", "--joint", "--out", str(tmp_path))
    assert code == 0, err
    cells = json.loads(out)["cells"]
    assert {cell["concept"] for cell in cells} == {"church", "hazard"}
    assert all("uce.joint=church+hazard" in cell["variant"] for cell in cells)
    assert [path.name.rsplit("-", 1)[0] for path in (tmp_path / "store" / "checkpoints").iterdir()] == ["uce-church+hazard"]


@pytest.mark.parametrize(("arguments", "expected"), [
    (("erase", "uce", "--concept", "church,church"), "'church' is there twice"),
    (("erase", "uce", "--concept", "church,vangogh"), "of several kinds (object, style)"),
    (("erase", "uce", "--concept", "church,chruch"), "Did you mean 'church'?"),
    (("run", "--on", "uce", "--method", "none", "--joint", "--concept", "church", "--dry-run"), "and there is one"),
    (("run", "--joint", "--concept", "church,hazard", "--dry-run"), "--joint is for weight methods, and there is none"),
])  # fmt: skip
def test_what_cannot_be_unlearned_at_once_is_refused(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*arguments)
    assert (code, expected in err) == (2, True), err
    assert not list(tmp_path.iterdir())
