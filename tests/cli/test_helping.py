"""`--help` in groups, and what a shell completes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.core import TyperOption
from typer.testing import CliRunner

from srbench.cli import helping
from srbench.cli.main import app

GROUP: Any = typer.main.get_command(app)
NEW: Any = GROUP.commands["new"]
EVERY = {name: command for name, command in GROUP.commands.items() if name != "new"} | {
    f"new {name}": command for name, command in NEW.commands.items()
}


def helped(*words: str) -> str:
    """What `--help` prints."""
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    return result.stdout


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    asked = {"_SRBENCH_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["srbench", *words]), "COMP_CWORD": str(len(words))}
    done = subprocess.run([sys.executable, "-m", "srbench"], env=os.environ | asked, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_every_command_is_in_one_group() -> None:
    grouped = [name for names in helping.COMMANDS.values() for name in names]
    assert sorted(grouped) == sorted(GROUP.commands)
    text = helped()
    places = [text.index(f"─ {group} ─") for group in helping.COMMANDS]
    assert places == sorted(places)
    assert "<bool>" not in text


@pytest.mark.parametrize("name", EVERY)
def test_every_option_is_in_a_group_and_says_what_its_value_is(name: str) -> None:
    context = EVERY[name].make_context(name, [], resilient_parsing=True)
    options = [param for param in EVERY[name].get_params(context) if isinstance(param, TyperOption)]
    panels = [panel.title for panel in helping.PANELS]
    assert all(option.rich_help_panel in panels for option in options)
    assert [option.name for option in options if option.metavar is None] == []
    text = helped(*name.split())
    shown = [panel for panel in panels if f"─ {panel} ─" in text]
    assert [text.index(f"─ {panel} ─") for panel in shown] == sorted(text.index(f"─ {panel} ─") for panel in shown)
    assert "<bool>" not in text


def test_a_default_that_is_found_out_is_said() -> None:
    """Square brackets in a help text are markup: what stood in them was not printed."""
    text = " ".join(helped("run").split())
    assert "the backbone's first" in text
    assert "16, less where a card's memory is short" in text


def test_a_shell_completes_commands_options_and_the_last_of_several_names() -> None:
    assert completed("comp") == ["compare"]
    assert completed("run", "--sui") == ["--suite"]
    assert completed("run", "--method", "none,safer") == [
        "none,saferedir", "none,saferedir-released", "none,saferedir-text", "none,saferedir-upstream",
    ]  # fmt: skip
    assert "none,none" not in completed("run", "--method", "none,no")


@pytest.mark.parametrize(("words", "name"), [
    (("run", "--on", "uc"), "uce"), (("run", "--suite", "ig"), "igmu"), (("run", "--concept", "haz"), "hazard"),
    (("run", "--backbone", "pock"), "pocket"), (("run", "--scorers", "clip-l"), "clip-l14"),
    (("run", "--protocol", "pock"), "pocket"), (("score", "--as", "ig"), "igmu"), (("fetch", "--on", "es"), "esd"),
])  # fmt: skip
def test_what_a_shell_offers(words: tuple[str, ...], name: str) -> None:
    assert any(each.startswith(name) for each in completed(*words))


def test_completion_is_shown_for_the_name_of_the_program() -> None:
    env = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # the shell is named, wherever the tests run
    words = [sys.executable, "-m", "srbench", "--show-completion", "bash"]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_SRBENCH_COMPLETE=complete_bash" in done.stdout


def test_a_shell_that_asks_wrongly_is_told_nothing() -> None:
    env = os.environ | {"_SRBENCH_COMPLETE": "complete_bash"}
    done = subprocess.run([sys.executable, "-m", "srbench"], env=env, capture_output=True, text=True)
    assert (done.returncode != 0, done.stdout, done.stderr) == (True, "", "")
