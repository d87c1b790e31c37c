"""What a method was told is read from the cards in a run record, and from nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from srbench.results.lookup import StoredImage


def image(role: str = "image", **entry: Any) -> StoredImage:
    cell: Any = SimpleNamespace(method="sld-max", on="uce")
    return StoredImage("k", role, "r", "run", cell, entry)


def test_a_method_s_and_a_checkpoint_s_phrases_have_their_names() -> None:
    checkpoint = {"card": {"preset": "uce", "measured": {"phrases": ["a box"]}}}
    artifact = {"card": {"phrases": ["a box", "a bin"], "left_out": ["a jar"]}}
    assert image(checkpoint=checkpoint, artifact=artifact).told() == {"sld-max": ["a box", "a bin"], "uce": ["a box"]}
    assert image("reference", checkpoint=checkpoint, artifact=artifact).told() == {}


@pytest.mark.parametrize("card", [None, [], {}, {"phrases": []}, {"phrases": "a box"}, {"phrases": [1]}, {"measured": 3}])
def test_a_card_that_lists_none_says_nothing(card: Any) -> None:
    assert image(artifact={"card": card}).told() == {}
