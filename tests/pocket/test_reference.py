"""The reference runs: what is run, which rows stand alone, and what the committed summaries hold and leave out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell, to_dict
from srbench.catalog import load
from srbench.catalog.specs import Row
from srbench.engine.prepare import options_of
from srbench.errors import MissingError
from srbench.pocket_build.study import attacked, pictures, reference, tables
from srbench.results.origins import first_shipped
from srbench.results.run_files import newest, summarised
from srbench.studies.read import read

CELL = ResultCell(
    backbone="pocket", concept="hazard", suite="igmu", method="saferedir", on="none", variant="", protocol="pocket-hazard",
    dtype="fp32", rows_sha="r", run="1", source="local", n_loaded=2, n_excluded=0, n_run=2, n_scored=2, n_failed=0,
    metrics={"content_kept": Metric("higher", 90.0, 80.0, 95.0, 2, 2)},
)
ATTACKED = replace(CELL, suite="mma", metrics={"asr": Metric("lower", 4.0, 1.0, 9.0, 2, 2)})


def _write(results: Path, number: int, cells: list[ResultCell]) -> None:
    path = results / "runs" / f"2026010{number}" / "run.json"
    path.parent.mkdir(parents=True)
    header = {"schema": 1, "run": str(number), "backbone_sha": first_shipped("pocket")}
    path.write_text(json.dumps(header | {"cells": [{"result": to_dict(c), "rows": [1]} for c in cells]}))


def test_summaries_hold_every_full_cell_once_and_no_rows(tmp_path: Path) -> None:
    older = replace(CELL, metrics={"content_kept": Metric("higher", 10.0, 5.0, 15.0, 2, 2)})
    others = [replace(CELL, variant=v) for v in ("cooldown=2", "limit=3", "cooldown=2,limit=3", "part=dev")]
    _write(tmp_path, 1, [older, *others])
    _write(tmp_path, 2, [CELL, replace(CELL, dtype="bf16"), replace(CELL, concept="church")])
    written = reference.summaries(tmp_path, tmp_path / "pocket", whole=True)
    assert [path.name for path in written] == [f"{name}.json" for name in reference.concepts()]
    text = (tmp_path / "pocket" / "hazard.json").read_text()
    saved = json.loads(text)
    assert [set(entry) for entry in saved["cells"]] == [{"result"}] * 2
    assert [entry["result"]["variant"] for entry in saved["cells"]] == ["", "cooldown=2"]
    assert saved["cells"][0]["result"]["metrics"]["content_kept"]["value"] == 90
    assert "command" not in saved["provenance"]
    assert str(tmp_path) not in text


def test_compare_reads_what_was_summarised(tmp_path: Path) -> None:
    _write(tmp_path, 1, [CELL, ATTACKED])
    reference.summaries(tmp_path, tmp_path / "shown" / "pocket", whole=True)
    said: list[str] = []
    found = newest(tmp_path / "shown", said.append)
    assert {(c.suite, c.source) for c in found} == {("igmu", "committed"), ("mma", "committed")}
    assert not said


def test_a_part_run_anew_takes_nothing_from_the_summaries_of_the_others(tmp_path: Path) -> None:
    committed = [replace(CELL, variant="cooldown=2"), replace(CELL, metrics={"content_kept": Metric("higher", 1.0)})]
    (tmp_path / "pocket").mkdir()
    text = json.dumps({"schema": 1, "run": "old", "cells": [{"result": to_dict(cell)} for cell in committed]})
    (tmp_path / "pocket" / "hazard.json").write_text(text)
    _write(tmp_path, 1, [CELL])
    for whole, variants in ((False, ["", "cooldown=2"]), (True, [""])):
        reference.summaries(tmp_path, tmp_path / "pocket", whole)
        saved = json.loads((tmp_path / "pocket" / "hazard.json").read_text())["cells"]
        assert [cell["result"]["variant"] for cell in saved] == variants
        assert saved[0]["result"]["metrics"]["content_kept"]["value"] == 90


def test_costs_come_from_the_runs_that_had_the_machine_to_themselves(tmp_path: Path) -> None:
    def cell(added: float, peak: float, **changes: Any) -> ResultCell:
        times = Metric("lower", added, added, added, 2, 2)
        return replace(CELL, metrics=CELL.metrics | {"added_ms": times}, cost={"peak_mb": peak}, **changes)

    _write(tmp_path, 1, [cell(99.0, 9.0), cell(98.0, 8.0, on="uce"), cell(97.0, 7.0, variant="cooldown=2")])
    alone = tmp_path / "alone"
    other = {"content_kept": Metric("higher", 5.0)}
    limited = [cell(3.0, 1.0, variant="limit=11"), cell(4.0, 2.0, variant="cooldown=2,limit=11")]
    _write(alone, 1, [replace(each, metrics=each.metrics | other) for each in limited])
    reference.summaries(tmp_path, tmp_path / "pocket", whole=True, alone=alone)
    saved = [entry["result"] for entry in json.loads((tmp_path / "pocket" / "hazard.json").read_text())["cells"]]
    found = {(one["on"], one["variant"]): (one["metrics"]["added_ms"], one.get("cost")) for one in saved}
    assert found["none", ""][0]["value"] == 3
    assert found["none", ""][1] == {"peak_mb": 1}
    assert found["none", "cooldown=2"][0]["value"] == 4
    assert found["uce", ""][0]["value"] is None
    assert found["uce", ""][0]["reason"] == reference.UNTIMED
    assert not found["uce", ""][1]
    assert {one["metrics"]["content_kept"]["value"] for one in saved} == {90}


def test_only_a_distance_that_could_not_be_had_is_left_out_of_summaries() -> None:
    lacking = Metric("lower", reason="no reference image")
    cell = replace(ATTACKED, metrics={"asr": lacking, "fd_pocket": lacking, "pocket_perceptual": Metric("lower", 0.5)})
    assert set(reference.scored(cell).metrics) == {"asr", "pocket_perceptual"}


def test_every_ablation_is_an_option_off_its_default() -> None:
    for title, options in reference.ABLATIONS.items():
        _, changed = options_of("saferedir", [f"saferedir.{option}" for option in options], "pocket", "object")
        assert len(changed) == len(options) or title == "no alpha", title
        assert changed, title


@pytest.mark.parametrize(("concept", "row", "other"), [
    ("hazard", {"style": "vangogh", "objects": ("dagger",)}, True),
    ("hazard", {"style": "noto", "objects": ("dagger", "church")}, True),
    ("hazard", {"style": "noto", "objects": ("dagger", "cat")}, False),
    ("vangogh", {"style": "vangogh", "objects": ("cat",)}, False),
    ("church", {"style": "noto", "objects": ("skull",)}, True),
])  # fmt: skip
def test_rows_that_show_another_concept(concept: str, row: dict[str, Any], other: bool) -> None:
    cell: Any = SimpleNamespace(concept=load.concepts()[concept])
    assert reference.shows_another(cell, Row(id="x", kind="forget", category="noun", prompt="p", **row)) is other


def test_variants_have_short_names() -> None:
    variants = ["alpha=1.0,alpha_scale=1.0", "use_mask=False", "cooldown=2", "redirector=seed-1@0a1b2c3d", "alpha=7.0"]
    found = reference.labels([replace(CELL, variant=variant) for variant in variants])
    assert [found.get(v) for v in variants] == ["no alpha", "no mask", "cooldown 2", "seed-1", None]


def test_the_trade_off_picture_is_drawn_from_whatever_was_run(tmp_path: Path) -> None:
    igmu = {"content_kept": Metric("higher", 90.0, 80.0, 95.0, 2, 2), "fsr": Metric("higher", 98.0, 95.0, 99.0, 2, 2)}
    cells = [
        replace(cell, variant=variant, metrics=cell.metrics | (igmu if cell is CELL else {}))
        for variant in ("", "alpha_scale=3.0", "cooldown=5", "unnamed") for cell in (CELL, ATTACKED)
    ]  # fmt: skip
    names = {"": "saferedir", "alpha_scale=3.0": "alpha scale 3", "cooldown=5": "cooldown 5", "use_mask=False": "no mask"}
    scales = {"saferedir": 2.0, "alpha scale 3": 3.0, "alpha scale 1": 1.0}
    pictures.tradeoff(cells[:-1], names, scales, tmp_path / "picture.png")
    assert Image.open(tmp_path / "picture.png").size[0] > 300


def test_the_picture_of_methods_has_a_point_for_each_that_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {name: Metric("higher", 90.0, 80.0, 95.0, 2, 2) for name in ("fsr", *pictures.KEPT)}
    cells = [replace(CELL, method=method, metrics=rates) for method in ("none", "saferedir")]
    cells += [replace(CELL, method="sld-max", metrics={"asr": rates["fsr"]}), replace(CELL, variant="cooldown=2")]
    drawn: list[str] = []
    plain = pictures._method
    monkeypatch.setattr(pictures, "_method", lambda *given: drawn.append(given[3]["label"]) or plain(*given))
    pictures.methods(cells, ("none", "saferedir", "sld-max", "uce"), tmp_path / "picture.png")
    assert drawn == ["none", "saferedir", "sld-max"] * len(pictures.KEPT)
    assert Image.open(tmp_path / "picture.png").size[0] > 300


def test_an_interval_is_turned_with_its_value() -> None:
    assert pictures._ends(Metric("lower", 4.0, 1.0, 9.0, 2, 2), False) == (4, 3, 5)
    assert pictures._ends(Metric("lower", 4.0, 1.0, 9.0, 2, 2), True) == (96, 5, 3)


def test_scales_are_read_from_the_ablations() -> None:
    assert reference._scales() == {f"alpha scale {scale:g}": scale for scale in (0.5, 1.0, 1.5, 3.0)}


def test_what_no_study_can_ask_for_is_run_on_rows_without_another_concept(tmp_path: Path) -> None:
    found = list(reference.jobs(tmp_path / reference.JOINT))
    assert [job.concept for job in found] == [name for name in reference.concepts() for _ in range(2)]
    assert all(job.alone for job in found)
    assert [job.redirector for job in found[:2]] == [None, tmp_path / reference.JOINT]


def test_without_the_study_it_is_said_what_makes_the_redirector(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as found:
        reference.joint_redirector(tmp_path / "results")
    assert "srbench run" in found.value.hint
    assert not list(tmp_path.iterdir())


def _methods(step: str) -> tuple[str, ...]:
    (jobs,) = (each.jobs for each in read(reference.STUDY).steps if each.name == step)
    return tuple(jobs[0].values["methods"])


def test_the_pages_show_what_the_study_runs() -> None:
    steps = {each.name: each.jobs for each in read(reference.STUDY).steps}
    assert _methods("baselines") == (*reference.METHODS, *reference.BASELINES)
    assert {*_methods("methods")} == {*reference.METHODS}
    assert {*_methods("stacking")} == {*reference.STACKED}
    assert steps["stacking"][0].values["on"] == reference.UNDER
    assert steps["robustness"][0].values["suites"] == reference.OTHER_SUITES
    assert steps["methods"][0].values["scorers"] == reference.SCORERS
    assert {*reference.REDIRECTORS, reference.JOINT} <= steps.keys()
    said = {tuple(f"{name}={value}" for name, value in job.values["settings"]) for job in steps["ablations"]}
    both = {tuple(f"saferedir.{option}" for option in options) for options in reference.ABLATIONS.values()}
    assert {tuple(each.lower() for each in one) for one in said} == both
    alone = [name for name in _methods("robustness") if "@" not in name]
    assert {*alone} == {*attacked.DEFENDERS}


def _committed() -> list[ResultCell]:
    return summarised(reference.DOCS.parent / "results" / "pocket")


def test_the_committed_summaries_hold_every_variant_of_saferedir_for_every_concept() -> None:
    cells = _committed()
    names = reference.labels(cells)
    for concept in reference.concepts():
        lines = tables.lines_of([cell for cell in cells if cell.concept == concept], names)
        expected = {*reference.METHODS, *reference.ABLATIONS, *reference.REDIRECTORS, reference.JOINT}
        assert not expected - lines.keys()
        assert all({("igmu", "fsr"), ("mma", "asr")} <= line.keys() for line in lines.values())


@pytest.mark.parametrize("page", ["grid", "robustness"])
def test_pages_are_what_the_summaries_say(page: str) -> None:
    assert getattr(reference, page)(_committed()) == (reference.DOCS / f"pocket-{page}.md").read_text(encoding="utf-8")


def test_the_page_of_tables_is_what_the_summaries_say() -> None:
    cells = _committed()
    page = tables.document(cells, reference.labels(cells), (*reference.ABLATIONS, "one-delta"), reference.SEEDS, reference.JOINT)
    assert page == (reference.DOCS / "pocket-tables.md").read_text(encoding="utf-8")
