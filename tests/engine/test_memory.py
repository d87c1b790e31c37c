"""Peak memory: what was used and given back counts, and an old peak does not."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from srbench.engine import memory
from srbench.engine.memory import peak

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not tell")
CPU = torch.device("cpu")


def measured(megabytes: int) -> float:
    with peak(CPU) as found:
        np.ones(megabytes * 1_000_000 // 8)
    if found.megabytes is None:
        pytest.skip("this kernel keeps its high-water mark")
    return found.megabytes


def test_a_peak_that_is_over_counts_and_an_older_one_does_not() -> None:
    small, large, again = measured(1), measured(400), measured(1)
    assert large - small > 350
    assert large - again > 350


def test_where_the_system_does_not_tell_there_is_no_number(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(memory, "PROCESS", memory.Path("/nowhere"))
    with peak(CPU) as found:
        pass
    assert found.megabytes is None
