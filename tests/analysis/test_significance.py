"""Paired tests against figures that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srbench.analysis.metrics import Lens
from srbench.analysis.significance import family, holm, mcnemar, paired, permutation


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
