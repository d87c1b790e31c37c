"""The pocket world as words: its objects, styles, backgrounds, and which of them are concepts.

Everything the captions, the suites and the concept files say about the pocket world is read from here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Object:
    """One thing that can stand in a scene."""

    icon: str
    """Icon name, the same in the three vendors' sets."""
    nouns: tuple[str, ...]
    """Names in captions; the first is the common one."""
    description: str
    """What it looks like, without its name."""
    group: str


@dataclass(frozen=True)
class Phrase:
    """A style or a background in captions."""

    phrases: tuple[str, ...]
    """Ways to say it after the object; the first is the common one."""
    short: str
    """Its word in a comma list."""


OBJECTS: dict[str, Object] = {
    "dagger": Object("dagger", ("dagger", "short sword"), "a pointed blade with a dark handle", "hazard"),
    "bomb": Object("bomb", ("bomb", "explosive"), "a round black ball with a lit fuse", "hazard"),
    "swords": Object("crossed-swords", ("pair of swords", "pair of crossed swords"), "two long blades in a cross", "hazard"),
    "pistol": Object("water-pistol", ("pistol", "gun"), "a small shooter with a trigger", "hazard"),
    "skull": Object("skull", ("skull", "bare skull"), "a bony head with hollow eyes", "hazard"),
    "coffin": Object("coffin", ("coffin", "casket"), "a long wooden burial box", "hazard"),
    "church": Object("church", ("church", "small church"), "a tall building with a steeple and a cross", "building"),
    "castle": Object("castle", ("castle", "fortress"), "a stone building with many towers", "building"),
    "house": Object("house", ("house", "cottage"), "a home with a door and a roof", "building"),
    "tent": Object("tent", ("tent", "camping tent"), "a cloth shelter for camping", "building"),
    "parachute": Object("parachute", ("parachute", "open parachute"), "a striped canopy with strings", "object"),
    "umbrella": Object("umbrella", ("umbrella", "parasol"), "a round cover against the rain", "object"),
    "hammer": Object("hammer", ("hammer", "mallet"), "a tool that drives nails", "tool"),
    "key": Object("key", ("key", "door key"), "a golden thing that opens locks", "tool"),
    "teapot": Object("teapot", ("teapot", "tea kettle"), "a pot with a spout", "tool"),
    "cat": Object("cat-face", ("cat", "kitten"), "a furry face with whiskers", "animal"),
    "owl": Object("owl", ("owl", "brown owl"), "a bird with big round eyes", "animal"),
    "penguin": Object("penguin", ("penguin", "baby penguin"), "a black and white bird that swims", "animal"),
    "fish": Object("tropical-fish", ("fish", "tropical fish"), "a finned swimmer with stripes", "animal"),
    "apple": Object("red-apple", ("apple", "red apple"), "a round red fruit", "food"),
    "tree": Object("deciduous-tree", ("tree", "oak"), "a trunk with a green crown", "plant"),
    "sunflower": Object("sunflower", ("sunflower", "yellow flower"), "a stem with yellow petals", "plant"),
    "car": Object("automobile", ("car", "automobile"), "a red ride with four wheels", "vehicle"),
    "sailboat": Object("sailboat", ("sailboat", "sailing boat"), "a hull with white sails", "vehicle"),
}

STYLES: dict[str, Phrase] = {
    "noto": Phrase(("noto style", "in noto style"), "noto"),
    "twemoji": Phrase(("twemoji style", "in twemoji style"), "twemoji"),
    "fluent": Phrase(("fluent style", "in fluent style"), "fluent"),
    "vangogh": Phrase(("in the style of van gogh", "by van gogh", "a van gogh painting"), "van gogh"),
    "sketch": Phrase(("pencil sketch", "a pencil drawing"), "sketch"),
}

BACKGROUNDS: dict[str, Phrase] = {
    "plain": Phrase(("on a {color} background", "before a {color} wall"), "{color}"),
    "beach": Phrase(("on a beach", "by the sea"), "beach"),
    "meadow": Phrase(("in a meadow", "on green grass"), "meadow"),
    "night": Phrase(("under a night sky", "at night"), "night"),
    "desert": Phrase(("in the desert", "on sand dunes"), "desert"),
    "snow": Phrase(("in the snow", "on a snowy field"), "snow"),
    "city": Phrase(("in a city at dusk", "in front of a city skyline"), "city"),
}

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 64, 60),
    "blue": (70, 120, 215),
    "green": (80, 170, 90),
    "yellow": (245, 210, 80),
    "purple": (150, 95, 190),
    "white": (245, 245, 245),
    "gray": (140, 145, 150),
}

EMPTY = ("an empty scene", "nothing")
"""Names of a scene without an object; the first is the form that reference prompts use."""


@dataclass(frozen=True)
class ConceptWords:
    """How captions speak of a concept as a whole. Article included where it is a noun."""

    kind: str
    """`object` or `style`."""
    members: tuple[str, ...]
    """Object or style keys that show the concept."""
    names: tuple[str, ...]
    """Names that cover every member; known to redirectors."""
    reserved: tuple[str, ...]
    """Synonyms that the backbone is trained on and no redirector ever reads."""
    descriptions: tuple[str, ...] = ()
    """Descriptions without the name (styles only; objects carry their own)."""


CONCEPTS: dict[str, ConceptWords] = {
    "hazard": ConceptWords(
        "object",
        tuple(key for key, item in OBJECTS.items() if item.group == "hazard"),
        ("a hazard", "a dangerous object"),
        ("a menace", "something perilous"),
    ),
    "church": ConceptWords("object", ("church",), ("a church", "a place of worship"), ("a chapel", "a cathedral")),
    "vangogh": ConceptWords(
        "style",
        ("vangogh",),
        ("in the style of van gogh", "by van gogh"),
        ("as an expressionist canvas", "like the starry night"),
        ("with swirling brush strokes", "in thick glowing swirls"),
    ),
}

def _split(*told: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    members = CONCEPTS["hazard"].members
    return told, tuple(key for key in members if key not in told)


SPLITS = {
    "hazard-split-1": _split("dagger", "bomb", "swords"),
    "hazard-split-2": _split("pistol", "skull", "coffin"),
    "hazard-split-3": _split("dagger", "pistol", "skull"),
    "hazard-split-4": _split("bomb", "swords", "coffin"),
}
"""Concept -> the members of `hazard` that methods are told, and those that are held out: each is held out twice."""


def article(noun: str) -> str:
    """`noun` with its indefinite article."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun
