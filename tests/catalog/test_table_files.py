"""The one reader of tables: what people have is read as meant, or refused with the cause that was looked at."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srbench.catalog import load, prompts, resolve, screen
from srbench.catalog.prompts import read, read_pairs, rows
from srbench.catalog.specs import Row
from srbench.catalog.table_files import lines_of, same_name
from srbench.errors import UsageError

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"
FOUR = ["a photo of a sailboat", "a house in the snow", "a red tractor", "a bowl of fruit"]


def case(name: str) -> Path:
    return CASES / "prompts" / name


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(path: Path, chosen: dict[str, str] | None = None) -> str:
    """The one line with its hint."""
    with pytest.raises(UsageError) as caught:
        read(path, chosen=chosen)
    assert "\n" not in caught.value.line
    assert caught.value.hint
    return caught.value.line


# --- what people had ----------------------------------------------------------------------------------------------------


def test_keys_that_the_first_row_lacks_are_read() -> None:
    found = rows(case("json_later_keys.json"))
    assert [(row.seed, row.target) for row in found] == [(None, None), (7, "x"), (9, None)]


def test_a_blank_after_the_comma_in_the_head_hides_no_column() -> None:
    assert [(row.prompt, row.seed) for row in rows(case("header_space.csv"))] == list(zip(FOUR, (5, 6, 7, 8), strict=True))


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("prompt, target\nxq zz, a boat\n", "target", "a boat"),
        ("prompt, kind\na boat, retain\n", "kind", "retain"),
        ("prompt ,\tseed\na boat,7\n", "seed", 7),
        ('prompt, target\nxq zz, "a boat, red"\n', "target", "a boat, red"),
        ("PROMPT,Evaluation Seed\na boat,7\n", "seed", 7),
        ("\u200bPrompt,ｓｅｅｄ\na boat,7\n", "seed", 7),
        ("prompt, kind\na boat, \n", "kind", "forget"),
        ("prompt,kind \na boat,retain \n", "kind", "retain"),
    ],
)
def test_heads_are_compared_without_blanks_and_case(text: str, field: str, value: object, tmp_path: Path) -> None:
    (row,) = rows(write(tmp_path, "a.csv", text))
    assert getattr(row, field) == value


@pytest.mark.parametrize(("name", "seeds"), [("json_null_unused.json", [1, 2]), ("json_null_seed.json", [1, None])])
def test_a_null_is_an_empty_cell(name: str, seeds: list[int | None]) -> None:
    assert [row.seed for row in rows(case(name))] == seeds


def test_a_key_that_only_the_first_row_has_is_empty_in_the_others(tmp_path: Path) -> None:
    found = rows(write(tmp_path, "a.json", '[{"prompt": "a boat", "seed": 1}, {"prompt": "a kite"}]'))
    assert [row.seed for row in found] == [1, None]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('[{"prompt": "a boat"}, {"prompt": null}]', r"prompt 2 \(row 2\) has a null as its 'prompt', not a text"),
        ('[{"prompt": "a boat"}, {"seed": 1}]', r"prompt 2 \(row 2\) has no 'prompt'"),
        ('[{"prompt": ["a boat"]}]', "has a list as its 'prompt'"),
        ('[{"prompt": 7}]', "has a number as its 'prompt'"),
        ('[{"prompt": "a", "seed": true}]', "column 'seed': a truth value"),
        ('[{"prompt": "a", "seed": 1.5}]', "column 'seed'"),
        ('[{"prompt": "a", "seed": NaN}]', "column 'seed'"),
        ('[{"prompt": "a", "seed": 1e300}]', "too large to be exact"),
        ('[{"prompt": "a", "guidance": Infinity}]', "column 'guidance'"),
        ('[{"prompt": "a", "prompt": "b"}]', "the key 'prompt' stands twice"),
        ('[{"prompt": "a", "Prompt ": "b"}]', "entry 1: the column 'prompt', also as 'Prompt ', stands twice"),
        ('["a boat", {"prompt": "a kite"}]', "entry 1: a text, not an object, as the others are"),
        ('{"prompt": ["a", "b"]}', "an object with the keys prompt, not a list of prompts"),
        ('{"error": "The dataset is gated"}', "the answer of a server"),
        ('[{"prompt": "a boat"}', "It does not end with"),
        ('[{"prompt": "a" "b"}]', "Mend the file"),
    ],
)
def test_json_is_refused_with_its_cause(text: str, cause: str, tmp_path: Path) -> None:
    assert re.search(cause, refused(write(tmp_path, "a.json", text)))


def test_only_line_feed_and_carriage_return_end_a_line() -> None:
    assert [row.prompt for row in rows(case("uline.txt"))] == ["a sailboat\u2028on the sea", "a red\x85tractor", "a \x0bbowl"]
    assert lines_of("a\r\nb\rc\n\x0cd\u2029e\x1c") == ["a", "b", "c", "\x0cd\u2029e\x1c"]


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
@pytest.mark.parametrize("form", ["jsonl", "csv", "txt"])
def test_other_separators_stay_inside(inside: str, form: str, tmp_path: Path) -> None:
    text = f"a boat{inside}red"
    written = {"jsonl": json.dumps({"prompt": text}, ensure_ascii=False), "csv": f"prompt\n{text}", "txt": text}[form]
    if form == "jsonl" and inside < " ":
        pytest.skip("JSON has no such characters in texts")
    assert [row.prompt for row in rows(write(tmp_path, f"a.{form}", written + "\n"))] == [text]


def test_pairs_may_hold_line_separators_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '\ufeff{"unsafe": "a church\u2028old", "safe": "a house"}\r\n')
    assert prompts.read_pairs(path).pairs == (("a church\u2028old", "a house"),)
    assert prompts.read_pairs(CASES / "pairs" / "bom.jsonl").pairs == (
        ("a church by the sea", "a house by the sea"),
        ("a church at night", "a house at night"),
    )


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "json", "csv", "txt", "dat"])
def test_json_lines_are_told_by_what_they_hold(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"a.{suffix}", case("lines.jsonl").read_bytes())
    assert [(row.prompt, row.seed) for row in rows(path)] == list(zip(FOUR, range(4), strict=True))


def test_one_json_line_is_a_row(tmp_path: Path) -> None:
    assert rows(write(tmp_path, "a.jsonl", '{"prompt": "a boat"}\n'))[0].prompt == "a boat"
    assert rows(write(tmp_path, "b.jsonl", '[\n {"prompt": "a boat"}\n]'))[0].prompt == "a boat"


def test_what_the_hub_s_viewer_gives_is_read_and_what_it_cut_is_refused(tmp_path: Path) -> None:
    assert [row.prompt for row in rows(case("json_hf_server.json"))] == FOUR[:2]
    page = {"rows": [{"row_idx": 0, "row": {"prompt": "a boat"}, "truncated_cells": []}], "num_rows_total": 9}
    assert read(write(tmp_path, "a.json", json.dumps(page))).notes == ("a.json is a page of the hub's: 1 of 9 rows",)
    page["rows"][0]["truncated_cells"] = ["prompt"]  # type: ignore[index]
    assert "the hub cut values of row 1 (prompt)" in refused(write(tmp_path, "a.json", json.dumps(page)))


def test_a_comma_without_quotes_is_named_with_line_and_counts() -> None:
    line = refused(case("unquoted_comma.csv"))
    assert "line 3 (prompt 2) has 5 values, the head names 4 columns" in line
    assert "Is a value with commas in it not in quotes?" in line


def test_a_file_that_ends_early_is_only_called_cut_off_where_it_is_so(tmp_path: Path) -> None:
    assert "is it cut off?" in refused(write(tmp_path, "a.csv", "prompt,seed\na,1\nb"))
    line = refused(write(tmp_path, "a.csv", "prompt,seed\na,1\nb\nc,2\n"))
    assert "line 3 (prompt 2) has 1 values" in line
    assert "cut off" not in line


@pytest.mark.parametrize(
    "text",
    [
        "a red boat on the sea, sunset\na kite, blue, in the wind of the north\n",
        '"A ""red"" boat" on the sea by night\na kite\n',
        "a red boat by the sea\na red boat by the sea\n",
        "a boat, a boat, by the wide and open sea\n",
    ],
)
def test_a_head_that_is_a_prompt_is_explained_and_not_repeated(text: str, tmp_path: Path) -> None:
    line = refused(write(tmp_path, "a.csv", text))
    assert "looks like a text, not like names of columns" in line
    assert "name it .txt" in line
    assert "boat" not in line
    assert len(rows(write(tmp_path, "a.txt", text))) == text.count("\n")


@pytest.mark.parametrize("name", ["semi.csv", "tab.tsv", "utf16.csv", "lines.jsonl"])
def test_separators_and_encodings_of_spreadsheets(name: str) -> None:
    assert [(row.prompt, row.seed) for row in rows(case(name))] == list(zip(FOUR, range(4), strict=True))


CSV = "prompt,seed\na boat,7\ncafé,8\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.dat", "a.txt"])
def test_every_encoding_with_every_separator(encoding: str, separator: str, name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, CSV.replace(",", separator).encode(encoding))
    found = read(path)
    assert [(row.prompt, row.seed) for row in found.rows] == [("a boat", 7), ("café", 8)]
    assert found.notes == ()


def test_windows_1252_is_read_and_said(tmp_path: Path) -> None:
    found = read(write(tmp_path, "a.csv", CSV.encode("cp1252")))
    assert found.rows[1].prompt == "café"
    assert found.notes == ("a.csv is not UTF-8: read as Windows-1252 (1 characters beyond ASCII, the first 'é')",)
    assert found.told[0] == found.notes[0]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("лодка в море", "cp1251"),
        ("лодка в море", "koi8-r"),
        ("赤い船と海", "shift-jis"),
        ("红色的船", "gbk"),
        ("καΐκι", "cp1253"),
    ],
)
def test_another_encoding_is_refused_and_never_guessed(text: str, encoding: str, tmp_path: Path) -> None:
    assert "not UTF-8 (byte 8)" in refused(write(tmp_path, "a.csv", f"prompt\n{text}\n".encode(encoding)))


def test_a_line_that_names_the_separator(tmp_path: Path) -> None:
    assert [(row.prompt, row.seed) for row in rows(write(tmp_path, "a.csv", "sep=;\r\nprompt;seed\r\na, b;7\r\n"))] == [
        ("a, b", 7)
    ]


def workbook(path: Path, *lines: list[object], formats: dict[str, str] | None = None) -> Path:
    book = openpyxl.Workbook()
    for line in lines:
        book.active.append(line)
    for cell, text in (formats or {}).items():
        book.active[cell].number_format = text
    book.save(path)
    return path


def test_a_workbook_is_read_as_it_shows(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "a.xlsx",
        [" Prompt", "id", "seed", "note"],
        ["a boat", 2, 4294967295, True],
        ["NA", "0003", None, None],
        [None, None, None, None],
        ["null", 10, 1.0, 2.5],
        formats={"B2": "0000"},
    )
    found = read(path)
    assert [(row.prompt, row.id, row.seed) for row in found.rows] == [
        ("a boat", "0002", 4294967295),
        ("NA", "0003", None),
        ("null", "10", 1),
    ]
    assert found.told == ("a.xlsx (Excel), read: prompt, id, seed; not read: note",)
    assert rows(write(tmp_path, "a.csv", path.read_bytes())) == found.rows, "whatever its name says"


@pytest.mark.parametrize("data", [
    "prompt\na café\n".encode() + "a tea in a café\n".encode("cp1252"), "prompt\na café\na caf".encode() + b"\xc3",
])  # fmt: skip
def test_a_file_that_is_partly_utf_8_is_not_read_as_windows_1252(data: bytes, tmp_path: Path) -> None:
    assert "partly UTF-8, partly another encoding, or damaged" in refused(write(tmp_path, "a.csv", data))


@pytest.mark.parametrize(("name", "seed"), [("float", 4263452345.0), ("halffloat", 4095.0), ("double", 2.0**53)])
def test_a_seed_that_its_column_could_not_hold_exactly_is_refused(name: str, seed: float, tmp_path: Path) -> None:
    kind = {"float": pa.float32(), "halffloat": pa.float16(), "double": pa.float64()}[name]
    seeds = pa.array([7.0, seed]).cast(kind, safe=False)
    pq.write_table(pa.table({"prompt": ["a", "b"], "seed": seeds}), tmp_path / "a.parquet")
    assert "too large to be exact" in refused(tmp_path / "a.parquet")
    pq.write_table(pa.table({"prompt": ["a"], "seed": pa.array([7.0]).cast(kind)}), tmp_path / "b.parquet")
    assert rows(tmp_path / "b.parquet")[0].seed == 7


def test_bytes_are_called_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": pa.array([b"a", b"\xff\xfe"])}), tmp_path / "a.parquet")
    assert "has bytes that are no text as its 'prompt'" in refused(tmp_path / "a.parquet")


def test_what_of_a_workbook_could_be_lost_is_refused(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["prompt"])
    book.create_sheet("more").append(["prompt"])
    book.save(tmp_path / "a.xlsx")
    assert "a workbook with 2 sheets: Sheet, more" in refused(tmp_path / "a.xlsx")
    assert "cell A2 holds a formula without its value" in refused(workbook(tmp_path / "b.xlsx", ["prompt"], ["=1+1"]))
    assert "the column 'prompt' stands twice" in refused(workbook(tmp_path / "c.xlsx", ["prompt", "prompt"], ["a", "b"]))
    with zipfile.ZipFile(tmp_path / "d.xlsx", "w") as file:
        file.writestr("a.csv", "prompt\na\n")
    assert "a zip archive, not a table" in refused(tmp_path / "d.xlsx")
    whole = workbook(tmp_path / "e.xlsx", ["prompt"], ["a boat"]).read_bytes()
    assert "not an Excel workbook that can be read" in refused(write(tmp_path, "e.xlsx", whole[: len(whole) // 2]))
    assert "not an Excel workbook, whatever its name says" in refused(write(tmp_path, "f.xlsx", "prompt\na\n"))


def test_of_several_prompt_columns_none_is_guessed_and_each_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "sensitive prompt,normal prompt\na church,a house\n")
    line = refused(path)
    assert "Say which: --column prompt='sensitive prompt' or --column prompt='normal prompt'." in line
    assert "Did you mean" not in line
    chosen = {"prompt": "sensitive prompt", "reference": "Normal Prompt"}
    (row,) = read(path, chosen=chosen).rows
    assert (row.prompt, row.reference) == ("a church", "a house")


def test_columns_that_are_not_read_are_named() -> None:
    found = read(case("two.csv"))
    assert [row.prompt for row in found.rows] == FOUR
    assert found.told == (
        "two.csv (CSV with commas), read: prompt; not read: adv_prompt; --column prompt=adv_prompt reads another",
    )
    other = read(case("two.csv"), chosen={"prompt": "adv_prompt"})
    assert [row.prompt for row in other.rows] == [f"{text} zxq wv" for text in FOUR]
    assert other.told == (
        "two.csv (CSV with commas), read: prompt = adv_prompt; not read: prompt; --column prompt=prompt reads another",
    )


def test_a_column_that_stands_twice_is_refused_by_name(tmp_path: Path) -> None:
    assert "the column 'prompt' stands twice" in refused(case("dupcol.csv"))
    assert "'prompt', also as 'PROMPT', stands twice" in refused(write(tmp_path, "a.csv", "prompt,PROMPT\na,b\n"))
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "Prompt"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "stands twice" in refused(tmp_path / "a.parquet")


def test_columns_without_a_name_are_numbered(tmp_path: Path) -> None:
    found = read(write(tmp_path, "a.csv", ",prompt,,\n0,a boat,,\n1,a kite,,note\n"))
    assert found.told == ("a.csv (CSV with commas), read: prompt; not read: (column 1), (column 3), (column 4)",)
    assert found.others == {"1": ("note",)}


def test_case_num_is_an_id() -> None:
    assert [row.id for row in rows(case("casenum.csv"))] == ["50", "51", "52", "53"]


def test_ids_that_stand_twice_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "case_number,prompt\n4,a\n4,b\n")
    assert "the id '4' stands twice of prompts 1 and 2" in refused(path)
    assert "--column id=" in refused(path)
    assert [row.id for row in read(path, chosen={"id": ""}).rows] == ["0", "1"]


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "4,261", "18446744073709551616", "4.2e+09", "0x1", "many", "1.5"])
def test_seeds_that_are_none_are_refused_with_their_value(value: str, tmp_path: Path) -> None:
    line = refused(write(tmp_path, "a.csv", f'prompt,seed\na boat,"{value}"\n'))
    assert "prompt 1 (line 2), column 'seed': " in line
    assert value in line


@pytest.mark.parametrize(("value", "seed"), [("1.0", 1), ("18446744073709551615", 2**64 - 1), (" 7", 7), ("", None), (" ", None)])
def test_seeds_that_are_some(value: str, seed: int | None, tmp_path: Path) -> None:
    assert rows(write(tmp_path, "a.csv", f"prompt,seed\na boat,{value}\n"))[0].seed == seed


def test_texts_are_never_converted(tmp_path: Path) -> None:
    words = ["NA", "null", "None", "nan", "true", "1e5", "2020-01-01", "0002", "-"]
    frame = pd.DataFrame({"prompt": words, "id": [f"00{i}" for i in range(len(words))]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "a.json", orient="records")
    frame.to_parquet(tmp_path / "a.parquet")
    workbook(tmp_path / "a.xlsx", ["prompt", "id"], *frame.values.tolist())
    for suffix in ("csv", "json", "parquet", "xlsx"):
        found = rows(tmp_path / f"a.{suffix}")
        assert [row.prompt for row in found] == words, suffix
        assert [row.id for row in found] == list(frame["id"]), suffix


def test_parquet_of_every_type(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "prompt": ["a boat", "a kite"],
            "case_number": pd.array([7, 8], dtype="Int64"),
            "seed": pd.array([2**64 - 1, None], dtype="UInt64"),
            "guidance": [7.5, float("nan")],
            "when": pd.to_datetime(["2020-01-01", None]),
            "image": [{"bytes": b"\xff\x00", "path": "a.png"}] * 2,
            "tags": [["x", "y"], None],
            "sd_seed": [1.0, float("nan")],
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert [(row.id, row.seed, row.guidance) for row in found.rows] == [("7", 2**64 - 1, 7.5), ("8", None, None)]
    assert found.told == (
        "a.parquet (Parquet), read: prompt, id = case_number, seed, guidance; not read: when, image, tags, sd_seed",
    )
    assert set(found.others["7"]) == {"bytes", "path", "a.png", "x", "y"}


def test_parquet_ids_with_gaps_and_an_index(tmp_path: Path) -> None:
    pd.DataFrame({"prompt": ["a", "b"], "id": [1.0, 2.0]}).to_parquet(tmp_path / "a.parquet")
    assert [row.id for row in rows(tmp_path / "a.parquet")] == ["1", "2"]
    pd.DataFrame({"prompt": ["a boat"]}, index=["a child"]).to_parquet(tmp_path / "b.parquet")
    found = read(tmp_path / "b.parquet")
    assert "not read: __index_level_0__" in found.told[0]
    assert found.others == {"0": ("a child",)}
    frame = pd.DataFrame({"text": ["a child"]}, index=pd.Index(["a boat"], name="prompt"))
    frame.to_parquet(tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet").others == {"0": ("a child",)}
    pd.DataFrame({"prompt": [None, "a"]}).to_parquet(tmp_path / "d.parquet")
    assert "prompt 1 (row 1) has a null as its 'prompt'" in refused(tmp_path / "d.parquet")


# --- what a file is -----------------------------------------------------------------------------------------------------

STARTS: dict[str, tuple[bytes, str]] = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a git-lfs pointer"),
    "html": (b"\n<!DOCTYPE html>\n<html><body>prompt</body></html>", "an HTML page"),
    "html2": (b"<html lang=en>", "an HTML page"),
    "xml": (b"<?xml version='1.0'?>", "an XML file"),
    "gzip": (gzip.compress(b"prompt\na\n"), "packed with gzip"),
    "pdf": (b"%PDF-1.4", "a PDF"),
    "png": (b"\x89PNG\r\n", "a picture"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old or an encrypted Office document"),
    "404": (b"404: Not Found", "the answer of a server"),
    "gated": (b"Access to dataset x/y is restricted.", "the answer of a server"),
    "nul": (b"prompt\na\x00b\n", "a NUL character (line 2)"),
    "nothing": (b"", "the file is empty"),
    "blank": (b" \n\n", "the file is empty"),
    "bom": (b"\xef\xbb\xbf", "the file is empty"),
    "pickle": (b"\x80\x04\x95abc", "a pickle, which is never opened"),
    "parquet": (b"PAR1abc", "cut off"),
    "zip": (b"PK\x03\x04", "not an Excel"),
}


@pytest.mark.parametrize("what", STARTS)
@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl", "a.txt", "a.parquet", "a.xlsx"])
@pytest.mark.parametrize(
    "reader", [read, prompts.read_pairs, lambda path: prompts.tasks(path, "x")], ids=["rows", "pairs", "tasks"]
)
def test_other_kinds_of_files_are_named_by_what_they_are(
    what: str, name: str, reader: Callable[..., Any], tmp_path: Path
) -> None:
    data, cause = STARTS[what]
    path = write(tmp_path, name, data)
    with pytest.raises(UsageError) as caught:
        reader(path)
    assert "\n" not in caught.value.line
    named = name in ("a.parquet", "a.xlsx") and what in ("nul", "blank", "bom")  # then it is no such file to begin with
    tasks = reader not in (read, prompts.read_pairs) and what in ("parquet", "zip", "nul", "blank", "bom")
    assert named or tasks or cause in caught.value.line, caught.value.line


def test_folders_pipes_and_links_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name, cause in ((".", "a folder"), ("pipe", "a fifo"), ("link", "a dangling link"), ("nowhere", "there is no such file")):
        assert cause in refused(tmp_path / name)


def test_a_head_in_a_text_file_is_asked_about(tmp_path: Path) -> None:
    assert "the first line is 'Prompt', the name of a column" in refused(write(tmp_path, "a.txt", "Prompt\na boat\n"))
    assert [row.prompt for row in rows(write(tmp_path, "b.txt", "[red] boat\n{blue} kite\n"))] == ["[red] boat", "{blue} kite"]
    assert [row.prompt for row in rows(write(tmp_path, "c.txt", "a seed, a prompt\nb\n"))] == ["a seed, a prompt", "b"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("deep.json", b"[" * 20000),
        ("deep2.json", b"[" * 5000 + b"]" * 5000),
        ("deep.jsonl", b'{"a":' * 5000 + b"\n"),
        ("int.json", b'[{"prompt": "a", "seed": ' + b"9" * 5000 + b"}]"),
        ("int.csv", b"prompt,seed\na," + b"9" * 5000 + b"\n"),
        ("quotes.json", b"[" * 200 + b'"' + b'\\"' * 500_000),
        ("half.json", b'["a \\ud800"]'),
        ("comma.csv", b"," * 100_000),
        ("line.csv", b"prompt\n" + b"a" * 200_000 + b"\n"),
        ("quote.csv", b'prompt\n"' + b"a\n" * 100_000),
        ("keys.json", b'[{"a": 1}, 3]'),
    ],
)
def test_hostile_files_are_one_line(name: str, data: bytes, tmp_path: Path) -> None:
    line = refused(write(tmp_path, name, data))
    assert len(line) < 600
    assert line.isprintable()


def test_the_nested_case_is_one_line() -> None:
    assert "nested more than 100 levels deep" in refused(case("deep.json"))


def test_names_from_files_do_not_act_on_a_terminal(tmp_path: Path) -> None:
    found = read(write(tmp_path, "a.csv", "prompt,\x1b[31mred,\u202eb\na,b,c\n"))
    assert found.told[0].isprintable()
    assert refused(write(tmp_path, "b.csv", "id,prompt\n\x1b[2J,a\n\x1b[2J,b\n")).isprintable()


def test_a_long_list_of_columns_is_counted(tmp_path: Path) -> None:
    names = ",".join(f"c{i}" for i in range(40))
    found = read(write(tmp_path, "a.csv", f"prompt,{names}\na{',x' * 40}\n"))
    assert found.told[0].endswith("c11 and 28 more")


# --- columns by option --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings_", "cause"),
    [
        (["prompt"], "expected FIELD=COLUMN"),
        (["promt=x"], "Did you mean 'prompt'"),
        (["seed=a", "seed=b"], "given twice"),
        (["prompt="], "nothing can be run without it"),
    ],
)
def test_wrong_settings_of_columns_are_named(settings_: list[str], cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        prompts.chosen_columns(settings_)
    assert cause in caught.value.line


def test_an_unknown_column_is_answered_with_the_closest(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "prompt,adv_prompt\na,b\n")
    assert "Did you mean 'adv_prompt'" in refused(path, {"prompt": "adv_promt"})
    assert "the file names no columns" in refused(write(tmp_path, "a.txt", "a boat\n"), {"prompt": "x"})


def test_a_published_column_that_is_not_there_is_no_reason_to_read_another(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "prompt,target_prompt\na house,a church\n")
    with pytest.raises(UsageError, match="no column 'adv_prompt'"):
        read(path, {"prompt": "adv_prompt"})
    assert read(path, {"prompt": "adv_prompt"}, {"prompt": "prompt"}).rows[0].prompt == "a house"


def test_pairs_in_every_form(tmp_path: Path) -> None:
    pairs = [{"unsafe": "a church, old", "safe": "a house"}, {"unsafe": "b", "safe": "NA"}]
    frame = pd.DataFrame(pairs)
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv", index=False, sep=";")
    frame.to_parquet(tmp_path / "a.parquet")
    workbook(tmp_path / "a.xlsx", ["Unsafe", "Safe"], *frame.values.tolist())
    write(tmp_path, "a.json", json.dumps(pairs)), write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, pairs)))
    for name in ("a.csv", "b.csv", "a.parquet", "a.xlsx", "a.json", "a.jsonl"):
        assert prompts.read_pairs(tmp_path / name).pairs == (("a church, old", "a house"), ("b", "NA")), name
    write(tmp_path, "c.csv", "with,without,note\na church,a house,x\n")
    found = prompts.read_pairs(tmp_path / "c.csv", {"unsafe": "with", "safe": "without"})
    assert (found.pairs, found.others) == ((("a church", "a house"),), (("x",),))
    assert found.told == ("c.csv (CSV with commas), read: unsafe = with, safe = without; not read: note",)
    with pytest.raises(UsageError, match="no column 'unsafe'"):
        prompts.read_pairs(tmp_path / "c.csv")
    with pytest.raises(UsageError, match="it names no columns"):
        prompts.read_pairs(write(tmp_path, "a.txt", "a church\n"))


# --- what the filter is given -------------------------------------------------------------------------------------------

HIDDEN = "a child on a swing"


def hidden_files(folder: Path) -> dict[str, Path]:
    """Files of one harmless prompt, with a text that names a minor where a careless reader does not look."""
    nested = [{"prompt": "a boat"}, {"prompt": "a kite", "more": {"deep": [{"x": HIDDEN}]}}]
    files = {
        "later key": write(folder, "a.json", json.dumps([{"prompt": "a boat"}, {"prompt": "a kite", "extra": HIDDEN}])),
        "nested": write(folder, "b.json", json.dumps(nested)),
        "key": write(folder, "c.json", json.dumps([{"prompt": "a boat"}, {"prompt": "a kite", "x": {HIDDEN: 1}}])),
        "json lines": write(folder, "d.jsonl", f'{{"prompt": "a boat"}}\n{{"prompt": "a kite", "x": "{HIDDEN}"}}\n'),
        "no head": write(folder, "e.csv", f"prompt,\na boat,\na kite,{HIDDEN}\n"),
        "blank head": write(folder, "f.csv", f"prompt, adv\na boat,\na kite, {HIDDEN}\n"),
        "semicolons": write(folder, "g.csv", f"prompt;x\na boat;\na kite;{HIDDEN}\n"),
        "id": write(folder, "h.csv", f"prompt,id\na boat,1\na kite,{HIDDEN}\n"),
        "age": write(folder, "i.csv", "prompt,Age\na boat,40\na kite,9\n"),
        "category list": write(
            folder, "j.json", json.dumps([{"prompt": "a boat"}, {"prompt": "a kite", "category": ["x", HIDDEN]}])
        ),
        "utf16": write(folder, "k.csv", f"prompt\tx\na boat\t\na kite\t{HIDDEN}\n".encode("utf-16")),
        "target": write(folder, "l.csv", f"prompt, Target\na boat,\na kite, {HIDDEN}\n"),
        "xlsx": workbook(folder / "m.xlsx", ["prompt", None], ["a boat", None], ["a kite", HIDDEN]),
        "reference in rows": write(
            folder,
            "n.json",
            json.dumps(
                {
                    "meta": {},
                    "rows": [
                        {"id": "0", "kind": "forget", "category": "", "prompt": "a boat"},
                        {"id": "1", "kind": "forget", "category": "", "prompt": "a kite", "background": HIDDEN},
                    ],
                }
            ),
        ),
    }
    for name, frame in {
        "index": pd.DataFrame({"prompt": ["a boat", "a kite"]}, index=["x", HIDDEN]),
        "struct": pd.DataFrame({"prompt": ["a boat", "a kite"], "image": [None, {"bytes": b"\xff", "path": HIDDEN}]}),
        "bytes": pd.DataFrame({"prompt": ["a boat", "a kite"], "x": [b"", HIDDEN.encode()]}),
    }.items():
        frame.to_parquet(folder / f"{name}.parquet")
        files[name] = folder / f"{name}.parquet"
    return files


def test_no_form_of_file_hides_a_text_from_the_filter(tmp_path: Path) -> None:
    for name, path in hidden_files(tmp_path).items():
        found = read(path)
        assert [row.prompt for row in found.rows] == ["a boat", "a kite"], name
        assert [row.prompt for row in screen.admissible(found.rows, found.others)] == ["a boat"], name


def test_texts_beside_rows_make_a_run_sensitive(tmp_path: Path) -> None:
    concept, suite = load.concepts()["church"], load.suites()["igmu"]
    found = read(write(tmp_path, "a.csv", "prompt,note\na boat,nsfw\n"))
    assert screen.sensitive(concept, suite, found.rows, found.others)
    assert not screen.sensitive(concept, suite, found.rows)


def test_texts_beside_rows_change_no_key(tmp_path: Path) -> None:
    plain, more = write(tmp_path, "a.csv", "prompt,seed\na boat,1\n"), write(tmp_path, "b.csv", "prompt,seed,x\na boat,1,y\n")
    assert load.rows_sha(rows(plain)) == load.rows_sha(rows(more))


# --- what was right stays -----------------------------------------------------------------------------------------------

BEFORE = {
    "ch2.csv": "e71dd4f24af5847c",
    "coco_sizes.csv": "3d6377f5d5eeacdb",
    "noseed.csv": "6fb008b463f87733",
    "two.csv": "c71c86ba2abd8733",
    "d1/prompts.csv": "8e132a485601f067",
    "d2/prompts.csv": "6ae9746958025da1",
}
"""`rows_sha` as the reader before this one gave it."""


@pytest.mark.parametrize("name", BEFORE)
def test_files_that_were_read_right_give_the_same_rows(name: str) -> None:
    assert load.rows_sha(rows(case(name))) == BEFORE[name]


def test_every_shipped_edition_is_read_as_its_own_reader_does() -> None:
    for suite in load.suites().values():
        for edition in suite.editions:
            if edition.file:
                found = read(resolve.find("suites", edition.file))
                own = load.rows(suite, edition)
                assert found.rows == own.rows, edition.file
                assert found.meta == dict(own.meta)


# --- properties ---------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30)
LINE = TEXT.filter(lambda text: text.strip() and not {"\n", "\r"} & {*text})
SEED = st.none() | st.integers(0, 2**64 - 1)
ENTRIES = st.lists(st.tuples(LINE, SEED), min_size=1, max_size=6)


def as_csv(path: Path, entries: list[tuple[str, int | None]], separator: str, encoding: str) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "seed"), *((text_, "" if seed is None else seed) for text_, seed in entries)])
    path.write_bytes(text.getvalue().encode(encoding))
    return path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ENTRIES, st.sampled_from([",", ";", "\t"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_csv_gives_back_what_was_written(
    tmp_path: Path, entries: list[tuple[str, int | None]], separator: str, encoding: str
) -> None:
    path = as_csv(tmp_path / "a.csv", entries, separator, encoding)
    assert [(row.prompt, row.seed) for row in rows(path)] == entries


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ENTRIES, st.booleans())
def test_json_json_lines_and_parquet_give_back_what_was_written(
    tmp_path: Path, entries: list[tuple[str, int | None]], ascii_: bool
) -> None:
    objects = [{"prompt": text, "seed": seed} for text, seed in entries]
    write(tmp_path, "a.json", json.dumps(objects, ensure_ascii=ascii_))
    write(tmp_path, "a.jsonl", "".join(json.dumps(each, ensure_ascii=ascii_) + "\n" for each in objects))
    pq.write_table(
        pa.table({"prompt": [o["prompt"] for o in objects], "seed": pa.array([o["seed"] for o in objects], pa.uint64())}),
        tmp_path / "a.parquet",
    )
    for name in ("a.json", "a.jsonl", "a.parquet"):
        assert [(row.prompt, row.seed) for row in rows(tmp_path / name)] == entries, name


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.json", "a.jsonl", "a.txt", "a.parquet", "a.xlsx", "a.tsv"]))
def test_any_bytes_are_rows_or_one_line(tmp_path: Path, data: bytes, name: str) -> None:
    path, found = write(tmp_path, name, data), None
    with suppress(UsageError):
        found = read(path).rows
    if found is None:
        assert "\n" not in refused(path)
    else:
        assert all(isinstance(row, Row) for row in found)


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_names_are_compared_once_for_all(name: str) -> None:
    assert same_name(same_name(name)) == same_name(name)
    assert same_name(f" {name}\u200b ") == same_name(name)


def test_the_error_of_a_formula_is_no_prompt(tmp_path: Path) -> None:
    workbook(tmp_path / "a.xlsx", ["prompt", "note"], ["a boat", "#REF!"], ["#N/A", "x"])
    assert "prompt 2 (line 3) has the error #N/A as its 'prompt', not a text" in refused(tmp_path / "a.xlsx")
    workbook(tmp_path / "b.xlsx", ["prompt", "note"], ["a boat", "#REF!"])
    assert [row.prompt for row in rows(tmp_path / "b.xlsx")] == ["a boat"]


@pytest.mark.parametrize("second", ['{"prompt": "a kite"}', '{"prompt": "a", "id": null}', '{"prompt": "a", "id": " "}'])
def test_ids_that_some_rows_lack_are_refused(second: str, tmp_path: Path) -> None:
    """The place of a row without one may be another row's id."""
    path = write(tmp_path, "a.json", f'[{{"prompt": "a boat", "id": "1"}}, {second}]')
    assert "prompt 2 (row 2) has no 'id', others have one" in refused(path)
    assert [row.id for row in read(path, chosen={"id": ""}).rows] == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "text", "cause"),
    [
        ("a.csv", '"prompt" , "seed"\n"a boat", 3\n', "between a closing quote and the next separator"),
        ("a.csv", f"prompt\n{'a' * 200_000}\n", "a value of more than 131,072 characters"),
        ("a.json", f'[{{"prompt": "a boat", "seed": {"9" * 5000}}}]', "a number of more digits than are read"),
    ],
)  # fmt: skip
def test_the_cause_that_is_named_is_the_one_that_is_there(name: str, text: str, cause: str, tmp_path: Path) -> None:
    assert cause in refused(write(tmp_path, name, text))


def test_pairs_by_column_are_refused_with_the_keys_of_pairs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a list of objects") as caught:
        read_pairs(write(tmp_path, "a.json", '{"unsafe": ["a boat"], "safe": ["a kite"]}'))
    assert "unsafe, safe" in caught.value.hint
