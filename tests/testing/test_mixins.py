"""The pytest classes have a test for every check, and say in one line where there is no such plug-in."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import srbench.testing
from srbench.testing import attacks, methods, scorers, weights

MIXINS = {"MethodTests": methods, "WeightMethodTests": weights, "ScorerTests": scorers, "AttackTests": attacks}


@pytest.mark.parametrize("name", MIXINS)
def test_every_check_is_a_test_and_says_what_it_means(name: str) -> None:
    battery: Any = getattr(srbench.testing, name)
    for check in MIXINS[name].CHECKS:
        assert getattr(battery, f"test_{check.__name__}").__doc__ == check.__doc__
        assert check.__doc__


def test_a_test_of_the_class_fails_as_its_check_does(monkeypatch: pytest.MonkeyPatch) -> None:
    class TestNone(srbench.testing.MethodTests):
        method = "none"
        families = ("sd",)

    (case,) = TestNone.cases()
    TestNone().test_trace_is_json_for_each_image(case)
    case.meta = {**case.meta, "decides": True}
    with pytest.raises(AssertionError, match=r"^none on sd, trace_is_json_for_each_image: it decides"):
        TestNone().test_trace_is_json_for_each_image(case)


def test_an_unknown_name_is_one_line() -> None:
    class TestTypo(srbench.testing.MethodTests):
        method = "nome"

    with pytest.raises(pytest.fail.Exception, match=r"TestTypo: unknown method 'nome'\. Did you mean 'none'\?") as caught:
        TestTypo().pytest_generate_tests(SimpleNamespace(fixturenames=["case"]))  # type: ignore[arg-type]  # all that is read
    assert caught.value.pytrace is False


def test_the_functions_need_no_pytest() -> None:
    code = "import sys, srbench; srbench.testing.check_scorer; srbench.testing.check_method; assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
