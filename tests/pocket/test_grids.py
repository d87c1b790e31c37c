"""Tables of the grid: which line a cell is, that gains and inversions stand beside what they belong to, and costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.pocket_build.study import grids
from tests.pocket.test_reference import ATTACKED, CELL

GAIN = Metric("higher", 12.0, 3.0, 21.0, 50, 50, test="mcnemar", p=0.01, p_holm=0.04)


def cell(method: str, on: str = "none", variant: str = "", fsr: float = 50.0, **cost: float) -> ResultCell:
    metrics = {"fsr": Metric("higher", fsr, fsr - 9, fsr + 9, 50, 50)} | ({"fsr_gain": GAIN} if on != "none" else {})
    return replace(CELL, method=method, on=on, variant=variant, metrics=metrics, cost=cost)


@pytest.mark.parametrize(("method", "on", "variant", "name"), [
    ("safree", "none", "", "safree"),
    ("none", "uce", "", "uce"),
    ("sld-max", "esd-x", "", "sld-max on esd-x"),
    ("saferedir", "uce", "redirector=on-uce@0a1b2c3d", "saferedir trained on uce"),
    ("saferedir", "esd-x", "redirector=on-uce@0a1b2c3d", None),
    ("sld-max+ci", "uce", "inversion=from-none@0a1b2c3d", "sld-max+ci learned on none, on uce"),
    ("sld-max", "none", "scale=20.0", None),
])  # fmt: skip
def test_a_cell_finds_its_line(method: str, on: str, variant: str, name: str | None) -> None:
    assert grids.name_of(cell(method, on, variant)) == name


def test_the_page_of_robustness_holds_the_methods_of_its_table_and_no_variants() -> None:
    asr = {"asr": Metric("lower", 40.0, 25.0, 57.0, 32, 32)}
    made = replace(cell("saferedir"), suite="uda", made_against="unlearndiffatk against saferedir", metrics=asr)
    cells = [
        cell("none", fsr=1.0), cell("saferedir", fsr=97.0), cell("saferedir", variant="cooldown=2", fsr=7.0),
        cell("sld-weak", fsr=3.0), made,
    ]  # fmt: skip
    page = grids.robustness(cells, ("none", "saferedir"), {"uce": {"value": 75.0, "low": 57.9, "high": 86.7, "n": 32}})
    suites, attacks, embeddings = page.split("**")[2], page.split("**")[4], page.partition("## Embeddings")[2]
    assert "| saferedir | 3.00 <sub>" in suites
    assert "| none | 99.0 <sub>" in suites
    assert "sld-weak" not in page
    assert "93.0" not in page
    assert "| saferedir | 40.0 <sub>[25.0, 57.0]</sub> (own) |" in attacks
    assert "| uce | 75.0 [57.9, 86.7], n = 32 |" in embeddings
    assert "Embeddings" not in grids.robustness(cells, ("none",), {})


def test_the_page_has_each_cell_where_it_belongs() -> None:
    cells = [
        cell("none", fsr=1.0), replace(ATTACKED, method="none"), cell("saferedir", fsr=99.0), cell("safree", fsr=31.0),
        cell("none", "uce", fsr=61.0, prepare_seconds=2.5), cell("sld-max", "uce", fsr=71.0),
        cell("sld-max+ci", "uce", fsr=81.0), cell("sld-max+ci", "uce", "inversion=from-none@0a", fsr=82.0),
        cell("safree", variant="alpha=3", fsr=7.0),
    ]  # fmt: skip
    page = grids.document(cells, ("none", "saferedir", "safree", "uce"), ("sld-max", "sld-max+ci"), ("uce",), ("sld-max+ci",))
    alone, under, inverted, paid = (part.partition("\n")[2] for part in page.split("\n## ")[1:])
    assert [line.split(" |")[0] for line in alone.splitlines() if line.startswith("| ")] == [
        "| method", "| ---", "| none", "| saferedir", "| safree", "| uce",
    ]  # fmt: skip
    assert "| sld-max on uce | 71.0 [62.0, 80.0] | +12.0 [3.00, 21.0] p = 0.04 |" in under
    assert under.index("| uce |") < under.index("| sld-max on uce |")
    assert "| sld-max+ci learned on none, on uce | 82.0" in inverted
    assert "| sld-max on uce" not in inverted
    assert "| uce | 2.50 |" in paid
    assert "7.00" not in page
    assert page.count("### hazard") == 3
