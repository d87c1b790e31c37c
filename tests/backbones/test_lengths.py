"""What the encoders of each family read of a text, and which texts they cut."""

from __future__ import annotations

import pytest

from srbench.backbones import lengths
from tests.families import MADE, tiny


@pytest.mark.parametrize("family", MADE)
def test_a_text_is_cut_where_the_tokenizer_s_length_ends(family: str) -> None:
    pipeline = tiny(family)
    short, long = "ab", "a b " * 600
    for tokenizer, limit in lengths.limits(pipeline).values():
        assert len(tokenizer(short).input_ids) <= limit
    found = lengths.cut(pipeline, [short, long, "", long])
    assert found
    assert all(beyond == {long} for _, beyond in found.values())
    assert {limit for limit, _ in found.values()} <= {limit for _, limit in lengths.limits(pipeline).values()}


def test_the_length_itself_is_not_cut() -> None:
    pipeline = tiny("sd")
    ((tokenizer, limit),) = lengths.limits(pipeline).values()
    text = "a" * (limit - 2)
    while len(tokenizer(text).input_ids) < limit:
        text += " b"
    assert len(tokenizer(text).input_ids) == limit
    assert lengths.cut(pipeline, [text]) == {}
    assert lengths.cut(pipeline, [f"{text} b"])["tokenizer"][1] == {f"{text} b"}


def test_a_long_encoder_beside_clip_is_counted_by_itself() -> None:
    limits = {name: limit for name, (_, limit) in lengths.limits(tiny("flux")).items()}
    assert set(limits) == {"tokenizer", "tokenizer_2"}


def test_texts_without_a_known_token_are_found() -> None:
    pipeline = tiny("pixart")
    tokenizer = pipeline.tokenizer
    unknown = next(
        (text for text in ("日本", "\U0001f680", "é") if not {*tokenizer(text).input_ids} - {*tokenizer.all_special_ids}), None
    )
    if unknown is None:
        pytest.skip("this tokenizer knows every character")
    assert lengths.unread(pipeline, ["ab", unknown, ""]) == {unknown}
