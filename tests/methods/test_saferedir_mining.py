"""Mining: which words are found, what they are compared with, and which words are looked at at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from srbench.methods import finetune
from srbench.methods.saferedir import mining
from srbench.methods.saferedir.mining import Pictures, Search

EXPLAINS = {"a hazard": 0.5, "a dagger": 0.6, "a skull": 0.55, "a teapot": 0.0, "an empty scene": 0.0, "a knife": 0.2}
"""Thing -> the share of the noise that a sentence with it predicts; of a skull on the second picture alone."""
SEARCH = Search(pictures=4, sketches=4, kept=3, batch=2, levels=(0.5,))


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One whose pictures are noise, and whose predictions are as `EXPLAINS` says."""
    noise = torch.randn((4, 1, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    pictures = Pictures(noise.clone(), noise, (500,), tuple(f"{{}}, place {i}" for i in range(4)))
    monkeypatch.setattr(mining, "drawn", lambda *_: pictures)

    def encode(_: Any, texts: list[str]) -> torch.Tensor:
        shares = []
        for text in texts:
            thing, _, place = text.partition(", place ")
            shares.append(EXPLAINS[thing] if thing != "a skull" or place == "1" else 0.0)
        return torch.tensor(shares)[:, None, None]

    monkeypatch.setattr(finetune, "encode", encode)
    monkeypatch.setattr(finetune, "predict", lambda unet, x, t, prompts: x * prompts[:, :, :, None])
    vocabulary = {"knife</w>": 0, "ife": 1, "is</w>": 2, "dagger</w>": 3, "apple</w>": 4, "4x4</w>": 5, "nun</w>": 6}
    return SimpleNamespace(unet=None, tokenizer=SimpleNamespace(get_vocab=lambda: vocabulary))


def found(pipeline: Any, words: list[str], **changes: Any) -> dict[str, float]:
    search = Search(**{**vars(SEARCH), **changes})
    return mining.mined(pipeline, ["a hazard"], ["a hazard", "a dagger"], words, 4, 5.0, search, lambda *_: None)


def test_a_word_that_explains_some_of_the_pictures_as_well_as_the_told_ones_is_found(pipeline: Any) -> None:
    assert list(found(pipeline, ["a teapot", "a skull", "a knife"])) == ["a skull"]


def test_how_much_is_asked_for_is_a_share_of_what_the_told_ones_reach(pipeline: Any) -> None:
    assert list(found(pipeline, ["a teapot", "a skull", "a knife"], share=0.2)) == ["a skull", "a knife"]
    assert found(pipeline, ["a dagger"], share=0.9)["a dagger"] > 1


def test_only_the_best_of_the_first_pass_are_looked_at_again(pipeline: Any) -> None:
    assert list(found(pipeline, ["a teapot", "a knife", "a skull"], kept=1, share=0.01)) == ["a skull"]


def test_errors_are_of_the_noise(pipeline: Any) -> None:
    pictures = mining.drawn(pipeline, [], 1, 1.0, SEARCH)
    errors = mining.errors(pipeline, pictures, ["an empty scene", "a dagger"], 4, 1)
    power = pictures.noise[:, 0].square().flatten(1).mean(1)
    torch.testing.assert_close(errors[0], power)
    torch.testing.assert_close(errors[1], power * 0.4**2)


def test_the_vocabulary_is_whole_words_that_no_told_phrase_holds(pipeline: Any) -> None:
    assert mining.vocabulary(pipeline, ["a pointed dagger"], lambda word: word != "nun") == ["an apple", "a knife"]
