"""Intervals against published examples, and what must hold for all of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from srbench.analysis.intervals import (
    Fourfold,
    bootstrap_mean,
    clustered_wilson,
    fourfold,
    newcombe,
    paired_difference,
    phrase_wilson,
    resolution,
    unpaired_difference,
    wilson,
)


@pytest.mark.parametrize(
    ("k", "n", "value", "low", "high"),
    [(2, 1250, 0.16, 0.04, 0.58), (8, 250, 3.2, 1.6, 6.2), (33, 4703, 0.70, 0.50, 0.98), (3, 32, 9.4, 3.2, 24.2)],
)
def test_wilson_gives_the_published_examples(k: int, n: int, value: float, low: float, high: float) -> None:
    assert wilson(k, n) == pytest.approx((value, low, high), abs=0.05 if value >= 1 else 0.005)


@given(st.integers(1, 5000), st.data())
def test_wilson_is_scipy_s(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    theirs = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n)[1:] == pytest.approx((100 * theirs.low, 100 * theirs.high), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(3, 2), (-1, 4), (0, 0)])
def test_what_is_no_share_is_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{k} of {n}"):
        wilson(k, n)
    with pytest.raises(ValueError, match="0 of 0"):
        clustered_wilson([], [])


def test_wilson_at_the_ends_is_not_a_point() -> None:
    assert wilson(0, 150)[:2] == (0, 0)
    assert wilson(0, 150).high == pytest.approx(2.497, abs=1e-3)
    assert wilson(150, 150).low == pytest.approx(97.503, abs=1e-3)


def test_seeds_of_one_prompt_do_not_narrow_the_interval() -> None:
    hits, prompts = [True] * 100, [str(i % 20) for i in range(100)]
    assert clustered_wilson(hits, prompts) == wilson(20, 20)
    assert clustered_wilson(hits, [str(i) for i in range(100)]) == wilson(100, 100)


def test_between_whole_counts_the_interval_lies_between_its_neighbours() -> None:
    found = clustered_wilson([True, False, False, False] * 3 + [True, True], [str(i % 7) for i in range(14)])  # 5/14 of 7 = 2.5
    assert wilson(2, 7).low < found.low < wilson(3, 7).low
    assert wilson(2, 7).high < found.high < wilson(3, 7).high


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40), st.randoms())
def test_a_rate_lies_in_its_interval_whatever_the_order(rows: list[tuple[bool, int]], random) -> None:
    found = clustered_wilson([hit for hit, _ in rows], [str(prompt) for _, prompt in rows])
    assert 0 <= found.low <= found.value <= found.high <= 100
    random.shuffle(rows)
    assert clustered_wilson([hit for hit, _ in rows], [str(prompt) for _, prompt in rows]) == found


@given(st.integers(1, 30), st.data())
def test_more_rows_at_the_same_rate_shrink_the_interval(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    few, many = wilson(k, n), wilson(4 * k, 4 * n)
    assert many.high - many.low < few.high - few.low


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 4)), min_size=1, max_size=12), st.randoms())
def test_a_mean_lies_in_its_interval_whatever_the_order(rows: list[tuple[float, int]], random) -> None:
    found = bootstrap_mean([value for value, _ in rows], [str(prompt) for _, prompt in rows])
    assert found.value == pytest.approx(np.mean([value for value, _ in rows]), abs=1e-6)
    if len({prompt for _, prompt in rows}) == 1:
        assert found[1:] == (None, None)
    else:
        assert found.low <= found.value <= found.high
    random.shuffle(rows)
    assert bootstrap_mean([value for value, _ in rows], [str(prompt) for _, prompt in rows]) == found


def test_the_bootstrap_draws_prompts_not_rows() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    alone = bootstrap_mean(values, [str(i) for i in range(200)])
    shared = bootstrap_mean(values, [str(i // 10) for i in range(200)])
    assert shared.value == alone.value
    assert shared.high - shared.low > 2.5 * (alone.high - alone.low)  # sqrt(10) = 3.2 in expectation


def test_the_bootstrap_agrees_with_theory() -> None:
    values = np.random.default_rng(1).normal(10, 2, 400)
    found = bootstrap_mean(values, [str(i) for i in range(400)])
    half = 1.96 * values.std() / 20
    assert found == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), abs=0.03)


def test_equal_values_have_a_point_interval() -> None:
    assert bootstrap_mean([0.1] * 7, list("abcdefg")) == pytest.approx((0.1, 0.1, 0.1))


def test_no_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        bootstrap_mean([], [])


def answers(rng: np.random.Generator, n: int, p: float, q: float, together: float) -> tuple[list[bool], list[bool]]:
    """n pairs of answers with rates p and q; a share `together` of them answers alike."""
    shared, own, theirs = rng.random(n), rng.random(n), rng.random(n)
    alike = rng.random(n) < together
    return list(np.where(alike, shared, own) < p), list(np.where(alike, shared, theirs) < q)


@pytest.mark.parametrize(("p", "q", "together"), [(0.5, 0.3, 0.0), (0.9, 0.8, 0.8), (0.97, 0.95, 0.5), (0.1, 0.02, 0.9)])
def test_paired_differences_are_covered_as_often_as_they_say(p: float, q: float, together: float) -> None:
    rng, inside = np.random.default_rng(7), 0
    prompts = [str(i) for i in range(100)]
    for _ in range(400):
        found = paired_difference(*answers(rng, 100, p, q, together), prompts)
        inside += found.low <= 100 * (p - q) <= found.high
    assert inside / 400 >= 0.92


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_a_paired_difference_has_a_width_and_turns_its_sign(pairs: list[tuple[bool, bool]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    prompts = [str(i) for i in range(len(pairs))]
    one, other = paired_difference(a, b, prompts), paired_difference(b, a, prompts)
    assert one.low < one.high
    assert -100 - 1e-9 <= one.low <= one.value <= one.high <= 100 + 1e-9
    assert one.value == pytest.approx(-other.value)
    assert one.low == pytest.approx(-other.high)


def test_a_paired_difference_is_narrower_than_that_of_strangers() -> None:
    a = [True] * 30 + [False] * 70
    b = [True] * 25 + [False] * 75
    apart = b[::-1]
    prompts = [str(i) for i in range(100)]
    near, far = paired_difference(a, b, prompts), paired_difference(a, apart, prompts)
    assert near.value == far.value == 5
    assert near.high - near.low < far.high - far.low


def test_paired_differences_over_repeated_prompts_are_drawn_by_prompt() -> None:
    a, b = [True] * 10, [True] * 5 + [False] * 5
    found = paired_difference(a, b, [str(i // 2) for i in range(10)])
    assert found.value == 50
    assert found.low <= 50 <= found.high


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [((20, 12, 2, 16), 0.0562, 0.3292), ((1, 1, 7, 12), -0.507, -0.026)],
    ids=["Newcombe 1998, paired", "Fagerland 2014, airways"],
)
def test_newcombe_gives_the_published_paired_examples(table: tuple[int, ...], low: float, high: float) -> None:
    found = newcombe(Fourfold(*table))
    assert found.value == pytest.approx(100 * (table[1] - table[2]) / sum(table))
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high), abs=0.06)


def test_newcombe_gives_the_published_unpaired_example() -> None:
    found = unpaired_difference(wilson(56, 70), wilson(48, 80))
    assert found == pytest.approx((20, 5.24, 33.39), abs=0.005)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_fourfold_counts_every_pair_once(pairs: list[tuple[bool, bool]]) -> None:
    found = fourfold([x for x, _ in pairs], [y for _, y in pairs])
    assert found == tuple(pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False)))


def test_answers_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="2 answers beside 1"):
        fourfold([True, False], [True])


def test_several_seeds_that_all_agree_still_leave_a_width_of_as_many_rows_as_prompts() -> None:
    a = [True] * 40
    found = paired_difference(a, a, [str(i % 20) for i in range(40)])
    assert found == paired_difference([True] * 20, [True] * 20, [str(i) for i in range(20)])
    assert found.low < 0 < found.high


def test_resolution_is_the_widest_half_of_wilson_s_interval() -> None:
    assert resolution(32) == pytest.approx(16.37, abs=0.01)
    for n in (10, 32, 100):
        assert resolution(n) >= max((wilson(k, n).high - wilson(k, n).low) / 2 for k in range(n + 1)) - 1e-9


def test_phrases_that_agree_within_themselves_are_the_trials() -> None:
    """Ten phrases of ten rows, five of them hit on all rows. v = 10/9 * 10 * 5^2 / 100^2 = 1/36, so 0.25 / v = 9 rows;
    t of 9 degrees of freedom is 2.262157, and 9 * (1.959964 / 2.262157)^2 = 6.7560."""
    hits, phrases = [i % 10 < 5 for i in range(100)], [str(i % 10) for i in range(100)]
    effective = 9 * (1.959964 / 2.262157) ** 2
    z2 = 1.959964**2
    half = 100 * 1.959964 / (1 + z2 / effective) * math.sqrt(0.25 / effective + z2 / (4 * effective**2))
    assert phrase_wilson(hits, phrases) == pytest.approx((50 - half, 50 + half), abs=1e-4)


def test_phrases_that_are_all_alike_take_nothing_but_their_small_number() -> None:
    """Every phrase is hit on half of its rows: the variance between them is 0, and the rows are the trials, less t for z."""
    low, high = phrase_wilson([i < 50 for i in range(100)], [str(i % 10) for i in range(100)])
    assert wilson(50, 100).low > low
    effective = 100 * (1.959964 / 2.262157) ** 2
    z2 = 1.959964**2
    half = 100 * 1.959964 / (1 + z2 / effective) * math.sqrt(0.25 / effective + z2 / (4 * effective**2))
    assert (low, high) == pytest.approx((50 - half, 50 + half), abs=1e-4)


@pytest.mark.parametrize("hit", [True, False])
def test_where_all_rows_agree_each_phrase_is_one_trial(hit: bool) -> None:
    found = phrase_wilson([hit] * 100, [str(i % 14) for i in range(100)])
    assert found == pytest.approx(wilson(14 * hit, 14)[1:])


def test_fewer_than_five_phrases_have_no_interval() -> None:
    hits = [i % 3 == 0 for i in range(40)]
    assert phrase_wilson(hits, [str(i % 4) for i in range(40)]) is None
    assert phrase_wilson(hits, [str(i % 5) for i in range(40)]) is not None
