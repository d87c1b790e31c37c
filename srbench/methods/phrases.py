"""A concept's texts for methods: its phrases, their anchors, and its neighbours.

Every method is told the same: all of `phrases`. A method that takes in fewer, because it encodes them as one text, takes the
first ones. Cards list them under `phrases`, and under `left_out` those that did not fit.
"""

from __future__ import annotations

from collections.abc import Mapping

from srbench.catalog import load
from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.catalog.table_files import lines_of
from srbench.errors import UsageError


def words_of(concept: ConceptSpec, family: str) -> ConceptWords:
    """The concept's words for a backbone family. Raises `UsageError` where the family has none."""
    if family not in concept.families:
        families = ", ".join(sorted(concept.families))
        raise UsageError(f"concept '{concept.name}' has no words for {family}", f"It has words for: {families}")
    return concept.families[family]


def with_article(word: str, concept: ConceptSpec) -> str:
    """A word of the concept as it stands in a prompt: objects get their article."""
    if concept.kind != "object" or word.split(" ")[0] in ("a", "an", "the"):
        return word
    return ("an " if word[0] in "aeiou" else "a ") + word


def phrases(concept: ConceptSpec, family: str) -> list[str]:
    """Every phrase that names or describes the concept or one of its members, each once; never a reserved synonym."""
    words = words_of(concept, family)
    return list(dict.fromkeys([*words.names, *(with_article(word, concept) for word in words.words), *words.descriptions]))


def anchors(concept: ConceptSpec, family: str) -> dict[str, str]:
    """Phrase of the concept -> the safe thing that takes its place.

    Raises `UsageError` where a word has none.
    """
    words = words_of(concept, family)
    lacking = [word for word in (*words.words, *words.descriptions) if word not in words.counterparts]
    if lacking or not words.words:
        what = f"its word '{lacking[0]}'" if lacking else "it"
        hint = f"Add it to the concept's file: counterparts: {{{lacking[0] if lacking else 'WORD'}: ...}}"
        raise UsageError(f"concept '{concept.name}' has no anchor: there is no counterpart of {what} for {family}", hint)
    as_they_stand = [phrase for phrase in (*words.descriptions, *words.names) if phrase in words.counterparts]
    keys = {with_article(word, concept): word for word in words.words} | {phrase: phrase for phrase in as_they_stand}
    return {phrase: with_article(words.counterparts[key], concept) for phrase, key in keys.items()}


def listed_texts(texts: str | None) -> str | None:
    """Texts with semicolons between them; `@NAME` stands for the lines of a list in the catalog.

    Raises `ValueError` for a list that is not there.
    """
    if texts is None or not texts.startswith("@"):
        return texts
    lists = {path.stem: path for path in (load.CATALOG / "texts").glob("*.txt")}
    if texts[1:] not in lists:
        raise ValueError(f"no list '{texts}'; there are: {', '.join(f'@{name}' for name in sorted(lists))}")
    return "; ".join(lines_of(lists[texts[1:]].read_text(encoding="utf-8")))


def split_texts(listed: str | None) -> list[str]:
    """The texts of such a list; empty for None."""
    return list(filter(None, map(str.strip, (listed or "").split(";"))))


def listed_contexts(texts: str | None) -> str | None:
    """As `listed_texts`, of texts that hold `{}` where a phrase stands. Raises `ValueError` for one that holds none."""
    listed = listed_texts(texts)
    without = [text for text in split_texts(listed) if text.count("{}") != 1]
    if without:
        raise ValueError(f"'{without[0]}' does not hold {{}} once, where a phrase stands")
    return listed


def in_contexts(phrase: str, contexts: str | None) -> list[str]:
    """The phrase in each context of a list, or alone."""
    return [text.replace("{}", phrase) for text in split_texts(contexts)] or [phrase]


def pairs_in_contexts(anchor_of: Mapping[str, str], contexts: str | None) -> list[tuple[str, str]]:
    """Each phrase and its anchor, both in each context of a list, or alone."""
    return [
        pair for phrase, anchor in anchor_of.items()
        for pair in zip(in_contexts(phrase, contexts), in_contexts(anchor, contexts), strict=True)
    ]  # fmt: skip


def neighbours(concept: ConceptSpec, family: str) -> list[str]:
    """Phrases of things near the concept that must stay."""
    return [with_article(word, concept) for word in words_of(concept, family).neighbours]
