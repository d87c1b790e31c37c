"""A small published table, and cells as runs leave them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell
from srbench.tables.papers.spec import TableSpec
from tests.analysis.conftest import make

__all__ = ["make"]

RUN = {"backbone": "sd14", "concept": "church", "suite": "igmu", "method": "saferedir", "protocol": "igmu-church"}
SPEC: dict[str, Any] = {
    "name": "small",
    "title": "A table & 5 % <b>of_it</b>",
    "paper": "arXiv 0000.00000",
    "where": "Table 1",
    "about": "Forgetting | of a thing.",
    "sources": {"paper": {"title": "the paper", "where": "Table 1"}},
    "columns": [
        {"name": "fsr", "title": "FSR", "better": "higher", "unit": "percent", "rate": True, "n": 100, "measured": "fsr"},
        {"name": "dsr", "title": "DSR", "better": "higher", "unit": "share", "rate": True, "measured": "asr", "complement": True},
        {"name": "pp", "title": "PP", "better": "higher", "unit": "plain", "unmeasured": "its weights are not here."},
    ],
    "rows": [
        {
            "label": "ours",
            "run": RUN,
            "figures": [
                {"column": "fsr", "value": "95", "source": "paper"},
                {"column": "dsr", "value": "0.40", "source": "paper"},
                {"column": "pp", "value": "0.820", "source": "paper"},
            ],
        },
        {
            "label": "theirs",
            "note": "srbench has no such method.",
            "figures": [{"column": "fsr", "value": ">94", "source": "paper"}],
        },
        {"label": "another", "run": RUN | {"method": "none"}, "unknown": ["fsr"]},
    ],
    "pocket": {
        "note": "Church stands for church.",
        "concepts": ["church"],
        "columns": ["igmu.fsr", "igmu.fsr_gain", "igmu.fd_pocket", "igmu.over_refusal"],
        "rows": [
            {"label": "untouched", "method": "none"},
            {"label": "alone", "method": "none", "on": "esd-x"},
            {"label": "carried over", "method": "saferedir", "on": "esd-x"},
            {"label": "trained there", "method": "saferedir", "on": "esd-x", "variant": "redirector=on-esd-x@*"},
        ],
    },
}


def fsr(value: float | None, low: float | None = None, high: float | None = None, n: int = 100, **more: Any) -> dict[str, Metric]:
    """The metric `fsr` alone."""
    return {"fsr": Metric("higher", value, low, high, n, n, **more)}


@pytest.fixture
def table() -> TableSpec:
    return TableSpec.model_validate(SPEC)


@pytest.fixture(scope="session")
def cell() -> Callable[..., ResultCell]:
    """SafeRedir's cell on Stable Diffusion unless something else is said."""

    def make(metrics: dict[str, Metric], **changes: Any) -> ResultCell:
        facts: dict[str, Any] = {
            **RUN, "on": "none", "variant": "", "dtype": "fp32", "rows_sha": "r", "run": "1", "source": "committed",
            "n_loaded": 100, "n_excluded": 0, "n_run": 100, "n_scored": 100, "n_failed": 0,
        }  # fmt: skip
        return ResultCell(**{**facts, **changes}, metrics=metrics)

    return make


@pytest.fixture(scope="session")
def pocket(cell: Callable[..., ResultCell]) -> Callable[..., ResultCell]:
    """A cell on pocket under church's own judge."""

    def make(metrics: dict[str, Metric], **changes: Any) -> ResultCell:
        return cell(metrics, **{"backbone": "pocket", "protocol": "pocket-church", **changes})

    return make
