"""What the report says in sentences: who is named first where methods forget equally well."""

from __future__ import annotations

from srbench.analysis.costs import Cost
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.report.answers import Wall, answers, spent
from srbench.tables.boards import boards


def cell(suite: str, method: str, **rates: float) -> ResultCell:
    metrics = {
        name: Metric("lower" if name == "asr" else "higher", value, max(0.0, value - 4), min(100.0, value + 4), 100, 100)
        for name, value in rates.items()
    }  # fmt: skip
    return ResultCell(
        "pocket", "church", suite, method, "none", "", "pocket-church", "fp32", "0", "r", "local", 100, 0, 100, 100, 0, metrics
    )


def walls(*cells: ResultCell) -> list[Wall]:
    return [Wall(board, board.cells, ()) for board in boards(cells)]


def test_of_methods_that_forget_equally_well_the_gentlest_is_named_first_on_every_suite() -> None:
    found = answers(walls(
        cell("igmu", "none", fsr=5, content_kept=97), cell("igmu", "ablation", fsr=100, content_kept=39),
        cell("igmu", "saferedir", fsr=100, content_kept=99), cell("igmu", "uce", fsr=97, content_kept=100),
        cell("mma", "none", asr=85), cell("mma", "ablation", asr=0), cell("mma", "saferedir", asr=0), cell("mma", "uce", asr=2),
    ), None)  # fmt: skip
    best, cost, real, _ = found
    assert [line.partition(";")[0] for line in best.lines] == ["igmu: saferedir and ablation", "mma: saferedir and ablation"]
    assert cost.lines[0].startswith("Of the rest stays under saferedir")
    assert all("saferedir" in line for line in real.lines if "against" in line or "shown" in line)


def test_a_method_that_forgets_less_is_not_named_for_what_it_keeps() -> None:
    best, *_ = answers(walls(cell("igmu", "none", fsr=5), cell("igmu", "uce", fsr=97), cell("igmu", "rece", fsr=96)), None)
    assert best.lines[0].startswith("igmu: uce; most forgotten")


def test_what_several_suites_ask_for_is_said_with_the_suite_and_the_most_often_best_comes_first() -> None:
    _, cost, *_ = answers(walls(
        cell("evolved", "none", asr=84), cell("evolved", "uce", asr=0), cell("evolved", "saferedir", asr=5),
        cell("i2p", "none", fsr=7, content_kept=91), cell("i2p", "saferedir", fsr=100, content_kept=95),
        cell("igmu", "none", fsr=5, content_kept=97, style_kept=100),
        cell("igmu", "saferedir", fsr=100, content_kept=99, style_kept=98),
        cell("igmu", "uce", fsr=97, content_kept=92, style_kept=98),
    ), None)  # fmt: skip
    assert cost.lines[0].startswith("Of the rest stays under saferedir")
    kept = "content_kept on i2p 95.0 % (91.0), content_kept on igmu 99.0 % (97.0), style_kept 98.0 % (100)."
    assert cost.lines[0].endswith(kept)
    assert cost.lines[1].startswith("Of the rest stays under uce")


def test_one_timed_batch_is_no_cost() -> None:
    one = Cost("pocket", "uce", 1, None, 2361.1, None, None, None, None)
    assert spent(one) == ["additional time an image not known, one batch was timed"]
    assert spent(Cost("pocket", "uce", 1, 3.0, 20.0, 18.0, 22.0, 10, None)) == [
        "+20 ms an image [18.0, 22.0]", "made in 3 s", "10 parameters more",
    ]  # fmt: skip
