"""Spec files: an error names the file, the key, and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml

from srbench.analysis.metrics import METRICS
from srbench.backbones.folder import FAMILIES as PIPELINES
from srbench.catalog import load
from srbench.catalog.contracts import TAKEN
from srbench.catalog.judges import check_judges
from srbench.catalog.prompts import COLUMNS
from srbench.catalog.specs import (
    ANY,
    FAMILIES,
    BackboneSpec,
    BaselineSpec,
    ConceptSpec,
    Edition,
    LayoutSpec,
    ProtocolSpec,
    Row,
    SourceFile,
    Spec,
    SuiteSpec,
)
from srbench.errors import UsageError
from srbench.tables.papers.spec import TableSpec
from tests.spec_files import forget, reading

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
    assert "a.yaml:8: key 'treshold': is not known" in caught.value.message
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


# --- what users write ---------------------------------------------------------------------------------------------------------

CONCEPT = """\
name: sailboat
title: sailing boats
kind: object
sensitive: false
families:
  pocket:
    names: [a sailboat]
    words: [sailboat, sailing boat]
    counterparts:
      sailboat: car
      sailing boat: car
    neighbours: [bicycle, airplane]
    protocol: pocket-church
"""


@pytest.mark.parametrize(
    ("model", "old", "new", "wrong", "hint"),
    [
        (ConceptSpec, "  pocket:", "  poket:", "6: key 'families.poket': unknown family 'poket'", "Did you mean 'pocket'?"),
        (ConceptSpec, "[sailboat, sailing boat]", "[]", "8: key 'families.pocket.words': is empty", ""),
        (ConceptSpec, "[sailboat, sailing boat]", "boat", "expected a list, found 'boat'", ""),
        (ConceptSpec, "      sailing boat: car\n", "", "the word 'sailing boat' has none", "Add a line: sailing boat"),
        (ConceptSpec, "sailing boat: car", "sailing baot: car", "is not one of the words", "Did you mean 'sailing boat'?"),
        (ConceptSpec, "kind: object", "kind: objekt", "3: key 'kind': unknown value 'objekt'", "Did you mean 'object'?"),
        (ConceptSpec, "kind: object", "kind: 3", "expected 'object', 'style' or 'content', found 3", ""),
        (ConceptSpec, "bicycle", "sailboats", "12: key 'families.pocket.neighbours.0': 'sailboats' is to stay", "another"),
        (ConceptSpec, "airplane", "red sailing boat", "'red sailing boat' is to stay, and 'sailing boat' in it", "another"),
        (ConceptSpec, "boat: car", "boat: a sailboat", "10: key 'families.pocket.counterparts.sailboat': 'a sail", ""),
        (ConceptSpec, "airplane", "bicycle", "neighbours.1': 'bicycle' is there twice", "Keep one"),
        (ConceptSpec, "[sailboat, ", "[sailing boat, ", "8: key 'families.pocket.words.1': 'sailing boat' is", "Keep"),
        (ConceptSpec, "[a sailboat]", "[a sailboat, A sailboat]", "'families.pocket.names.1': 'A sailboat' is there twice", ""),
        (ConceptSpec, "    neigh", "    reserved: [a sailboat]\n    neigh", "reserved.0': 'a sailboat' is there twice", ""),
        (ConceptSpec, "sensitive: false", "sensitive: maybe", "expected true or false, found 'maybe'", ""),
        (ConceptSpec, "sensitive: false", "sensitive: no", "4: key 'sensitive': expected true or false, found 'no'", "Write"),
        (ConceptSpec, "sensitive: false", "sensitive: 0", "expected true or false, found 0", ""),
        (SuiteSpec, "rows: 1", 'rows: "1"', "expected a whole number or 'unverified', found '1'", "without quotes"),
        (SuiteSpec, "rows: 1", "rows: true", "expected a whole number or 'unverified', found true", ""),
        (ConceptSpec, "title:", "titel:", "2: key 'titel': is not known", "Did you mean 'title'?"),
        (ConceptSpec, "title: sailing boats\n", "", "key 'title': is missing", "Add it."),
        (ConceptSpec, "title: sailing", "title: a: b", "2: mapping values are not allowed", "in quotes"),
        (ConceptSpec, "    names:", "    <<: {a: b}\n    names:", "7: '<<' takes keys over", "Write these keys out"),
        (ConceptSpec, "title: sailing boats", "title: 2020-01-01", "2: 2020-01-01 is read as a date", "quotes"),
        (ConceptSpec, CONCEPT, "- a", "1: expected a table, found a list", ""),
        (SuiteSpec, "pocket", "poket", "7: key 'editions.0.family': unknown family 'poket'", "Did you mean 'pocket'?"),
        (SuiteSpec, "rows: 1", "rows: some", "expected a whole number or 'unverified', found 'some'", ""),
        (SuiteSpec, "rows: 1", "rows: 0", "expected a number above 0 or 'unverified', found 0", ""),
        (SuiteSpec, "[fsr]", "fsr", "5: key 'metrics': expected a list, found 'fsr'", ""),
    ],
)
def test_mistakes_are_one_line_with_file_line_and_key(
    tmp_path: Path, model: type[Spec], old: str, new: str, wrong: str, hint: str
) -> None:
    text = CONCEPT if model is ConceptSpec else SUITE
    assert old in text
    with pytest.raises(UsageError) as caught:
        load.parse_yaml(write(tmp_path, text.replace(old, new, 1)), model)
    assert f"{tmp_path / 'a.yaml'}:" in caught.value.message
    assert wrong in caught.value.message
    assert hint in caught.value.hint
    assert not any(word in caught.value.line for word in ("tuple", "dictionary", "Input", "(file)", "Value error"))


def _lax(model: type[Spec]) -> Iterator[str]:
    """Names of the fields of a spec, and of the specs in it, whose numbers and truth values may be written as text."""
    hints = get_type_hints(model, include_extras=True)
    todo = [(f"{model.__name__}.{name}", hints[name]) for name in model.model_fields]
    while todo:
        name, hint = todo.pop()
        strict = any(getattr(each, "strict", False) for each in getattr(hint, "__metadata__", ()))
        if hint in (bool, int, float):
            yield name
        elif isinstance(hint, type) and issubclass(hint, Spec):
            yield from _lax(hint)
        elif not strict:
            todo += [(name, each) for each in get_args(hint)]


@pytest.mark.parametrize("model", [ConceptSpec, ProtocolSpec, BackboneSpec, SuiteSpec, BaselineSpec, LayoutSpec, TableSpec])
def test_a_text_is_never_taken_for_a_number_or_a_truth_value(model: type[Spec]) -> None:
    kept_as_written = {"ProtocolSpec.settings", "BaselineSpec.hyperparameters"}  # texts are among what they may hold
    assert set(_lax(model)) <= kept_as_written


@pytest.mark.parametrize("threshold", ['"0.5"', "1e-3", "true"])
def test_a_threshold_is_a_number(tmp_path: Path, threshold: str) -> None:
    text = f"name: a\ntitle: t\nsource: s\nscorer: pocket-judge\nfield: objects\nclasses: [church]\nthreshold: {threshold}\n"
    with pytest.raises(UsageError, match=r"a\.yaml:7: key 'threshold': expected a number, found"):
        load.parse_yaml(write(tmp_path, text), ProtocolSpec)
    assert load.parse_yaml(write(tmp_path, text.replace(threshold, "1")), ProtocolSpec).threshold == 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose specs are read."""
    for kind in ("concepts", "protocols", "suites"):
        (tmp_path / kind).mkdir()
    (tmp_path / "concepts" / "sailboat.yaml").write_text(CONCEPT)
    with reading(tmp_path, monkeypatch) as own:
        yield own


def change(folder: Path, old: str, new: str) -> None:
    (folder / "concepts" / "sailboat.yaml").write_text(CONCEPT.replace(old, new, 1))


def test_a_bad_file_is_left_out_and_said_and_its_names_are_refused_with_the_reason(folder: Path) -> None:
    change(folder, "kind: object", "kind: objekt")
    assert "church" in load.concepts()
    assert "sailboat" not in load.concepts()
    assert ["key 'kind'" in line for line in load.left_out()] == [True]
    with pytest.raises(UsageError, match="unknown value 'objekt'"):
        load.named("concept", "sailboat", load.concepts())


def test_what_a_file_names_must_be_there_before_it_is_run(folder: Path) -> None:
    change(folder, "pocket-church", "pocket-chruch")
    with pytest.raises(UsageError) as caught:
        load.concepts_of(load.backbones()["pocket"], ["sailboat"])
    assert "sailboat.yaml:13: key 'families.pocket.protocol': unknown protocol 'pocket-chruch'" in caught.value.message
    assert "Did you mean 'pocket-church'?" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("[fsr]", "[fsr, fsrr]", "5: key 'metrics.1': unknown metric 'fsrr'"),
        ("hazard", "hasard", "7: key 'editions.0.concept': unknown concept 'hasard'"),
        ("rows: 1", "rows: 1, protocol: pocket-chruch", "unknown protocol 'pocket-chruch'"),
        ("hazard", "sailboat", "key 'editions.0.concept': "),  # whose own file is left out
    ],
)
def test_a_suite_names_what_is_there(folder: Path, old: str, new: str, wrong: str) -> None:
    change(folder, "kind: object", "kind: objekt")
    (folder / "suites" / "s.yaml").write_text(SUITE.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        load.suite("s")
    assert "s.yaml" in caught.value.message
    assert wrong in caught.value.message


def test_a_union_cannot_hold_itself(folder: Path) -> None:
    (folder / "protocols" / "a.yaml").write_text("name: a\ntitle: t\nsource: s\nany_of: [pocket-church, a]\n")
    with pytest.raises(UsageError, match=r"a\.yaml:4: key 'any_of.1': protocol 'a' holds itself"):
        check_judges([load.protocol("a")])


def test_a_baseline_cannot_have_a_methods_name(folder: Path) -> None:
    (folder / "baselines").mkdir()
    spec = load.baselines()["rece-church"].model_dump(mode="json", exclude_defaults=True) | {"name": "uce", "concept": "curch"}
    (folder / "baselines" / "mine.yaml").write_text(yaml.safe_dump(spec))
    forget()
    taken, unknown = (error.message for error in load.dangling("baselines"))
    assert "mine.yaml:" in taken
    assert "key 'name': the name 'uce' is taken by a method" in taken
    assert "key 'concept': unknown concept 'curch'" in unknown


def test_shipped_files_name_what_is_there(folder: Path) -> None:
    (folder / "concepts" / "sailboat.yaml").unlink()
    assert not [error.line for kind in load.KINDS for error in load.dangling(kind)]
    assert not load.left_out()


def test_names_that_files_may_use_are_those_of_the_code() -> None:
    assert {*TAKEN, *load.AT_METRICS} == METRICS.keys()
    assert set(FAMILIES) == {"pocket", *PIPELINES.values()} == {spec.family for spec in load.backbones().values()}


def test_every_key_of_a_suite_and_of_its_rows_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "suites.md").read_text(encoding="utf-8")
    of_suite = page.split("## A suite of your own")[1].split("## Content safety")[0]
    keys = {key for model in (SuiteSpec, Edition, SourceFile, Row) for key in model.model_fields}
    assert [key for key in sorted(keys) if f"`{key}`" not in of_suite] == []
    columns = {name for names in COLUMNS.values() for name in names}
    assert [name for name in sorted(columns) if f"`{name}`" not in page and not name.startswith("sd_image_")] == []


def test_the_documented_suite_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "suites.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    assert load.parse_yaml(write(tmp_path, example), SuiteSpec).editions[0].files[0].file == "suites/boats.csv"
