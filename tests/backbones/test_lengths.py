"""What the encoders of each family read of a text, and which texts they cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from srbench.backbones import components, lengths
from srbench.testing.families import MADE, tiny


def reader(family: str) -> lengths.Reader:
    return lengths.reader_of(type(tiny(family)), tiny(family).components)


@pytest.mark.parametrize("family", MADE)
def test_a_text_is_cut_where_the_tokenizer_s_length_ends(family: str) -> None:
    known = reader(family)
    short, long = "ab", "a b " * 600
    for tokenizer, limit in lengths.limits(known).values():
        assert len(tokenizer(short).input_ids) <= limit
    found = lengths.cut(known, [short, long, "", long])
    assert found
    assert all(beyond == {long} for _, beyond in found.values())
    assert {limit for limit, _ in found.values()} <= {limit for _, limit in lengths.limits(known).values()}


def test_the_length_itself_is_not_cut() -> None:
    known = reader("sd")
    ((tokenizer, limit),) = lengths.limits(known).values()
    text = "a" * (limit - 2)
    while len(tokenizer(text).input_ids) < limit:
        text += " b"
    assert len(tokenizer(text).input_ids) == limit
    assert lengths.cut(known, [text]) == {}
    assert lengths.cut(known, [f"{text} b"])["tokenizer"][1] == {f"{text} b"}


def test_a_long_encoder_beside_clip_is_counted_by_itself() -> None:
    limits = {name: limit for name, (_, limit) in lengths.limits(reader("flux")).items()}
    assert set(limits) == {"tokenizer", "tokenizer_2"}


def test_texts_without_a_known_token_are_found() -> None:
    pipeline = tiny("pixart")
    tokenizer = pipeline.tokenizer
    unknown = next(
        (text for text in ("日本", "\U0001f680", "é") if not {*tokenizer(text).input_ids} - {*tokenizer.all_special_ids}), None
    )
    if unknown is None:
        pytest.skip("this tokenizer knows every character")
    assert lengths.unread(reader("pixart"), ["ab", unknown, ""]) == {unknown}


def test_no_weights_are_opened_to_say_how_long_a_text_may_be(tmp_path: Path) -> None:
    tiny("sd").save_pretrained(tmp_path)
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(b"")
    found = components.reader(tmp_path, "sd")
    assert lengths.cut(found, ["a b " * 600])
