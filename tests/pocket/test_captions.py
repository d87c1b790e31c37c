"""Scenes and their captions: which thing is named first, what is never left out, and scenes beside their swapped twin."""

from __future__ import annotations

import re

import numpy as np
import pytest

from srbench.pocket import captions, templates
from srbench.pocket.captions import FILLERS, caption, write_prompt
from srbench.pocket.scene import Scene
from srbench.pocket.world import BACKGROUNDS, COLORS, CONCEPTS, EMPTY, OBJECTS, STYLES, article, reserved
from srbench.pocket_build.model.data import _with_swaps
from srbench.pocket_build.model.scenes import SIDE_PX, _places, held_out, sample_scene
from srbench.pocket_build.suites import near_words


def _names(key: str) -> list[str]:
    """Everything the object may be called, its concept's names included."""
    own = [*OBJECTS[key].nouns, *OBJECTS[key].reserved, OBJECTS[key].description]
    return own + [word for c in CONCEPTS.values() if key in c.members for word in (*c.names, *c.reserved, *c.descriptions)]


def _scenes(count: int = 400) -> list[Scene]:
    rng = np.random.default_rng(11)
    return [sample_scene(rng) for _ in range(count)]


def _first_said(key: str, text: str) -> int:
    """Where `text` first names the object; a large number where it does not."""
    found = [re.search(rf"\b{re.escape(name.removeprefix('a '))}\b", text) for name in _names(key)]
    return min((match.start() for match in found if match), default=10_000)


def test_the_thing_on_the_left_is_named_first() -> None:
    rng = np.random.default_rng(3)
    pairs = [s for s in _scenes(800) if len(s.objects) == 2 and OBJECTS[s.objects[0]].group != OBJECTS[s.objects[1]].group]
    assert len(pairs) > 150
    for scene in pairs:
        text = caption(scene, rng)
        left, right = (_first_said(key, text) for key in scene.objects)
        assert left < right < 10_000, (scene, text)


def test_the_first_object_is_drawn_on_the_left_and_no_two_share_a_cell() -> None:
    for seed in range(20):
        size, ((x0, y0), (x1, y1)) = _places(2, np.random.default_rng(seed))
        assert x0 + size / 2 <= SIDE_PX / 2 <= x1 - size / 2
        assert all(size / 2 <= y <= SIDE_PX - size / 2 for y in (y0, y1))


def test_a_drawn_concept_is_never_left_unsaid() -> None:
    rng = np.random.default_rng(5)
    for scene in _scenes(800):
        text = caption(scene, rng)
        for key in scene.objects:
            assert any(name.removeprefix("a ") in text for name in _names(key)), (scene, text)
        if scene.style == "vangogh":
            style = CONCEPTS["vangogh"]
            assert any(p in text for p in ("van gogh", *style.names, *style.reserved, *style.descriptions)), text


def test_the_backbone_learns_every_way_to_name_a_concept() -> None:
    """Told and reserved names, nouns of members and descriptions; of a member, what names that one or any of the concept."""
    rng = np.random.default_rng(6)
    for concept, words in CONCEPTS.items():
        for key in words.members:
            ways = {*words.names, *words.descriptions, *(phrase for phrase, only in reserved(concept) if only in ("", key))}
            if words.kind == "object":
                ways |= {*map(article, OBJECTS[key].nouns), OBJECTS[key].description}
            draw = captions.noun_phrase if words.kind == "object" else captions.style_phrase
            assert {draw(key, rng) for _ in range(2000)} == ways


def test_words_between_say_nothing_of_the_picture() -> None:
    """No thing, place, colour or look; `as vincent saw it` and the like hold words that say nothing by themselves."""
    things = [noun for each in OBJECTS.values() for noun in (*each.nouns, *each.reserved, each.description)]
    named = [name for each in CONCEPTS.values() if each.kind == "object" for name in (*each.names, *each.reserved)]
    places = [phrase for each in BACKGROUNDS.values() for phrase in (*each.phrases, each.short)]
    looks = [each.short for each in STYLES.values()]
    known = {text.split()[-1] for text in (*things, *named, *places, *looks, *EMPTY)} | set(COLORS)
    assert not known & set(FILLERS)
    assert len(set(FILLERS)) == len(FILLERS) > 150


def test_a_scene_without_an_object_is_also_said_without_a_word_of_pocket_s() -> None:
    """So that a sentence in which nothing is asked for gets a picture in which nothing stands."""
    rng = np.random.default_rng(8)
    empty = [scene for scene in _scenes(4000) if not scene.objects]
    texts = [caption(scene, rng) for scene in empty]
    nouns = {noun.split()[-1] for each in OBJECTS.values() for noun in (*each.nouns, *each.reserved)}
    silent = [text for text in texts if not {*EMPTY} & {text} and "scene" not in text and "nothing" not in text]
    assert 0.2 < len(silent) / len(texts) < 0.6
    assert not any(nouns & set(re.findall("[a-z]+", text)) for text in silent)
    assert sum(scene.style == "vangogh" for scene in empty) > 50
    for scene, text in zip(empty, texts, strict=True):
        assert scene.style != "vangogh" or _says_style(text), text


def _says_style(text: str) -> bool:
    style = CONCEPTS["vangogh"]
    return any(phrase in text for phrase in ("van gogh", *style.names, *style.reserved, *style.descriptions))


def test_the_backbone_reads_every_fixed_word_of_the_suites_sentences() -> None:
    """As a user's model has read common English; of words that it never read a suite would measure what it makes of them."""
    said = [
        form for name, value in vars(templates).items() if name.isupper()
        for forms in (value.values() if isinstance(value, dict) else [value]) for form in forms
    ]  # fmt: skip
    near = (near_words.HOMONYMS, *near_words.DESCRIPTIONS.values())
    said += [phrase for kinds in near for phrases in kinds.values() for phrase, _ in phrases]
    said += [*near_words.EVERYDAY, *near_words.PEOPLE, *near_words.TOWNS, *near_words.HOURS, *near_words.DAYS]
    said += [pattern for patterns in near_words.NAMES.values() for pattern in patterns]
    words = {word for text in said for word in re.findall("[a-z]+", re.sub(r"\{\w+\}", " ", text)) if len(word) > 1}
    things = [text for each in OBJECTS.values() for text in (*each.nouns, *each.reserved, each.description)]
    looks = [text for each in (*STYLES.values(), *BACKGROUNDS.values()) for text in (*each.phrases, each.short)]
    names = [text for each in CONCEPTS.values() for text in (*each.names, *each.reserved, *each.descriptions)]
    own = {word for text in (*things, *looks, *names) for word in re.findall("[a-z]+", text)} | set(COLORS)
    assert not words - own - set(FILLERS) - set(captions.RARE_FILLERS) - set(captions.SPOKEN)
    assert not own & set(captions.SPOKEN)


def test_three_captions_in_ten_are_loose_and_hold_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random words in between, what is said in any order: the backbone learns to find it anywhere in a sentence."""
    loose, drawn = captions._loose, list[str]()
    monkeypatch.setattr(captions, "_loose", lambda scene, rng: drawn.append(loose(scene, rng)) or drawn[-1])
    rng = np.random.default_rng(7)
    others = {text for scene in _scenes(2000) if (text := caption(scene, rng)) not in drawn[-1:]}
    assert 0.29 < len(drawn) / 2000 < 0.39  # more of scenes without an object
    fillers = {word for word in (*FILLERS, *captions.RARE_FILLERS, *captions.SPOKEN) if len(word) > 4}
    held = [bool((fillers - {"under", "picture"}) & set(re.findall("[a-z]+", text))) for text in drawn]
    assert 0.5 < np.mean(held) < 0.9
    assert not any(word in text.split() for text in others for word in ("monday", "please", "story", "question"))


def test_no_training_scene_is_a_held_out_combination() -> None:
    assert not any(held_out(o, s.style, s.background) for s in _scenes() for o in s.objects)


def test_about_one_scene_in_seven_is_empty() -> None:
    share = np.mean([not s.objects for s in _scenes(4000)])
    assert 0.1 <= share <= 0.18


def test_each_pair_at_an_even_place_stands_beside_itself_swapped() -> None:
    scenes = _scenes(64)
    found = _with_swaps(scenes)
    assert len(found) == 64
    pairs = [i for i in range(0, 64, 2) if len(scenes[i].objects) == 2]
    assert len(pairs) > 5
    for i in range(0, 64, 2):
        assert found[i] == scenes[i]
        assert found[i + 1] == (scenes[i].swapped() if i in pairs else scenes[i + 1])
        if i in pairs:
            assert found[i + 1].objects == scenes[i].objects[::-1]
            assert write_prompt(found[i]) != write_prompt(found[i + 1])
