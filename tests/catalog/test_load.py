"""Spec files: an error names the file, the key, and what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from srbench.catalog import load
from srbench.catalog.specs import ANY, Edition, ProtocolSpec, SuiteSpec
from srbench.errors import UsageError

GOOD = """\
name: p
title: a protocol
scorer: pocket-judge
field: objects
classes: [bomb]
threshold: 0.5
source: nowhere
"""
SUITE = """\
name: s
title: t
source: here
licence: MIT
metrics: [fsr]
editions:
  - {family: pocket, concept: hazard, file: s/x.json, sha256: unverified, rows: 1}
"""


def write(folder: Path, text: str, name: str = "a.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_good_file_is_read(tmp_path: Path) -> None:
    assert load.parse_yaml(write(tmp_path, GOOD), ProtocolSpec).classes == ("bomb",)


def test_unknown_key_names_file_key_and_suggestion(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("threshold", "treshold"))
    with pytest.raises(UsageError) as caught:
        load.parse_yaml(path, ProtocolSpec)
    text = f"{caught.value.message} {caught.value.hint}"
    assert "a.yaml" in text
    assert "treshold" in text or "threshold" in text


def test_unknown_key_beside_a_complete_spec_suggests_the_right_one(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "treshold: 0.4\n")
    with pytest.raises(UsageError) as caught:
        load.parse_yaml(path, ProtocolSpec)
    assert "unknown key 'treshold'" in caught.value.message
    assert "Did you mean 'threshold'?" in caught.value.hint


def test_unknown_key_inside_an_edition_is_named_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, SUITE.replace("rows: 1", "rows: 1, famly: x"))
    with pytest.raises(UsageError) as caught:
        load.parse_yaml(path, SuiteSpec)
    assert "editions.0.famly" in caught.value.message
    assert "Did you mean 'family'?" in caught.value.hint


def test_duplicate_key_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "threshold: 0.9\n")
    with pytest.raises(UsageError, match=r"a\.yaml:8.*'threshold' appears twice"):
        load.parse_yaml(path, ProtocolSpec)


@pytest.mark.parametrize("text", ["[1, 2", "name: [a", "\x00"])
def test_broken_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        load.parse_yaml(write(tmp_path, text), ProtocolSpec)
    assert "\n" not in caught.value.message


def test_row_file_with_another_sha_or_count_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = '{"id": "a", "kind": "forget", "category": "noun", "prompt": "a bomb"}'
    path = write(tmp_path, '{"meta": {}, "rows": [' + row + "]}", "x.json")
    monkeypatch.setattr(load.resolve, "find", lambda kind, name: path)
    suite = load.parse_yaml(write(tmp_path, SUITE), SuiteSpec)
    good = suite.editions[0]
    assert load.rows(suite, good).rows[0].prompt == "a bomb"
    with pytest.raises(UsageError, match="expected sha256"):
        load.rows(suite, good.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(UsageError, match="expected 2 rows, found 1"):
        load.rows(suite, good.model_copy(update={"rows": 2}))


def test_truncated_row_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, '{"meta": {}, "rows": [{"id": "a", "ki', "x.json")
    monkeypatch.setattr(load.resolve, "find", lambda kind, name: path)
    suite = load.parse_yaml(write(tmp_path, SUITE), SuiteSpec)
    with pytest.raises(UsageError, match="not JSON"):
        load.rows(suite, suite.editions[0])


def test_row_ids_are_unique(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = '{"id": "a", "kind": "forget", "category": "noun", "prompt": "a bomb"}'
    path = write(tmp_path, f'{{"meta": {{}}, "rows": [{row}, {row}]}}', "x.json")
    monkeypatch.setattr(load.resolve, "find", lambda kind, name: path)
    suite = load.parse_yaml(write(tmp_path, SUITE), SuiteSpec)
    with pytest.raises(UsageError, match="appear twice: a"):
        load.rows(suite, Edition(**{**suite.editions[0].model_dump(), "rows": 2}))


def test_every_shipped_spec_loads_and_names_what_exists() -> None:
    for concept in load.concepts().values():
        for words in concept.families.values():
            assert words.protocol in load.protocols()
    for backbone in load.backbones().values():
        assert set(backbone.concepts) <= set(load.concepts())
    for suite in load.suites().values():
        for edition in suite.editions:
            assert not edition.file or load.rows(suite, edition).rows
            assert not edition.protocol or load.protocol(edition.protocol)
            assert edition.concept == ANY or edition.concept in load.concepts()


@pytest.mark.parametrize("text", [
    b"name: 2020-13-45\n", b"? [a, b]\n: c\n", b"[" * 20000, b"name: \xff\n", b"name: a\x00b\n", b"\xef\xbb\xbf- a\n",
    b"a: &a [*a]\n", b"name: " + b"9" * 5000 + b"\n", b"",
])  # fmt: skip
def test_hostile_yaml_is_one_line(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        load.parse_yaml(path, SuiteSpec)
    assert "\n" not in caught.value.line
    assert str(path) in caught.value.message
