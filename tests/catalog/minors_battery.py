"""A sealed battery for the minors filter: what share of the texts that name a minor does it find, and what else does it drop?

How it was made. One person wrote the word lists, the carriers and the programs; another wrote the filter. The writer of the
battery had not seen the filter, its word lists or its tests, and the writer of the filter does not see the battery: it is kept
compressed (`minors_battery.json.xz.b64`) so that nobody reads it in passing, and `minors_battery.sha256` lists the hash of each
text, so that a text which is changed, dropped or added later is noticed. Please keep it so: a miss is mended by a kind of word
or disguise, never by looking up the text. A text that has been looked at is no test any more.

- `plain-*`: words and phrases that plainly name a minor, bare or in a short neutral sentence, in English and 19 other languages;
  `romanised` has such words of six languages in Latin letters.
- `ages`: ages under 18, in digits, words, numerals of other scripts, roman, chat forms, school grades, birthdays, months.
- `disguise-*`: some forty base words, disguised by program with a fixed seed (misspellings partly by hand). A text where one of
  the usual English words could still be read plainly was left out of the disguises by program.
- `benign`: 5,000 captions without people from templates and word lists, 390 of them in other languages, 136
  of them tricky on purpose (an empty school hall, a kid-leather glove). These are made captions, not captions that people wrote.
- `adults`: 300 captions of adults, counted for information: no bound is set.

Every sentence is an everyday one. `python tests/catalog/minors_battery.py report` prints the table.
"""

import base64
import hashlib
import json
import lzma
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

Battery = dict[str, list[str]]  # category -> texts
Counts = dict[str, tuple[int, int]]  # category -> (texts found, texts in all)

HERE = Path(__file__).parent
STORED = HERE / "minors_battery.json.xz.b64"
HASHES = HERE / "minors_battery.sha256"
GROUPS = {"plain": ("plain-", "romanised"), "ages": ("ages",), "disguises": ("disguise-",)}  # group -> starts of its categories


def battery() -> Battery:
    """The sealed texts by category."""
    return json.loads(lzma.decompress(base64.b64decode(STORED.read_text())))


def text_hash(text: str) -> str:
    """The first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sealed_hashes() -> list[str]:
    """The hashes that were written down when the battery was sealed, sorted."""
    return HASHES.read_text().split()


def counts(texts: Battery, names_minor: Callable[[str], bool]) -> Counts:
    """How many texts of each category the filter takes to name a minor, and how many there are."""
    return {category: (sum(map(names_minor, rows)), len(rows)) for category, rows in texts.items()}


def grouped(table: Counts) -> Counts:
    """The counts of the plain words of all languages together, of the ages, and of all disguises together."""
    return {group: total(table, starts) for group, starts in GROUPS.items()}


def total(table: Counts, starts: tuple[str, ...]) -> tuple[int, int]:
    """The counts of all categories whose names begin with one of `starts`, added up."""
    rows = [count for category, count in table.items() if category.startswith(starts)]
    return sum(found for found, _ in rows), sum(size for _, size in rows)


def wilson(found: int, size: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share, 95 % unless `z` says otherwise, as two numbers in [0, 1]."""
    share, scale = found / size, 1 + z * z / size
    middle = (share + z * z / (2 * size)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size))
    return max(0.0, middle - half), min(1.0, middle + half)


def lines(table: Counts) -> Iterator[str]:
    """The table as text: category, found, total, per cent, 95 % interval; the groups come last. It shows no text."""
    yield f"{'category':22}{'found':>7}{'total':>7}{'%':>8}  95 % interval"
    for category, (found, size) in (table | {f"all {group}": count for group, count in grouped(table).items()}).items():
        low, high = wilson(found, size)
        yield f"{category:22}{found:>7}{size:>7}{100 * found / size:>8.2f}  {100 * low:.2f} to {100 * high:.2f}"


def report() -> None:
    """Print the table for the filter as it is."""
    from srbench.catalog.screen import names_minor

    print("\n".join(lines(counts(battery(), names_minor))))


if __name__ == "__main__":
    if sys.argv[1:] != ["report"]:
        sys.exit("usage: python tests/catalog/minors_battery.py report")
    report()
