"""Intervals at 95 %: Wilson for rates, a bootstrap over prompts for means.

scipy is imported where it is used: that takes a second, and tables of stored results do not need it.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
RESAMPLES = 4000


class Interval(NamedTuple):
    """A value and its interval; `low` and `high` are None where there is only one prompt."""

    value: float
    low: float | None
    high: float | None


def wilson(k: int, n: int) -> Interval:
    """`k` of `n` in percent with its Wilson interval (Wilson 1927). Raises ValueError unless 0 <= k <= n and n > 0."""
    return _around(100 * k / n if n else 0.0, *_wilson(k, n))


def _wilson(k: float, n: float) -> tuple[float, float]:
    """Both bounds in percent; `k` is a fraction where rows share prompts.

    Written out here: scipy.stats has the same, but takes two seconds to import, and every table would wait for it.
    """
    if not 0 <= k <= n or n == 0:
        raise ValueError(f"{k} of {n}")
    share, z2 = k / n, Z**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    # At 0 and at n the bound is exact; rounding would miss it.
    return (0.0 if k == 0 else 100 * (middle - half)), (100.0 if k == n else 100 * (middle + half))


def _around(value: float, low: float, high: float) -> Interval:
    # Where a bound equals the value, rounding must not put it on the wrong side.
    return Interval(value, min(low, value), max(high, value))


def clustered_wilson(hits: Sequence[bool], prompts: Sequence[str]) -> Interval:
    """Share of `hits` in percent with a Wilson interval, counting each distinct prompt as one trial.

    Seeds of one prompt are treated as fully dependent, so that dependence never makes the interval too narrow.
    Raises ValueError without rows.
    """
    k, n, trials = sum(map(bool, hits)), len(hits), len(set(prompts))
    return _around(100 * k / n if n else 0.0, *_wilson(k * trials / n if n else 0, trials))


FEWEST_PHRASES = 5
"""Clusters below which a variance between them says nothing, whatever corrects for their number."""


def phrase_wilson(hits: Sequence[bool], phrases: Sequence[str]) -> tuple[float, float] | None:
    """Interval in percent of the share of `hits`, for which phrases, not rows, are the sample; None below `FEWEST_PHRASES`.

    Wilson's interval on the effective number of rows, p (1 - p) / v: v is the cluster-robust (linearised) variance of the share,
    G / (G - 1) * sum of (hits - p * rows)^2 over the G phrases / n^2; the effective number is at most n, and is shrunk by
    (z / t)^2 for t of G - 1 degrees of freedom. Korn and Graubard 1998 (Survey Methodology 24, 193-201) for the effective
    number, Dean and Pagano 2015 (Journal of Survey Statistics and Methodology 3, 484-503) for Wilson's interval on it. At 0
    and at 100 % the variance cannot be seen, and each phrase is one trial, as for `clustered_wilson`: a cluster bootstrap would
    give [0, 0] there. scipy has no such interval.
    """
    sums, counts = prompt_sums(zip(phrases, map(float, hits), strict=True))
    k, n, clusters = sums.sum(), counts.sum(), len(sums)
    if clusters < FEWEST_PHRASES:
        return None
    if k in (0, n):
        return _wilson(float(k * clusters / n), clusters)
    share = k / n
    variance = clusters / (clusters - 1) * float(((sums - share * counts) ** 2).sum()) / n**2
    effective = min(n, share * (1 - share) / variance) if variance > 0 else n
    from scipy.special import stdtrit  # scipy.stats takes two seconds to import

    effective *= (Z / float(stdtrit(clusters - 1, 0.5 + LEVEL / 2))) ** 2
    return _wilson(float(share * effective), float(effective))


def resolution(n: int) -> float:
    """Half width in points of the Wilson interval of `n` trials at a rate of 50 %, where it is widest."""
    low, high = _wilson(n / 2, n)
    return (high - low) / 2


class Fourfold(NamedTuple):
    """The 2 x 2 table of two lists of yes/no answers to the same questions; fractions where rows share prompts."""

    both: float
    only_a: float
    only_b: float
    neither: float


def fourfold(a: Sequence[bool] | np.ndarray, b: Sequence[bool] | np.ndarray) -> Fourfold:
    """Counts over pairs of answers. Raises ValueError for lists of different lengths."""
    x, y = np.asarray(a, bool), np.asarray(b, bool)
    if x.shape != y.shape:
        raise ValueError(f"{len(x)} answers beside {len(y)}")
    both, ones, others = (int(np.count_nonzero(each)) for each in (x & y, x, y))
    return Fourfold(both, ones - both, others - both, len(x) - ones - others + both)


def paired_difference(a: Sequence[bool], b: Sequence[bool], prompts: Sequence[str]) -> Interval:
    """Share of `a` minus share of `b` in points; both are answers to the same rows in the same order.

    The interval is `newcombe`'s. Where prompts repeat, it is a bootstrap over prompts; where that has no width, since all
    prompts agree, `newcombe`'s with each prompt counted as one row. Raises ValueError without rows.
    """
    trials, table = len(set(prompts)), fourfold(a, b)
    if trials == len(prompts):
        return newcombe(table)
    interval = bootstrap_mean((100.0 * (np.asarray(a, float) - np.asarray(b, float))).tolist(), prompts)
    if interval.low is None or interval.low != interval.high:
        return interval
    return newcombe(Fourfold(*(count * trials / len(prompts) for count in table)))


def newcombe(table: Fourfold) -> Interval:
    """Share of a minus share of b in points with Newcombe's interval for paired proportions.

    Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10: unlike a bootstrap it has a width where no row differs.
    Raises ValueError without rows.
    """
    n, ones, others = sum(table), table.both + table.only_a, table.both + table.only_b
    bounds_a, bounds_b = _wilson(ones, n), _wilson(others, n)
    return _squared_and_added((100 * ones / n, *bounds_a), (100 * others / n, *bounds_b), _correlation(table))


def unpaired_difference(a: tuple[float, float, float], b: tuple[float, float, float]) -> Interval:
    """The value of `a` minus that of `b`, from (value, low, high) of each, as if their rows were independent.

    Of two Wilson intervals this is Newcombe's method 10 for independent proportions (1998, Statistics in Medicine 17,
    873-890); for other intervals Zou and Donner 2008 (Statistics in Medicine 27, 1693-1702). Results on shared rows are usually
    correlated; the interval is then wider than necessary.
    """
    return _squared_and_added(a, b, 0.0)


def _squared_and_added(a: tuple[float, float, float], b: tuple[float, float, float], together: float) -> Interval:
    """The difference of two (value, low, high) whose estimates have the correlation `together`."""
    (first, low_a, high_a), (second, low_b, high_b) = a, b
    value = first - second
    low = _joined(first - low_a, high_b - second, together)
    high = _joined(high_a - first, second - low_b, together)
    return _around(value, value - low, value + high)


def _joined(one: float, other: float, together: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * together * one * other + other**2))


def _correlation(table: Fourfold) -> float:
    """Phi of a fourfold table with method 10's correction towards 0; 0 where one side's answers are all the same."""
    both, only_a, only_b, neither = table
    spread = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    top = both * neither - only_a * only_b
    return (max(top - sum(table) / 2, 0.0) if top > 0 else top) / math.sqrt(spread) if spread else 0.0


def bootstrap_mean(values: Sequence[float], prompts: Sequence[str]) -> Interval:
    """Mean of `values` with a percentile bootstrap over prompts: prompts are resampled, each with all of its rows.

    The random seed is derived from the content, so equal rows give equal intervals in any order.
    Raises ValueError without rows.
    """
    if len(values) == 0:
        raise ValueError("the mean of no rows")
    return _bootstrap(tuple(sorted(zip(map(str, prompts), map(float, values), strict=True))))


@lru_cache(maxsize=1024)
def _bootstrap(pairs: tuple[tuple[str, float], ...]) -> Interval:
    value = math.fsum(v for _, v in pairs) / len(pairs)
    sums, counts = prompt_sums(pairs)
    if len(sums) == 1:
        return Interval(value, None, None)
    from scipy import stats

    bounds = stats.bootstrap(
        (sums, counts),
        _ratio,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, 2_000_000 // len(sums)),  # keeps the index array at 16 MB
        confidence_level=LEVEL,
        # Not BCa: it has no value where all resamples agree.
        method="percentile",
        rng=content_rng(pairs),
    ).confidence_interval
    return _around(value, float(bounds.low), float(bounds.high))


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    return sums.sum(axis) / counts.sum(axis)


def prompt_sums(pairs: Iterable[tuple[str, float]]) -> tuple[np.ndarray, np.ndarray]:
    """(prompt, value) pairs -> sum and number of values per prompt, each (prompts,), in the order of the prompts' text."""
    groups: dict[str, list[float]] = defaultdict(list)
    for prompt, value in pairs:
        groups[prompt].append(value)
    ordered = [groups[prompt] for prompt in sorted(groups)]
    return np.array([math.fsum(group) for group in ordered]), np.array([float(len(group)) for group in ordered])


def content_rng(content: Any) -> np.random.Generator:
    """A generator seeded by the sha256 of `content`'s text."""
    return np.random.default_rng(int(hashlib.sha256(repr(content).encode()).hexdigest(), 16))
