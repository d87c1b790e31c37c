"""Fitting: only `dev` is read, every point of a grid is a setting that exists, and what was chosen is one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from srbench.analysis.records import Metric
from srbench.catalog import load, plugins
from srbench.engine.prepare import options_of
from srbench.errors import UsageError
from srbench.methods.phrases import listed_texts
from srbench.pocket_build.study import fit
from srbench.studies import steps
from srbench.studies.checks import point_texts
from srbench.studies.read import read
from srbench.studies.spec import Job

STUDY = read(fit.FIT)
JOBS = {step.name: step.jobs for step in STUDY.steps}


def options_at(preset: str, job: Job, point: Any) -> Any:
    kind = load.concepts()[job.concepts[0]].kind
    return options_of(preset, point_texts(point, job.concepts[0]), "pocket", kind)[0]


def _read(value: str, kind: type) -> Any:
    if value == "null":
        return None
    if kind is bool:
        return {"true": True, "false": False}[value.lower()]
    return listed_texts(value) if value.startswith("@") else kind(value)


@pytest.mark.parametrize("preset", sorted(JOBS))
def test_every_point_of_a_grid_parses_and_changes_what_it_names(preset: str) -> None:
    for job in JOBS[preset]:
        assert len(set(job.points)) == len(job.points)
        for point in job.points:
            options = options_at(preset, job, point)
            for setting in point_texts(point, job.concepts[0]):
                name, _, value = setting.partition(".")[2].partition("=")
                held = getattr(options, name)
                assert held == _read(value, type(held))


@pytest.mark.parametrize("preset", sorted(JOBS))
def test_a_choice_is_for_a_kind_of_concept_from_dev_rows_of_its_suites(preset: str) -> None:
    of_objects, of_styles = JOBS[preset]
    assert (of_objects.concepts, of_styles.concepts) == (("hazard", "church"), ("vangogh",))
    for job in JOBS[preset]:
        assert job.values["methods"] == ("none", preset)
        assert job.values["suites"] == ("igmu",)
        assert "limit" not in job.values


def test_every_preset_has_the_same_budget() -> None:
    found = fit.budgets(STUDY)
    assert {count for jobs in found.values() for count in jobs.values()} == {12}
    fit.check_budgets(found)
    with pytest.raises(UsageError, match="different budgets"):
        fit.check_budgets({**found, "more": {"hazard": 13}})
    assert list(fit.told(found))[-1] == "15 presets, 540 runs of one preset on one concept"


def meta_of(preset: str) -> dict[str, Any]:
    return dict(plugins.plugins("methods")[plugins.preset(preset)[0]].meta)


def fitted_of(preset: str) -> dict[str, dict[str, Any]]:
    meta = plugins.plugins("methods")[plugins.preset(preset)[0]].meta
    return dict(meta.get("fitted", {}).get("pocket", {}).get(preset, {}))


@pytest.mark.parametrize("preset", sorted(JOBS))
def test_every_point_names_every_constant_that_is_fitted(preset: str) -> None:
    """Else a point would depend on what was chosen before. What is not fitted yet names what its grid does."""
    constants = {name for values in fitted_of(preset).values() for name in values}
    assert constants or preset in meta_of(preset)["unfitted"]
    for job in JOBS[preset]:
        for point in job.points:
            named = {name.partition(".")[2] for name, _ in point}
            assert constants <= named or preset in meta_of(preset).get("unfitted", ())


@pytest.mark.parametrize("preset", sorted(JOBS))
def test_a_grid_holds_the_published_defaults_and_what_is_chosen_now(preset: str) -> None:
    cls = plugins.load("methods", plugins.preset(preset)[0])
    for job in JOBS[preset]:
        kind = load.concepts()[job.concepts[0]].kind
        tried = [options_at(preset, job, point) for point in job.points]
        assert cls.Options(**plugins.preset(preset)[1]) in tried
        assert options_of(preset, (), "pocket", kind)[0] in tried or preset in meta_of(preset).get("unfitted", ())


def test_every_preset_on_pocket_is_fitted_or_says_that_it_is_published_or_unfitted() -> None:
    """SafeRedir is trained, and `none` has nothing to set."""
    fitted = set()
    for preset in plugins.presets():
        meta = meta_of(preset)
        said = (preset in meta.get("published", ()), preset in meta.get("unfitted", ()))
        assert sum(said) <= 1
        if meta["name"] not in ("none", "saferedir") and not any(said):
            fitted.add(preset)
    assert fitted <= set(JOBS), "a grid for each, so that the fit can be done again"
    assert fitted == {preset for preset in JOBS if preset not in meta_of(preset).get("unfitted", ())}
    assert all(fitted_of(preset) for preset in fitted)


@pytest.mark.parametrize(("suites", "gone"), [(["igmu"], ["fsr"]), (["igmu", "mma"], ["fsr", "asr"]), (["mma"], ["asr"])])
def test_other_suites_may_be_read_too(suites: list[str], gone: list[str], tmp_path: Path) -> None:
    made = fit.study_of(suites)
    path = tmp_path / "fit.yaml"
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    for step in read(path).steps:
        for job in step.jobs:
            assert job.values["suites"] == tuple(suites)
            assert job.choice is not None
            assert job.choice.by == [gone, ["retain_accuracy"]]
    with pytest.raises(UsageError, match="unknown suite 'imgu'"):
        fit.study_of(["imgu"])


def worth(job: Job, **figures: float) -> Any:
    metrics = {name: Metric("higher", value) for name, value in figures.items()}
    assert job.choice is not None
    cells: Any = [type("Cell", (), {"metrics": metrics})]
    return steps._worth(job.choice, cells)["score"]


@pytest.mark.parametrize("preset", sorted(JOBS))
def test_neither_a_blank_model_nor_an_untouched_one_scores(preset: str) -> None:
    job = JOBS[preset][0]
    assert worth(job, fsr=100.0, retain_accuracy=0.0) == worth(job, fsr=0.0, retain_accuracy=100.0) == 0
    assert worth(job, fsr=90.0, retain_accuracy=96.0) == pytest.approx(2 * 90 * 96 / 186)


@pytest.mark.parametrize("preset", sorted(plugins.presets()))
def test_fitted_values_are_options_of_their_preset(preset: str) -> None:
    """Every kind has its own; a name that no option has would otherwise fail at run time only."""
    fitted = plugins.plugins("methods")[plugins.preset(preset)[0]].meta.get("fitted", {}).get("pocket", {})
    assert fitted.keys() <= plugins.presets().keys()
    for kind, values in fitted.get(preset, {}).items():
        assert kind in {load.concepts()[name].kind for name in load.backbones()["pocket"].concepts}
        options, _ = options_of(preset, (), "pocket", kind)
        assert values.keys() <= type(options).model_fields.keys()
