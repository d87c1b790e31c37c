"""A few damages of every kind of file in each test run, and with `--fuzz-seconds N` as many as fit into the time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import targets

QUICK, ROUND = {"read_results": 12}, 60
"""Examples of a target in a test run (else 40), and in one round of the long one."""
Target = Callable[[st.DataObject], None]


def attempt(target: Target, examples: int, start: int) -> None:
    """Try `examples` damages, drawn from `start` on."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]
    drawn = seed(start)(given(st.data())(target))
    settings(max_examples=examples, deadline=None, database=None, suppress_health_check=checks, print_blob=True)(drawn)()


@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda target: target.__name__)
def test_damaged_files_end_in_one_line(target: Target) -> None:
    attempt(target, QUICK.get(target.__name__, 40), 0)


@pytest.mark.slow
def test_as_long_as_there_is_time(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = request.config.getoption("--fuzz-seconds")
    until, tried, round_ = time.monotonic() + seconds, dict.fromkeys((target.__name__ for target in targets.TARGETS), 0), 0
    while time.monotonic() < until:
        round_ += 1
        for target in targets.TARGETS:
            attempt(target, ROUND, round_)
            tried[target.__name__] += ROUND
            if time.monotonic() > until:
                break
    with capsys.disabled():
        print(f"\n{sum(tried.values())} damaged files in {seconds} s, no traceback: {tried}")
    assert min(tried.values()) > 0, "the time was too short for one round"
