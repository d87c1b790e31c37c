"""`--on` takes any file name, and a model that is not whole ends every command in one line with exit 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from srbench.cli.main import app, names_or_paths
from srbench.engine.checkpoints import check_on
from srbench.errors import UsageError
from tests.backbones.broken import copied

NAMES = ("erased-cat,dog.pt", "a b.pt", "x=1.pt", "ü.safetensors", "-dash.pt", "~tilde.pt", "a,b,c", "noise,none")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_path_with_commas_and_the_like_is_one_name(name: str) -> None:
    Path(name).write_bytes(b"x")
    for given in (name, f"./{name}", str(Path(name).absolute())):
        assert names_or_paths(given) == (given,)
        assert names_or_paths(f"none,{given},esd-x") == ("none", given, "esd-x")
        check_on(given)


def test_names_alone_are_split_at_commas() -> None:
    assert names_or_paths("none,uce, esd-x,none") == ("none", "uce", "esd-x")
    assert names_or_paths("none,nowhere/a,b.pt") == ("none", "nowhere/a", "b.pt")
    for text in ("", ",", "none,,uce"):
        with pytest.raises(UsageError, match="an empty name"):
            names_or_paths(text)


@pytest.mark.parametrize(("make", "said"), [
    (None, "there is no such file"), (os.mkfifo, "a fifo"), (lambda path: os.symlink("nowhere", path), "a dangling link"),
])  # fmt: skip
def test_what_is_no_file_is_said(make: object, said: str) -> None:
    if callable(make):
        make("mine.pt")
    with pytest.raises(UsageError, match=said):
        check_on("mine.pt")
    with pytest.raises(UsageError, match="unknown checkpoint 'esdx'"):
        check_on("esdx")


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        app(list(arguments))
    return int(end.value.code or 0)


@pytest.mark.parametrize("broken", ["tokenizer/tokenizer.json", "tokenizer", "vae/diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize("words", [
    ("run", "--method", "none", "--concept", "church", "--protocol", "pocket-church"), ("doctor",),
    ("erase", "uce", "--concept", "church"), ("run", "--dry-run", "--concept", "church"),
])  # fmt: skip
def test_a_model_that_is_not_whole_is_one_line(
    tmp_path: Path, broken: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    model = copied(tmp_path / "model")
    (model / broken).rename(tmp_path / "away")
    assert command(*words, "--backbone", str(model)) == 2
    said = capsys.readouterr()
    assert "is missing" in said.err + said.out
    assert "Traceback" not in said.err
