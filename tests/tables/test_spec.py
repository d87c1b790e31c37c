"""What a published table may say, and what stands in those that travel with srbench."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from srbench.analysis.metrics import definition
from srbench.analysis.results import ResultCell
from srbench.catalog import load, plugins, resolve
from srbench.errors import UsageError
from srbench.results.run_files import summarised
from srbench.tables.papers import fill
from srbench.tables.papers.spec import POCKET, TableSpec, published
from tests.tables.conftest import SPEC

TABLES = published()
every = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


@pytest.fixture(scope="module")
def committed() -> list[ResultCell]:
    """What travels with srbench, whatever was run in this checkout."""
    return summarised(resolve.PACKAGE.parent / "results" / POCKET)


def _changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    data = copy.deepcopy(SPEC)
    place: Any = data
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return data


@pytest.mark.parametrize(("path", "value", "message"), [
    (("rows", 0, "figures", 0, "source"), "nowhere", "which the table does not have"),
    (("rows", 0, "figures", 0, "column"), "fid", "which the table does not have"),
    (("rows", 0, "figures", 0, "value"), 95.0, "string"),  # 95.0 and 95 are not the same claim
    (("rows", 0, "figures", 0, "value"), "about 95", "pattern"),
    (("rows", 0, "run", "backbone"), "pocket", "never stands beside"),
    (("rows", 1, "note"), "", "needs a note"),
    (("rows", 0, "unknown"), ["fsr"], "cannot be known and unknown"),
    (("rows", 2, "unknown"), [], "figures, or columns"),
    (("columns", 2, "unmeasured"), "", "one of the two"),
    (("columns", 0, "unmeasured"), "why", "one of the two"),
    (("pocket", "columns"), ["igmu.fid"], "pocket's stand-in has its own"),
    (("pocket", "columns"), ["fsr"], "pattern"),
    (("pocket", "columns"), ["@own.asr"], "pattern"),
    (("pocket", "only"), {"igmu.fsr": ["hazard"]}, "no column or concept 'hazard'"),
    (("pocket", "only"), {"mma.asr": ["church"]}, "no column or concept 'mma.asr'"),
    (("columns", 2, "attack"), "p4d", "give measured"),
    (("pocket", "cannot"), "there is none", "or cannot"),
])  # fmt: skip
def test_a_table_that_says_too_little_or_too_much_is_refused(path, value, message) -> None:
    with pytest.raises(ValueError, match=message):
        TableSpec.model_validate(_changed(path, value))


def test_a_figure_needs_a_source() -> None:
    data = copy.deepcopy(SPEC)
    del data["rows"][0]["figures"][0]["source"]
    with pytest.raises(ValueError, match="source"):
        TableSpec.model_validate(data)


def test_on_is_a_key_although_yaml_takes_it_for_true() -> None:
    data = copy.deepcopy(SPEC)
    data["pocket"]["rows"][0] = yaml.safe_load("{label: ESD-x, method: none, on: esd-x}")
    assert True in data["pocket"]["rows"][0]
    assert TableSpec.model_validate(data).pocket.rows[0].on == "esd-x"


def test_a_file_whose_name_is_not_the_tables_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results" / "published").mkdir(parents=True)
    (tmp_path / "results" / "published" / "other.yaml").write_text(yaml.safe_dump(SPEC))
    monkeypatch.chdir(tmp_path)
    published.cache_clear()
    try:
        with pytest.raises(UsageError, match="its name is 'small'"):
            published()
    finally:
        published.cache_clear()


def test_a_table_in_the_working_directory_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results" / "published").mkdir(parents=True)
    (tmp_path / "results" / "published" / "small.yaml").write_text(yaml.safe_dump(SPEC))
    monkeypatch.chdir(tmp_path)
    published.cache_clear()
    try:
        assert set(published()) == {*TABLES, "small"}
    finally:
        published.cache_clear()


# --- those that travel with srbench -----------------------------------------------------------------------------------


def test_every_paper_table_is_there() -> None:
    expected = {
        *(f"saferedir-{name}" for name in ("tasks", "robustness", "transfer", "stacking", "alpha", "detector")),
        *(f"inversion-{name}" for name in ("violence", "nudity", "shared")),
        *(f"unlearndiffatk-{name}" for name in ("nudity", "vangogh", "church", "tench")),
    }  # fmt: skip
    assert expected <= set(TABLES)
    assert set(TABLES) == {Path(name).stem for name in resolve.files("results/published")}


@every
def test_every_figure_has_a_source_that_says_where_it_was_read(table: TableSpec) -> None:
    used = {figure.source for row in table.rows for figure in row.figures}
    assert all(table.sources[name].title and table.sources[name].where for name in used)
    assert all(figure.source for row in table.rows for figure in row.figures)


def _values(table: str, column: str) -> dict[str, list[str]]:
    rows = TABLES[table].rows
    return {row.label: [f.value for f in row.figures if f.column == column] for row in rows}


def test_both_published_values_for_mma_are_shown_with_their_sources() -> None:
    row = next(row for row in TABLES["saferedir-robustness"].rows if row.label == "nudity, MMA")
    assert {(figure.value, figure.source) for figure in row.figures} == {("1.73", "wizwand"), ("0.08", "digest")}


@pytest.mark.parametrize(("table", "column", "label", "value"), [
    ("saferedir-tasks", "fsr", "nudity", "99.84"),
    ("saferedir-tasks", "csdr", "Van Gogh", "5.72"),
    ("saferedir-robustness", "asr", "church, adversarial", "3.12"),
    ("saferedir-alpha", "fid", "α_scale = 3.0", "200.72"),
    ("saferedir-detector", "accuracy", "text, latent and timestep, MMA", "74.72"),
    ("inversion-nudity", "dsr", "DUO", "0.442"),
    ("inversion-violence", "pp", "DUO + SAFREE, c*", "0.676"),
    ("unlearndiffatk-nudity", "post", "AdvUnlearn", "21.13"),
    ("unlearndiffatk-vangogh", "post", "AC", "77"),
    ("unlearndiffatk-church", "fid", "ScissorHands", "68.02"),
    ("unlearndiffatk-tench", "clip", "AdvUnlearn", "0.307"),
    ("p4d-nudity", "asr", "ESD", "66.58"),
    ("sld-i2p", "inappropriate", "SLD max, sexual", "1.62"),
])  # fmt: skip
def test_a_figure_stands_in_its_row_and_column(table, column, label, value) -> None:
    assert value in _values(table, column)[label]


def test_figures_agree_with_those_in_the_baselines() -> None:
    columns = {"pre_asr": "pre", "asr": "post", "fid": "fid", "clip": "clip"}
    for concept in ("nudity", "vangogh", "church", "tench"):
        for key, value in load.baselines()[f"advunlearn-{concept}"].published.items():
            assert [float(v) for v in _values(f"unlearndiffatk-{concept}", columns[key])["AdvUnlearn"]] == [value]


@every
def test_what_is_measured_exists(table: TableSpec) -> None:
    for column in table.columns:
        assert not column.measured or definition(column.measured).better
    for concept in table.pocket.concepts:
        for column in table.pocket.columns_of(concept):
            fill.better_of(column.metric)


@every
def test_attacks_that_are_named_exist(table: TableSpec) -> None:
    named = {column.attack for column in table.columns}
    named |= {column.attack for concept in table.pocket.concepts for column in table.pocket.columns_of(concept)}
    assert named - {""} <= set(plugins.plugins("attacks"))


@every
def test_a_complement_turns_the_direction_and_nothing_else_does(table: TableSpec) -> None:
    for column in (column for column in table.columns if column.measured):
        assert (definition(column.measured).better == column.better) != column.complement


@every
def test_pocket_rows_name_what_pocket_has(table: TableSpec) -> None:
    assert set(table.pocket.concepts) <= set(load.backbones()[POCKET].concepts)
    methods = {name: plugins.plugins("methods")[plugin].meta["kind"] for name, (plugin, _) in plugins.presets().items()}
    for row in table.pocket.rows:
        assert methods[row.method] == "inference"
        assert row.on == "none" or methods[row.on] == "weight"


@every
def test_no_row_is_twice_in_a_pocket_edition(table: TableSpec) -> None:
    rows = [(row.method, row.on, row.variant) for row in table.pocket.rows]
    labels = [row.label for row in table.pocket.rows]
    assert len(set(rows)) == len(rows)
    assert len(set(labels)) == len(labels)


def test_the_committed_runs_fill_what_they_should(committed: list[ResultCell]) -> None:
    for name in ("saferedir-alpha", "saferedir-detector"):
        for concept in TABLES[name].pocket.concepts:
            for line in fill.pocket_lines(TABLES[name], concept, committed):
                assert all(line.cells), (name, concept, line.row.label)


@every
def test_no_row_and_no_column_of_a_pocket_edition_is_empty(table: TableSpec, committed: list[ResultCell]) -> None:
    for concept in table.pocket.concepts:
        found = fill.pocket_lines(table, concept, committed)
        empty = [line.row.label for line in found if not any(line.metrics)]
        columns = table.pocket.columns_of(concept)
        empty += [str(column) for place, column in enumerate(columns) if not any(line.metrics[place] for line in found)]
        assert not empty, (concept, empty)
