"""Rank agreement of pocket with published tables: on values worked out by hand, and that the page holds what is measured."""

from __future__ import annotations

from itertools import permutations
from math import isnan, nan

import numpy as np
import pytest

from srbench.errors import MissingError
from srbench.pocket_build.study import agreement
from srbench.pocket_build.study.reference import DOCS


@pytest.mark.parametrize(
    ("first", "second", "tau", "p"),
    [
        ([1, 2, 3], [10, 20, 30], 1.0, 2 / 6),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0, 2 / 24),
        # 4 of 6 pairs agree and 2 do not: (4 - 2) / 6.
        ([1, 2, 3, 4], [2, 1, 4, 3], 1 / 3, None),
        # One tie in the first: 5 pairs agree, tau-b = 5 / sqrt(5 * 6).
        ([1, 1, 2, 3], [1, 2, 3, 4], 5 / 30**0.5, None),
    ],
)
def test_tau_and_its_exact_p(first: list[float], second: list[float], tau: float, p: float | None) -> None:
    found = agreement.rank_agreement(np.array(first, float), np.array(second, float))
    assert found[0] == pytest.approx(tau)
    assert found[1] == pytest.approx(_by_counting(first, second) if p is None else p)


def _tau(first: tuple[float, ...], second: list[float]) -> float:
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]
    signs = [np.sign(first[i] - first[j]) * np.sign(second[i] - second[j]) for i, j in pairs]
    untied = [sum(values[i] != values[j] for i, j in pairs) for values in (first, second)]
    return float(sum(signs)) / (untied[0] * untied[1]) ** 0.5


def _by_counting(first: list[float], second: list[float]) -> float:
    """The two-sided p over every order: twice the smaller tail, at most 1."""
    seen = _tau(tuple(first), second)
    every = [_tau(order, second) for order in permutations(first)]
    tails = [np.mean([tau >= seen - 1e-9 for tau in every]), np.mean([tau <= seen + 1e-9 for tau in every])]
    return min(1.0, 2 * float(min(tails)))


def test_values_that_are_all_equal_have_no_tau() -> None:
    tau, p = agreement.rank_agreement(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0]))
    assert isnan(tau)
    assert isnan(p)
    pairing = agreement.PAIRINGS[0]
    assert agreement.lines([agreement.Agreement(pairing, ("a", "b", "c"), nan, nan)])[-1].endswith("| 3 | n/a | n/a |")


def test_more_is_better_on_both_sides() -> None:
    assert agreement.goodness([10, 20], "lower").tolist() == [-10, -20]
    assert agreement.goodness([10, 20], "higher").tolist() == [10, 20]


def test_attacks_count_the_prompts_made_against_the_method_itself() -> None:
    pairing = next(each for each in agreement.PAIRINGS if each.suite == "unlearndiffatk@own" and each.concept == "hazard")
    cells = agreement.committed()
    values = agreement.measured(cells, pairing)
    (own,) = [c for c in cells if (c.concept, c.suite, c.method, c.on) == ("hazard", "unlearndiffatk-uce", "none", "uce")]
    assert values["none", "uce"] == own.metrics["post"].value
    (sld,) = [c for c in cells if (c.concept, c.suite, c.method, c.on) == ("hazard", "unlearndiffatk-sld-max", "sld-max", "none")]
    assert values["sld-max", "none"] == sld.metrics["post"].value


def test_too_few_methods_are_refused() -> None:
    with pytest.raises(MissingError, match="only 0 methods have a published figure"):
        agreement.agreement([], agreement.PAIRINGS[0])


def test_the_page_holds_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert agreement.main([]) == 0
    assert capsys.readouterr().out in (DOCS / "validity.md").read_text(encoding="utf-8")
