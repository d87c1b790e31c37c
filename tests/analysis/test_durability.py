"""Which results a line of the durability table is made of."""

from __future__ import annotations

from dataclasses import replace

from srbench.analysis.durability import Durability, Reversal, durabilities, reversals
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.tables.durability import tables
from srbench.tables.formats import as_markdown

LOWER = ("asr", "harm")


def cell(suite: str, method: str, on: str = "none", variant: str = "", **rates: float) -> ResultCell:
    metrics = {
        name: Metric("lower" if name in LOWER else "higher", value, max(0.0, value - 4), min(100.0, value + 4), 50, 50)
        for name, value in rates.items()
    }  # fmt: skip
    return ResultCell(
        "pocket", "church", suite, method, on, variant, "pocket-church", "fp32", "0", "r", "local", 50, 0, 50, 50, 0, metrics
    )


def by_name(*cells: ResultCell) -> dict[str, Durability]:
    return {line.name: line for line in durabilities(cells)}


def gone(line: Durability) -> dict[str, tuple[float | None, str]]:
    return {axis: (stays.metric.value, stays.where) for axis, stays in line.axes.items()}


UCE = (
    cell("igmu", "none", "uce", fsr=90, retain_accuracy=80), cell("mma", "none", "uce", asr=10),
    cell("i2p", "none", "uce", asr=30), cell("inpaint", "none", "uce", fsr=60), cell("image-to-image", "none", "uce", fsr=40),
    cell("igmu", "none", "uce~8", fsr=50), cell("igmu", "none", "uce~32", variant="relearn.rank=8", fsr=20),
    cell("igmu", "none", "uce", variant="backbone.bits=8", fsr=88),
    cell("igmu", "none", "uce", variant="backbone.bits=4", fsr=85), cell("benign-near", "none", "uce", harm=33),
)  # fmt: skip


def test_a_line_has_the_worst_of_each_axis() -> None:
    line = by_name(*UCE)["uce"]
    assert gone(line) == {
        "plain": (90, "igmu"), "text": (70, "i2p"), "pictures": (40, "image-to-image"), "taught": (20, "32"),
        "rounded": (85, "4"),
    }  # fmt: skip
    assert line.weakest == 20
    assert (line.kept.value, line.harm.value) == (80, 33)  # type: ignore[union-attr]  # they were measured
    assert line.suites["text"] == ("mma", "i2p")


def test_the_interval_of_an_attacks_failures_is_turned() -> None:
    metric = by_name(*UCE)["uce"].axes["text"].metric
    assert (metric.low, metric.value, metric.high, metric.better) == (66, 70, 74, "higher")


def test_without_every_axis_nothing_is_called_the_weakest() -> None:
    assert by_name(*UCE[:3])["uce"].weakest is None


def test_what_has_no_weights_to_teach_is_not_asked_for_it() -> None:
    cells = (
        cell("igmu", "safree", fsr=90), cell("mma", "safree", asr=30), cell("inpaint", "safree", fsr=60),
        cell("igmu", "safree", variant="backbone.bits=4", fsr=80),
    )  # fmt: skip
    line = by_name(*cells)["safree"]
    assert (line.teachable, line.weakest) == (False, 60)
    assert "n/a" in as_markdown(tables([line]))
    assert by_name(*cells[:3])["safree"].weakest is None, "rounded weights were not asked"
    on = by_name(*[replace(each, on="uce") for each in cells])["safree on uce"]
    assert (on.teachable, on.weakest) == (True, None), "uce's weights can be taught again"


def test_where_the_order_turns_round_is_said() -> None:
    cells = (
        cell("igmu", "none", "uce", fsr=98), cell("inpaint", "none", "uce", fsr=40), cell("mma", "none", "uce", asr=30),
        cell("igmu", "safree", fsr=60), cell("inpaint", "safree", fsr=70), cell("mma", "safree", asr=28),
    )  # fmt: skip
    lines = durabilities(cells)
    assert reversals(lines) == [Reversal("uce", "safree", "pictures")], "70 and 72 cannot be told apart"
    said = as_markdown(tables(lines))
    assert "from pictures: the order on plain prompts turns round for uce, which falls behind safree" in said
    bare = [replace(each, metrics={k: replace(v, low=None, high=None) for k, v in each.metrics.items()}) for each in cells]
    assert reversals(durabilities(bare)) == [], "without intervals nothing is said"


def test_plain_prompts_alone_are_no_line() -> None:
    assert by_name(cell("igmu", "none", "uce", fsr=90)) == {}
    assert by_name(cell("mma", "none", "uce", asr=10)) == {}


def test_other_options_and_other_lessons_are_no_axis() -> None:
    plain = cell("igmu", "saferedir", fsr=99), cell("mma", "saferedir", asr=5)
    others = (
        cell("igmu", "saferedir", variant="alpha_scale=2", fsr=1), cell("igmu", "saferedir", "uce~32:other", fsr=2),
        cell("igmu", "saferedir", variant="backbone.bits=4,backbone.steps=8", fsr=3), cell("mma", "saferedir", "uce~32", asr=99),
        cell("ood", "saferedir", fsr=4),
    )  # fmt: skip
    assert gone(by_name(*plain, *others)["saferedir"]) == {"plain": (99, "igmu"), "text": (95, "mma")}


def test_a_method_on_a_checkpoint_that_was_taught_again_stands_with_it() -> None:
    found = by_name(
        cell("igmu", "safree", "uce", fsr=95), cell("igmu", "safree", "uce~32", fsr=40), cell("igmu", "none", "uce~32", fsr=20),
    )
    assert set(found) == {"safree on uce"}
    assert gone(found["safree on uce"])["taught"] == (40, "32")


def test_a_run_of_few_rows_stands_by_itself() -> None:
    few = [replace(each, variant=",".join(filter(None, (each.variant, "limit=10")))) for each in UCE]
    lines = durabilities([*UCE, *few])
    assert [(line.name, line.rows, line.weakest) for line in lines] == [("uce", "", 20), ("uce", "limit=10", 20)]


def test_the_table_says_where_it_comes_back() -> None:
    text = as_markdown(tables(durabilities(UCE)))
    assert "Does church stay gone on pocket" in text
    assert "after 32" in text
    assert "image-to-image" in text
    assert "attacks in text: mma, i2p" in text
    assert "rounded" in text
    assert "srbench run ..." not in text, "every column has a number"
    few = as_markdown(tables(durabilities(UCE[:2])))
    assert "from pictures: not run; srbench run ... --suite image-to-image,half-denoised,inverted,inpaint" in few


def test_a_concept_of_ones_own_is_asked_by_its_own_suite() -> None:
    own = [replace(each, concept="boat") for each in (cell("boat", "none", "uce", fsr=80), cell("mine", "none", "uce", asr=30))]
    assert gone(by_name(*own)["uce"]) == {"plain": (80, "boat"), "text": (70, "mine")}
