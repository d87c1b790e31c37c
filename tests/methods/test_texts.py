"""Where phrases are in a text, and prompts with free vectors."""

from __future__ import annotations

import pytest
import torch

from srbench.errors import UsageError
from srbench.methods import texts
from srbench.testing.bench import Bench


def test_a_phrases_tokens_without_its_article(bench: Bench) -> None:
    """One token a letter: start, t h e, b o x, end."""
    tokenizer = bench.pipeline.tokenizer
    found = texts.word_tokens(tokenizer, "cd a box ef", "a box", ends=False)
    assert found.nonzero().flatten().tolist() == [4, 5, 6]
    ends = texts.word_tokens(tokenizer, "a box", "a box", ends=True)
    assert ends.nonzero().flatten().tolist() == [2, 3, 4, *range(5, 16)]


def test_a_phrase_that_is_cut_off_is_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="does not read 'a box'"):
        texts.word_tokens(bench.pipeline.tokenizer, "abcdefghijklmnopq a box", "a box", ends=False)


def test_texts_without_the_concept(bench: Bench) -> None:
    kept = texts.without_concept(bench.concept, "tiny", ["a tin", "a box and a tin", "boxer", "a tin", "a jar"])
    assert kept == ["a tin", "boxer"]  # `jar` is one of its words


@pytest.mark.parametrize("before", [True, False])
def test_vectors_stand_where_they_are_put(bench: Bench, before: bool) -> None:
    """With the embedding of a letter in place of a vector the text is the one with that letter."""
    pipeline = bench.pipeline
    encoder = pipeline.text_encoder
    ids, start = texts.with_places(pipeline, "box", 1, before=before)
    letter = texts.content_ids(pipeline.tokenizer, "q")
    vector = encoder.get_input_embeddings().weight[letter].detach()[None].requires_grad_(True)  # (1, 1, width)
    found = texts.states(encoder, ids, vector, start)
    expected = bench.embeddings(["q box" if before else "box q"])
    assert torch.allclose(found, expected, atol=1e-5)
    (grad,) = torch.autograd.grad(found.square().sum(), [vector])
    assert bool(grad.abs().sum() > 0)
    assert not bench.hooks().get("text_encoder.embeddings.token_embedding")


def test_too_many_vectors_are_refused(bench: Bench) -> None:
    with pytest.raises(UsageError, match="longer than the 16"):
        texts.with_places(bench.pipeline, "box", 12, before=False)


def test_the_embeddings_of_tokens_are_not_trained(bench: Bench) -> None:
    edited, chosen = texts.trainable_encoder(bench.pipeline, "x")
    names = {name for name, _ in edited.named_parameters()}
    assert names - chosen.keys() == {name for name in names if "embeddings." in name}
    assert any("final_layer_norm" in name for name in chosen)
    assert not any(value.requires_grad for name, value in edited.named_parameters() if name not in chosen)
