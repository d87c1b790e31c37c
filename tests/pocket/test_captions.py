"""Scenes and their captions: which thing is named first, what is never left out, and scenes beside their swapped twin."""

from __future__ import annotations

import re

import numpy as np

from srbench.pocket.captions import caption, write_prompt
from srbench.pocket.scene import Scene
from srbench.pocket.world import CONCEPTS, OBJECTS, STYLES
from srbench.pocket_build.model.data import _with_swaps
from srbench.pocket_build.model.scenes import SIDE_PX, _places, held_out, sample_scene


def _names(key: str) -> list[str]:
    """Everything the object may be called, its concept's names included."""
    own = [*OBJECTS[key].nouns, OBJECTS[key].description]
    return own + [word for c in CONCEPTS.values() if key in c.members for word in (*c.names, *c.reserved)]


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
            assert any(p in text for p in (*STYLES["vangogh"].phrases, "van gogh", *style.reserved, *style.descriptions)), text


def test_no_training_scene_is_a_held_out_combination() -> None:
    assert not any(held_out(o, s.style, s.background) for s in _scenes() for o in s.objects)


def test_about_one_scene_in_ten_is_empty() -> None:
    share = np.mean([not s.objects for s in _scenes(4000)])
    assert 0.05 <= share <= 0.12


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
