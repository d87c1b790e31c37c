"""Checks a tokenizer: tries it on harmless sentences, and compares it with its text encoder.

A tokenizer without its vocabulary still works: every letter becomes the same id, and images no longer depend on the prompt.
The libraries do not warn.
"""

from __future__ import annotations

from typing import Any, NoReturn

from srbench.errors import UsageError

SENTENCES = ("a photo of a small house beside a lake", "three red birds over the snow at night")
"""Letters and spaces alone: any tokenizer of English has a way to write them."""
HINT = "Its files are not whole, or another model's: fetch them again."
LEAST_SHARE = 0.9
"""Share of the encoder's embedding table that a tokenizer must fill; T5's table is padded by 28 of 32,128."""
LEAST_OWN = 0.9
"""Share of the vocabulary's words that must become one id each; without its merges a tokenizer splits them into letters."""
TRIED = 200
"""Words of the vocabulary that are tried."""
LEGACY_END = 2
"""`eos_token_id` of encoders in configurations before transformers 4.31, where the end is the highest id in the text."""


def check(tokenizer: Any, encoder: Any, where: str) -> None:
    """Try a tokenizer for its encoder. where: its name in messages. Raises `UsageError` with what it does wrong."""
    _check_size(tokenizer, encoder, where)
    _check_words(tokenizer, where)
    check_own_words(tokenizer, where)
    _check_ends(tokenizer, encoder, where)
    _check_sides(tokenizer, where)


def _refuse(where: str, what: str) -> NoReturn:
    raise UsageError(f"{where}: {what}", HINT)


def _check_size(tokenizer: Any, encoder: Any, where: str) -> None:
    """The vocabulary fits the encoder's embedding table, and for CLIP the longest text its positions."""
    words, rows = len(tokenizer), int(encoder.get_input_embeddings().num_embeddings)
    if words > rows or words < LEAST_SHARE * rows:
        _refuse(where, f"knows {words} words, and its text encoder {rows}")
    places = getattr(encoder.config, "max_position_embeddings", None)
    longest = tokenizer.model_max_length
    if isinstance(places, int) and longest != places:
        stated = f"{longest}" if longest < 10**9 else "no number"
        _refuse(where, f"gives {stated} as its longest text (model_max_length), and its text encoder reads {places} tokens")


def _check_words(tokenizer: Any, where: str) -> None:
    """Two sentences get different ids, mostly of known words, and are decoded to the same sentences."""
    plain = [tokenizer(text, add_special_tokens=False).input_ids for text in SENTENCES]
    if plain[0] == plain[1] or not all(plain):
        _refuse(where, "writes two sentences in the same numbers")
    for text, ids in zip(SENTENCES, plain, strict=True):
        unknown = sum(i == tokenizer.unk_token_id for i in ids) / len(ids)
        if unknown > 0.5 or len(set(ids)) < 3:
            _refuse(where, f"knows no word of '{text}'")
        back = tokenizer.decode(ids, skip_special_tokens=True)
        if _letters(back) != _letters(text):
            _refuse(where, f"does not give '{text}' back")


def _letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalpha())


def check_own_words(tokenizer: Any, where: str) -> None:
    """Words of its vocabulary become one id each, which needs the merges that belong to it."""
    words = own_words(tokenizer.get_vocab())
    tried = words[:: max(1, len(words) // TRIED)]
    right = sum(tokenizer(word, add_special_tokens=False).input_ids == [number] for word, number in tried)
    if tried and right < LEAST_OWN * len(tried):
        _refuse(where, f"does not write the words of its own vocabulary ({right} of {len(tried)} tried), its merges are others")


def own_words(vocabulary: dict[str, int]) -> list[tuple[str, int]]:
    """Whole lower-case words of a vocabulary, sorted, with their ids; marks of a word's start or end are removed."""
    for mark in ("</w>", "\u2581"):  # CLIP's and sentencepiece's
        marked = {word.replace(mark, ""): number for word, number in vocabulary.items() if mark in word}
        words = sorted((word, number) for word, number in marked.items() if word.isascii() and word.isalpha() and word.islower())
        if words:
            return words
    return []


def _check_ends(tokenizer: Any, encoder: Any, where: str) -> None:
    """Texts end with the token that the encoder looks for."""
    ids = tokenizer(SENTENCES[0]).input_ids
    end, rows = tokenizer.eos_token_id, int(encoder.get_input_embeddings().num_embeddings)
    looked_at = getattr(encoder.config, "eos_token_id", None)
    if ids[-1] != end and (end, looked_at) != (None, None):
        _refuse(where, "does not mark the end of a text")
    if max(ids) >= rows or (tokenizer.pad_token_id is not None and not 0 <= tokenizer.pad_token_id < rows):
        _refuse(where, f"gives numbers that its text encoder, with {rows} words, does not have")
    legacy = looked_at == LEGACY_END and end == max(ids)
    if isinstance(looked_at, int) and looked_at != end and not legacy:
        _refuse(where, f"ends texts with number {end}, where its text encoder looks for {looked_at}")


def _check_sides(tokenizer: Any, where: str) -> None:
    """Texts are padded and cut at their end: the encoder reads from the beginning."""
    ids = tokenizer(SENTENCES[0]).input_ids
    cut = tokenizer(SENTENCES[0], truncation=True, max_length=len(ids) - 2).input_ids
    if cut[:3] != ids[:3]:
        _refuse(where, "cuts texts that are too long at their beginning (truncation_side)")
    if tokenizer.pad_token_id is None:
        return
    filled = tokenizer(SENTENCES[0], padding="max_length", truncation=True, max_length=len(ids) + 4).input_ids
    if filled[: len(ids)] != ids:
        _refuse(where, "fills texts up at their beginning (padding_side), and its text encoder reads them from there")
