"""Folders of other tools: which files are pictures, and of which row. By name, whatever the order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from srbench.catalog import load
from srbench.errors import UsageError
from srbench.scoring import layouts
from srbench.scoring.layouts import folders
from srbench.scoring.matching import Place, plain_numbers

EXAMPLES = {
    "esd": {"3_0.png": ("", "3", "0"), "imgs/12_4.png": ("", "12", "4"), "007_1.jpg": ("", "007", "1")},
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
    "mace": {"erased/a red house_7.png": ("erased", "a red house", "7"), "kept/a_b_1_2.png": ("kept", "a_b_1", "2")},
    "seeds": {"seed_3/0001.png": ("", "0001", "3"), "42/x.png": ("", "x", "42")},
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
    "mace": ("a red house_7.png", "erased/a red house.png"),
    "seeds": ("0.png", "seed_x/0.png"),
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
    assert set(found.pictures) == {Place("", "4", "0"), Place("", "03", "0")}
    found.rename(plain_numbers([*found.pictures, *found.doubled]))
    assert set(found.pictures) == {Place("", "4", "0")}
    assert sorted(found.doubled[Place("", "3", "0")].split(", ")) == ["03_0.png", "3_0.jpg", "3_0.png"]


@pytest.mark.parametrize("layout", EXAMPLES)
def test_hidden_and_system_files_are_no_pictures_and_no_methods(layout: str, tmp_path: Path) -> None:
    names = list(EXAMPLES[layout])
    system = (".ipynb_checkpoints", "__MACOSX", "@eaDir", "lost+found", "__pycache__", ".cache")
    for folder in ("m", *(f"{place}/m" for place in system), *(f"m/{place}" for place in system)):
        touch(tmp_path / folder, *names)
    touch(tmp_path / "m", "Thumbs.db", ".DS_Store", "._0.png", "desktop.ini")
    found = folders([("", tmp_path)], load.layouts()[layout])
    assert [folder.method for folder in found] == ["m"]
    assert len(found[0].pictures) == len(names)
    assert found[0].left_out[layouts.SYSTEM] == len(system) + 4


def test_names_that_need_care(tmp_path: Path) -> None:
    names = ["a b.png", "ü\n1.png", "'; rm.png", "\\.png", "über_0.PNG"]
    found = read(touch(tmp_path, *names), "flat")
    assert {place.case for place in found.pictures} == {"a b", "ü\n1", "'; rm", "\\", "über_0"}


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
