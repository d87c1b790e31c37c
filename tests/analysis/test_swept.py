"""Curves of an option: the right cells in the right order, and nothing else among them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.analysis.swept import swept
from srbench.errors import MissingError, UsageError
from srbench.report.curve import draw


def cell(variant: str = "", fsr: float = 50.0, kept: float = 90.0, **fields) -> ResultCell:
    """SafeRedir on hazard x igmu."""
    metrics = {"fsr": rate(fsr), "content_kept": rate(kept), "retain_accuracy": rate(kept)}
    given = {
        "backbone": "pocket", "concept": "hazard", "suite": "igmu", "method": "saferedir", "on": "none", "variant": variant,
        "protocol": "pocket-hazard", "dtype": "fp32", "rows_sha": "r", "run": "r", "source": "local", "n_loaded": 40,
        "n_excluded": 0, "n_run": 40, "n_scored": 40, "n_failed": 0, "metrics": metrics,
    }  # fmt: skip
    return ResultCell(**{**given, **fields})


def rate(value: float, better: str = "higher") -> Metric:
    return Metric(better, value, max(0, value - 5), min(100, value + 5), 40, 40)


OPTION = "saferedir.alpha_scale"


def test_values_are_in_their_order_and_the_default_is_among_them() -> None:
    cells = [cell(f"alpha_scale={value}") for value in ("10.0", "3.0", "0.5")] + [cell()]
    (line,) = swept(cells, OPTION)
    assert [point.said for point in line.points] == ["0.5", "2.0", "3.0", "10.0"]
    assert (line.panel, line.name, line.headline) == (("pocket", "hazard", "igmu"), "saferedir", "fsr")


def test_cells_that_differ_in_more_are_no_part_of_the_line() -> None:
    cells = [cell(f"alpha_scale={v}") for v in (1.0, 3.0)] + [cell("alpha_scale=5.0,cooldown=2"), cell("alpha=1.0"), cell()]
    cells += [cell(method="none"), cell(method="safree")]
    (line,) = swept(cells, OPTION)
    assert [point.said for point in line.points] == ["1.0", "2.0", "3.0"]


def test_another_limit_or_checkpoint_is_another_line() -> None:
    cells = [cell(f"alpha_scale={v},limit=8", rows_sha="x") for v in (1.0, 3.0)]
    cells += [cell(f"alpha_scale={v}", on="esd-x") for v in (1.0, 3.0)]
    found = {line.name: line.panel[2] for line in swept(cells, OPTION)}
    assert set(found) == {"saferedir (limit=8)", "saferedir on esd-x"}
    assert len(set(found.values())) == 2  # other rows are another panel


def test_an_option_of_the_checkpoint_is_swept_too() -> None:
    cells = [cell(f"uce.preserve_scale={v}", method="none", on="uce") for v in (0.1, 0.5)]
    (line,) = swept(cells, "uce.preserve_scale")
    assert [point.said for point in line.points] == ["0.1", "0.5"]


def test_attacks_are_turned_and_take_what_is_kept_from_another_suite() -> None:
    attacked = {"metrics": {"asr": rate(20.0, "lower")}, "suite": "mma"}
    cells = [each for v in (1.0, 3.0) for each in (cell(f"alpha_scale={v}", kept=70 + v), cell(f"alpha_scale={v}", **attacked))]
    line = next(line for line in swept(cells, OPTION) if line.panel[2] == "mma")
    assert (line.headline, line.beside) == ("asr", "igmu")
    assert [(p.forgotten.value, p.forgotten.low, p.forgotten.high) for p in line.points] == [(80, 75, 85)] * 2
    assert [point.kept["content_kept"].value for point in line.points] == [71, 73]


@pytest.mark.parametrize(("option", "error", "message"), [
    ("alpha_scale", UsageError, "expected METHOD.OPTION"),
    ("safredir.alpha", UsageError, "unknown method 'safredir'"),
    ("saferedir.alpha_scal", UsageError, "has no option 'alpha_scal'"),
    ("saferedir.cooldown", MissingError, "no results at two values"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_one_line(option: str, error: type, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        swept([cell("alpha_scale=1.0"), cell()], option)


def test_a_value_without_a_number_is_left_out() -> None:
    blocked = {name: Metric("higher", reason="blocked") for name in ("fsr", "content_kept", "retain_accuracy")}
    cells = [cell("alpha_scale=1.0"), cell("alpha_scale=5.0", metrics=blocked), cell()]
    (line,) = swept(cells, OPTION)
    assert [point.said for point in line.points] == ["1.0", "2.0"]


def test_values_that_are_no_numbers_are_drawn_too(tmp_path: Path) -> None:
    found = swept([cell("use_mask=False", fsr=70), cell(fsr=90)], "saferedir.use_mask")
    assert [point.said for point in found[0].points] == ["False", "True"]
    draw(found, "saferedir.use_mask", tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert image.width > 300


def test_every_panel_is_in_the_picture(tmp_path: Path) -> None:
    concepts = ("church", "hazard", "vangogh", "hazard2")
    cells = [cell(f"alpha_scale={v}", fsr=20 * v, concept=concept) for v in (1.0, 3.0) for concept in concepts]
    draw(swept(cells, OPTION), OPTION, tmp_path / "c.svg")
    text = (tmp_path / "c.svg").read_text()
    assert all(f"<!-- {concept} × igmu on pocket -->" in text for concept in concepts)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    found = swept([cell("alpha_scale=1.0"), cell()], OPTION)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="cannot write here"):
        draw(found, OPTION, tmp_path / "file" / "c.png")
    with pytest.raises(UsageError, match="no picture's ending"):
        draw(found, OPTION, tmp_path / "c.nothing")
    (tmp_path / "c.png").write_text("mine")
    with pytest.raises(UsageError, match="did not write it"):
        draw(found, OPTION, tmp_path / "c.png")
    for ending in ("png", "svg", "pdf", "eps"):
        for _ in range(2):  # the second time it is our own
            draw(found, OPTION, tmp_path / f"d.{ending}")


def test_all_points_have_what_is_kept_from_one_suite() -> None:
    """A value that was run on a further suite may not take it from there."""
    attacks = [cell(f"alpha_scale={v}" if v else "", suite="mma", metrics={"asr": rate(3, "lower")}) for v in (1.0, "", 3.0)]
    plain = [cell(f"alpha_scale={v}" if v else "", kept=90 + i) for i, v in enumerate((1.0, "", 3.0))]
    (line,) = [each for each in swept([*attacks, *plain, cell("", suite="i2p", kept=50)], OPTION) if each.panel[2] == "mma"]
    assert line.beside == "igmu"
    assert [point.kept["content_kept"].value for point in line.points] == [90, 91, 92]
