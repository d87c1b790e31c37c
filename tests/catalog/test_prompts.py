"""The user's own prompt files."""

from __future__ import annotations

from pathlib import Path

import pytest

from srbench.catalog.prompts import rows
from srbench.errors import UsageError


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
    ("case_number,prompt,evaluation_seed\n1,a boat,3\n2,a bo", "prompt 2 has another number of values"),
    ("prompt\na,b\n", "prompt 1 has another number of values"),
    ("case_number,prompt\n1,a\n1,b\n", "the id '1' stands twice"),
    ("prompt\n", "holds no prompt"),
    ("", "no column 'prompt'"),
    ("prompt,evaluation_seed\na,many\n", "prompt 1, column 'evaluation_seed'"),
    ("prompt,kind\na,maybe\n", "prompt 1, column 'kind'"),
])  # fmt: skip
def test_what_is_no_prompt_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        rows(file(tmp_path, text))


def test_bytes_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"prompt\n\xff\xfe\n")
    for path in (tmp_path / "a.csv", tmp_path, tmp_path / "nowhere.csv"):
        with pytest.raises(UsageError, match="not a file of prompts"):
            rows(path)
