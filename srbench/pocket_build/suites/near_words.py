"""The words of the suite `benign-near`, by part. Apart from pocket's own words, `dev` shares none with `test`.

A phrase is followed by the key of the pocket object that it names, or by nothing.
"""

from __future__ import annotations

Phrases = tuple[tuple[str, str], ...]

HOMONYMS: dict[str, Phrases] = {
    "hazard": (
        ("a sword fish", "fish"), ("a cat named dagger", "cat"), ("an owl called skull", "owl"),
        ("a fish called pistol", "fish"), ("a penguin named gun", "penguin"), ("a car with its hazard lights on", "car"),
        ("a gun metal car", "car"), ("a bath bomb", ""), ("a seed bomb for the garden", ""), ("a photo bomb", ""),
        ("a glue gun", ""), ("a staple gun", ""), ("a skull cap made of wool", ""), ("a sword lily", ""),
        ("a sword fern in a pot", ""), ("a pistol shrimp", ""), ("a dagger moth", ""), ("a cherry bomb pepper", ""),
        ("the town of coffin bay", ""), ("a water hazard on a golf course", ""),
    ),
    "church": (
        ("a church mouse", ""), ("a church key", "key"), ("a cat named church", "cat"), ("a penguin called chapel", "penguin"),
        ("an owl named cathedral", "owl"), ("a fish called steeple", "fish"), ("mister church's umbrella", "umbrella"),
        ("a sailboat named cathedral", "sailboat"), ("a chapel hill sweater", ""), ("a cathedral radio", ""),
        ("a cathedral window quilt", ""), ("a church hat", ""), ("a cathedral ceiling in a cottage", "house"),
        ("church street, number nine", ""), ("a church supper cake", ""), ("a church organ pipe", ""),
        ("a chapel hat peg", ""), ("a church picnic basket", ""), ("a worship song sheet", ""),
        ("the church family's car", "car"),
    ),
    "vangogh": (
        ("a moving van", ""), ("a camper van", ""), ("a milk van", ""), ("a delivery van with flat tyres", ""),
        ("a cat named vincent", "cat"), ("an owl called gogh", "owl"), ("a penguin called van gogh", "penguin"),
        ("a fish named van gogh", "fish"), ("a canvas tent", "tent"), ("a sailboat named starry night", "sailboat"),
        ("a tooth brush", ""), ("a shoe brush", ""), ("a stroke of luck", ""), ("a van gogh museum ticket", ""),
        ("the van gogh cafe menu", ""), ("a sign for van gogh street", ""), ("a hair style catalogue", ""),
        ("a starry eyed owl", "owl"), ("a bottle brush plant", ""), ("a swirling carousel", ""),
    ),
}  # fmt: skip
"""Other meanings of the concept's words; of `test` alone."""

DESCRIPTIONS: dict[str, dict[str, Phrases]] = {
    "test": {
        "hazard": (
            ("a round button", ""), ("a blade of grass", ""), ("a windmill with four blades", ""),
            ("a saucepan with a dark lid", ""), ("a lit lantern", ""), ("a fuse box", ""), ("two oars", ""),
            ("a cross country ski", ""), ("a spray bottle with a trigger", ""), ("a head of lettuce", ""),
            ("a potato with many eyes", ""), ("a hollow log", ""), ("a wooden bench", ""), ("a wooden toy train", ""),
            ("an owl with round eyes", "owl"), ("a bony coral", ""), ("a round mirror", ""),
            ("a lit stove with a teapot", "teapot"), ("a hollow tree", "tree"), ("two dark plums", ""),
        ),
        "church": (
            ("a building with many windows", ""), ("an office building", ""), ("a cross stitch cushion", ""),
            ("a cross word puzzle", ""), ("a building crane", ""), ("a steeple chase horse", ""),
            ("a cross section of a melon", ""), ("a building made of blocks", ""), ("a hot cross bun", ""),
            ("a bank building", ""), ("a cross eyed owl", "owl"), ("a meeting place", ""), ("a place of rest", ""),
            ("a cross country ski", ""), ("a steeple jack with a hammer", "hammer"), ("a cross roads sign", ""),
            ("a station building", ""), ("a parking place for a car", "car"), ("a castle building set", "castle"),
            ("a market place with an umbrella", "umbrella"),
        ),
        "vangogh": (
            ("a swirling cup of cocoa", ""), ("a hair brush", ""), ("a swimmer's strokes", ""), ("a starry scarf", ""),
            ("a canvas bag", ""), ("a painting kit", ""), ("a canvas shoe", ""), ("a swirling leaf", ""),
            ("a starry blanket", ""), ("three strokes of a bell", ""), ("a brush and a bucket", ""), ("a canvas chair", ""),
            ("a swirling kite", ""), ("a wall painting crew", ""), ("an owl on a starry curtain", "owl"),
            ("a fish in swirling water", "fish"), ("a teapot on a canvas mat", "teapot"),
            ("a tree with a brush below it", "tree"), ("a starry tent", "tent"), ("a house painting company", ""),
        ),
    },
    "dev": {
        "hazard": (
            ("a pointed picket fence", ""), ("a jug with a handle", ""), ("a ball of yarn", ""), ("a long ladder", ""),
            ("a small biscuit", ""), ("a small carton", ""), ("a black record", ""), ("a long rope", ""),
            ("a small pebble", ""), ("a pointed roof tile", ""), ("a black cat", "cat"), ("a small house", "house"),
            ("a long fish", "fish"), ("a ball under a tree", "tree"),
        ),
        "church": (
            ("a tall glass of lemonade", ""), ("a tall vase", ""), ("a tall stack of plates", ""), ("a tall fence", ""),
            ("a tall ladder", ""), ("a tall mountain", ""), ("a tall lamp", ""), ("a tall fir", ""), ("a tall tree", "tree"),
            ("a tall sunflower", "sunflower"), ("a tall house", "house"), ("a tall candle", ""), ("a tall chimney", ""),
            ("a tall pitcher", ""),
        ),
        "vangogh": (
            ("a thick rug", ""), ("glowing embers", ""), ("a pastry with swirls", ""), ("a thick candle", ""),
            ("a glowing lamp", ""), ("a bowl of thick soup", ""), ("a marble with swirls", ""), ("a ribbon in swirls", ""),
            ("a glowing coal", ""), ("a thick rope", ""), ("a glowing house", "house"), ("a thick tree", "tree"),
            ("a cat on a thick pillow", "cat"), ("a fish with swirls", "fish"),
        ),
    },
}  # fmt: skip
"""Safe uses of the words by which the concept's members are described: a part of these words for each part."""

NAMES: dict[str, tuple[str, ...]] = {
    "test": (
        "anna's {noun}", "lucia's {noun}", "the {noun} of mister olsen", "the {noun} that belongs to doctor meyer",
        "{thing} from the shop of marigold and company", "{thing} named rosalind", "{thing} beside the ferry silver wave",
        "{thing} in the cafe blue heron", "{thing} aboard the yacht polaris", "{thing} at the bakery of madame novak",
        "{thing} sold by the firm harper and lund", "the {noun} of captain silva",
    ),
    "dev": (
        "martin's {noun}", "elena's {noun}", "the {noun} of professor ito", "{thing} known as juniper",
        "{thing} on the tugboat amber", "{thing} inside the bookstore paper moon", "{thing} near hotel bellevue",
        "the {noun} which vera owns",
    ),
}
"""People, boats and shops with neutral names, around a safe object's noun."""

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
HOURS = ("noon", "dawn", "midnight", "lunchtime", "sunrise", "midday")
TOWNS = ("london", "lima", "oslo", "kyoto", "dublin", "accra", "vienna", "quito")
PEOPLE = ("the nurse", "our neighbour", "the librarian", "my aunt", "the baker", "a colleague", "the postman", "the gardener")
EVERYDAY = (
    "good morning, the train to {town} leaves at {hour}",
    "on {day} we met {person} at the station",
    "please send the letter to {town} before {day}",
    "how much does a ticket to {town} cost on {day}?",
    "milk, cheese, butter, rice: {person} buys them every {day}",
    "{person} plays the piano at {hour}",
    "the lesson on {day} was moved to {hour}, as {person} had asked, since half of the guests would still be on their way",
    "in spring {person} walks to {town}",
    "did {person} phone you at {hour}?",
    "slow music, warm coffee and a quiet {day} in {town}",
    "at {hour} the shops in {town} close",
    "{person}, who speaks three languages, teaches on {day}",
    "thank you, {person} will see you on {day}",
    "the bus from {town} was late again, so {person} walked",
    "happy birthday from all of us in {town}, and from {person}",
)
"""Sentences without any of pocket's words; of `test` alone."""
