"""Captions of pocket scenes, for training and for suites.

`caption` draws a training caption at random; `write_prompt` says a scene in one fixed, given form.
A caption may leave out the background or a style, but never a concept that is drawn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from srbench.pocket.scene import Scene
from srbench.pocket.world import BACKGROUNDS, CONCEPTS, EMPTY, OBJECTS, STYLE_PREPOSITIONS, STYLES, article, reserved

VANGOGH = CONCEPTS["vangogh"]
BETWEEN = ("and", "beside", "left of")
"""What stands between two things; the first is the common one."""
_SAY_NOTHING = (
    "the of that this one with here there is was we you they he she it who what when then now for on at to from up down out "
    "over again once only just very more most some any each every such both few many much still yet also even well how why "
    "where which while until because as so or but if than too not no yes please could would should can may will shall has "
    "have had been were are be do does did made make take took give gave see saw seen look find found show shown put right "
    "first last next new good great nice fine page line note card book paper letter shelf frame room street town day week "
    "year hour morning monday friday today tomorrow people friend sister office story report list number part side end back "
    "top middle corner picture copy print poster title idea plan word question answer help talk walk read write send keep "
    "want like love need think know ask tell say said called about around between behind under above"
)
FILLERS = tuple(_SAY_NOTHING.split())
"""Common words that say nothing of the picture; in loose captions they stand between what does."""
RARE_FILLERS = tuple(Path(__file__).with_name("fillers.txt").read_text(encoding="utf-8").split())
"""Words of icons' names that say nothing of what pocket draws. Without them the model takes every word that it has never read for
one of the rarer words that it has: most are a church's."""
SPOKEN = tuple(Path(__file__).with_name("spoken.txt").read_text(encoding="utf-8").split())
"""What else people say around a picture: the fixed words of the suites' sentences that are none of pocket's. A user's model has
read them, too; one that has not takes "that is all" for a church and "chapter two" for two swords."""
RARE_SHARE = 0.5
SILENT_SHARE = 0.5
"""Of the loose captions of scenes without an object: those that do not speak of one at all."""


def _pick(rng: np.random.Generator, options: tuple[str, ...], first: float = 0.0) -> str:
    """One of `options`; the first with probability `first`, else evenly."""
    return options[0] if rng.random() < first else options[rng.integers(len(options))]


def _concept_of(key: str) -> str:
    return next((name for name, c in CONCEPTS.items() if c.kind == "object" and key in c.members), "")


def noun_phrase(key: str, rng: np.random.Generator) -> str:
    """What the object is called: its name, a description, or a word for the concept it belongs to."""
    concept, chance = _concept_of(key), rng.random()
    if concept:
        words = CONCEPTS[concept]
        if chance < 0.14:
            return _pick(rng, words.names)
        if chance < 0.30:
            return _pick(rng, tuple(phrase for phrase, only in reserved(concept) if only in ("", key)))
        if chance > 0.9:
            return _pick(rng, (OBJECTS[key].description, *words.descriptions))
    elif chance > 0.93:
        return OBJECTS[key].description
    return article(_pick(rng, OBJECTS[key].nouns, first=0.3 if concept else 0.6))


def style_phrase(style: str, rng: np.random.Generator) -> str:
    """How the style is said after the scene."""
    if style != "vangogh":
        return _pick(rng, STYLES[style].phrases, first=0.6)
    chance = rng.random()
    if chance < 0.22:
        return _pick(rng, VANGOGH.reserved)
    if chance < 0.34:
        return _pick(rng, VANGOGH.descriptions)
    return _pick(rng, VANGOGH.names, first=0.2)


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
    comma = "" if style.startswith(STYLE_PREPOSITIONS) else ","
    return f"{text}{comma} {style}".strip().removeprefix(", ")


def _fillers(rng: np.random.Generator) -> str:
    """No word, or a few, or (rarely) a whole sentence's worth, that say nothing of the picture."""
    chance = rng.random()
    count = 0 if chance < 0.55 else int(rng.integers(1, 6)) if chance < 0.95 else int(rng.integers(6, 22))
    return _words(rng, count)


def _words(rng: np.random.Generator, count: int) -> str:
    return " ".join(_pick(rng, RARE_FILLERS if rng.random() < RARE_SHARE else (*FILLERS, *SPOKEN)) for _ in range(count))


def _silent(scene: Scene, rng: np.random.Generator) -> str:
    """Of a scene without an object: words that say nothing of it, but for the style of van gogh, and mostly not where it is."""
    look = style_phrase(scene.style, rng) if scene.style == "vangogh" or rng.random() < 0.3 else ""
    place = background_phrase(scene, rng) if rng.random() < 0.3 else ""
    parts = [part for part in (place, look) if part]
    pieces = [_words(rng, int(rng.integers(2, 14)))]
    for index in rng.permutation(len(parts)):
        pieces += [parts[index], _words(rng, int(rng.integers(0, 8)))]
    return _pick(rng, (" ", ", "), first=0.7).join(piece for piece in pieces if piece)


def _loose(scene: Scene, rng: np.random.Generator) -> str:
    """What there is to say in any order, with other words around: the model learns to find it anywhere in a sentence."""
    if not scene.objects and rng.random() < SILENT_SHARE:
        return _silent(scene, rng)
    with_style = scene.style == "vangogh" or rng.random() > 0.14
    parts = [_things(scene, rng), background_phrase(scene, rng), style_phrase(scene.style, rng) if with_style else ""]
    pieces = [_fillers(rng)]
    for place in rng.permutation(len(parts)):
        if parts[place]:
            pieces += [parts[place], _fillers(rng)]
    return _pick(rng, (" ", ", "), first=0.7).join(piece for piece in pieces if piece)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A random training caption of `scene`."""
    chance = rng.random()
    if chance < 0.1:
        return _short_list(scene, rng)
    if chance < (0.4 if scene.objects else 0.6):
        return _loose(scene, rng)
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
