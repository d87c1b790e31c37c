"""Paired tests between two cells on the same rows, and Holm's correction within a family of tests."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import numpy as np

from srbench.analysis.intervals import Interval, bootstrap_mean, content_rng, fourfold, newcombe, paired_difference, prompt_sums
from srbench.analysis.metrics import Definition, Lens, definition, observe
from srbench.analysis.records import CellRecord, Metric, Observation, label
from srbench.catalog.specs import Row

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
    """Holm-corrected within the test's family."""


# --- tests ------------------------------------------------------------------------------------------------------------


def mcnemar(a: Sequence[bool] | np.ndarray, b: Sequence[bool] | np.ndarray) -> float:
    """Two-sided p of the exact McNemar test for paired yes/no answers, one per row. Without disagreement it is 1."""
    table = fourfold(a, b)
    less, differ = min(table.only_a, table.only_b), table.only_a + table.only_b
    from scipy.special import bdtr  # scipy.stats has the test, but takes two seconds to import

    # Both tails of a binomial at 1/2 are equal; where both counts are equal, the tails overlap.
    return min(1.0, 2 * float(bdtr(less, differ, 0.5))) if differ else 1.0


def permutation(a: Sequence[float], b: Sequence[float], prompts: Sequence[str]) -> float:
    """Two-sided p of a permutation test that swaps a and b by prompt, all seeds of a prompt together.

    Exact where few prompts differ; else random, seeded by the content. 1 where fewer than two prompts differ.
    """
    return _permutation(tuple(sorted(zip(map(str, prompts), map(float, a), map(float, b), strict=True))))


@lru_cache(maxsize=1024)
def _permutation(rows: tuple[tuple[str, float, float], ...]) -> float:
    sums_a, _ = prompt_sums((prompt, x) for prompt, x, _ in rows)
    sums_b, _ = prompt_sums((prompt, y) for prompt, _, y in rows)
    differ = sums_a != sums_b  # swapping equal sums changes nothing
    if np.count_nonzero(differ) < 2:
        return 1.0
    from scipy import stats

    result = stats.permutation_test(
        (sums_a[differ], sums_b[differ]),
        _difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, 1_000_000 // len(sums_a)),
        rng=content_rng(rows),
    )
    return float(result.pvalue)


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


# --- cells beside each other ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """One metric's values on a cell's rows, prepared for comparison with other cells."""

    ids: tuple[str, ...]
    """The rows' ids."""
    keys: tuple[Hashable, ...]
    """Id, prompt, seed and reference prompt of each row, which identify the row across cells."""
    values: np.ndarray
    """(N,); NaN where a row could not be judged."""
    prompts: tuple[str, ...]
    """Text that dependent rows share, usually their prompt."""
    alone: bool
    """Whether no two rows share a prompt."""


def answers(seen: Sequence[Observation], seed: int | None = None) -> Answers:
    """A cell's observations as arrays. seed: the run's seed, for rows without one of their own."""
    prompts = tuple(each.together for each in seen)
    values = np.array([np.nan if each.value is None else each.value for each in seen], float)
    keys = tuple(_key(each.row, seed) for each in seen)
    return Answers(tuple(each.row.id for each in seen), keys, values, prompts, len(set(prompts)) == len(prompts))


def _key(row: Row, seed: int | None) -> Hashable:
    """Identifies a row across cells, whatever its position."""
    return row.id, row.prompt, seed if row.seed is None else row.seed, row.reference


@dataclass(frozen=True)
class Both:
    """Rows that are scored in both of two cells, in the same order."""

    ids: tuple[str, ...]
    a: np.ndarray
    """(N,)"""
    b: np.ndarray
    """(N,)"""
    prompts: tuple[str, ...]
    alone: bool
    """Whether no two rows share a prompt."""


def matched(a: Answers, b: Answers) -> Both:
    """The rows that are scored in both, in the order of `a`."""
    same = a.keys is b.keys or a.keys == b.keys
    theirs = b.values if same else _in_order(a, b)
    scored = ~(np.isnan(a.values) | np.isnan(theirs))  # (N,)
    if scored.all():
        return Both(a.ids, a.values, theirs, a.prompts, a.alone)
    at = np.flatnonzero(scored).tolist()
    ids, prompts = tuple(a.ids[i] for i in at), tuple(a.prompts[i] for i in at)
    return Both(ids, a.values[scored], theirs[scored], prompts, a.alone or len(set(prompts)) == len(prompts))


def _in_order(a: Answers, b: Answers) -> np.ndarray:
    """The values of `b` in the order of a's rows, (N,); NaN where `b` lacks the row."""
    values = dict(zip(b.keys, b.values.tolist(), strict=True))
    return np.array([values.get(key, np.nan) for key in a.keys], float)


def _answers(rule: Definition, cell: CellRecord, lens: Lens) -> Answers:
    return answers(observe(rule, cell, lens), cell.origin.seed)


def paired(a: CellRecord, b: CellRecord, metric: str, lens: Lens) -> PairedTest:
    """Test one metric between two cells; rows that are not scored in both are left out, and `n` counts the rest."""
    rule = definition(metric)
    x, y = (_answers(rule, cell, lens) for cell in (a, b))
    return compared((label(a), label(b), metric), rule.rate, matched(x, y))


def compared(names: tuple[str, str, str], rate: bool, rows: Both) -> PairedTest:
    """The test on rows that are scored in both. names: of a, of b, and of the metric."""
    if not rows.ids:
        return PairedTest(*names, test="", n=0, difference=None, p=None)
    test, p = _test(rows, rate)
    interval = _interval(rows, rate)
    return PairedTest(*names, test=test, n=len(rows.ids), difference=interval.value, p=p, low=interval.low, high=interval.high)


def _interval(rows: Both, rate: bool) -> Interval:
    if not rate:
        return bootstrap_mean((rows.a - rows.b).tolist(), rows.prompts)
    a, b = rows.a != 0, rows.b != 0
    return newcombe(fourfold(a, b)) if rows.alone else paired_difference(a.tolist(), b.tolist(), rows.prompts)


def _test(rows: Both, rate: bool) -> tuple[str, float]:
    if rate and rows.alone:
        return "mcnemar", mcnemar(rows.a != 0, rows.b != 0)
    return "permutation", permutation(rows.a.tolist(), rows.b.tolist(), rows.prompts)


def family(cells: Sequence[CellRecord], metric: str, lens: Lens) -> list[PairedTest]:
    """Tests of all pairs of cells of one concept x suite on one metric under one judge, Holm-corrected together."""
    rule = definition(metric)
    per_cell = _shared([_answers(rule, cell, lens) for cell in cells])
    pairs = combinations(zip(map(label, cells), per_cell, strict=True), 2)
    return corrected_together([compared((a, b, metric), rule.rate, matched(x, y)) for (a, x), (b, y) in pairs])


def against(first: CellRecord, others: Sequence[CellRecord], metric: str, lens: Lens) -> list[PairedTest]:
    """Tests of each of `others` minus `first` on one metric under one judge, Holm-corrected together."""
    rule = definition(metric)
    base, *per_cell = _shared([_answers(rule, cell, lens) for cell in (first, *others)])
    pairs = zip(map(label, others), per_cell, strict=True)
    return corrected_together([compared((a, label(first), metric), rule.rate, matched(x, base)) for a, x in pairs])


def _shared(per_cell: Sequence[Answers]) -> list[Answers]:
    """The answers, with equal keys made one object, so that pairs are compared quickly."""
    unique: dict[tuple[Hashable, ...], tuple[Hashable, ...]] = {}
    return [replace(each, keys=unique.setdefault(each.keys, each.keys)) for each in per_cell]


def corrected_together(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """The tests with p-values Holm-corrected as one family; tests without a p-value do not count."""
    corrected = iter(holm([test.p for test in tests if test.p is not None]))
    return [test if test.p is None else replace(test, p_holm=next(corrected)) for test in tests]


def one_family(metrics: Sequence[Metric | None]) -> tuple[list[Metric | None], int]:
    """The numbers of one table with its p-values Holm-corrected together, and how many tests these are."""
    corrected = holm([metric.p for metric in metrics if metric is not None and metric.p is not None])
    rest = iter(corrected)
    together = [metric if metric is None or metric.p is None else replace(metric, p_holm=next(rest)) for metric in metrics]
    return together, len(corrected)
