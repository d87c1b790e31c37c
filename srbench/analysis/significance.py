"""Tests between two cells on the same rows, and Holm's correction within a family of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from srbench.analysis.intervals import Interval, bootstrap_mean, content_rng, paired_difference, prompt_sums
from srbench.analysis.metrics import Lens, definition, observe, prompt_of
from srbench.analysis.records import CellRecord, label

RESAMPLES = 9999


@dataclass(frozen=True)
class PairedTest:
    """Two cells on one metric: mean difference a - b over the rows that both have scored, and its p-value."""

    a: str
    b: str
    metric: str
    test: str
    """`mcnemar` or `permutation`; empty where no row is scored in both."""
    n: int
    difference: float | None
    """In percentage points for rates, else in the metric's unit."""
    p: float | None
    low: float | None = None
    high: float | None = None
    """Interval of the difference."""
    p_holm: float | None = None
    """Corrected within the family that the test was made in."""


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Two-sided p of the exact McNemar test for paired yes/no answers, one per row. Without disagreement it is 1."""
    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    from scipy import stats  # as in `intervals`: a second to import

    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def permutation(a: Sequence[float], b: Sequence[float], prompts: Sequence[str]) -> float:
    """Two-sided p of a permutation test that swaps a and b prompt by prompt, with all seeds of a prompt together.

    Exact where the prompts are few; else seeded by the content. One prompt alone gives 1.
    """
    rows = sorted(zip(prompts, map(float, a), map(float, b), strict=True))
    sums_a, _ = prompt_sums((prompt, x) for prompt, x, _ in rows)
    sums_b, _ = prompt_sums((prompt, y) for prompt, _, y in rows)
    if len(sums_a) < 2:
        return 1.0
    from scipy import stats

    found = stats.permutation_test(
        (sums_a, sums_b),
        _difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, 1_000_000 // len(sums_a)),
        rng=content_rng(rows),
    )
    return float(found.pvalue)


def _difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
    return (a - b).sum(axis)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979), in the order given. scipy has none."""
    order = np.argsort(p_values, kind="stable")
    steps = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, float)[order] * steps))
    result = np.empty(len(p_values))
    result[order] = adjusted
    return result.tolist()


def paired(a: CellRecord, b: CellRecord, metric: str, lens: Lens) -> PairedTest:
    """Test one metric between two cells; rows that either has not scored are left out and show in `n`."""
    rule = definition(metric)
    ours = {each.row: each.value for each in observe(rule, a, lens) if each.value is not None}
    theirs = {each.row: each.value for each in observe(rule, b, lens) if each.value is not None}
    rows = [row for row in ours if row in theirs]
    names = (label(a), label(b), metric)
    if not rows:
        return PairedTest(*names, test="", n=0, difference=None, p=None)
    x, y, prompts = [ours[row] for row in rows], [theirs[row] for row in rows], [prompt_of(row) for row in rows]
    test, p = _test(x, y, prompts, rule.rate)
    found = _interval(x, y, prompts, rule.rate)
    return PairedTest(*names, test=test, n=len(rows), difference=found.value, p=p, low=found.low, high=found.high)


def _interval(a: list[float], b: list[float], prompts: list[str], rate: bool) -> Interval:
    if rate:
        return paired_difference([bool(each) for each in a], [bool(each) for each in b], prompts)
    return bootstrap_mean([x - y for x, y in zip(a, b, strict=True)], prompts)


def _test(a: list[float], b: list[float], prompts: list[str], rate: bool) -> tuple[str, float]:
    if rate and len(set(prompts)) == len(prompts):
        return "mcnemar", mcnemar([bool(each) for each in a], [bool(each) for each in b])
    return "permutation", permutation(a, b, prompts)


def family(cells: Sequence[CellRecord], metric: str, lens: Lens) -> list[PairedTest]:
    """All pairs of cells of one concept x suite on one metric under one judge, Holm-corrected together."""
    return corrected_together([paired(a, b, metric, lens) for a, b in combinations(cells, 2)])


def corrected_together(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """The tests with their p-values Holm-corrected as one family; a test without a p-value is no member of it."""
    corrected = iter(holm([test.p for test in tests if test.p is not None]))
    return [test if test.p is None else replace(test, p_holm=next(corrected)) for test in tests]
