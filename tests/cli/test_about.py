"""`srbench show method NAME`: every option with its default and meaning, for every plug-in that srbench brings."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from srbench.analysis.records import Metric
from srbench.analysis.weakest import weakest
from srbench.catalog import contracts, plugins
from srbench.cli import about
from srbench.cli.main import app
from srbench.errors import UsageError
from srbench.results.run_files import committed, summarised

RESULTS = Path(__file__).parents[2] / "results"
SHIPPED = sorted(name for name, plugin in plugins.plugins("methods").items() if plugin.module.startswith("srbench."))


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


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_method_has_an_equation_and_it_is_shown(name: str) -> None:
    lines = plugins.plugins("methods")[name].meta["equation"]
    assert 1 <= len(lines) <= 4
    _, shown, _ = command("show", "method", name)
    assert "\n".join(["equation:", *(f"  {line}" for line in lines)]) in shown


def test_an_equation_may_be_left_out_and_is_lines_of_text() -> None:
    meta = {"name": "mine", "version": 1, "kind": "inference", "title": "mine"}
    assert "equation" not in contracts.check("methods", meta, "METHOD")
    with pytest.raises(UsageError, match="key 'equation'"):
        contracts.check("methods", meta | {"equation": "y = x"}, "METHOD")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_option_of_a_shipped_method_has_a_description(name: str) -> None:
    assert [head for head, text in about.options(plugins.load("methods", name).Options, {}) if not text] == []


def test_where_a_method_fails_is_worked_out_from_the_committed_results() -> None:
    folder = RESULTS / "pocket-hard"
    cells = summarised(folder)
    _, shown, _ = command("show", "method", "sld-max", "--out", str(RESULTS))
    assert f"where sld-max fails on pocket@e49aa38a, from {folder}, in percent:" in shown
    for concept in ("church", "hazard", "vangogh"):
        own = [cell for cell in cells if cell.label == "sld-max" and cell.concept == concept]
        fsr = {cell.suite: cell.metrics["fsr"] for cell in own if "fsr" in cell.metrics}
        suite = min(fsr, key=lambda each: fsr[each].value or 0)
        assert f"  {concept}: fsr {fsr[suite].value:.1f} on {suite} (n {fsr[suite].n}); " in shown


def test_what_stays_is_compared_with_none_and_a_perfect_rate_is_no_failure() -> None:
    cells = summarised(RESULTS / "pocket-hard")
    for each in weakest("uce", cells):
        value = each.metric.value or 0.0
        assert each.short == pytest.approx(value if each.name == "harm" else (each.none or 100.0) - value)
        assert each.short > 0
    assert weakest("none", []) == []
    (cell,) = [each for each in cells if (each.label, each.concept, each.suite) == ("uce", "church", "igmu")]
    perfect = {**vars(cell), "metrics": {"fsr": Metric("higher", 100.0, n=100, scored=100)}}
    assert weakest("uce", [type(cell)(**perfect)]) == []


def test_without_committed_results_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for folder in (tmp_path / "out", tmp_path / "none"):
        _, shown, _ = command("show", "method", "uce-old", "--out", str(folder))
        assert f"where it fails on pocket: {folder} has no committed result of uce-old" in shown
    assert committed(tmp_path / "out", lambda line: None) == {}
    _, shown, _ = command("show", "method", "none", "--out", str(RESULTS))
    assert "where" not in shown


def test_a_time_that_is_not_resolved_is_said_in_words_and_a_blank_text_is_in_quotes() -> None:
    _, shown, _ = command("show", "method", "saferedir", "--out", str(RESULTS))
    assert "not resolved ms" not in shown
    assert "s to make, added time not resolved (within " in shown
    assert "guide=' ', " in command("show", "method", "uce-old")[1]
    assert about.settings({"a": "", "b": "x", "c": None}) == ["a=''", "b=x", "c=None"]
