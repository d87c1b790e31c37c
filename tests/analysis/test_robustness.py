"""Methods x suites and methods x prompts made against a method: what a rate is, where it stands, and what is not there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from srbench.analysis.records import Metric, turned
from srbench.analysis.results import ResultCell, from_dict, to_dict
from srbench.analysis.robustness import Matrix, matrices, rate_of
from srbench.catalog.specs import Better
from srbench.tables.attacks import tables


def rate(value: float, better: Better = "lower") -> Metric:
    return Metric(better, value, value - 5, value + 5, 32, 32)


def cell(suite: str, method: str = "saferedir", on: str = "none", made: str = "", **metrics: Metric) -> ResultCell:
    return ResultCell(
        "pocket", "hazard", suite, method, on, "", "pocket-hazard", "fp32", "0123", "r", "local", 32, 0, 32, 32, 0, metrics,
        made_against=made,
    )


def test_what_is_not_forgotten_is_the_rate_of_a_suite_without_attacks() -> None:
    found = rate_of(cell("i2p", fsr=replace(rate(90, "higher"), scored=30, worst=80, best=92)))
    assert found == replace(rate(10), low=5, high=15, scored=30, worst=20, best=8)
    assert rate_of(cell("mma", asr=rate(7))) == rate(7)
    assert rate_of(cell("quality", retain_accuracy=rate(7))) is None


@pytest.mark.parametrize("metric", [rate(30), Metric("higher", reason="no forget rows")])
def test_turned_twice_is_the_same(metric: Metric) -> None:
    assert turned(turned(metric)) == metric


def test_suites_stand_in_their_order_and_files_of_attacks_in_a_table_of_their_own() -> None:
    uda = "unlearndiffatk against saferedir"
    suites, attacks = matrices([
        cell("ring-a-bell", asr=rate(20), made="ring-a-bell against none"), cell("i2p", fsr=rate(90, "higher")),
        cell("my-prompts", asr=rate(4)), cell("igmu", fsr=rate(99, "higher")), cell("igmu", "none", fsr=rate(1, "higher")),
        cell("uda-1", asr=rate(40), made=uda), cell("uda-1", "none", "esd-x", asr=rate(50), made=uda),
    ])  # fmt: skip
    assert suites.columns == ("igmu", "i2p", "ring-a-bell", "my-prompts")
    assert list(suites.rows) == ["none", "saferedir"]
    assert (suites.rows["none"]["igmu"].value, "i2p" in suites.rows["none"]) == (99, False)
    assert (attacks.columns, list(attacks.rows)) == ((uda,), ["esd-x", "saferedir"])
    assert (attacks.own("saferedir", uda), attacks.own("esd-x", uda)) == (True, False)


def test_checkpoints_stand_among_the_methods_by_name() -> None:
    lines = [
        ("none", "uce"), ("safree", "uce"), ("safree", "none"), ("negative-prompt", "none"), ("none", "ablation"),
        ("none", "none"),
    ]  # fmt: skip
    (matrix,) = matrices([cell("mma", method, on, asr=rate(7)) for method, on in lines])
    assert list(matrix.rows) == ["none", "ablation", "negative-prompt", "safree", "safree on uce", "uce"]


def test_two_files_against_the_same_method_are_two_columns() -> None:
    uda = "unlearndiffatk against saferedir"
    found = [cell("uda-1", asr=rate(40), made=uda), cell("uda-2", asr=rate(60), made=uda)]
    found.append(cell("uda-2", "uce", asr=rate(9), made=uda))
    (matrix,) = matrices(found)
    assert matrix.columns == (f"{uda} (uda-1)", f"{uda} (uda-2)")
    assert [rate.value for rate in matrix.rows["saferedir"].values()] == [40, 60]
    assert matrix.own("saferedir", f"{uda} (uda-2)")
    assert not matrix.own("uce", f"{uda} (uda-2)")


def test_files_that_only_met_their_own_method_share_a_column_an_attack() -> None:
    found = [
        cell(f"uda-{name}", method, on, f"unlearndiffatk against {name}", asr=rate(value))
        for name, method, on, value in (("uce", "none", "uce", 9), ("sld-max", "sld-max", "none", 40))
    ]
    (matrix,) = matrices(found)
    assert (matrix.columns, "itself" in matrix.title) == (("unlearndiffatk",), True)
    assert {row: rates["unlearndiffatk"].value for row, rates in matrix.rows.items()} == {"uce": 9, "sld-max": 40}
    transferred = cell("uda-uce", "sld-max", "none", "unlearndiffatk against uce", asr=rate(50))
    (matrix,) = matrices([*found, transferred])
    assert len(matrix.columns) == 2
    assert "on others" in matrix.title
    again = cell("uda-2", "sld-max", "none", "unlearndiffatk against sld-max", asr=rate(50))
    assert len(matrices([*found, again])[0].columns) == 3


def test_an_attack_on_a_stacked_method_is_no_attack_on_the_method_alone() -> None:
    matrix = Matrix("", "", (), {})
    assert matrix.own("saferedir on esd-x", "p4d against saferedir on esd-x")
    assert not matrix.own("esd-x", "p4d against saferedir on esd-x")


def test_what_prompts_were_made_against_survives_a_summary() -> None:
    made = cell("uda-1", asr=rate(40), made="unlearndiffatk against saferedir")
    assert from_dict(to_dict(made), source="local") == made
    assert "made_against" not in to_dict(cell("igmu", fsr=rate(1)))


def test_a_line_has_cells_of_one_source() -> None:
    cells = [cell("igmu", fsr=rate(90, "higher")), replace(cell("mma", asr=rate(20)), source="committed")]
    cells.append(replace(cell("mma", "none", asr=rate(80)), source="committed"))
    (matrix,) = matrices(cells)
    assert list(matrix.rows) == ["none", "saferedir (local)", "saferedir (committed)"]
    assert {line: set(rates) for line, rates in matrix.rows.items()} == {
        "none": {"mma"}, "saferedir (local)": {"igmu"}, "saferedir (committed)": {"mma"},
    }  # fmt: skip
    assert matrix.sources["saferedir (committed)"] == ("saferedir", "committed")
    assert matrix.own("saferedir (committed)", "unlearndiffatk against saferedir")
    sheet = tables([matrix]).sheets[0]
    assert [(line[0].text, line[-1].text) for line in sheet.lines] == [
        ("none", "committed"), ("saferedir", "local"), ("saferedir", "committed"),
    ]  # fmt: skip
    (data,) = tables([matrix]).data["attacks"]
    assert data["lines"]["saferedir (local)"] == {"method": "saferedir", "source": "local"}
    assert {(each["method"], each["source"]) for each in tables([matrix]).records} == {
        ("none", "committed"), ("saferedir", "local"), ("saferedir", "committed"),
    }  # fmt: skip


def _on_own(attack: str, label: tuple[str, str], value: float, plain: float = 0.0) -> ResultCell:
    method, on = label
    name = on if method == "none" and on != "none" else method
    return cell(f"{attack}-{name}", method, on, f"{attack} against {name}", asr=rate(value), pre=rate(plain))


NONE, ESD_X, OURS = ("none", "none"), ("none", "esd-x"), ("saferedir", "none")


@pytest.mark.parametrize(("found", "why"), [
    ([_on_own("p4d", NONE, 49)], "49 % of the targets without a defence, where 50 % are asked for"),
    ([_on_own("p4d", NONE, 50)], ""),
    ([_on_own("p4d", NONE, 80), _on_own("p4d", ESD_X, 70, 22)], "+48 points over the plain targets on esd-x"),
    ([_on_own("p4d", NONE, 80), _on_own("p4d", ESD_X, 72, 22)], ""),
    ([_on_own("adaptive-p4d", OURS, 3), _on_own("p4d", OURS, 9)], "3 % on saferedir, where p4d, which it extends, reaches 9 %"),
    ([_on_own("adaptive-p4d", OURS, 9), _on_own("p4d", OURS, 9)], ""),
    ([_on_own("p4d", OURS, 0)], ""),
])  # fmt: skip
def test_an_attack_that_does_not_break_what_breaks_is_called_too_weak(found: list[ResultCell], why: str) -> None:
    (matrix,) = matrices(found)
    assert (list(matrix.weak) == [found[0].made_against.partition(" ")[0]]) is bool(why)
    assert all(why in reason for reason in matrix.weak.values())
    (sheet,) = tables([matrix]).sheets
    assert any("(search too weak)" in column.heading for column in sheet.columns) is bool(why)
    assert any(why in note and note.startswith("Search too weak: ") for note in sheet.notes) is bool(why)


def test_prompts_of_another_method_say_nothing_of_the_search() -> None:
    (matrix,) = matrices([cell("uda", "none", made="unlearndiffatk against saferedir", asr=rate(4))])
    assert not matrix.weak
