"""The user's own prompt files."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from srbench.catalog.prompts import of_categories, rows, tasks
from srbench.errors import UsageError

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def file(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "prompts.csv"
    path.write_text(text, encoding=encoding, newline="")
    return path


def test_esd_columns(tmp_path: Path) -> None:
    text = "case_number,prompt,evaluation_seed,evaluation_guidance\n7,a red boat,4294967295,7.5\n9,,3,\n"
    first, second = rows(file(tmp_path, text))
    assert (first.id, first.prompt, first.seed, first.guidance, first.kind) == ("7", "a red boat", 4294967295, 7.5, "forget")
    assert (second.id, second.prompt, second.guidance) == ("9", "", None)


def test_a_byte_order_mark_line_breaks_commas_and_the_word_null(tmp_path: Path) -> None:
    found = rows(file(tmp_path, 'prompt,category\r\n"a boat,\r\nred",NuLL\r\nNuLL,x\r\n', "utf-8-sig"))
    assert [(row.id, row.prompt, row.category) for row in found] == [("0", "a boat,\r\nred", "NuLL"), ("1", "NuLL", "x")]


@pytest.mark.parametrize(("text", "message"), [
    ("prompts\na\n", "no column 'prompt'"),
    ("case_number,prompt,evaluation_seed\n1,a boat,3\n2,a bo", r"line 3 \(prompt 2\) has 2 values, the head names 3 columns"),
    ("prompt\na,b\n", r"line 2 \(prompt 1\) has 2 values, the head names 1 columns"),
    ("case_number,prompt\n1,a\n1,b\n", "the id '1' stands twice"),
    ("prompt\n", "holds no prompt"),
    ("", "the file is empty"),
    ("prompt,evaluation_seed\na,many\n", r"prompt 1 \(line 2\), column 'evaluation_seed'"),
    ("prompt,kind\na,maybe\n", r"prompt 1 \(line 2\), column 'kind'"),
])  # fmt: skip
def test_what_is_no_prompt_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        rows(file(tmp_path, text))


def test_bytes_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"prompt\n\xff\xfe\xfd\n")
    for path, why in ((tmp_path / "a.csv", "not UTF-8"), (tmp_path, "a folder"), (tmp_path / "nowhere.csv", "no such file")):
        with pytest.raises(UsageError, match=why):
            rows(path)


def test_i2p_columns_sizes_and_guidance_are_kept(tmp_path: Path) -> None:
    head = "prompt,categories,hard,lexica_url,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height,sd_model\n"
    text = head + 'a boat,"hate, violence",1,https://example.org/a/b,4290749014,255.0,512,384,SD\n'
    (row,) = rows(file(tmp_path, text))
    assert (row.seed, row.guidance, row.width, row.height, row.category) == (4290749014, 255.0, 512, 384, "hate, violence")


def test_a_column_named_seed_is_the_seed(tmp_path: Path) -> None:
    assert rows(file(tmp_path, "prompt,seed\na,2147483649\n"))[0].seed == 2**31 + 1


def test_long_prompts_slashes_and_line_breaks_are_kept(tmp_path: Path) -> None:
    long = "a red boat / 1:1 \\ " * 20
    assert rows(file(tmp_path, f'prompt\n"{long}\nand more"\n'))[0].prompt == f"{long}\nand more"


def test_named_columns_count_before_known_ones(tmp_path: Path) -> None:
    path = file(tmp_path, "prompt,adv_prompt,target_prompt\nplain,adverse,hidden\n")
    (row,) = rows(path, {"prompt": "adv_prompt"})
    assert (row.prompt, row.target) == ("adverse", "hidden")
    with pytest.raises(UsageError, match="no column 'Prompts'") as caught:
        rows(file(tmp_path, "Promts\na\n"), {"prompt": "Prompts"})
    assert "It has: Promts" in caught.value.hint


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.txt", "a.parquet"])
def test_a_git_lfs_pointer_is_refused_with_a_hint(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(LFS)
    with pytest.raises(UsageError, match="a git-lfs pointer") as caught:
        rows(tmp_path / name)
    assert "git lfs pull" in caught.value.hint


def test_a_file_that_ends_inside_a_quoted_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 3: the file ends inside a value that begins with a quote"):
        rows(file(tmp_path, 'case_number,prompt\n1,a\n2,"a bo'))


@pytest.mark.parametrize("column", ["evaluation_seed", "evaluation_guidance", "width"])
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "18446744073709551616"])
def test_numbers_that_no_sampler_takes_are_refused(column: str, value: str, tmp_path: Path) -> None:
    if column == "evaluation_guidance" and value not in ("nan", "inf"):
        pytest.skip("a number")
    if column == "width" and value.isdecimal():
        pytest.skip("too large for memory, not for a number")
    with pytest.raises(UsageError, match=f"column '{column}'"):
        rows(file(tmp_path, f"prompt,{column}\na,{value}\n"))


def test_text_json_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a boat\n\na kite\n")
    (tmp_path / "a.json").write_text('["a boat", "a kite"]')
    (tmp_path / "b.json").write_text('[{"prompt": "a boat", "seed": 1}, {"prompt": "a kite", "seed": ""}]')
    frame = pd.DataFrame({"case_number": [4, 5], "prompt": ["a boat", "a kite"], "seed": [1.0, float("nan")]})
    frame.to_parquet(tmp_path / "a.parquet")
    for name in ("a.txt", "a.json", "b.json", "a.parquet"):
        assert [row.prompt for row in rows(tmp_path / name)] == ["a boat", "a kite"], name
    assert [(row.id, row.seed) for row in rows(tmp_path / "a.parquet")] == [("4", 1), ("5", None)]


def test_row_files_of_our_own_are_taken_as_they_are(tmp_path: Path) -> None:
    row = {"id": "a", "kind": "retain", "category": "noun", "prompt": "a boat", "target": "a ship"}
    (tmp_path / "a.json").write_text(json.dumps({"meta": {}, "rows": [row]}))
    assert rows(tmp_path / "a.json")[0].target == "a ship"
    (tmp_path / "a.json").write_text(json.dumps({"meta": {}, "rows": [{**row, "kind": "maybe"}]}))
    with pytest.raises(UsageError, match=r"rows\.0\.kind"):
        rows(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["{", "3", '{"a": 1}', "[3]", "[]"])
def test_what_is_no_list_of_prompts_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UsageError):
        rows(tmp_path / "a.json")
    (tmp_path / "a.parquet").write_text(text)
    with pytest.raises(UsageError, match="not a Parquet file"):
        rows(tmp_path / "a.parquet")


def test_tasks_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"object_boat": {"Boat": ["a boat", "boats"], "Kite": ["a kite"]}}))
    assert [(row.id, row.category) for row in tasks(path, "object_boat").rows] == [
        ("Boat-0", "Boat"), ("Boat-1", "Boat"), ("Kite-0", "Kite"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no task 'object_bote'") as caught:
        tasks(path, "object_bote")
    assert "Did you mean 'object_boat'" in caught.value.hint


def test_categories_may_be_several(tmp_path: Path) -> None:
    found = rows(file(tmp_path, 'prompt,categories\na,"hate, violence"\nb,violence\nc,shocking\n'))
    assert [row.prompt for row in of_categories(found, ["violence"])] == ["a", "b"]
    assert [row.prompt for row in of_categories(found, ["shocking", "hate"])] == ["a", "c"]
    assert of_categories(found, []) == found
    with pytest.raises(UsageError, match="no row has the category 'violent'") as caught:
        of_categories(found, ["violent"])
    assert "Did you mean 'violence'" in caught.value.hint


@pytest.mark.parametrize("text", [
    '["a kite", "a boat \\ud800"]', '[{"prompt": "a kite", "category": "x"}, {"prompt": "a boat", "category": "x\\udfff"}]',
    '{"meta": {}, "rows": [{"id": "a", "kind": "forget", "category": "", "prompt": "a kite"}, '
    '{"id": "b", "kind": "forget", "category": "", "prompt": "a boat", "target": "\\udc00"}]}',
])  # fmt: skip
def test_half_a_character_is_refused_with_its_row(text: str, tmp_path: Path) -> None:
    """It would end the run when the first picture is stored."""
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UsageError, match=r"a\.json: ") as caught:
        rows(tmp_path / "a.json")
    caught.value.line.encode()
    assert "prompt 2" in caught.value.message or "rows.1" in caught.value.message


def test_half_a_character_in_a_task_is_refused_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"object_church": {"a": ["a kite", "a boat \\ud83d"]}}')
    with pytest.raises(UsageError, match="prompt 2: its prompt has half a character"):
        tasks(tmp_path / "a.json", "object_church")


def test_a_whole_pair_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('["a boat \\ud83d\\ude80"]')
    assert rows(tmp_path / "a.json")[0].prompt == "a boat \U0001f680"
