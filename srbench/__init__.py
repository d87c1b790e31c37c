"""srbench: the benchmark for concept unlearning in text-to-image models.

From Python: `run`, `study`, `evaluate`, `score`, `attack`, `compare`, and the decorators `method`, `scorer` and `attack`; see
`docs/python.md`. `srbench.testing` tries what you have written. They are imported when they are first used, so that
`import srbench` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srbench.version import __version__

_API = ("Results", "attack", "compare", "evaluate", "method", "run", "score", "scorer", "study")

if TYPE_CHECKING:
    from srbench.api import Results, attack, compare, evaluate, method, run, score, scorer, study

__all__ = ["Results", "__version__", "attack", "compare", "evaluate", "method", "run", "score", "scorer", "study"]


def __getattr__(name: str) -> Any:
    if name in _API:
        from srbench import api

        return getattr(api, name)
    if name == "testing":
        from importlib import import_module

        return import_module("srbench.testing")
    raise AttributeError(f"module 'srbench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
