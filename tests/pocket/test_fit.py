"""Fitting: only `dev` is read, every point of a grid is a setting that exists, and what was chosen is one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srbench.analysis.records import Metric
from srbench.catalog import load, plugins
from srbench.engine.prepare import options_of
from srbench.methods.phrases import listed_texts
from srbench.pocket_build.study import attacked
from srbench.studies import steps
from srbench.studies.checks import point_texts
from srbench.studies.read import read
from srbench.studies.spec import Job

STUDY = read(Path(attacked.__file__).with_name("fit.yaml"))
JOBS = {step.name: step.jobs for step in STUDY.steps}
TRAINED = ("esd-x", "esd-x-strict", "esd-u", "ablation")


@pytest.mark.parametrize("preset", sorted(JOBS))
def test_every_point_of_a_grid_parses_and_changes_what_it_names(preset: str) -> None:
    for job in JOBS[preset]:
        assert (job.points[0] == ()) is (preset not in TRAINED)
        assert len(set(job.points)) == len(job.points)
        for point in filter(None, job.points):
            texts = point_texts(point, job.concepts[0])
            options, _ = options_of(preset, texts, "pocket", load.concepts()[job.concepts[0]].kind)
            for setting in texts:
                name, _, value = setting.partition(".")[2].partition("=")
                held = getattr(options, name)
                assert held == (listed_texts(value) if value.startswith("@") else type(held)(value))


@pytest.mark.parametrize("preset", sorted(JOBS))
def test_a_choice_is_for_a_kind_of_concept_from_dev_rows_of_its_suites(preset: str) -> None:
    of_objects, of_styles = JOBS[preset]
    assert (of_objects.concepts, of_styles.concepts) == (("hazard", "church"), ("vangogh",))
    for job in JOBS[preset]:
        assert job.values["methods"] == ("none", preset)
        assert job.values["suites"] == ("igmu", "mma")
        assert "limit" not in job.values


def worth(job: Job, **figures: float) -> Any:
    given = {"fsr": 50.0, "asr": 50.0, "retain_accuracy": 100.0} | figures
    metrics = {name: Metric("lower" if name == "asr" else "higher", value) for name, value in given.items()}
    assert job.choice is not None
    cells: Any = [type("Cell", (), {"metrics": metrics})]
    return steps._worth(job.choice, cells)["score"]


@pytest.mark.parametrize("preset", sorted(JOBS))
def test_neither_a_blank_model_nor_an_untouched_one_scores(preset: str) -> None:
    job = JOBS[preset][0]
    assert worth(job, fsr=100.0, asr=0.0, retain_accuracy=0.0) == worth(job, fsr=0.0, asr=100.0) == 0
    assert worth(job, fsr=90.0, asr=10.0, retain_accuracy=96.0) == pytest.approx(2 * 90 * 96 / 186)


@pytest.mark.parametrize("preset", sorted(plugins.presets()))
def test_fitted_values_are_options_of_their_preset(preset: str) -> None:
    """Every kind has its own; a name that no option has would otherwise fail at run time only."""
    fitted = plugins.plugins("methods")[plugins.preset(preset)[0]].meta.get("fitted", {}).get("pocket", {})
    assert fitted.keys() <= plugins.presets().keys()
    for kind, values in fitted.get(preset, {}).items():
        assert kind in {load.concepts()[name].kind for name in load.backbones()["pocket"].concepts}
        options, _ = options_of(preset, (), "pocket", kind)
        assert values.keys() <= type(options).model_fields.keys()
