"""Whether a tokenizer reads: tried on harmless sentences, and compared with the encoder that it writes for.

A tokenizer whose vocabulary did not come along answers all the same: every letter becomes one number, and pictures no longer
depend on the prompt. Nothing in the libraries says so.
"""

from __future__ import annotations

from typing import Any, NoReturn

from srbench.errors import UsageError

SENTENCES = ("a photo of a small house beside a lake", "three red birds over the snow at night")
"""Letters and spaces alone: any tokenizer of English has a way to write them."""
HINT = "Its files are not whole, or another model's: fetch them again."
LEAST_SHARE = 0.9
"""Of the encoder's table of words that a tokenizer fills; T5's table is padded by 28 of 32,128."""
LEAST_OWN = 0.9
"""Share of the vocabulary's words that are written as themselves; without its merges a tokenizer writes them in letters."""
TRIED = 200
"""Words of the vocabulary that are tried."""
LEGACY_END = 2
"""As `eos_token_id` of an encoder: configurations before transformers 4.31, where the end is the highest number in the text."""


def check(tokenizer: Any, encoder: Any, where: str) -> None:
    """Try a tokenizer for its encoder. where: what messages call it. Raises `UsageError` with what it does wrong."""
    _check_size(tokenizer, encoder, where)
    _check_words(tokenizer, where)
    check_own_words(tokenizer, where)
    _check_ends(tokenizer, encoder, where)
    _check_sides(tokenizer, where)


def _refuse(where: str, what: str) -> NoReturn:
    raise UsageError(f"{where}: {what}", HINT)


def _check_size(tokenizer: Any, encoder: Any, where: str) -> None:
    """As many words as the encoder has rows, and for CLIP as many places as it reads."""
    words, rows = len(tokenizer), int(encoder.get_input_embeddings().num_embeddings)
    if words > rows or words < LEAST_SHARE * rows:
        _refuse(where, f"knows {words} words, and its text encoder {rows}")
    places = getattr(encoder.config, "max_position_embeddings", None)
    longest = tokenizer.model_max_length
    if isinstance(places, int) and longest != places:
        said = f"{longest}" if longest < 10**9 else "no number"
        _refuse(where, f"gives {said} as its longest text (model_max_length), and its text encoder reads {places} tokens")


def _check_words(tokenizer: Any, where: str) -> None:
    """Known sentences become different numbers, mostly of known words, and these become the sentences again."""
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
    """The words of its vocabulary are written as one number each, which needs the merges that belong to it."""
    words = own_words(tokenizer.get_vocab())
    tried = words[:: max(1, len(words) // TRIED)]
    right = sum(tokenizer(word, add_special_tokens=False).input_ids == [number] for word, number in tried)
    if tried and right < LEAST_OWN * len(tried):
        _refuse(where, f"does not write the words of its own vocabulary ({right} of {len(tried)} tried), its merges are others")


def own_words(vocabulary: dict[str, int]) -> list[tuple[str, int]]:
    """Whole words of small letters in a vocabulary, in order, with their numbers; marks of a word's start or end taken off."""
    for mark in ("</w>", "\u2581"):  # CLIP's and sentencepiece's
        marked = {word.replace(mark, ""): number for word, number in vocabulary.items() if mark in word}
        found = sorted((word, number) for word, number in marked.items() if word.isascii() and word.isalpha() and word.islower())
        if found:
            return found
    return []


def _check_ends(tokenizer: Any, encoder: Any, where: str) -> None:
    """Texts end with the token at which the encoder looks."""
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
    """Texts begin where the encoder begins to read: they are filled up, and cut where they are too long, at their end."""
    ids = tokenizer(SENTENCES[0]).input_ids
    cut = tokenizer(SENTENCES[0], truncation=True, max_length=len(ids) - 2).input_ids
    if cut[:3] != ids[:3]:
        _refuse(where, "cuts texts that are too long at their beginning (truncation_side)")
    if tokenizer.pad_token_id is None:
        return
    filled = tokenizer(SENTENCES[0], padding="max_length", truncation=True, max_length=len(ids) + 4).input_ids
    if filled[: len(ids)] != ids:
        _refuse(where, "fills texts up at their beginning (padding_side), and its text encoder reads them from there")
