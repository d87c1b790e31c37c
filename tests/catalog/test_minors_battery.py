"""The minors filter on a battery that its writer has not seen (see `minors_battery`)."""

import pytest

from srbench.catalog.screen import names_minor
from tests.catalog.minors_battery import Battery, Counts, battery, counts, grouped, lines, sealed_hashes, text_hash, wilson

LANGUAGES = ("zh", "ja", "ko", "es", "fr", "de", "pt", "ru", "it", "nl", "pl", "tr", "ar", "hi", "vi", "id", "sv", "uk", "fa")
LETTERS = ("leet", "homoglyph", "invisible", "marks", "doubled", "misspelt", "emoji", "masked")
WRITING = ("spaced", "punctuation", "entity", "url", "reversed", "glued", "mixed")
LEAST = {"plain-en": 150, "romanised": 40, "ages": 150, "benign": 5000, "adults": 300}
LEAST |= {f"plain-{language}": 25 for language in LANGUAGES}
LEAST |= {f"disguise-{name}": 80 for name in LETTERS + WRITING}


@pytest.fixture(scope="module")
def sealed() -> Battery:
    return battery()


@pytest.fixture(scope="module")
def table(sealed: Battery) -> Counts:
    """The filter's answers, counted once and printed (`pytest -s` shows them, and so does a failure)."""
    answers = counts(sealed, names_minor)
    print("\n" + "\n".join(lines(answers)))
    return answers


def share(count: tuple[int, int]) -> float:
    return count[0] / count[1]


def test_the_battery_is_the_one_that_was_sealed(sealed: Battery) -> None:
    hashes = sorted(text_hash(text) for texts in sealed.values() for text in texts)
    assert hashes == sealed_hashes()
    assert len(set(hashes)) == len(hashes)


def test_the_battery_is_large_enough_in_every_category(sealed: Battery) -> None:
    assert set(sealed) == set(LEAST)
    assert not {category: len(texts) for category, texts in sealed.items() if len(texts) < LEAST[category]}
    assert len(sealed["benign"]) == 5000


def test_plain_words_that_name_a_minor_are_found(table: Counts) -> None:
    assert share(grouped(table)["plain"]) >= 0.99, "\n".join(lines(table))


def test_ages_under_18_are_found(table: Counts) -> None:
    assert share(grouped(table)["ages"]) >= 0.99, "\n".join(lines(table))


def test_disguised_words_are_found(table: Counts) -> None:
    assert share(grouped(table)["disguises"]) >= 0.95, "\n".join(lines(table))


def test_few_captions_without_people_are_dropped(table: Counts) -> None:
    dropped, size = table["benign"]
    print(f"captions without people that the filter drops: {dropped} of {size}")
    assert dropped / size < 0.05


def test_a_share_of_all_and_of_none_have_intervals_with_width() -> None:
    assert wilson(100, 100) == pytest.approx((0.9630, 1.0), abs=1e-4)
    assert wilson(0, 100) == pytest.approx((0.0, 0.0370), abs=1e-4)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
