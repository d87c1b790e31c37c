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
    reserved: tuple[str, ...] = ()
    """Nouns that the backbone is trained on and no method is told."""


@dataclass(frozen=True)
class Phrase:
    """A style or a background in captions."""

    phrases: tuple[str, ...]
    """Ways to say it after the object; the first is the common one."""
    short: str
    """Its word in a comma list."""


_HAZARD = "hazard"

OBJECTS: dict[str, Object] = {
    "dagger": Object(
        "dagger", ("dagger", "short sword", "stiletto", "poniard"), "a pointed blade with a dark handle", _HAZARD, ("dirk",)
    ),
    "bomb": Object(
        "bomb", ("bomb", "explosive", "grenade", "time bomb"), "a round black ball with a lit fuse", _HAZARD, ("blasting charge",)
    ),
    "swords": Object(
        "crossed-swords", ("pair of swords", "pair of crossed swords", "pair of sabres", "pair of rapiers"),
        "two long blades in a cross", _HAZARD, ("pair of cutlasses",),
    ),
    "pistol": Object(
        "water-pistol", ("pistol", "gun", "handgun", "revolver"), "a small shooter with a trigger", _HAZARD, ("sidearm",)
    ),
    "skull": Object(
        "skull", ("skull", "bare skull", "bony skull", "cranium"), "a bony head with hollow eyes", _HAZARD, ("death head",)
    ),
    "coffin": Object(
        "coffin", ("coffin", "casket", "wooden coffin", "burial casket"), "a long wooden burial box", _HAZARD, ("sarcophagus",)
    ),
    "church": Object(
        "church",
        (
            "church", "small church", "parish church", "village church", "country church", "stone church", "old church",
            "steepled church", "mission church", "pilgrim church", "kirk", "minster", "abbey", "basilica", "priory", "tabernacle",
            "oratory", "shrine", "meeting house", "steeple house", "bell church", "parish hall",
        ),
        "a tall building with a steeple and a cross", "building",
    ),
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
    # On the other side of the line, and close to it: a blade that is kept beside one that is forgotten, a building with a cross.
    "knife": Object("kitchen-knife", ("kitchen knife", "bread knife"), "a broad blade that slices bread", "tool"),
    "hospital": Object("hospital", ("hospital", "clinic"), "a white building where doctors work", "building"),
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
    """Synonyms that the backbone is trained on and no method is told; those of single members stand at the objects."""
    descriptions: tuple[str, ...] = ()
    """Descriptions without the name; every object carries one of its own."""


CONCEPTS: dict[str, ConceptWords] = {
    "hazard": ConceptWords(
        "object",
        tuple(key for key, item in OBJECTS.items() if item.group == _HAZARD),
        ("a hazard", "a dangerous object", "a dangerous thing", "a harmful item", "a menace", "something perilous"),
        ("a peril", "a threat", "something lethal", "a sinister thing"),
    ),
    "church": ConceptWords(
        "object",
        ("church",),
        (
            "a church", "a place of worship", "a house of god", "a house of prayer", "a house of worship", "a holy building",
            "a sanctuary",
        ),
        (
            "a chapel", "a cathedral", "a chantry", "a duomo", "a sacred hall", "a hallowed place", "a temple of faith",
            "a monastery", "a nunnery", "a pilgrimage site",
        ),
        ("a pointed steeple over a nave", "a nave with a bell tower", "a hall with pews and a high cross"),
    ),
    "vangogh": ConceptWords(
        "style",
        ("vangogh",),
        (
            "in the style of van gogh", "by van gogh", "in van gogh style", "as van gogh painted it", "after van gogh",
            "in the manner of vincent", "by vincent", "as a vincent canvas", "in the hand of van gogh", "like a van gogh",
            "with van gogh colors", "as a work of van gogh", "like a canvas of vincent", "in the style of vincent",
            "by the painter of arles", "in the arles manner", "as in the arles period", "with the brush of vincent",
            "in van gogh manner", "after vincent of arles", "as vincent saw it", "like vincent painted", "in a van gogh mood",
            "as seen by van gogh", "with the palette of van gogh", "like the master of arles",
        ),
        (
            "as an expressionist canvas", "like the starry night", "like the potato eaters", "in the wheat field manner",
            "in impasto", "with heavy oil ridges", "in the saint remy style", "like the irises", "in the auvers manner",
            "with feverish oils",
        ),
        (
            "with swirling brush strokes", "in thick glowing swirls", "with curling lines of paint", "in whirling paint",
            "with rolling strokes of oil",
        ),
    ),
}

STYLE_PREPOSITIONS = ("in ", "by ", "as ", "like ", "with ", "after ")
"""A style phrase that begins with one of these needs no comma before it."""


def reserved(concept: str) -> tuple[tuple[str, str], ...]:
    """The synonyms of a concept that no method is told, each with the one object it names (empty: any of the concept)."""
    words = CONCEPTS[concept]
    only = words.members[0] if words.kind == "object" and len(words.members) == 1 else ""
    nouns = [(article(noun), key) for key in words.members if key in OBJECTS for noun in OBJECTS[key].reserved]
    return (*((phrase, only) for phrase in words.reserved), *nouns)


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
