"""The terminal's tables: who stands where, what is marked, and what is said about the rest."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from srbench.analysis.origin import Origin, told_by
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell, from_dict, result, title_of, to_dict
from srbench.errors import UsageError
from srbench.tables import terminal
from srbench.tables.boards import GAINED, boards, family_note, tables
from srbench.tables.compare import CompareOptions
from srbench.tables.numbers import DASH, STAR, Shown, digits, shown
from srbench.tables.sheet import Reasons


def cell(method: str = "saferedir", **fields) -> ResultCell:
    """A finished cell; metrics as numbers: 40 rows, all scored."""
    given = {
        "backbone": "pocket", "concept": "hazard", "suite": "igmu", "method": method, "on": "none", "variant": "",
        "protocol": "pocket-hazard", "dtype": "fp32", "rows_sha": "0123456789abcdef", "run": "r1", "source": "local",
        "n_loaded": 40, "n_excluded": 0, "n_run": 40, "n_scored": 40, "n_failed": 0, "metrics": {"fsr": fsr(50)},
    }  # fmt: skip
    return ResultCell(**{**given, **fields})


def fsr(value: float, **fields) -> Metric:
    """A rate over 40 rows."""
    return Metric(**{"better": "higher", "value": value, "low": value - 5, "high": value + 5, "n": 40, "scored": 40, **fields})


def low(value: float) -> Metric:
    """A mean of which less is better."""
    return fsr(value, better="lower")


def text(
    cells: list[ResultCell], width: int = 100, notes: dict[str, str] | None = None, sort: str | None = None, plain: bool = False
) -> str:
    """What the terminal shows."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(terminal.render(tables(cells, notes, sort), width, plain))
    return console.file.getvalue()


def lines(cells: list[ResultCell], **options) -> dict[str, str]:
    """Row of the table by its first word or words."""
    return {line.split("  ")[0].strip(): line for line in text(cells, **options).splitlines() if line.strip()}


def test_one_table_per_concept_and_suite_with_none_first() -> None:
    cells = [cell("safree"), cell("saferedir", on="esd"), cell("none"), cell("none", suite="mma", metrics={"asr": low(80)})]
    first, second = boards(cells)
    assert [each.label for each in first.main] == ["none", "saferedir on esd", "safree"]
    assert first.title == "hazard × igmu on pocket"
    assert second.title == "hazard × mma on pocket"


@pytest.mark.parametrize("field", ["backbone", "protocol", "dtype", "rows_sha"])
def test_what_is_not_comparable_gets_a_table_of_its_own(field: str) -> None:
    assert len(boards([cell(), cell("none", **{field: "other"})])) == 2


def test_the_best_value_has_the_star_in_each_direction() -> None:
    cells = [cell("a", metrics={"fsr": fsr(90), "csdr": low(19)}), cell("b", metrics={"fsr": fsr(80), "csdr": low(3)})]
    found = lines(cells)
    assert f"{STAR} 90.0" in found["a"]
    assert f"{STAR} 3.00" in found["b"]
    assert found["a"].count(STAR) == found["b"].count(STAR) == 1


def test_equal_best_values_share_the_star_and_an_even_field_has_none() -> None:
    assert text([cell("a", metrics={"fsr": fsr(90)}), cell("b", metrics={"fsr": fsr(90)})]).count(STAR) == 0
    three = [cell(name, metrics={"fsr": fsr(value)}) for name, value in (("a", 90), ("b", 90), ("c", 80))]
    assert text(three).count(f"{STAR} 90.0") == 2


@pytest.mark.parametrize(
    "broken",
    [
        {"metrics": {"fsr": fsr(99, scored=39, worst=96, best=99)}},
        {"metrics": {"fsr": fsr(99)}, "n_scored": 39, "n_failed": 1},
        {"metrics": {"fsr": fsr(99)}, "variant": "limit=8"},
    ],
    ids=["metric partly scored", "cell partly scored", "limited"],
)
def test_no_star_for_failures_or_limited_runs(broken: dict) -> None:
    cells = [cell("a", **broken), cell("b", metrics={"fsr": fsr(80)}), cell("c", metrics={"fsr": fsr(70)})]
    found = lines(cells)
    assert STAR not in next(line for name, line in found.items() if name.startswith("a"))
    assert STAR in found["b"]


def test_a_limited_run_that_equals_the_best_has_no_star() -> None:
    cells = [cell("a", metrics={"fsr": fsr(90)}), cell("b"), cell("a", metrics={"fsr": fsr(90)}, variant="limit=8")]
    assert text(cells).count(f"{STAR} 90.0") == 1


@pytest.mark.parametrize("name", ["csdr_floor", "added_ms"])
def test_what_is_not_a_virtue_has_no_star(name: str) -> None:
    assert STAR not in text([cell("a", metrics={name: low(1)}), cell("b", metrics={name: low(9)})])


def test_headers_have_arrows_and_rows_their_coverage_and_source() -> None:
    found = text([cell(metrics={"fsr": fsr(90), "csdr": low(3)}), cell("none", n_excluded=3, source="committed")])
    assert "fsr ↑" in found
    assert "csdr ↓" in found
    assert "40/40 (3 excluded)  committed" in found
    assert "Rows were excluded" in found


def test_what_only_committed_cells_were_scored_with_has_no_column_beside_ones_own() -> None:
    more = cell("none", source="committed", metrics={"fsr": fsr(5), "fd_pocket": low(1)})
    assert boards([cell(), more])[0].metrics == ("fsr",)
    assert boards([more])[0].metrics == ("fsr", "fd_pocket")
    assert boards([cell(metrics=more.metrics), more])[0].metrics == ("fsr", "fd_pocket")


def test_limited_runs_stand_below_a_rule() -> None:
    """Where their limit leaves all rows: of other rows they are not comparable, and have a table of their own."""
    assert "╌" not in text([cell("saferedir", variant="limit=8", rows_sha="ffff"), cell("none")])
    found = text([cell("saferedir", variant="limit=8"), cell("none")]).splitlines()
    rule = next(index for index, line in enumerate(found) if "╌" in line)
    assert any(line.startswith("none") for line in found[:rule])
    assert any(line.startswith("saferedir (limit=8)") for line in found[rule:])


def test_limited_runs_alone_need_no_rule() -> None:
    assert "╌" not in text([cell(variant="limit=8"), cell("none", variant="limit=8")])


def test_reasons_are_said_in_the_cell_or_below_the_table() -> None:
    long = "checkpoint esd.safetensors does not load: 3 keys are missing"
    metrics = {"fsr": Metric("higher", reason=long), "over_refusal": Metric("lower", reason="is the baseline")}
    found = text([cell(metrics=metrics)])
    assert "n/a (1)" in found
    assert f"1) n/a: {long}" in found
    assert "n/a (is the" in found
    assert "baseline)" in found


def test_partly_scored_values_show_their_bounds_and_count() -> None:
    found = text([cell(metrics={"fsr": fsr(75, scored=36, worst=67.5, best=77.5)})])
    assert "67.5 to 77.5" in found
    assert "n 36/40" in found
    assert "over the scored ones" in found


def test_brackets_are_text_and_not_markup() -> None:
    assert "[45.0, 55.0]" in text([cell(variant="[bold]x[/]")])
    assert "([bold]x[/])" in text([cell(variant="[bold]x[/]")])


def test_a_narrow_terminal_loses_no_metric() -> None:
    names = (
        "fsr",
        "fsr_unseen",
        "retain_accuracy",
        "style_kept",
        "content_kept",
        "csdr",
        "csdr_floor",
        "over_refusal",
        "added_ms",
    )
    cells = [cell(method, metrics=dict.fromkeys(names, fsr(55.5))) for method in ("none", "saferedir-upstream")]
    for width in (50, 80, 200):
        found = text(cells, width=width)
        assert max(map(len, found.splitlines())) <= width
        assert found.count("55.5\n") + found.count("55.5 ") == 2 * len(names)
        assert found.count("coverage") == 1
    assert text(cells, width=200).count("method") == 1


def test_what_is_not_known_of_a_judge_stands_below_its_table() -> None:
    assert "is not verified" in " ".join(text([replace(cell(), protocol="igmu-church")]).split())
    assert "is not verified" not in text([cell()])


def test_footnotes_by_name() -> None:
    assert "countdown does not leak" in text([cell("saferedir-upstream")])
    assert "countdown" not in text([cell("saferedir")])
    assert "* unverified source" in text([cell()], notes={"igmu": "unverified source", "mma": "another"})
    assert "another" not in text([cell()], notes={"igmu": "unverified source", "mma": "another"})


def test_no_cells_are_said() -> None:
    assert text([]).strip() == "no results"


@pytest.mark.parametrize(
    ("value", "shown_as"),
    [
        (0.16, "0.16"), (0.0201, "0.020"), (-0.03, "-0.030"), (0.0996, "0.10"), (0, "0"), (100.0, "100"), (99.98, "100.0"),
        (9.996, "10.0"), (-0.5, "-0.50"), (142.31, "142.3"),
    ],
)  # fmt: skip
def test_numbers_keep_the_digits_that_matter(value: float, shown_as: str) -> None:
    assert digits(value) == shown_as


def test_a_value_without_an_interval_shows_none() -> None:
    assert shown(Metric("lower", 3.0, n=2, scored=2, reason="nothing to resample: no interval")).interval == ""
    assert shown(Metric("lower", float("nan"))).reason == "not a finite number"
    assert shown(None) == Shown(DASH)


def test_a_long_reason_is_said_once() -> None:
    reasons = Reasons()
    assert [reasons.brief(each) for each in ("x" * 40, "short", "y" * 40, "x" * 40)] == ["1", "short", "2", "1"]
    assert reasons.notes() == [f"n/a (1): {'x' * 40}", f"n/a (2): {'y' * 40}"]


def test_result_counts_rows(make) -> None:
    rows = [make.forget(0, make.image()), make.forget(1, None), make.forget(2, make.image({}))]
    rows.append(make.retain(3, make.image(make.raw({"cat": 0.9}), errors={"pocket-judge": "crashed"})))
    found = result(make.cell(*rows, n_loaded=9, n_excluded=5), make.hazard)
    assert (found.n_loaded, found.n_excluded, found.n_run, found.n_scored, found.n_failed) == (9, 5, 4, 1, 2)


def test_seeds_of_one_prompt_are_one_trial_of_a_rate(make) -> None:
    drawn = make.image(make.raw({"cat": 0.9}))
    rows = [make.forget(i, drawn, prompt=f"prompt {i % 2}") for i in range(6)]
    found = result(make.cell(*rows, metrics=("fsr",)), make.hazard)
    assert (found.metrics["fsr"].scored, found.metrics["fsr"].trials) == (6, 2)
    assert from_dict(to_dict(found)).metrics["fsr"].trials == 2


def test_result_keeps_identity_and_metrics(make) -> None:
    record = make.cell(make.forget(0, make.image(make.raw({"cat": 0.9}))), on="esd", source="committed", metrics=("fsr",))
    found = result(record, make.hazard)
    assert (found.label, found.source, found.run) == ("saferedir on esd", "committed", "r1")
    assert found.metrics["fsr"].value == 100


LONG = "redirector=all-concepts@889da912,alpha_scale=0.5,rows=alone"


@pytest.mark.parametrize("width", [60, 80])
def test_long_names_wrap_and_push_nothing_out(width: int) -> None:
    metrics = {"fsr": fsr(55.5), "retain_accuracy": fsr(66.6), "content_kept": fsr(77.7, scored=38, worst=70, best=75)}
    cells = [cell("none", metrics=metrics), cell("saferedir", on="esd-x", variant=LONG, n_excluded=30, metrics=metrics)]
    found = text(cells, width)
    assert max(map(len, found.splitlines())) <= width
    assert "…" not in found
    for value in ("55.5", "66.6", "77.7", "[72.7, 82.7]", "70.0 to 75.0", "n 38/40", "40/40 (30 excluded)"):
        assert value in found
    assert LONG.replace(",", "") in "".join(line.split("  ")[0].strip() for line in found.splitlines()).replace(",", "")


def test_a_very_narrow_terminal_puts_coverage_below() -> None:
    found = text([cell("a-method-with-a-name", n_excluded=30)], 44)
    assert max(map(len, found.splitlines())) <= 44
    assert found.index("50.0") < found.index("coverage")


def test_sorted_by_a_metric_the_best_comes_first_and_what_has_no_value_last() -> None:
    cells = [cell(name, metrics={"fsr": fsr(value)}) for name, value in (("none", 5), ("b", 80), ("c", 90))]
    cells.append(cell("d", metrics={"fsr": Metric("higher", reason="blocked")}))
    assert [each.method for each in boards(cells, sort="fsr")[0].cells] == ["c", "b", "none", "d"]
    assert [each.method for each in boards(cells)[0].cells] == ["none", "b", "c", "d"]
    less = [cell("none", metrics={"asr": low(80)}), cell("b", metrics={"asr": low(3)})]
    assert [each.method for each in boards(less, sort="asr")[0].cells] == ["b", "none"]
    with_more = [*less, cell("c", suite="mma")]
    assert [each.method for each in boards(with_more, sort="fsr")[0].cells] == ["none", "b"]


def test_a_metric_that_no_cell_has_is_refused_where_it_is_to_sort_by() -> None:
    with pytest.raises(UsageError, match="no result has metric 'frs'") as caught:
        boards([cell()], sort="frs")
    assert "Did you mean 'fsr'?" in caught.value.hint


def test_data_stand_in_the_order_of_the_tables() -> None:
    made = tables([cell("safree"), cell("none", suite="mma"), cell("none"), cell("ablation")])
    shown = [(sheet.title, line[0].text) for sheet in made.sheets for line in sheet.lines]
    data = [(title_of(from_dict(each)), each["method"]) for each in made.data["cells"]]
    assert shown == data
    assert list(dict.fromkeys((record["suite"], record["method"]) for record in made.records)) == [
        ("igmu", "none"), ("igmu", "ablation"), ("igmu", "safree"), ("mma", "none"),
    ]  # fmt: skip


def test_p_values_say_their_test_and_family() -> None:
    tested = fsr(5, test="mcnemar", p=0.01, p_holm=0.02)
    (gain,) = boards([cell(on="esd-x", metrics={"fsr": fsr(50), "fsr_gain": tested})])
    (difference,) = boards([cell(metrics={"fsr": fsr(50), "fsr_diff": tested})])
    assert [note for note in gain.notes if "two-sided" in note or "_gain" in note] == [GAINED, family_note(1)]
    assert [note for note in difference.notes if "two-sided" in note] == [family_note(1)]
    assert "the only test of this table" in family_note(1)
    assert not any("two-sided" in note for note in boards([cell()])[0].notes)


def test_what_was_made_again_is_told_apart_by_its_runs() -> None:
    """As after a training or an attack of a study was changed."""
    again = [
        cell(variant=f"redirector=mine@{sha * 8},limit=2", run=run, rows_sha=sha * 16, metrics={"fsr": fsr(50)})
        for sha, run in (("a", "r1"), ("b", "r2"))
    ]
    notes = [board.notes for board in boards(again)]
    assert len(notes) == 2
    for each in notes:
        assert "saferedir, redirector=mine: 2 versions. @aaaaaaaa is of run r1; @bbbbbbbb is of run r2." in each
        assert "igmu, rows: 2 versions. aaaaaaaa is of run r1; bbbbbbbb is of run r2." in each
    assert not any("versions" in note for note in boards([cell(), cell(variant="limit=2", rows_sha="b" * 16)])[0].notes)


def test_no_number_is_a_negative_zero() -> None:
    for value in (-0.0, -0.0001, -0.0004999, 0.0):
        assert digits(value) in ("0", "0.000")
    assert digits(-0.0006) == "-0.001"


def test_too_few_rows_are_said_with_what_they_settle() -> None:
    assert "n = 32 (fsr): ±16 points" in text([cell(metrics={"fsr": fsr(50, n=32, scored=32)}), cell("none")])
    assert "points at a rate" not in text([cell(metrics={"fsr": fsr(50, n=100, scored=100)})])
    assert "points at a rate" not in text([cell(metrics={"csdr": low(5)})])
    # Many seeds of few prompts are few trials.
    assert "n = 20 (fsr): ±20 points" in text([cell(metrics={"fsr": fsr(50, n=100, scored=100, trials=20)})])


def test_a_difference_has_its_sign_without_a_test_too() -> None:
    assert shown(Metric("higher", 12.5, 4.0, 20.0, 40, 40, test="intervals")) == Shown("+12.5", "[4.00, 20.0]")


def test_plain_tables_have_no_box_characters() -> None:
    assert not set("─╌│┃━") & set(text([cell(), cell("none", variant="limit=2")], plain=True))


# --- what a number rests on -------------------------------------------------------------------------------------------


def test_all_tests_of_one_table_are_one_family() -> None:
    """Gains of two runs, each corrected alone, and a difference: three tests, whose smallest p is tripled."""
    gain = fsr(5, test="mcnemar", p=0.01, p_holm=0.01)
    again = fsr(5, test="mcnemar", p=0.01, p_holm=0.11)
    other = fsr(2, test="permutation", p=0.2, p_holm=0.2)
    cells = [
        cell("a", on="esd-x", metrics={"fsr": fsr(50), "fsr_gain": gain}),
        cell("b", on="esd-x", run="r2", metrics={"fsr": fsr(50), "fsr_gain": again, "fsr_diff": other}),
    ]
    (board,) = boards(cells)
    found = [metric.p_holm for each in board.cells for metric in each.metrics.values() if metric.p is not None]
    assert found == pytest.approx([0.03, 0.03, 0.2])
    assert family_note(3) in board.notes
    assert "over the 3 tests of this table" in family_note(3)
    written = [metric["p_holm"] for each in tables(cells).data["cells"] for metric in each["metrics"].values() if "p" in metric]
    assert written == pytest.approx(found)


def test_a_test_without_a_column_is_not_of_the_table() -> None:
    """What only committed cells have has no column beside ones own."""
    hidden = cell("b", source="committed", metrics={"fsr": fsr(50), "fsr_gain": fsr(5, test="mcnemar", p=0.01, p_holm=0.01)})
    (board,) = boards([cell("a"), hidden])
    assert "fsr_gain" not in board.metrics
    assert (board.cells[1].metrics["fsr_gain"].p, board.cells[1].metrics["fsr_gain"].p_holm) == (0.01, None)


def test_a_best_value_that_no_test_tells_from_the_next_has_no_star() -> None:
    """Differences of 7 and 8 points; the interval of each reaches 5 * sqrt(2) = 7.07 to either side."""
    def stars(value: float) -> int:
        return text([cell("a", metrics={"fsr": fsr(80 + value)}), cell("b", metrics={"fsr": fsr(80)})]).count(f"{STAR} 8")

    assert (stars(7), stars(8)) == (0, 1)
    found = text([cell("a", metrics={"fsr": fsr(90)}), cell("b", metrics={"fsr": fsr(80)})])
    assert "a test tells it from the next best" in " ".join(found.split())
    assert "next best" not in text([cell("a", metrics={"fsr": fsr(81)}), cell("b", metrics={"fsr": fsr(80)})])


def test_a_time_whose_interval_is_wider_than_itself_is_a_bound() -> None:
    """4 ms [-6, 14]: 20 ms wide. Of 200 ms of `none` its far end is 7 %."""
    def time(value: float, **fields) -> Metric:
        return Metric(**{"better": "lower", "value": value, "low": value - 10, "high": value + 10, "n": 9, "scored": 9, **fields})

    cells = [cell("a", metrics={"added_ms": time(4, base=200.0)}), cell("b", metrics={"added_ms": time(21)})]
    found = " ".join(text(cells).split())
    assert "not resolved" in found
    assert "within ±7.00 %" in found
    assert "21.0" in found
    assert "[11.0, 31.0]" in found
    assert "wider than the difference" in found
    assert "within ±14.0 ms" in text([cell(metrics={"added_ms": time(4)})])
    alone = text([cell(metrics={"added_ms": time(21, low=None, high=None, reason="one batch was timed: no interval")})])
    assert "(one batch)" in alone
    assert "of one timed batch there is no interval" in " ".join(alone.split())


def test_the_seed_to_seed_level_is_not_called_a_floor() -> None:
    found = text([cell(metrics={"fsr": fsr(50), "csdr_floor": low(5)})])
    assert "csdr seed-" in found
    assert "to-seed ↓" in found
    assert "`csdr_floor` in files" in found
    assert "floor ↓" not in found


def test_an_interval_over_phrases_stands_below_the_one_over_rows() -> None:
    over = fsr(50, n=100, scored=100, phrases=14, phrase_low=30.0, phrase_high=70.0)
    few = fsr(40, n=60, scored=60, phrases=3)
    mixed = fsr(40, n=60, scored=60, phrases=9)
    found = " ".join(text([cell("a", metrics={"fsr": over, "fsr_unseen": few}), cell("b", metrics={"fsr": mixed})]).split())
    assert "[45.0, 55.0]" in found
    assert "§ [30.0, 70.0]" in found
    assert "fsr n 100, 14 phrases; fsr n 60, 9 phrases, some rows name none: no interval" in found
    assert "fsr_unseen n 60, 3 phrases, too few for an interval" in found
    assert "§" not in text([cell(metrics={"fsr": few})])


def test_a_rate_beside_none_says_of_how_many_rows_it_is() -> None:
    mine = cell(metrics={"fsr": fsr(50), "fsr_if_drawn": fsr(40, n=30, scored=30)})
    none = cell("none", metrics={"fsr": fsr(25), "fsr_if_drawn": Metric("higher", reason="is the baseline")})
    found = " ".join(text([mine, none]).split())
    assert "fsr_if_drawn: fsr on the 30 of 40 rows on which `none` shows the concept." in found
    alone = cell(metrics={"fsr": fsr(50), "fsr_if_drawn": Metric("higher", reason="no run of 'none' on these rows")})
    assert boards([alone])[0].metrics == ("fsr",)
    assert "fsr_if_drawn: n/a (no run of 'none' on these rows)." in " ".join(text([alone]).split())
    assert boards([none])[0].metrics == ("fsr",)


def test_rows_of_two_models_are_not_called_two_versions() -> None:
    """As of the committed results of both editions of pocket, which stand in one table of costs."""
    editions = [cell(rows_sha=sha * 16, run=f"r{sha}", origin=Origin(backbone_sha=sha * 16)) for sha in ("a", "b")]
    assert told_by(editions) == []
    same = [cell(rows_sha=sha * 16, run=f"r{sha}") for sha in ("a", "b")]
    assert told_by(same) == ["igmu, rows: 2 versions. aaaaaaaa is of run ra; bbbbbbbb is of run rb."]


def test_a_weight_method_is_chosen_by_its_name_and_none_is_the_untouched_model() -> None:
    def fits(checkpoint: str, method: str, **options: tuple[str, ...]) -> bool:
        cell = ResultCell(
            "pocket", "hazard", "igmu", method, checkpoint, "", "pocket-hazard", "fp32", "0", "r", "local", 1, 0, 1, 1, 0, {}
        )
        return CompareOptions(Path("results"), **options).fits(cell)

    assert fits("uce", "none", methods=("uce",))
    assert not fits("uce", "none", methods=("none", "saferedir"))
    assert fits("none", "none", methods=("none", "saferedir"))
    assert fits("uce", "saferedir", methods=("saferedir",))
    assert not fits("uce", "saferedir", methods=("uce",))
    assert fits("uce", "none", methods=("none",), on=("none", "uce")), "where checkpoints are chosen, as `run` says it"
