"""Changes, attacks and rates by threshold on a terminal: nothing is lost where it is narrow, and a row's command is named."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from srbench.analysis.differences import Comparison, comparisons
from srbench.analysis.records import Metric
from srbench.analysis.robustness import matrices
from srbench.analysis.robustness import to_dict as matrix_to_dict
from srbench.analysis.sensitivity import curves
from srbench.tables import attacks, changes, formats, sensitivity, terminal
from srbench.tables.boards import tables
from srbench.tables.sheet import Column, Item, Layout, Section, Sheet, Tables
from tests.analysis.test_differences import _judge, columns, entry
from tests.analysis.test_robustness import cell, rate
from tests.analysis.test_sensitivity import boxed

__all__ = ["_judge"]


def shown(comparisons: list[Comparison], width: int = 100, plain: bool = False, folder: str = "results") -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(terminal.render(changes.tables(comparisons, Path(folder)), width, plain))
    return console.file.getvalue()


def test_the_text_says_what_changed_and_how_to_see_the_rows(make) -> None:
    made = comparisons([(entry(make, range(20), method="none"), entry(make, range(18, 25)))])
    text = shown(made)
    assert "from none to saferedir" in text
    assert "better: fsr" in text
    assert "fsr: 5 rows lost, 18 gained" in text
    assert text.count("srbench show forget-") == 10
    assert "gained: 13 more" in text
    assert "lost: 0 more" not in text
    assert "srbench show forget-20 --out 'my results'" in shown(made, folder="my results")
    assert "n = 10 (retain_accuracy): ±26 points" in text


@pytest.mark.parametrize("width", [60, 80])
def test_narrow_terminals_lose_nothing(make, width: int) -> None:
    a = entry(make, range(20), method="none")
    b = entry(make, range(5), method="saferedir-upstream", variant="alpha_scale=0.5,cooldown=2,part=dev,limit=8")
    text = shown(comparisons([(a, b)]), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for word in ("50.0", "87.5", "+37.5", "p < 0.001", "better", "not shown"):
        assert word in text


def test_plain_text_has_no_box_characters(make) -> None:
    made = comparisons([(entry(make, range(20), method="none"), entry(make, range(5)))])
    assert "─" in shown(made)
    assert not set("─╌│┃━") & set(shown(made, plain=True))


def test_differences_survive_every_format_with_sign_and_p(make) -> None:
    cells = columns(make)
    assert "+37.5" in formats.write(tables(cells), "md")
    assert "p &lt; 0.001" in formats.write(tables(cells), "html")
    assert "mcnemar" in formats.write(tables(cells), "csv")
    metric = json.loads(formats.write(tables(cells), "json"))["cells"][1]["metrics"]["fsr_diff"]
    assert (metric["test"], metric["p"]) == ("mcnemar", pytest.approx(2 * 0.5**15))


def test_every_form_says_value_interval_and_whose_attack_it_is() -> None:
    uda = "unlearndiffatk against saferedir"
    none = Metric("lower", reason="no rows")
    made = matrices([cell("uda-1", asr=rate(40), made=uda), cell("uda-1", "sld-max", asr=none, made=uda)])
    shown = terminal.plain_text(terminal.render(attacks.tables(made), 100, plain=True), 100)
    for text, marks in ((shown, ("own", "n/a")), (formats.write(attacks.tables(made), "md"), ("(own)", "n/a"))):
        for part in ("40.0", "[35.0, 45.0]", "sld-max", *marks):
            assert part in text
    data = matrix_to_dict(made[0])
    assert data["rows"]["saferedir"][uda]["value"] == 40
    assert data["rows"]["sld-max"][uda]["reason"] == "no rows"


def test_every_rate_that_is_missing_says_why_and_own_is_explained() -> None:
    uda, why = "unlearndiffatk against saferedir", "no score by pocket-judge for any of the images"
    none = Metric("lower", reason=why)
    made = attacks.tables(matrices([cell("uda-1", asr=none, made=uda), cell("uda-1", "sld-max", asr=rate(40), made=uda)]))
    shown = terminal.plain_text(terminal.render(made, 100, plain=True), 100)
    for text in (shown, formats.write(made, "md"), formats.write(made, "html")):
        assert "n/a, own (1)" in text
        assert why in text
    for own in (True, False):
        rates = matrices([cell("uda-1", "saferedir" if own else "sld-max", asr=rate(40), made=uda)])
        assert (attacks.OWN_PROMPTS in attacks.tables(rates).sheets[0].notes) is own


def test_rates_by_threshold_say_why_there_is_none_and_how_few_the_rows_are(make: SimpleNamespace) -> None:
    cells = [make.cell(make.forget(0, make.image({}))), make.cell(*boxed(make, 0.3, 0.95), method="none")]
    made = sensitivity.tables(list(curves(cells, make.boxes, [make.boxes], (0.5,))))
    text = terminal.plain_text(terminal.render(made, 100, plain=True), 100)
    assert "n/a (1)" in text
    assert re.search(r"^1\) n/a: .*no score", text, re.MULTILINE)
    assert "* n = 2 (fsr): ±" in text


@pytest.mark.parametrize("width", [60, 160])
def test_it_fits_a_terminal(make: SimpleNamespace, width: int) -> None:
    made = list(curves([make.cell(*boxed(make, 0.3, 0.95))], make.boxes, [make.boxes]))
    text = terminal.plain_text(terminal.render(sensitivity.tables(made), width), width)
    assert "hazard × igmu: fsr ↑ by threshold" in text
    assert text.count("(own)") == 2
    assert f"| {make.boxes.threshold:g} (own) |" in " ".join(formats.write(sensitivity.tables(made), "md").split())
    assert f"{sensitivity.OWN}" in text.replace("\n", " ")
    assert "50.0" in text
    assert max(map(len, text.splitlines())) <= width


def test_the_notes_say_how_many_rows_are_behind_each_rate() -> None:
    made = attacks.tables(matrices([
        cell("igmu", fsr=rate(40, "higher")), cell("mma", asr=rate(50)),
        cell("mma", "sld-max", asr=Metric("lower", 5.0, n=9, scored=9)),
    ]))  # fmt: skip
    (sheet,) = made.sheets
    n = rate(50).scored
    assert f"Rows behind each rate: n = {n} (igmu); n = 9 to {n} (mma)." in sheet.notes


def test_no_format_writes_what_is_empty() -> None:
    made = Tables("page", (Sheet("title", "", (Column("method", "l"),), (Section("", ((Item("none"),),)),)),), (), (), {})
    for layout in (Layout(), Layout(paper=True)):
        bare = replace(made, layout=layout)
        assert not re.search(r"<(\w+)[^>]*></\1>", formats.write(bare, "html"))
        assert "parbox" not in formats.write(bare, "latex")
        assert r"\caption{title}" in formats.write(bare, "latex")
        assert not re.search(r"\(\)|^-\s*$", formats.write(bare, "md"), re.MULTILINE)
