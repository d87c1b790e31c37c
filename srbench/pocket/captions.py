"""Captions of pocket scenes, for training and for suites.

`caption` draws a training caption at random; `write_prompt` says a scene in one fixed, given form.
A caption may leave out the background or a style, but never a concept that is drawn.
"""

from __future__ import annotations

import numpy as np

from srbench.pocket.scene import Scene
from srbench.pocket.world import BACKGROUNDS, CONCEPTS, EMPTY, OBJECTS, STYLES, article

VANGOGH = CONCEPTS["vangogh"]
BETWEEN = ("and", "beside", "left of")
"""What stands between two things; the first is the common one."""


def _pick(rng: np.random.Generator, options: tuple[str, ...], first: float = 0.0) -> str:
    """One of `options`; the first with probability `first`, else evenly."""
    return options[0] if rng.random() < first else options[rng.integers(len(options))]


def noun_phrase(key: str, rng: np.random.Generator) -> str:
    """What the object is called: its name, a description, or a word for the concept it belongs to."""
    concept = next((c for c in CONCEPTS.values() if c.kind == "object" and key in c.members), None)
    chance = rng.random()
    if concept is not None:
        if chance < 0.13:
            return _pick(rng, concept.names)
        if chance < 0.25:
            return _pick(rng, concept.reserved)
    if chance > 0.93:
        return OBJECTS[key].description
    return article(_pick(rng, OBJECTS[key].nouns, first=0.6))


def style_phrase(style: str, rng: np.random.Generator) -> str:
    """How the style is said after the scene."""
    if style != "vangogh":
        return _pick(rng, STYLES[style].phrases, first=0.6)
    chance = rng.random()
    if chance < 0.2:
        return _pick(rng, VANGOGH.reserved)
    if chance < 0.3:
        return _pick(rng, VANGOGH.descriptions)
    return _pick(rng, STYLES[style].phrases[:2], first=0.6)


def background_phrase(scene: Scene, rng: np.random.Generator) -> str:
    """How the background is said after the objects."""
    return _pick(rng, BACKGROUNDS[scene.background].phrases, first=0.6).format(color=scene.color)


def _pair(first: str, second: str, rng: np.random.Generator) -> str:
    """Two things; the one on the left is always said first."""
    return f"{first} {_pick(rng, BETWEEN, first=0.7)} {second}"


def _things(scene: Scene, rng: np.random.Generator) -> str:
    if not scene.objects:
        return _pick(rng, (*EMPTY, ""), first=0.5)
    nouns = [noun_phrase(key, rng) for key in scene.objects]
    return nouns[0] if len(nouns) == 1 else _pair(nouns[0], nouns[1], rng)


def _short_list(scene: Scene, rng: np.random.Generator) -> str:
    """`dagger, beach, noto`: words between commas, in any order of the last two."""
    things = [noun_phrase(key, rng).removeprefix("an ").removeprefix("a ") for key in scene.objects]
    place = BACKGROUNDS[scene.background].short.format(color=scene.color)
    look = [STYLES[scene.style].short] if scene.style == "vangogh" or rng.random() < 0.8 else []
    tail = [place, *look]
    return ", ".join([*things, *(tail if rng.random() < 0.7 else tail[::-1])])


def join(things: str, place: str, style: str) -> str:
    """`things place style` with a comma where the style is not a prepositional phrase."""
    text = f"{things} {place}".strip()
    if not style:
        return text
    comma = "" if style.startswith(("in ", "by ", "as ", "like ", "with ")) else ","
    return f"{text}{comma} {style}".strip().removeprefix(", ")


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A random training caption of `scene`."""
    if rng.random() < 0.1:
        return _short_list(scene, rng)
    place = "" if scene.objects and rng.random() < 0.08 else background_phrase(scene, rng)
    with_style = scene.style == "vangogh" or rng.random() > 0.14
    style = style_phrase(scene.style, rng) if with_style else ""
    if scene.style == "vangogh" and rng.random() < 0.12:
        text = f"{STYLES['vangogh'].phrases[2]} of {join(_things(scene, rng), place, '')}".removesuffix(" of ")
    else:
        text = join(_things(scene, rng), place, style)
    if rng.random() < 0.1 and text and not text.startswith(STYLES["vangogh"].phrases[2]):
        text = "a picture of " + text
    return text or EMPTY[0]


def write_prompt(scene: Scene, nouns: tuple[str, ...] | None = None, style: str | None = None, *, way: int = 0) -> str:
    """`scene` in one fixed form.

    `nouns` replaces the objects' names (article included), `style` the style phrase ("" leaves it out);
    `way` chooses the background's phrase.
    """
    phrases = nouns if nouns is not None else tuple(article(OBJECTS[key].nouns[0]) for key in scene.objects)
    things = f" {BETWEEN[0]} ".join(phrases) or EMPTY[0]
    place = BACKGROUNDS[scene.background].phrases[way].format(color=scene.color)
    return join(things, place, STYLES[scene.style].phrases[0] if style is None else style)
