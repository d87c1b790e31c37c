"""Pictures find their rows by one rule for all of them, or not at all; never those of another row."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srbench.catalog import load
from srbench.catalog.specs import Row
from srbench.errors import UsageError
from srbench.scoring import matching
from srbench.scoring.matching import ID, NUMBER, PADDED, PLACE, PROMPT, Matching, Place, asked_for, matched, unnamed


def rows(*ids: str, category: str = "") -> list[Row]:
    return [Row(id=each, kind="forget", category=category, prompt=f"prompt {each}") for each in ids]


def places(*cases: str, category: str = "", sample: str = "") -> list[Place]:
    return [Place(category, case, sample) for case in cases]


def match(known: Sequence[Row], found: Sequence[Place], layout: str = "flat") -> Matching:
    return matched(known, found, load.layouts()[layout])


def ids(found: Matching) -> dict[str, str]:
    """Case of a picture -> id of its row."""
    return {place.case: row.id for place, row in found.row_of.items()}


@pytest.mark.parametrize(
    ("known", "named", "how", "expected"),
    [
        # A picture 0000.png that belongs to row 0000 is not the first row's.
        (("0002", "0000", "0003", "0001"), ("0000", "0001", "0002", "0003"), ID, {f"000{i}": f"000{i}" for i in range(4)}),
        # AdvUnlearn's coco_10k.csv pads its case numbers, its script's names do not: 73 is row 000073, not the 74th.
        (("000203564", "000000073", "000179765"), ("203564", "73", "179765", "4"), PADDED,
         {"203564": "000203564", "73": "000000073", "179765": "000179765"}),
        (("2", "0"), ("0002", "0000"), PADDED, {"0002": "2", "0000": "0"}),
        (("5.0", "7.0"), ("7", "5"), NUMBER, {"7": "7.0", "5": "5.0"}),
        # Where an id is a number, a name that is none of them is nobody's, whatever its place.
        (("50", "51", "52"), ("0", "1", "51"), ID, {"51": "51"}),
        (("50", "a"), ("0", "a"), ID, {"a": "a"}),
        # Two ids that are one number: only the id as it is written counts.
        (("2", "02"), ("2", "02", "002"), ID, {"2": "2", "02": "02"}),
        (("a", "b", "c"), ("0", "2"), PLACE, {"0": "a", "2": "c"}),
        # One name that is an id: numbers are then no places.
        (("a", "b", "c"), ("b", "0"), ID, {"b": "b"}),
        (("0", "1"), ("9" * 5000, "1"), ID, {"1": "1"}),
    ],
)  # fmt: skip
def test_names_mean_ids_then_numbers_and_places_only_where_no_id_is_a_number(
    known: tuple[str, ...], named: tuple[str, ...], how: str, expected: dict[str, str]
) -> None:
    found = match(rows(*known), places(*named))
    assert (found.how, ids(found)) == (how, expected)
    assert {place.case for place in found.strangers} == set(named) - set(expected)


def test_no_picture_is_read_by_another_rule_than_its_neighbours() -> None:
    found = match(rows("10", "11", "12", "13"), places("10", "0", "1"))
    assert ids(found) == {"10": "10"}


@pytest.mark.parametrize("known", [("a", "b", "c"), ("0", "1", "2")])
def test_names_that_count_from_1_are_refused_where_rows_count_from_0(known: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="count from 1 to 3, the rows from 0 to 2"):
        match(rows(*known), places("1", "2", "3"))
    with pytest.raises(UsageError, match="count from 1"):
        match([*rows(*known, category="church")], places("1", "2", "3", category="church"), "igmu")
    assert ids(match(rows("1", "2", "3"), places("1", "2", "3"))) == {"1": "1", "2": "2", "3": "3"}


def test_numbers_count_within_a_category_where_the_layout_does() -> None:
    mixed = [*rows("a", "b", category="church"), *rows("c", "d", category="bird")]
    named = [*places("1", category="bird", sample="0"), *places("0", category="church", sample="0")]
    found = match(mixed, named, "igmu")
    assert {place: row.id for place, row in found.row_of.items()} == {named[0]: "d", named[1]: "a"}
    assert (found.how, found.strangers) == (f"{PLACE}", ())
    # SAFREE writes a category behind a number that counts all prompts.
    assert ids(match(mixed, places("3", category="bird"), "safree")) == {"3": "d"}


def test_ids_that_only_count_all_rows_are_none_within_a_category() -> None:
    """A file without a column of ids: IGMU's bird_1 is the second bird, though no bird's row is number 1."""
    mixed = [*rows("0", "1", category="church"), *rows("2", "3", category="bird")]
    found = match(mixed, [*places("1", category="bird"), *places("1", category="church")], "igmu")
    assert sorted(row.id for row in found.row_of.values()) == ["1", "3"]
    assert "within each category" in found.how


@pytest.mark.parametrize("category", ["Church", "churches", "church "])
def test_a_category_that_no_row_has_is_refused(category: str) -> None:
    with pytest.raises(UsageError, match="no row has the category") as error:
        match(rows("a", "b", category="church"), places("0", category=category), "igmu")
    assert "Did you mean 'church'?" in error.value.hint


def test_a_row_of_several_categories_has_no_number_in_one() -> None:
    known = [*rows("a", category="hate"), *rows("b", category="hate, violence")]
    with pytest.raises(UsageError, match="row 'b' belongs to several categories"):
        match(known, places("0", category="hate"), "eval-unlearn")


def test_two_categories_matched_by_two_rules_are_refused() -> None:
    known = [*rows("7", "8", category="church"), *rows("x", "y", category="bird")]
    with pytest.raises(UsageError, match="in one category and by"):
        match(known, [*places("7", category="church"), *places("0", category="bird")], "igmu")


# --- names that are prompts -------------------------------------------------------------------------------------------


def prompted(prompt: str, seed: int | None = None, id: str = "") -> Row:
    return Row(id=id or f"{prompt}/{seed}", kind="forget", category="", prompt=prompt, seed=seed)


def named_as_mace_does(row: Row, type: str = "erased") -> Place:
    return Place(type, row.prompt, str(row.seed))


def test_mace_s_names_are_prompts_and_seeds() -> None:
    known = [prompted("a red house", 3), prompted("a red house", 4), prompted("a_house_1", 3), prompted("ein Haus für alle", 0)]
    strangers = [Place("erased", "a red house", "5"), Place("x", "a tent", "3")]
    found = match(known, [*map(named_as_mace_does, known), *strangers], "mace")
    assert (found.how, [found.row_of[named_as_mace_does(row)] for row in known]) == (PROMPT, known)
    assert list(found.strangers) == strangers


def test_mace_s_names_where_the_prompts_have_no_seeds() -> None:
    known = [prompted(f"picture {i}") for i in range(3)]
    found = match(known, [Place("erased", "picture 1", "1"), Place("erased", "picture 0", "0")], "mace")
    assert ids(found) == {"picture 1": "picture 1/None", "picture 0": "picture 0/None"}


def test_either_form_of_an_accent_is_the_same_prompt() -> None:
    found = match([prompted("caf\u00e9", 1)], [Place("t", "cafe\u0301", "1")], "mace")
    assert not found.strangers


def test_rows_that_share_prompt_and_seed_cannot_be_told_apart() -> None:
    with pytest.raises(UsageError, match="rows 'x' and 'y' have one prompt and seed"):
        match([prompted("a house", 1, "x"), prompted("a house", 1, "y")], [Place("t", "a house", "1")], "mace")
    with pytest.raises(UsageError, match="with a seed and without one"):
        match([prompted("a house", 1), prompted("a house")], [Place("t", "a house", "1")], "mace")


# --- rows with their pictures -----------------------------------------------------------------------------------------


def test_a_row_without_a_picture_stays() -> None:
    asked = asked_for(rows("a", "b"), places("b"))
    assert [(each.row.id, each.place is None) for each in asked] == [("a", True), ("b", False)]


def test_several_pictures_of_a_row_are_rows_that_share_their_prompt() -> None:
    asked = asked_for(rows("7"), [Place("", "7", "10"), Place("", "7", "9")])
    assert [each.row.id for each in asked] == ["7#9", "7#10"]
    assert len({each.row.prompt for each in asked}) == 1


def test_rows_of_which_nothing_is_known_are_named_by_their_pictures() -> None:
    found = unnamed([Place("church", "10", "1"), Place("church", "9", "1"), Place("", "x", "")], load.layouts()["igmu"])
    assert [each.row.id for each in found] == ["x", "church/9#1", "church/10#1"]
    assert {(each.row.kind, each.row.prompt) for each in found} == {("forget", "")}
    (prompted_by_name,) = unnamed([Place("erased", "a red house", "3")], load.layouts()["mace"])
    assert prompted_by_name.row.prompt == "a red house"


# --- properties -------------------------------------------------------------------------------------------------------

WRITTEN = st.sampled_from([str, lambda number: f"{number:04}", lambda number: f"{number:012}"])


@given(st.lists(st.integers(0, 60), min_size=1, max_size=25, unique=True), WRITTEN, WRITTEN, st.randoms(use_true_random=False))
def test_a_picture_named_for_a_row_is_that_row_s_however_both_are_padded(
    numbers: list[int], as_id: object, as_name: object, chance: random.Random
) -> None:
    known = rows(*(as_id(number) for number in numbers))  # type: ignore[operator]
    named = {Place("", as_name(number), ""): as_id(number) for number in numbers}  # type: ignore[operator]
    shuffled = list(named)
    chance.shuffle(shuffled)
    try:
        found = match(known, shuffled)
    except UsageError:  # counts from 1 where the rows count from 0: refused, never guessed
        return
    assert {place: row.id for place, row in found.row_of.items()} == named


@given(st.lists(st.from_regex(r"[a-z0-9]{1,4}", fullmatch=True), min_size=1, max_size=12, unique=True), st.data())
def test_a_name_that_is_an_id_never_means_another_row(named: list[str], data: st.DataObject) -> None:
    pictures = data.draw(st.lists(st.sampled_from([*named, "0", "1", "02", "zz"]), unique=True))
    try:
        found = match(rows(*named), places(*pictures))
    except UsageError:
        return
    for place, row in found.row_of.items():
        if place.case in named:
            assert row.id == place.case


@given(st.lists(st.integers(0, 60), min_size=1, max_size=25, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_files_never_matters(numbers: list[int], chance: random.Random) -> None:
    known, found = rows(*(f"r{i}" for i in range(61))), [Place("", str(n), "0") for n in numbers]
    straight = match(known, found, "esd")
    shuffled = found.copy()
    chance.shuffle(shuffled)
    again = match(known, shuffled, "esd")
    assert (again.row_of, again.strangers) == (straight.row_of, straight.strangers)
    assert all(row.id == f"r{place.case}" for place, row in straight.row_of.items())
    assert list(map(matching.in_order, sorted(found, key=matching.in_order))) == sorted(map(matching.in_order, found))


def test_more_pictures_than_rows_are_not_matched_by_place() -> None:
    """They were made of other rows, and those that fit would be judged as strangers."""
    with pytest.raises(UsageError, match="names count to 2, and there are 2 rows"):
        match(rows("a", "b"), places("0", "1", "2"))
