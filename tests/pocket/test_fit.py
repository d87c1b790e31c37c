"""Fitting: only `dev` is read, every point of a grid is a setting that exists, and what must stay comes before what must go."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from srbench.analysis.records import label
from srbench.catalog import plugins
from srbench.engine.prepare import options_of
from srbench.methods.phrases import listed_texts
from srbench.pocket_build.study import fit
from srbench.pocket_build.study.fit import GRIDS, Line, settings


@pytest.mark.parametrize("preset", sorted(GRIDS))
def test_every_point_of_a_grid_parses_and_changes_what_it_names(preset: str) -> None:
    points = list(settings(preset))
    assert (points[0] == ()) is not preset.startswith(("esd", "ablation"))
    assert len(set(points)) == len(points)
    for point in filter(None, points):
        point = fit.request(preset, point, "church", Path("unused")).settings
        options, _ = options_of(preset, point, "pocket", "object")
        for setting in point:
            name, _, value = setting.partition(".")[2].partition("=")
            held = getattr(options, name)
            assert held == (listed_texts(value) if value.startswith("@") else type(held)(value))


def test_only_dev_editions_are_read() -> None:
    asked = fit.request("uce", ("uce.lam=0.1",), "church", Path("unused"))
    assert (asked.part, asked.limit, asked.methods) == ("dev", None, ("none", "uce"))


def line(name: str, **figures: float) -> Line:
    given: dict[str, Any] = {"fsr": 50.0, "asr": 50.0, "retain_accuracy": 100.0, "content_kept": 90.0} | figures
    return Line(settings=name, **given)


def test_neither_a_blank_model_nor_an_untouched_one_scores() -> None:
    blank = line("blank", fsr=100.0, asr=0.0, retain_accuracy=0.0)
    untouched = line("untouched", fsr=0.0, asr=100.0, retain_accuracy=100.0)
    assert blank.score == untouched.score == 0
    assert line("strong", fsr=90.0, asr=10.0, retain_accuracy=96.0).score == pytest.approx(2 * 90 * 96 / 186)


def test_a_line_is_of_one_kind_of_concept() -> None:
    cells = [SimpleNamespace(concept=name) for name in ("hazard", "vangogh", "church")]
    assert [cell.concept for cell in fit.of_kind("object", cells)] == ["hazard", "church"]
    assert fit.kinds(fit.concepts()) == ("object", "style")


@pytest.mark.parametrize("preset", sorted(plugins.presets()))
def test_fitted_values_are_options_of_their_preset(preset: str) -> None:
    """Every kind has its own; a name that no option has would otherwise fail at run time only."""
    fitted = plugins.plugins("methods")[plugins.preset(preset)[0]].meta.get("fitted", {}).get("pocket", {})
    assert fitted.keys() <= plugins.presets().keys()
    for kind, values in fitted.get(preset, {}).items():
        assert kind in fit.kinds(fit.concepts())
        options, _ = options_of(preset, (), "pocket", kind)
        assert values.keys() <= type(options).model_fields.keys()


def found(value: float) -> Any:
    metrics = {name: SimpleNamespace(value=value) for name in ("fsr", "asr", "retain_accuracy", "content_kept")}
    return SimpleNamespace(metrics=metrics)


@pytest.mark.parametrize(("preset", "method", "on"), [
    ("none", "none", "none"), ("uce", "none", "uce"), ("safree", "safree", "none"),
])  # fmt: skip
def test_a_line_is_of_the_preset_s_own_cells(
    preset: str, method: str, on: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cell(method: str, on: str, value: float) -> Any:
        return SimpleNamespace(label=label(SimpleNamespace(method=method, on=on)), metrics=found(value).metrics)

    def execute(asked: Any, *given: Any) -> Any:
        assert asked.methods == tuple(dict.fromkeys(("none", preset)))
        others = [] if preset == "none" else [cell("none", "none", 1.0)]
        return SimpleNamespace(exit_code=0, cells=[*others, cell(method, on, 7.0)])

    monkeypatch.setattr(fit, "plan", lambda *given: [])
    monkeypatch.setattr(fit, "execute", execute)
    cells = fit.measure(preset, (), SimpleNamespace(), tmp_path, fit.concepts())
    assert [cell.metrics["fsr"].value for cell in cells] == [7.0] * len(fit.concepts())
