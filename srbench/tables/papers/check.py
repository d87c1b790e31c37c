"""The arithmetic check: whether a published rate can be k of n.

The idea is that of the GRIM test (Brown and Heathers 2017, Social Psychological and Personality Science 8): a rate of n
images can only take n + 1 values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

ROUNDED, CUT = "", ", cut off"
"""How the printed digits come from k / n: rounded, or cut off behind the last of them."""
CHANCE = Fraction(1, 20)
"""A common n is named only where one this small would fit by chance less often than this."""


def step(printed: str) -> Fraction:
    """What one unit of the last printed digit is worth."""
    return Fraction(1, 10 ** len(printed.partition(".")[2]))


def counts(printed: str, n: int, full: int = 100) -> tuple[list[int], str]:
    """Every k for which k / n prints as `printed`, and how: rounded, else cut off. full: 100 for percent, 1 for shares.

    At a tie both neighbours count: papers round half up and half to even.
    """
    value, unit = Fraction(printed), step(printed)
    rounded = _between(value - unit / 2, value + unit / 2, n, full)
    if rounded:
        return rounded, ROUNDED
    return [k for k in _between(value, value + unit, n, full) if full * Fraction(k, n) < value + unit], CUT


def _between(low: Fraction, high: Fraction, n: int, full: int) -> list[int]:
    first = -(-low * n // full)  # the least integer not below
    last = high * n // full
    return list(range(max(0, int(first)), min(n, int(last)) + 1))


def _ks(ks: Sequence[int], how: str) -> str:
    return f"(k = {ks[0]}{how})" if len(ks) == 1 else f"(k = {ks[0]} to {ks[-1]}{how})"


def verdict(printed: str, n: int | None, candidates: Iterable[int] = (), full: int = 100) -> str:
    """`fits n = 142 (k = 29)`, `fits no k of 142`, or nothing where there is no n to try.

    n: as published; candidates: tried where n is not known or does not fit.
    """
    sizes = dict.fromkeys([*([n] if n else []), *candidates])
    tried = {size: counts(printed, size, full) for size in sizes}
    if n and tried[n][0]:
        return f"fits n = {n} {_ks(*tried[n])}"
    fitting = [f"{size} {_ks(*fit)}" for size, fit in tried.items() if fit[0]]
    failing = [str(size) for size, (ks, _) in tried.items() if not ks]
    parts = [f"n = {', '.join(fitting)}"] if fitting else []
    parts += [f"no k of {', '.join(failing)}"] if failing else []
    return f"fits {'; '.join(parts)}" if parts else ""


def smallest_common(printed: Iterable[str], full: int = 100) -> int | None:
    """The smallest n of which every printed rate is some k, rounded; None where chance alone would give one so small."""
    values = sorted(set(printed))
    if not values:
        return None
    n, expected = 0, Fraction(0)
    while expected <= CHANCE:
        n += 1
        expected += _by_chance(values, n, full)
        if expected <= CHANCE and all(_rounds_to(value, n, full) for value in values):
            return n
    return None


def _by_chance(values: Sequence[str], n: int, full: int) -> Fraction:
    """The share of all printable rates that n can give, for each value, multiplied."""
    share = Fraction(1)
    for value in values:
        share *= min(Fraction(1), n * step(value) / full)
    return share


def _rounds_to(value: str, n: int, full: int) -> bool:
    ks, how = counts(value, n, full)
    return bool(ks) and how == ROUNDED
