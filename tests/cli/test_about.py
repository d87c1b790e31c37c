"""`srbench show method NAME`: every option with its default and meaning, for every plug-in that srbench brings."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from srbench.catalog import plugins
from srbench.cli import about
from srbench.cli.main import app


def command(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("preset", sorted(plugins.presets()))
def test_every_option_of_a_preset_is_there_with_its_value(preset: str) -> None:
    name, values = plugins.presets()[preset]
    cls = plugins.load("methods", name)
    code, shown, _ = command("show", "method", preset)
    assert code == 0
    assert plugins.plugins("methods")[name].meta["title"] in shown
    for option, field in cls.Options.model_fields.items():
        assert f"  {option} = {values.get(option, field.get_default(call_default_factory=True))!r}" in shown


def test_an_option_s_meaning_is_its_docstring_also_where_it_is_inherited() -> None:
    _, shown, _ = command("show", "method", "race")
    assert "How far each number of a prompt's states may move." in shown
    assert "Guidance towards the concept while x_t is sampled." in shown  # of ESD
    assert "parameters = 'x'  (x, u, x-strict, all, noxattn)" in shown
    assert "https://arxiv.org/abs/2405.16341" in shown


@pytest.mark.parametrize(("kind", "name"), [("attack", "p4d"), ("scorer", "nudenet320n-rgb"), ("method", "esd")])
def test_attacks_scorers_and_methods_without_a_preset_of_their_name(kind: str, name: str) -> None:
    code, shown, _ = command("show", kind, name)
    assert code == 0
    assert shown.startswith(f"{name}: ")


@pytest.mark.parametrize(("arguments", "said"), [
    (("method", "ucee"), "there is no method 'ucee'"),
    (("attack", "uce"), "there is no attack 'uce'"),
    (("igmu", "uce"), "the first of two is method, attack, scorer"),
])  # fmt: skip
def test_what_there_is_not_is_one_line(arguments: tuple[str, str], said: str) -> None:
    code, _, error = command("show", *arguments)
    assert code == 2
    assert said in error


def test_ranges_are_read_from_the_types() -> None:
    heads = dict(about.options(plugins.load("methods", "uce").Options, {}))
    assert any(head.startswith("lam = 0.5  (above 0") for head in heads)
    assert heads[next(head for head in heads if head.startswith("lam"))]
