"""Several concepts as one: what it holds, and which cannot be unlearned together."""

from __future__ import annotations

import pytest

from srbench.catalog import load
from srbench.catalog.joint import joint
from srbench.catalog.specs import ConceptSpec, ConceptWords
from srbench.engine.prepare import concept_sha
from srbench.errors import UsageError


def concept(name: str, kind: str = "object", **changes: object) -> ConceptSpec:
    values = {"names": (f"a {name}",), "words": (name,), "counterparts": {name: "cup"}, "protocol": f"{name}-judge"}
    words = ConceptWords.model_validate({**values, **changes})
    spec = {"name": name, "title": name, "kind": kind, "sensitive": False, "families": {"tiny": words}}
    return ConceptSpec.model_validate(spec)


def test_it_has_all_their_words_and_knows_its_parts() -> None:
    first, second = concept("box", neighbours=("jar", "tin")), concept("tin", neighbours=("jar", "can"))
    both = joint([first, second], "tiny")
    words = both.families["tiny"]
    assert (both.name, both.parts) == ("box+tin", (first, second))
    assert (words.names, words.words) == (("a box", "a tin"), ("box", "tin"))
    assert words.counterparts == {"box": "cup", "tin": "cup"}
    assert words.neighbours == ("jar", "can")  # what one of them forgets is not kept for the other
    assert not both.sensitive


def test_one_is_itself() -> None:
    one = concept("box")
    assert joint([one], "tiny") is one
    assert one.parts == ()


def test_a_sensitive_part_makes_it_sensitive() -> None:
    hidden = concept("tin").model_copy(update={"sensitive": True})
    assert joint([concept("box"), hidden], "tiny").sensitive


def test_its_key_is_of_its_parts_in_their_order() -> None:
    one, other = concept("box"), concept("tin")
    both, turned = joint([one, other], "tiny"), joint([other, one], "tiny")
    merged = concept("any").model_copy(update={"families": both.families})
    assert len({concept_sha(each, "tiny") for each in (one, other, both, turned, merged)}) == 5


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (concept("box"), "'box' is there twice"),
        (concept("tin", kind="style"), "of several kinds"),
        (concept("cup", counterparts={"cup": "jar"}), "'box' would become 'cup', and 'cup' is to go"),
        (concept("tin", words=("tin", "box"), counterparts={"tin": "cup", "box": "jar"}), "'box' would become 'cup' and 'jar'"),
    ],
)
def test_those_that_contradict_each_other_are_refused(second: ConceptSpec, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        joint([concept("box"), second], "tiny")
    assert caught.value.hint


def test_pockets_objects_go_together() -> None:
    concepts = load.concepts()
    both = joint([concepts["hazard"], concepts["church"]], "pocket")
    assert {"a church", "a hazard"} <= set(both.families["pocket"].names)
