"""Fitting: only `dev` is read, every point of a grid is a setting that exists, and what must stay comes before what must go."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from srbench.analysis.records import label
from srbench.engine.prepare import options_of
from srbench.pocket.build import fit
from srbench.pocket.build.fit import GRIDS, Line, best, settings


@pytest.mark.parametrize("preset", sorted(GRIDS))
def test_every_point_of_a_grid_parses_and_changes_what_it_names(preset: str) -> None:
    points = list(settings(preset))
    assert points[0] == ()
    assert len(set(points)) == len(points)
    for point in points[1:]:
        options, _ = options_of(preset, point, "pocket")
        for setting in point:
            name, _, value = setting.partition(".")[2].partition("=")
            assert str(getattr(options, name)) == str(type(getattr(options, name))(value))


def test_only_dev_editions_are_read() -> None:
    asked = fit.request("uce", ("uce.lam=0.1",), "church", Path("unused"))
    assert (asked.part, asked.limit, asked.methods) == ("dev", None, ("none", "uce"))


def line(name: str, **figures: float) -> Line:
    given: dict[str, Any] = {"fsr": 50.0, "asr": 50.0, "retain_accuracy": 100.0, "content_kept": 90.0} | figures
    return Line(settings=name, **given)


def test_the_best_forgets_most_among_those_that_keep_what_must_stay() -> None:
    strong = line("strong", fsr=90.0, asr=10.0, retain_accuracy=96.0)
    lines = [line("weak"), strong, line("blank", fsr=100.0, asr=0.0, retain_accuracy=0.0)]
    assert best(lines, 100.0).settings == "strong"


def test_where_all_cost_too_much_the_one_that_keeps_most_is_best() -> None:
    lines = [line("a", retain_accuracy=60.0), line("b", retain_accuracy=80.0, fsr=10.0)]
    assert best(lines, 100.0).settings == "b"


@pytest.mark.parametrize(("preset", "method", "on"), [
    ("none", "none", "none"), ("uce", "none", "uce"), ("safree", "safree", "none"),
])  # fmt: skip
def test_a_line_is_of_the_preset_s_own_cells(
    preset: str, method: str, on: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cell(method: str, on: str, value: float) -> Any:
        metrics = {name: SimpleNamespace(value=value) for name in ("fsr", "asr", "retain_accuracy", "content_kept")}
        return SimpleNamespace(label=label(SimpleNamespace(method=method, on=on)), metrics=metrics)

    def execute(asked: Any, *given: Any) -> Any:
        assert asked.methods == tuple(dict.fromkeys(("none", preset)))
        others = [] if preset == "none" else [cell("none", "none", 1.0)]
        return SimpleNamespace(exit_code=0, cells=[*others, cell(method, on, 7.0)])

    monkeypatch.setattr(fit, "plan", lambda *given: [])
    monkeypatch.setattr(fit, "execute", execute)
    assert fit.measure(preset, (), SimpleNamespace(), tmp_path).fsr == 7
