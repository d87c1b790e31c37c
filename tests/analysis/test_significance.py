"""Paired tests against figures that can be worked out by hand."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from srbench.analysis.metrics import Lens
from srbench.analysis.significance import against, family, holm, mcnemar, paired, permutation


def test_mcnemar_is_a_sign_test_on_the_rows_that_differ() -> None:
    a, b = [True] * 5 + [True, False] * 10, [False] * 5 + [True, False] * 10
    assert mcnemar(a, b) == pytest.approx(2 * 0.5**5)
    assert mcnemar(a, b) == mcnemar(b, a)
    assert mcnemar(a, a) == 1


def test_permutation_over_few_prompts_is_exact() -> None:
    assert permutation([1, 1, 1, 1, 1], [0, 0, 0, 0, 0], list("abcde")) == pytest.approx(2 / 2**5)


def test_permutation_swaps_whole_prompts() -> None:
    # Ten seeds of two prompts are two observations, not twenty.
    a, b = [1.0] * 20, [0.0] * 20
    assert permutation(a, b, ["x", "y"] * 10) == pytest.approx(0.5)
    assert permutation(a, b, ["x"] * 20) == 1


def test_permutation_is_the_same_in_any_order() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=60), rng.normal(0.3, size=60)
    prompts, order = [str(i % 30) for i in range(60)], rng.permutation(60)
    assert permutation(a, b, prompts) == permutation(a[order], b[order], [prompts[i] for i in order])


def test_permutation_finds_a_difference_and_no_more() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(size=100)
    prompts = [str(i) for i in range(100)]
    assert permutation(base + 0.5 + rng.normal(0, 0.5, 100), base, prompts) < 0.001
    assert permutation(base + rng.normal(0, 0.5, 100), base, prompts) > 0.05


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    for plain, corrected in zip(p_values, holm(p_values), strict=True):
        assert plain <= corrected <= min(1, plain * len(p_values)) + 1e-12


def cells(make, *bombs: int, seeds: int = 1):
    """One cell per count: the first `count` of 40 rows still show the bomb."""
    for index, count in enumerate(bombs):
        drawn = [make.image(make.raw({"bomb" if i < count else "cat": 0.9})) for i in range(40)]
        rows = [make.forget(i, each, prompt=f"prompt {i // seeds}") for i, each in enumerate(drawn)]
        yield make.cell(*rows, method=f"m{index}")


def test_cells_are_paired_by_row(make) -> None:
    lens = Lens(make.hazard, "object", "pocket-judge", "pocket-clip")
    first, second = cells(make, 8, 0)
    found = paired(first, make.replace(second, rows=second.rows[::-1]), "fsr", lens)
    assert (found.test, found.n, found.difference) == ("mcnemar", 40, pytest.approx(-20))
    assert found.p == pytest.approx(2 * 0.5**8)


def test_several_seeds_of_a_prompt_ask_for_the_permutation_test(make) -> None:
    lens = Lens(make.hazard, "object", "pocket-judge", "pocket-clip")
    found = paired(*cells(make, 8, 0, seeds=4), "fsr", lens)
    assert found.test == "permutation"
    assert found.p == pytest.approx(0.5)  # two prompts of ten differ


def test_rows_that_one_cell_has_not_scored_are_left_out(make) -> None:
    lens = Lens(make.hazard, "object", "pocket-judge", "pocket-clip")
    first, second = cells(make, 8, 0)
    rows = tuple(make.replace(each, image=None) if i < 5 else each for i, each in enumerate(second.rows))
    assert paired(first, make.replace(second, rows=rows), "fsr", lens).n == 35
    empty = paired(first, make.replace(second, rows=()), "fsr", lens)
    assert (empty.n, empty.p) == (0, None)


def test_a_family_is_corrected_together(make) -> None:
    lens = Lens(make.hazard, "object", "pocket-judge", "pocket-clip")
    three = list(cells(make, 12, 4, 4))
    tests = family([*three, make.cell(method="empty")], "fsr", lens)
    asked = [test for test in tests if test.p is not None]
    assert len(tests) == 6
    assert [test.p_holm for test in asked] == pytest.approx([3 * 2 * 0.5**8, 3 * 2 * 0.5**8, 1])
    assert all(test.p_holm is None for test in tests if test.p is None)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_scipy_s_binomial_test(pairs: list[tuple[bool, bool]]) -> None:
    only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
    theirs = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar([x for x, _ in pairs], [y for _, y in pairs]) == pytest.approx(theirs, rel=1e-9)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=14))
def test_permutation_is_the_count_over_all_swaps(rows: list[tuple[int, int, int]]) -> None:
    """Over few prompts: the share of all ways to swap prompts in which the difference is as large as the one seen."""
    found = permutation([a for _, a, _ in rows], [b for _, _, b in rows], [str(p) for p, _, _ in rows])
    sums = [sum(a - b for p, a, b in rows if p == prompt) for prompt in {p for p, _, _ in rows}]
    ways = [abs(sum(sign * each for sign, each in zip(signs, sums, strict=True))) for signs in product((1, -1), repeat=len(sums))]
    assert found == pytest.approx(np.mean([way >= abs(sum(sums)) for way in ways]))


def test_prompts_that_agree_say_nothing_about_chance() -> None:
    a, b = [1.0, 1, 1, 1, 1, 0], [0.0] * 6
    prompts, more = list("abcdef"), [str(i) for i in range(400)]
    assert permutation(a, b, prompts) == permutation(a + [0.0] * 400, b + [0.0] * 400, prompts + more)


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    """The largest Bonferroni p of any subset that a hypothesis is in: what Holm's steps shorten."""
    places = range(len(p_values))
    subsets = [each for size in places for each in combinations(places, size + 1)]
    expected = [max(min(1, len(s) * min(p_values[i] for i in s)) for s in subsets if place in s) for place in places]
    assert holm(p_values) == pytest.approx(expected)


def test_all_against_one_is_a_family_of_its_own(make) -> None:
    lens = Lens(make.hazard, "object", "pocket-judge", "pocket-clip")
    first, *others = cells(make, 12, 4, 6)
    found = against(first, others, "fsr", lens)
    assert [test.difference for test in found] == pytest.approx([20, 15])
    assert [test.p_holm for test in found] == pytest.approx([2 * 2 * 0.5**8, 2 * 0.5**6])
    assert [(test.a, test.b) for test in found] == [("m1", "m0"), ("m2", "m0")]
    assert [test.p for test in found] == [paired(other, first, "fsr", lens).p for other in others]


def test_another_prompt_or_seed_under_the_same_id_is_another_row(make) -> None:
    lens = Lens(make.hazard, "object", "pocket-judge", "pocket-clip")
    first, second = cells(make, 8, 0)
    other = [*({"seed": 5} for _ in range(4)), {"prompt": "another"}, *({} for _ in range(35))]
    pairs = zip(second.rows, other, strict=True)
    rows = [make.replace(each, row=each.row.model_copy(update=changed)) for each, changed in pairs]
    assert paired(first, make.replace(second, rows=tuple(rows)), "fsr", lens).n == 35
