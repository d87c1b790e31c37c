"""The batteries as pytest classes to inherit from: a test for each check, of each preset and family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from srbench.testing import attacks, checks, methods, scorers, weights

if TYPE_CHECKING:
    import numpy as np

    from srbench.attacks.base import Victim


class _Battery:
    """Gives every test of a class its cases."""

    @classmethod
    def cases(cls) -> list[Any]:
        """What the tests run on. Raises `AssertionError` where there is no such plug-in."""
        raise NotImplementedError  # each battery below has its own

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Called by pytest once a test; a plug-in that cannot be found is one line in its output, and no traceback."""
        if "case" not in metafunc.fixturenames:
            return
        try:
            cases = _cases_of(type(self))
        except AssertionError as error:
            pytest.fail(f"{type(self).__name__}: {error}", pytrace=False)
        metafunc.parametrize("case", cases, ids=[str(case) for case in cases])


_CASES: dict[type, list[Any]] = {}


def _cases_of(battery: type[_Battery]) -> list[Any]:
    """A class's cases, made once."""
    if battery not in _CASES:
        _CASES[battery] = battery.cases()
    return _CASES[battery]


def _tests(battery: type, every: Iterable[Callable[[Any], None]]) -> None:
    """Give a class a test for each check."""
    for check in every:
        setattr(battery, f"test_{check.__name__}", _test(check))


def _test(check: Callable[[Any], None]) -> Callable[[Any, Any], None]:
    def test(self: Any, case: Any) -> None:
        __tracebackhide__ = True
        checks.run([check], case)

    test.__doc__ = check.__doc__
    return test


class MethodTests(_Battery):
    """Of a method that acts while sampling. Set `method`, as for `check_method`."""

    method: ClassVar[str | type]
    options: ClassVar[Mapping[str, Any]] = {}
    families: ClassVar[Sequence[str] | None] = None

    @classmethod
    def cases(cls) -> list[Any]:
        return methods.cases_of(cls.method, cls.options, cls.families)


class WeightMethodTests(_Battery):
    """Of a method that changes weights. Set `method`, as for `check_weight_method`."""

    method: ClassVar[str | type]
    options: ClassVar[Mapping[str, Any]] = {}
    families: ClassVar[Sequence[str] | None] = None

    @classmethod
    def cases(cls) -> list[Any]:
        return weights.cases_of(cls.method, cls.options, cls.families)


class ScorerTests(_Battery):
    """Of a scorer. Set `scorer`, as for `check_scorer`."""

    scorer: ClassVar[str | type]
    options: ClassVar[Mapping[str, Any]] = {}
    images: ClassVar[Sequence[np.ndarray] | None] = None

    @classmethod
    def cases(cls) -> list[Any]:
        return [scorers.case_of(cls.scorer, cls.options, cls.images)]


class AttackTests(_Battery):
    """Of an attack. Set `attack`, as for `check_attack`."""

    attack: ClassVar[str | type]
    settings: ClassVar[Mapping[str, Any]] = {}
    victim: ClassVar[Victim | None] = None

    @classmethod
    def cases(cls) -> list[Any]:
        return [attacks.case_of(cls.attack, cls.settings, cls.victim)]


_tests(MethodTests, methods.CHECKS)
_tests(WeightMethodTests, weights.CHECKS)
_tests(ScorerTests, scorers.CHECKS)
_tests(AttackTests, attacks.CHECKS)
