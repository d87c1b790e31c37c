"""A tiny random Stable Diffusion in memory and a harmless concept, with short ways to sample a method on it."""

from __future__ import annotations

import pytest

from srbench.catalog.specs import ConceptWords
from srbench.engine.sample import PromptCache
from srbench.testing.bench import Bench, concept_of, small_pipeline


@pytest.fixture(scope="session")
def bench() -> Bench:
    pipeline = small_pipeline()
    anchors = {"box": "cup", "jar": "tin", "bin": "bag"}
    words = ConceptWords(names=("a box", "bin"), words=("box", "jar"), counterparts=anchors, protocol="none")
    return Bench("tiny", pipeline, PromptCache(pipeline), concept_of(words, "tiny"))
