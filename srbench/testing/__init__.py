"""The checks that every method, scorer and attack has to pass, for your own ones: as functions, and as pytest classes.

    srbench.testing.check_method("my-method")

    class TestMine(srbench.testing.MethodTests):
        method = "my-method"

Everything runs on tiny random pipelines made in memory: no weights, no network, seconds. A check that fails raises
`AssertionError` with one sentence on what is wrong and one on how to mend it. Only the classes need pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_PLACES = {
    "check_method": "methods", "check_weight_method": "weights", "check_scorer": "scorers", "check_attack": "attacks",
    "MethodTests": "mixins", "WeightMethodTests": "mixins", "ScorerTests": "mixins", "AttackTests": "mixins",
    "FAMILIES": "bench",
}  # fmt: skip
"""Public name -> the module of this room that it is in, imported when the name is first used."""

if TYPE_CHECKING:
    from srbench.testing.attacks import check_attack
    from srbench.testing.bench import FAMILIES
    from srbench.testing.methods import check_method
    from srbench.testing.mixins import AttackTests, MethodTests, ScorerTests, WeightMethodTests
    from srbench.testing.scorers import check_scorer
    from srbench.testing.weights import check_weight_method

__all__ = [
    "FAMILIES", "AttackTests", "MethodTests", "ScorerTests", "WeightMethodTests", "check_attack", "check_method", "check_scorer",
    "check_weight_method",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"srbench.testing.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'srbench.testing' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
