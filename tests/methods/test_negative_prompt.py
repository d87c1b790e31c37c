"""Negative prompt: the concept's words take the place of the negative prompt, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from srbench.errors import CellError, UsageError
from srbench.methods import base
from srbench.methods.negative_prompt import NegativePromptMethod, Options
from srbench.methods.none import NoMethod
from srbench.methods.sld import Options as SldOptions
from srbench.methods.sld import SldMethod
from srbench.testing.bench import TOKENS
from srbench.testing.tiny import WIDTH

TEXTS = ["ab", "cd"]


def plain(bench: Any, negative: str) -> np.ndarray:
    return bench.draw(bench.active(NoMethod, NoMethod.Options()), TEXTS, negative=negative)[0]


def test_pixels_are_the_pipelines_own_with_all_that_methods_are_told(bench: Any) -> None:
    """And a row's own negative prompt gives way."""
    active = bench.active(NegativePromptMethod, Options())
    assert active.artifact.card == {"phrases": ["a box", "bin", "a jar"]}
    expected = plain(bench, "a box, bin, a jar")
    assert np.array_equal(bench.draw(active, TEXTS)[0], expected)
    assert np.array_equal(bench.draw(active, TEXTS, negative="cup")[0], expected)
    assert not np.array_equal(expected, plain(bench, ""))


def test_text_can_be_given(bench: Any) -> None:
    active = bench.active(NegativePromptMethod, Options(text="cup"))
    assert np.array_equal(bench.draw(active, TEXTS)[0], plain(bench, "cup"))
    for blank in ("", " "):
        with pytest.raises(ValidationError):
            Options(text=blank)


@pytest.mark.parametrize(("method", "chosen"), [(NegativePromptMethod, Options()), (SldMethod, SldOptions())])
def test_phrases_that_one_text_does_not_hold_are_left_out_and_named(bench: Any, method: Any, chosen: Any) -> None:
    """One letter is a token: start, "a box, bin, a jar", end are 15 of 16."""
    words = bench.concept.families["tiny"].model_copy(update={"descriptions": ("square", "with a lid")})
    told = bench.concept.model_copy(update={"families": {"tiny": words}})
    card = method.prepare(bench.info(), told, chosen).card
    assert card["phrases"] == ["a box", "bin", "a jar"]
    assert card["left_out"] == ["square", "with a lid"]


def test_without_guidance_it_is_refused(bench: Any) -> None:
    with pytest.raises(CellError, match="acts through guidance") as error:
        bench.draw(bench.active(NegativePromptMethod, Options()), TEXTS, guidance=1.0)
    assert error.value.hint


def test_artifact_is_identified_by_what_it_holds(bench: Any) -> None:
    one, again, other = (bench.active(NegativePromptMethod, Options(text=t)).artifact for t in ("a box, bin, a jar", None, "cup"))
    assert one.sha256 == again.sha256 != other.sha256
    assert one.parameters == TOKENS * WIDTH
    assert one.prepare_seconds > 0


def test_texts_that_can_not_be_encoded_are_refused(bench: Any) -> None:
    with pytest.raises(CellError, match="has 18 tokens and the text encoder reads 16"):
        bench.active(NegativePromptMethod, Options(text="abcdefghijklmnop"))
    with pytest.raises(UsageError, match="names minors"):
        bench.active(NegativePromptMethod, Options(text="a young oak"))
    with pytest.raises(UsageError, match="no words for elsewhere"):
        NegativePromptMethod.prepare(bench.info(family="elsewhere"), bench.concept, Options())


def test_no_hook(bench: Any) -> None:
    active = bench.active(NegativePromptMethod, Options())
    with NegativePromptMethod.applied(bench.pipeline, active.artifact, Options(), base.Call(1, 4, True)) as applied:
        assert not applied.hooked
        assert not bench.hooks()
