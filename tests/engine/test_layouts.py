"""Folders of other tools: which files are pictures, and of which row. By name, whatever the order."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srbench.catalog import load
from srbench.catalog.specs import Row
from srbench.engine import layouts
from srbench.engine.layouts import Place, assigned, folders, unnamed
from srbench.errors import UsageError

EXAMPLES = {
    "esd": {"3_0.png": ("", "3", "0"), "imgs/12_4.png": ("", "12", "4"), "007_1.jpg": ("", "7", "1")},
    "unlearndiffatk": {
        "imgs/3_0.png": ("", "3", "0"), "attack_idx_7/images/orig.png": ("", "7", "orig"), "run-5/images/40.png": ("", "5", "40"),
    },
    "safree": {
        "all/3_shocking.png": ("shocking", "3", ""), "all/9.png": ("", "9", ""), "all/4_a-b.png": ("a-b", "4", ""),
    },
    "igmu": {
        "church_3_0.png": ("church", "3", "0"), "garbage truck_12_4.png": ("garbage truck", "12", "4"),
        "a_b_1_2.png": ("a_b", "1", "2"),
    },
    "hub": {"vangogh/42/7.jpg": ("vangogh", "7", "42"), "vangogh/42/fr/7.jpg": ("vangogh/fr", "7", "42")},
    "eval-unlearn": {
        "images/sld_asr_ab12_3.png": ("", "3", ""), "images/violence/sld_asr_ab12_0.png": ("violence", "0", ""),
    },
    "flat": {"row 1.png": ("", "row 1", ""), "x.webp": ("", "x", "")},
}  # fmt: skip
"""Layout -> file -> category, case and sample that its name says."""
STRANGE = {
    "esd": ("notes.txt", "3.png", "a_0.png", "3_0.gif"),
    "unlearndiffatk": ("attack_idx_7/log.json", "3_0.png"),
    "safree": ("safe/3_shocking.png", "unsafe/3_shocking.png", "3.png"),
    "igmu": ("church.png", "church_3.png", "FID.json"),
    "hub": ("7.jpg", "vangogh/42/x.jpg"),
    "eval-unlearn": ("ab12_report.json", "images/x.png"),
    "flat": ("a.txt", "a.svg", "a"),
}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def read(root: Path, layout: str, **options: Any) -> layouts.Folder:
    (found,) = folders([("", root)], load.layouts()[layout], **options)
    return found


def test_every_layout_has_examples() -> None:
    assert set(EXAMPLES) == set(STRANGE) == set(load.layouts())


@pytest.mark.parametrize("layout", sorted(EXAMPLES))
def test_names_say_which_picture_it_is(layout: str, tmp_path: Path) -> None:
    touch(tmp_path, *EXAMPLES[layout])
    found = read(tmp_path, layout)
    assert {found.pictures[Place(*place)].name: place for place in EXAMPLES[layout].values()} == EXAMPLES[layout]
    assert not found.left_out


@pytest.mark.parametrize("layout", sorted(STRANGE))
def test_other_files_are_counted_and_are_no_pictures(layout: str, tmp_path: Path) -> None:
    touch(tmp_path, *STRANGE[layout])
    found = read(tmp_path, layout)
    assert not found.pictures
    assert found.left_out.total() == len(STRANGE[layout])


@pytest.mark.parametrize("layout", sorted(EXAMPLES))
def test_each_sub_folder_is_a_method_where_the_folder_holds_no_pictures_itself(layout: str, tmp_path: Path) -> None:
    for method in ("esd", "uce"):
        touch(tmp_path / method, *EXAMPLES[layout])
    touch(tmp_path / "empty", "readme.txt")
    found = folders([("", tmp_path)], load.layouts()[layout])
    assert [each.method for each in found] == ["esd", "uce"]
    assert all(len(each.pictures) == len(EXAMPLES[layout]) for each in found)


def test_two_files_for_one_picture_are_neither_of_them(tmp_path: Path) -> None:
    found = read(touch(tmp_path, "3_0.png", "3_0.jpg", "03_0.png", "4_0.png"), "esd")
    assert set(found.pictures) == {Place("", "4", "0")}
    assert sorted(found.doubled[Place("", "3", "0")].split(", ")) == ["03_0.png", "3_0.jpg", "3_0.png"]


def test_names_that_need_care(tmp_path: Path) -> None:
    names = ["a b.png", "ü\n1.png", "'; rm.png", "..png", "\\.png", "über_0.PNG"]
    found = read(touch(tmp_path, *names), "flat")
    assert {place.case for place in found.pictures} == {"a b", "ü\n1", "'; rm", ".", "\\", "über_0"}


def test_a_name_that_is_not_unicode_is_read_and_can_be_written_as_json(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff1.png"
    try:
        with open(path, "wb"):
            pass
    except OSError:
        pytest.skip("this file system only takes Unicode names")
    (found,) = read(tmp_path, "flat").pictures.values()
    assert found.path.exists()
    assert found.name == "\\xff1.png"
    found.name.encode()


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / "real", "0_0.png")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "imgs").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "again").symlink_to(tmp_path / "m")
    (tmp_path / "real" / "self").symlink_to(tmp_path / "real" / "self")
    found = read(tmp_path / "m", "esd")
    assert set(found.pictures) == {Place("", "0", "0")}
    assert found.left_out[layouts.LINKED] == 1
    assert found.left_out[layouts.OTHER] == 1


def test_methods_need_different_names(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "m", "0_0.png")
    touch(tmp_path / "b" / "m", "0_0.png")
    touch(tmp_path / "c" / "a" / "m", "0_0.png")
    esd = load.layouts()["esd"]
    assert [f.method for f in folders([("", tmp_path / "a" / "m"), ("", tmp_path / "b" / "m")], esd)] == ["a/m", "b/m"]
    assert [f.method for f in folders([("x", tmp_path / "a" / "m"), ("", tmp_path / "b" / "m")], esd)] == ["x", "m"]
    with pytest.raises(UsageError, match="two folders are called 'a/m'"):
        folders([("", tmp_path / "a" / "m"), ("", tmp_path / "c" / "a" / "m")], esd)
    with pytest.raises(UsageError, match="not a folder"):
        folders([("", tmp_path / "nowhere")], esd)


def test_a_folder_called_imgs_says_nothing_of_the_method(tmp_path: Path) -> None:
    assert read(touch(tmp_path / "uce" / "imgs", "0_0.png"), "esd").method == "uce"


def test_only_the_categories_that_were_asked_for(tmp_path: Path) -> None:
    found = read(touch(tmp_path, "church_0_0.png", "parachute_0_0.png"), "igmu", categories=("church",))
    assert set(found.pictures) == {Place("church", "0", "0")}
    assert found.left_out[layouts.NOT_ASKED] == 1


def test_numbers_that_count_all_pictures_are_divided_among_prompts(tmp_path: Path) -> None:
    found = read(touch(tmp_path, *(f"t/42/{i}.jpg" for i in range(6))), "hub", per_prompt=3)
    assert sorted(found.pictures) == [Place("t", str(i // 3), f"42.{i % 3}") for i in range(6)]


# --- rows ---------------------------------------------------------------------------------------------------------------------


def rows(*ids: str, category: str = "") -> list[Row]:
    return [Row(id=each, kind="forget", category=category, prompt=f"prompt {each}") for each in ids]


def places(*names: tuple[str, str, str]) -> list[Place]:
    return [Place(*name) for name in names]


def test_a_number_is_an_id_where_rows_have_it_and_else_a_place_from_0() -> None:
    esd = load.layouts()["esd"]
    by_id, _ = assigned(rows("5", "3", "4"), places(("", "3", "0"), ("", "4", "0"), ("", "5", "0")), esd)
    assert [(each.row.id, each.place.case if each.place else None) for each in by_id] == [("5", "5"), ("3", "3"), ("4", "4")]
    by_place, strangers = assigned(rows("a", "b"), places(("", "0", ""), ("", "1", ""), ("", "2", "")), esd)
    assert [(each.row.id, each.place.case if each.place else None) for each in by_place] == [("a", "0"), ("b", "1")]
    assert strangers == places(("", "2", ""))


def test_numbers_count_within_a_category_where_the_layout_does() -> None:
    mixed = [*rows("a", "b", category="church"), *rows("c", "d", category="bird")]
    found = places(("bird", "1", "0"), ("church", "0", "0"))
    asked, strangers = assigned(mixed, found, load.layouts()["igmu"])
    assert {each.row.id: each.place for each in asked if each.place} == {"a": found[1], "d": found[0]}
    assert not strangers
    # SAFREE writes a category behind a number that counts all prompts.
    asked, _ = assigned(mixed, places(("bird", "3", "")), load.layouts()["safree"])
    assert [each.row.id for each in asked if each.place] == ["d"]


def test_a_row_without_a_picture_stays() -> None:
    asked, _ = assigned(rows("a", "b"), places(("", "b", "")), load.layouts()["flat"])
    assert [(each.row.id, each.place is None) for each in asked] == [("a", True), ("b", False)]


def test_several_pictures_of_a_row_are_rows_that_share_their_prompt() -> None:
    asked, _ = assigned(rows("7"), places(("", "7", "10"), ("", "7", "9")), load.layouts()["esd"])
    assert [each.row.id for each in asked] == ["7#9", "7#10"]
    assert len({each.row.prompt for each in asked}) == 1


def test_rows_of_which_nothing_is_known_are_named_by_their_pictures() -> None:
    found = unnamed(places(("church", "10", "1"), ("church", "9", "1"), ("", "x", "")))
    assert [each.row.id for each in found] == ["x", "church/9#1", "church/10#1"]
    assert {each.row.kind for each in found} == {"forget"}


@given(st.lists(st.integers(0, 60), min_size=1, max_size=25, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_files_never_matters(numbers: list[int], chance: random.Random) -> None:
    known, found = rows(*(f"r{i}" for i in range(61))), [Place("", str(n), "0") for n in numbers]
    straight = assigned(known, found, load.layouts()["esd"])
    shuffled = found.copy()
    chance.shuffle(shuffled)
    assert assigned(known, shuffled, load.layouts()["esd"]) == straight
    assert all(each.row.id == f"r{each.place.case}" for each in straight[0] if each.place)
