"""Several concepts that are unlearned at once, as one concept with parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from srbench.catalog.specs import ConceptSpec, ConceptWords, holds
from srbench.errors import UsageError


class JointConcept(ConceptSpec):
    """What its members are, together; for one family of backbones."""

    members: tuple[ConceptSpec, ...]

    @property
    def parts(self) -> tuple[ConceptSpec, ...]:
        return self.members


def joint(concepts: Sequence[ConceptSpec], family: str) -> ConceptSpec:
    """One concept for all: the union of their words, anchors and neighbours; a single one is itself.

    Raises `UsageError` for one named twice, for two kinds, and where one is to become or to keep what another is to forget.
    """
    if len(concepts) == 1:
        return concepts[0]
    names = [concept.name for concept in concepts]
    again = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if again is not None:
        raise UsageError(f"--concept {','.join(names)}: '{again}' is there twice", "Name each once.")
    kinds = sorted({concept.kind for concept in concepts})
    if len(kinds) > 1:
        raise UsageError(f"--concept {','.join(names)}: of several kinds ({', '.join(kinds)})", "Erase each kind on its own.")
    for first, second in ((a, b) for a in concepts for b in concepts if a is not b):
        _check_pair(first, second, family)
    words = [concept.families[family] for concept in concepts]
    return JointConcept(
        name="+".join(names), title=" and ".join(concept.title for concept in concepts), kind=concepts[0].kind,
        sensitive=any(concept.sensitive for concept in concepts), members=tuple(concepts), families={family: _union(words)},
    )  # fmt: skip


def _union(words: Sequence[ConceptWords]) -> ConceptWords:
    """All their texts, each once. The judge is the first one's: whoever judges a joint concept asks each part's."""
    lists: dict[str, tuple[str, ...]] = {
        field: tuple(dict.fromkeys(text for each in words for text in getattr(each, field)))
        for field in ("names", "words", "descriptions", "reserved", "neighbours")
    }  # fmt: skip
    counterparts = {word: safe for each in words for word, safe in each.counterparts.items()}
    gone = (*lists["names"], *lists["words"], *lists["reserved"])
    lists["neighbours"] = tuple(text for text in lists["neighbours"] if not any(holds(text, word) for word in gone))
    lists["reserved"] = tuple(text for text in lists["reserved"] if text not in lists["words"])
    return ConceptWords(
        names=lists["names"], words=lists["words"], descriptions=lists["descriptions"], reserved=lists["reserved"],
        counterparts=counterparts,
        neighbours=lists["neighbours"], protocol=words[0].protocol,
    )  # fmt: skip


def _texts(words: ConceptWords) -> Iterator[str]:
    yield from (*words.words, *words.names, *words.reserved)


def _check_pair(first: ConceptSpec, second: ConceptSpec, family: str) -> None:
    """Raises `UsageError` where the first would become what the second forgets, or both forget one word in two ways."""
    ours, theirs = first.families[family], second.families[family]
    both = f"concepts '{first.name}' and '{second.name}' contradict each other"
    for word, safe in ours.counterparts.items():
        for other in _texts(theirs):
            if holds(safe, other):
                what = f"{both}: '{word}' would become '{safe}', and '{other}' is to go"
                raise UsageError(what, f"Give '{word}' another counterpart, or erase them apart.")
        if theirs.counterparts.get(word, safe) != safe:
            what = f"{both}: '{word}' would become '{safe}' and '{theirs.counterparts[word]}'"
            raise UsageError(what, "Give the word one counterpart, or erase them apart.")
