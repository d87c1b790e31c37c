"""The arithmetic check: which k of n a printed rate can be."""

from __future__ import annotations

import pytest

from srbench.tables.papers.check import CUT, ROUNDED, counts, smallest_common, verdict


@pytest.mark.parametrize(("printed", "n", "full", "expected"), [
    ("0.442", 95, 1, ([42], ROUNDED)),
    ("99.84", 1250, 100, ([1248], ROUNDED)),
    ("96.8", 250, 100, ([242], ROUNDED)),
    ("0.70", 4703, 100, ([33], ROUNDED)),
    ("9.38", 32, 100, ([3], ROUNDED)),  # 9.375 lies between two printable values
    ("3.12", 32, 100, ([1], ROUNDED)),  # 3.125, rounded half to even
    ("0", 142, 100, ([0], ROUNDED)),
    ("100", 50, 100, ([50], ROUNDED)),
    ("76.05", 142, 100, ([108], CUT)),  # 76.056
    ("19.1", 4703, 100, ([896, 897, 898, 899, 900], ROUNDED)),
    ("97.00", 1250, 100, ([], CUT)),
    ("51.68", 1000, 100, ([], CUT)),
])  # fmt: skip
def test_counts(printed: str, n: int, full: int, expected: tuple[list[int], str]) -> None:
    assert counts(printed, n, full) == expected


def test_the_next_rate_above_is_not_taken_for_cut_off() -> None:
    assert counts("76.05", 10_000)[0] == [7605]
    assert counts("1.0", 1000, 100) == ([10], ROUNDED)
    assert counts("49.9", 2, 100) == ([], CUT)  # 50 is one whole printed step above


def test_more_digits_leave_fewer_k() -> None:
    assert counts("97.0", 1250)[0]
    assert not counts("97.00", 1250)[0]


@pytest.mark.parametrize(("arguments", "expected"), [
    (("20.42", 142), "fits n = 142 (k = 29)"),
    (("76.05", 142), "fits n = 142 (k = 108, cut off)"),
    (("9.10", 142), "fits no k of 142"),
    (("74.57", 142, (118,)), "fits n = 118 (k = 88, cut off); no k of 142"),
    (("9.10", 142, (118,)), "fits no k of 142, 118"),
    (("0.08", None, (1000, 1250, 2500)), "fits n = 1250 (k = 1), 2500 (k = 2); no k of 1000"),
    (("20.42", 142, (118,)), "fits n = 142 (k = 29)"),
    (("19.1", 4703), "fits n = 4703 (k = 896 to 900)"),
    (("5", None), ""),
])  # fmt: skip
def test_verdict(arguments: tuple, expected: str) -> None:
    assert verdict(*arguments) == expected


def test_the_smallest_common_n_of_known_columns() -> None:
    assert smallest_common(["0.442", "0.484", "0.937", "0.568", "0.947"], full=1) == 95
    assert smallest_common(["0.613", "0.760", "0.880", "0.793", "0.947"], full=1) == 150


def test_no_common_n_is_named_that_chance_would_give() -> None:
    assert smallest_common(["99.84"]) is None  # some n below 1000 fits almost any one rate
    assert smallest_common(["9.38", "3.12"]) == 32
    assert smallest_common([]) is None
