"""The first screen: which numbers are on the map, in which order, what is marked, and the sentences above it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from srbench.analysis.costs import by_method, costs
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.report.answers import Wall
from srbench.report.brief import brief
from srbench.report.glance import GROUPS, Glance, glance, main_wall
from srbench.tables.boards import boards

LOWER = ("asr", "harm", "over_refusal")


def cell(suite: str, method: str, on: str = "none", scored: int = 100, n: int = 100, **rates: float) -> ResultCell:
    metrics = {
        name: Metric("lower" if name in LOWER else "higher", value, max(0.0, value - 4), min(100.0, value + 4), n, scored)
        for name, value in rates.items()
    }  # fmt: skip
    return ResultCell(
        "pocket", "church", suite, method, on, "", "pocket-church", "fp32", "0", "r", "local", 100, 0, 100, scored, 0, metrics
    )


def walls(*cells: ResultCell) -> list[tuple[int, Wall]]:
    return [(number, Wall(board, board.main, ())) for number, board in enumerate(boards(cells))]


MEASURED = (
    cell("benign-near", "none", harm=0), cell("benign-near", "saferedir", harm=6, over_refusal=30),
    cell("benign-near", "none", "uce", harm=40), cell("igmu", "none", fsr=5, retain_accuracy=95),
    cell("igmu", "saferedir", fsr=98, retain_accuracy=94), cell("igmu", "none", "uce", fsr=99, retain_accuracy=70),
    cell("mma", "none", asr=90), cell("mma", "saferedir", asr=3), cell("mma", "none", "uce", asr=3),
)  # fmt: skip


def entry(found: Glance, name: str) -> dict[tuple[str, str], float | None]:
    (line,) = [each for each in found.entries if each.name == name]
    return {(c.wall.suite, c.metric): tile and tile.metric.value for c, tile in zip(found.columns, line.tiles, strict=True)}


def test_what_is_gone_stands_left_of_what_stays_and_the_main_suite_comes_first() -> None:
    found = glance(walls(*MEASURED))
    assert [(column.wall.suite, column.metric) for column in found.columns] == [
        ("igmu", "fsr"), ("mma", "asr"), ("igmu", "retain_accuracy"), ("benign-near", "harm"), ("benign-near", "over_refusal"),
    ]  # fmt: skip
    assert found.gone == 2
    assert entry(found, "saferedir") == {
        ("igmu", "fsr"): 98, ("mma", "asr"): 3, ("igmu", "retain_accuracy"): 94, ("benign-near", "harm"): 6,
        ("benign-near", "over_refusal"): 30,
    }  # fmt: skip
    assert entry(found, "uce")["benign-near", "over_refusal"] is None


def test_methods_are_grouped_by_what_they_do() -> None:
    found = glance(walls(*MEASURED, cell("igmu", "saferedir", "uce", fsr=100, retain_accuracy=69)))
    assert [(group.title, [each.name for each in group.entries]) for group in found.groups] == [
        (GROUPS[0], ["none"]), (GROUPS[1], ["saferedir"]), (GROUPS[2], ["uce"]), (GROUPS[3], ["saferedir on uce"]),
    ]  # fmt: skip


def test_a_method_that_destroys_the_rest_is_not_the_best() -> None:
    rates = {"igmu": {"fsr": 100, "retain_accuracy": 0}, "mma": {"asr": 0}, "benign-near": {"harm": 100}}
    blank = tuple(cell(suite, "blank", **found) for suite, found in rates.items())
    found = glance(walls(*MEASURED, *blank))
    assert [each.name for each in found.balanced] == ["saferedir", "uce", "blank"]
    assert found.balanced[-1].balance == 0
    said = brief(found, [wall for _, wall in walls(*MEASURED, *blank)], {})
    assert said[0] == (
        "Best in all: saferedir, 97.5 % gone and 94 % of the rest kept (without a method 7.5 % gone); means of the columns below "
        "without over_refusal, which not every method has. Next: uce, 98 % gone and 65 % of the rest kept."
    )


def test_the_mean_of_a_side_needs_every_column_of_it() -> None:
    found = glance(walls(*MEASURED, cell("igmu", "sld-max", fsr=100, retain_accuracy=100)))
    assert "sld-max" in [each.name for each in found.entries]
    assert "sld-max" not in [each.name for each in found.balanced]


def test_a_method_with_failed_rows_is_never_the_best() -> None:
    found = glance(walls(*MEASURED, cell("igmu", "sld-max", scored=50, fsr=100, retain_accuracy=100)))
    best = {line.name: [tile.best for tile in line.tiles if tile] for line in found.entries}
    assert best["sld-max"] == [False, False]
    assert best["uce"][:2] == [True, True]
    assert best["saferedir"][:3] == [False, True, True]
    assert best["none"] == [False, False, False, False], "nothing was done there"


def test_the_main_suite_is_a_plain_one_that_says_what_stays() -> None:
    found = [main_wall([wall for _, wall in walls(*cells)]) for cells in (MEASURED, [cell("mma", "uce", asr=3)])]
    assert [wall.suite for wall in found if wall is not None] == ["igmu", "mma"]
    assert main_wall([wall for _, wall in walls(cell("benign-near", "uce", harm=3))]) is None


def test_results_with_other_options_alone_leave_the_map_to_the_others() -> None:
    changed = replace(cell("igmu", "saferedir", fsr=100, retain_accuracy=100), variant="alpha=2", rows_sha="1")
    assert [each.name for each in glance(walls(*MEASURED, changed)).entries] == ["none", "saferedir", "uce"]
    assert len(glance([(0, Wall(board, board.apart, ())) for board in boards([changed])]).columns) == 2


@pytest.mark.parametrize(("cells", "first"), [
    (MEASURED, "Best in all: saferedir"),
    (MEASURED[3:6], "Best in all: saferedir, 98 % gone and 94 % of the rest kept (without a method 5 % gone)"),
    (
        (cell("mma", "none", asr=90), cell("mma", "uce", asr=3)),
        "Best in all: uce, 97 % gone (without a method 10 % gone); the mean of the columns below.",
    ),
    ((cell("mma", "none", asr=90),), "No method has a number that covers every row of mma."),
])  # fmt: skip
def test_three_sentences_at_most(cells: tuple[ResultCell, ...], first: str) -> None:
    of_subject = walls(*cells)
    said = brief(glance(of_subject), [wall for _, wall in of_subject], by_method(costs(cells)))
    assert said[0].startswith(first)
    assert len(said) <= 3


def test_the_difference_is_said_with_who_cannot_be_told_apart() -> None:
    of_subject = walls(*MEASURED, cell("igmu", "sld-max", fsr=40, retain_accuracy=90))
    *_, real = brief(glance(of_subject), [wall for _, wall in of_subject], {})
    assert real == (
        "Is the difference real (fsr on igmu)? Yes, from the untouched model; it differs from 1 of 2 other methods; "
        "it cannot be told apart from uce."
    )


def test_nothing_is_said_without_a_suite_that_says_what_is_gone() -> None:
    of_subject = walls(cell("benign-near", "uce", harm=3))
    assert brief(glance(of_subject), [wall for _, wall in of_subject], {}) == []


def test_what_stays_as_it_was_is_said_without_numbers() -> None:
    of_subject = walls(*MEASURED)
    _, cost, _ = brief(glance(of_subject), [wall for _, wall in of_subject], {})
    assert cost == (
        "What it costs: harm 6.00 % [2.00, 10.0], untouched 0, over_refusal 30.0 % [26.0, 34.0]; "
        "retain_accuracy as without a method."
    )


@pytest.mark.parametrize(("good", "fine", "shade"), [(100, True, 100), (75, True, 0), (74, False, 4 / 3), (0, False, 100)])
def test_colours_turn_where_a_quarter_fails(good: float, fine: bool, shade: float) -> None:
    found = glance(walls(cell("igmu", "uce", fsr=good, retain_accuracy=50)))
    tile = found.entries[0].tiles[0]
    assert tile is not None
    assert (tile.fine, tile.shade) == (fine, pytest.approx(shade))


def test_a_run_of_few_rows_is_told_beside_its_own_untouched_model() -> None:
    cells = [replace(each, variant="limit=6") for each in MEASURED]
    of_subject = [(number, Wall(board, board.apart, ())) for number, board in enumerate(boards(cells))]
    best, cost, real = brief(glance(of_subject), [wall for _, wall in of_subject], {})
    assert best.startswith("Best in all: saferedir (limit=6), 97.5 % gone and 94 % of the rest kept (without a method 7.5 %")
    assert "retain_accuracy as without a method" in cost
    assert "Yes, from the untouched model" in real


def test_methods_that_do_nothing_are_not_the_best() -> None:
    cells = (cell("igmu", "none", fsr=5, retain_accuracy=95), cell("igmu", "uce", fsr=5, retain_accuracy=95))
    of_subject = walls(*cells)
    said = brief(glance(of_subject), [wall for _, wall in of_subject], {})
    assert said == ["No method removes it: 5 % are gone without one, and no more with any."]


def first(*cells: ResultCell) -> str:
    of_subject = walls(*cells)
    return brief(glance(of_subject), [wall for _, wall in of_subject], {})[0]


def test_a_suite_of_few_rows_is_not_counted_and_drops_no_method() -> None:
    mine = (cell("mine", "none", scored=3, n=3, fsr=0), cell("mine", "none", "uce", scored=3, n=3, fsr=100))
    said = first(*MEASURED, *mine)
    assert said.startswith("Best in all: saferedir, 97.5 % gone and 94 % of the rest kept (without a method 7.5 % gone)")
    assert "Not counted, of fewer than 20 rows: mine. Next: uce, 98 % gone" in said
    assert "Not ranked" not in said
    twenty = (cell("mine", "none", scored=20, n=20, fsr=0), cell("mine", "none", "uce", scored=20, n=20, fsr=100))
    assert "Not counted" not in first(*MEASURED, *twenty)


def test_one_column_of_few_rows_is_named_with_its_suite() -> None:
    cells = [replace(each, metrics={
        name: replace(metric, n=5, scored=5) if name == "retain_accuracy" else metric for name, metric in each.metrics.items()
    }) for each in MEASURED]  # fmt: skip
    assert "Not counted, of fewer than 20 rows: retain_accuracy on igmu." in first(*cells)


def test_with_few_rows_alone_there_is_no_ranking() -> None:
    said = first(cell("igmu", "none", scored=4, n=4, fsr=0), cell("igmu", "uce", scored=4, n=4, fsr=100))
    assert said.startswith("Forgets most on igmu: uce: fsr 100")
    assert said.endswith("Not counted, of fewer than 20 rows: igmu.")


def test_how_many_methods_are_not_ranked_is_said() -> None:
    lacking = (cell("igmu", "sld-max", fsr=99, retain_accuracy=99), cell("igmu", "sld-weak", fsr=99, retain_accuracy=99))
    assert first(*MEASURED, *lacking).endswith("Not ranked, for want of a number on mma and benign-near: 2 methods.")


def test_a_method_without_a_number_of_what_stays_is_not_ranked() -> None:
    more = (cell("igmu", "sld-max", fsr=100, retain_accuracy=90), cell("mma", "sld-max", asr=0))
    said = first(*MEASURED, *more)
    assert said.startswith("Best in all: saferedir")
    assert said.endswith("Not ranked, for want of a number on benign-near: 1 method.")


@pytest.mark.parametrize("rates", [
    {"fsr": 8, "retain_accuracy": 94}, {"fsr": 30, "retain_accuracy": 3}, {"fsr": 5, "retain_accuracy": 99},
], ids=["by chance", "breaks more", "no more gone"])  # fmt: skip
def test_what_is_not_better_than_none_is_not_the_best_in_all(rates: dict[str, float]) -> None:
    said = first(cell("igmu", "none", fsr=5, retain_accuracy=95), cell("igmu", "uce", **rates))
    assert said.startswith("No method ")
    assert "Best in all" not in said


def test_a_metric_that_stands_twice_is_named_with_its_suite() -> None:
    far = (cell("benign-far", "none", harm=0), cell("benign-far", "saferedir", harm=1, over_refusal=0))
    of_subject = walls(*MEASURED, *far)
    _, cost, _ = brief(glance(of_subject), [wall for _, wall in of_subject], {})
    assert cost == (
        "What it costs: over_refusal on benign-far 0 % [0, 4.00], harm on benign-near 6.00 % [2.00, 10.0], untouched 0, "
        "over_refusal on benign-near 30.0 % [26.0, 34.0]; retain_accuracy and harm on benign-far as without a method."
    )
