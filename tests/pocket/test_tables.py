"""Tables of the reference runs: which line a cell is, and what stands in it."""

from __future__ import annotations

from dataclasses import replace

from srbench.analysis.records import Metric
from srbench.pocket_build.study import tables
from tests.pocket.test_reference import ATTACKED, CELL

RATES = {name: Metric("higher", 90.0, 80.0, 95.0, 2, 2) for suite, name in tables.COLUMNS if suite == "igmu"}
NAMES = {"cooldown=2": "cooldown 2", "redirector=seed-1@0a": "seed-1", "redirector=all@0b": "all"}


def _cells(variant: str, fsr: float, method: str = "saferedir") -> list:
    metrics = RATES | {"fsr": Metric("higher", fsr, fsr - 1, fsr, 2, 2)}
    igmu = replace(CELL, method=method, variant=variant, metrics=metrics)
    return [igmu, replace(ATTACKED, method=method, variant=variant)]


CELLS = [
    *_cells("", 99.0), *_cells("", 1.0, "none"), *_cells("cooldown=2", 50.0), *_cells("redirector=seed-1@0a", 97.0),
    *_cells("redirector=all@0b", 98.0), *_cells("redirector=all@0b,rows=alone", 96.0), *_cells("rows=alone", 95.0),
    *_cells("alpha=3", 7.0), *[replace(cell, on="uce") for cell in _cells("", 42.0)],
]  # fmt: skip


def test_a_cell_finds_its_line() -> None:
    lines = tables.lines_of(CELLS, NAMES)
    found = {label: line["igmu", "fsr"].value for label, line in lines.items()}
    assert found == {
        "saferedir": 99, "none": 1, "cooldown 2": 50, "seed-1": 97, "all": 98, "all (rows=alone)": 96,
        "saferedir (rows=alone)": 95,
    }  # fmt: skip
    assert all(line["mma", "asr"].value == 4 for line in lines.values())


def test_seeds_show_each_value_mean_and_spread() -> None:
    *_, first, second, last = tables.seeds(tables.lines_of(CELLS, NAMES), ("saferedir", "seed-1", "not run"))
    assert first.startswith("| saferedir | 99.0 | 90.0 | 4.00 |")
    assert second.startswith("| seed-1 | 97.0 |")
    assert last.startswith("| mean ± s | 98.0 ± 1.41 | 90.0 ± 0.00 | 4.00 ± 0.00 |")


def test_the_page_holds_what_was_run_and_leaves_out_what_was_not() -> None:
    page = tables.document(CELLS, NAMES, ("no mask", "cooldown 2"), ("seed-1", "seed-2"), "all")
    assert "| cooldown 2 | 50.0 [49.0, 50.0] |" in page
    assert "| saferedir (rows=alone) | 95.0 [94.0, 95.0] |" in page
    assert "no mask" not in page
    assert "seed-2" not in page
    assert "42.0" not in page
    assert page.count("### hazard") == 3
