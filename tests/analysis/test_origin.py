"""What made a cell decides whether two are the same, stand in one table, and how they are told apart."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from srbench.analysis.costs import costs
from srbench.analysis.differences import Entry, comparisons, with_differences
from srbench.analysis.gains import Stacked, stacking_gains
from srbench.analysis.metrics import Lens
from srbench.analysis.origin import ORIGIN, Origin, folders_text, identity, place_of
from srbench.analysis.records import Metric
from srbench.analysis.results import ResultCell, from_dict, name_of, to_dict, told_apart
from srbench.analysis.robustness import matrices
from srbench.analysis.sensitivity import curves
from srbench.analysis.significance import answers, matched
from srbench.analysis.swept import swept
from srbench.errors import UsageError
from srbench.results.pairing import against, pairs, side
from srbench.tables.boards import boards, tables
from srbench.tables.formats import as_csv

A, B = "a1b2c3d4e5f60718", "b1b2c3d4e5f60718"


def cell(method: str = "saferedir", value: float = 50.0, **fields: Any) -> ResultCell:
    """A finished cell with `fsr`; fields of its origin beside its own."""
    made = Origin(**{name: fields.pop(name) for name in ORIGIN if name in fields})
    given: dict[str, Any] = {
        "backbone": "mine", "concept": "hazard", "suite": "igmu", "method": method, "on": "none", "variant": "",
        "protocol": "pocket-hazard", "dtype": "fp32", "rows_sha": "0123456789abcdef", "run": "r1", "source": "local",
        "n_loaded": 40, "n_excluded": 0, "n_run": 40, "n_scored": 40, "n_failed": 0, "origin": made,
        "metrics": {"fsr": Metric("higher", value, value - 5, value + 5, n=40, scored=40)},
    }  # fmt: skip
    return ResultCell(**{**given, **fields})


@pytest.mark.parametrize(
    ("field", "one", "other"),
    [("backbone_sha", A, B), ("seed", 1, 2), ("seed", 0, None), ("noise", "cpu", "cuda"), ("backbone_sha", A, "")],
)
def test_what_begins_otherwise_never_shares_a_table(field: str, one: Any, other: Any) -> None:
    cells = [cell("none", **{field: one}), cell("saferedir", **{field: other})]
    found = boards(cells)
    assert [len(board.cells) for board in found] == [1, 1]
    assert len({(board.title, board.caption) for board in found}) == 2


def test_titles_say_the_backbone_s_hash_the_seed_and_the_rows() -> None:
    (board,) = boards([cell(backbone_sha=A, seed=7)])
    assert board.title == "hazard × igmu on mine@a1b2c3d4"
    assert board.caption == "judge pocket-hazard · fp32 · rows 01234567 · seed 7"


def test_noise_that_differs_is_said() -> None:
    captions = [board.caption for board in boards([cell(noise="on the CPU"), cell(noise="on the GPU")])]
    assert [caption.rpartition(" · ")[2] for caption in captions] == ["noise: on the CPU", "noise: on the GPU"]
    assert "noise" not in boards([cell(noise="on the CPU")])[0].caption


def test_a_limited_run_has_other_rows_and_a_table_of_its_own() -> None:
    assert len(boards([cell("none"), cell(variant="limit=2", rows_sha="f" * 16)])) == 2
    assert len(boards([cell("none"), cell(variant="alpha_scale=2.0")])) == 1


@pytest.mark.parametrize("field", ORIGIN)
def test_every_field_of_an_origin_is_part_of_the_identity_and_of_the_json(field: str) -> None:
    value: Any = 3 if field in ("seed", "method_version") else "x"
    one, other = cell(), cell(**{field: value})
    assert identity(one) != identity(other)
    assert to_dict(other)[field] == value
    assert from_dict(to_dict(other)).origin == other.origin
    assert field not in to_dict(one)


@pytest.mark.parametrize(("field", "value"), [("seed", "1"), ("seed", True), ("backbone_sha", 1), ("folder", ["a"])])
def test_an_origin_of_another_type_is_refused(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        from_dict({**to_dict(cell()), field: value})


def test_csv_has_what_tells_cells_apart() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(tables([cell(backbone_sha=A, seed=1), cell(backbone_sha=B, seed=2)])))))
    assert [(line["backbone_sha"], line["seed"]) for line in lines] == [(A, "1"), (B, "2")]


# --- one name, several makings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "values", "texts"),
    [
        ("artifact_sha", (A, B), ("artifact a1b2c3d4", "artifact b1b2c3d4")),
        ("checkpoint_sha", (A, B), ("checkpoint a1b2c3d4", "checkpoint b1b2c3d4")),
        ("method_version", (1, 2), ("version 1", "version 2")),
        ("images_sha", (A, B), ("pictures a1b2c3d4", "pictures b1b2c3d4")),
        ("folder", ("/x/y1/m", "/x/y2/m"), ("y1/m", "y2/m")),
    ],
)
def test_lines_of_one_name_say_what_differs(field: str, values: tuple[Any, Any], texts: tuple[str, str]) -> None:
    found = told_apart([cell(**{field: value}) for value in values])
    assert [name_of(each) for each in found] == [f"saferedir ({text})" for text in texts]
    (board,) = boards(found)
    assert len(board.main) == 2
    assert field == "folder" or any(text.split()[0] + ": " in note for text in texts for note in board.notes)


def test_only_the_shortest_difference_is_said() -> None:
    found = told_apart([
        cell(artifact_sha=A, images_sha=A), cell(artifact_sha=B, images_sha=B), cell("none"), cell("safree", variant="x=1"),
    ])  # fmt: skip
    assert [name_of(each) for each in found][:2] == ["saferedir (artifact a1b2c3d4)", "saferedir (artifact b1b2c3d4)"]
    assert [name_of(each) for each in found][2:] == ["none", "safree (x=1)"]


def test_a_making_is_told_apart_on_every_suite() -> None:
    """Else numbers of both would be pooled by name over the suites."""
    found = told_apart([cell(artifact_sha=A), cell(artifact_sha=B, suite="mma"), cell("none", suite="mma")])
    assert [name_of(each) for each in found] == ["saferedir (artifact a1b2c3d4)", "saferedir (artifact b1b2c3d4)", "none"]
    assert {cost.method for cost in costs(found)} == {name_of(each) for each in found}


def test_what_is_not_known_tells_nothing_apart() -> None:
    found = told_apart([cell(artifact_sha=A), cell(suite="mma", source="committed")])
    assert [name_of(each) for each in found] == ["saferedir", "saferedir"]


def test_a_cell_without_pictures_says_its_run() -> None:
    found = told_apart([cell(images_sha=A), cell(run="r2", n_run=0, n_scored=0)])
    assert [name_of(each) for each in found] == ["saferedir", "saferedir (run r2)"]


def test_folders_are_named_by_as_much_as_tells_them_apart() -> None:
    assert folders_text(["/a/m"]) == {"/a/m": "a/m"}
    assert folders_text(["/a/b/m", "/a/c/m"]) == {"/a/b/m": "b/m", "/a/c/m": "c/m"}
    assert folders_text(["/a/x/b/m", "/a/y/b/m"]) == {"/a/x/b/m": "x/b/m", "/a/y/b/m": "y/b/m"}


# --- never pooled, never paired ---------------------------------------------------------------------------------------


def test_costs_of_two_models_of_one_name_are_two_lines() -> None:
    found = costs([cell(backbone_sha=A), cell(backbone_sha=B)])
    assert [(cost.backbone, cost.cells) for cost in found] == [("mine@a1b2c3d4", 1), ("mine@b1b2c3d4", 1)]


def test_matrices_keep_models_seeds_and_rows_apart() -> None:
    one, other = matrices([cell(backbone_sha=A, seed=1), cell(backbone_sha=B, seed=1)])
    assert (one.title.partition(":")[0], other.title.partition(":")[0]) == (
        "hazard on mine@a1b2c3d4, seed 1", "hazard on mine@b1b2c3d4, seed 1",
    )  # fmt: skip
    (matrix,) = matrices([cell(value=10), cell(value=90, rows_sha="f" * 16)])
    assert {column: rate.value for column, rate in matrix.rows["saferedir"].items()} == {
        "igmu (rows 01234567)": 90, "igmu (rows ffffffff)": 10,
    }  # fmt: skip


def test_prompts_made_against_each_method_share_a_column() -> None:
    (matrix,) = matrices(
        cell(name, suite=f"file-{name}", rows_sha=name, made_against=f"p4d against {name}") for name in ("saferedir", "safree")
    )
    assert matrix.columns == ("p4d",)


def test_a_sweep_has_a_line_for_each_making() -> None:
    def swept_on(sha: str, *values: float) -> list[ResultCell]:
        return [cell(variant=f"alpha_scale={value}", value=10 * value, artifact_sha=sha) for value in values]

    found = swept([*swept_on(A, 1.5, 2.0, 3.0), *swept_on(B, 1.5, 2.0, 3.0)], "saferedir.alpha_scale")
    assert [line.name for line in found] == ["saferedir (artifact a1b2c3d4)", "saferedir (artifact b1b2c3d4)"]
    assert [[point.said for point in line.points] for line in found] == [["1.5", "2.0", "3.0"]] * 2
    models = [
        cell(variant=f"alpha_scale={value}", backbone_sha=sha, seed=seed)
        for sha, seed in ((A, 1), (B, 1), (A, 2)) for value in (1.5, 2.0, 3.0)
    ]  # fmt: skip
    assert len({line.panel for line in swept(models, "saferedir.alpha_scale")}) == 3


def test_thresholds_of_two_models_are_two_tables(make: Any) -> None:
    cells = [make.cell(make.forget(0, make.image()), origin=Origin(backbone_sha=sha)) for sha in (A, B)]
    found = {curve.backbone for curve in curves(cells, make.hazard, [make.hazard], (0.5,))}
    assert found == {"pocket@a1b2c3d4", "pocket@b1b2c3d4"}


def test_rows_are_paired_by_what_they_are_and_not_by_their_place(make: Any) -> None:
    def of(order: list[int], seed: int) -> Any:
        return answers([_seen(make, i, float(i)) for i in order], seed)

    both = matched(of([0, 1, 2], 5), of([2, 0, 1], 5))
    assert both.a.tolist() == both.b.tolist() == [0, 1, 2]
    assert matched(of([0, 1], 5), of([0, 1], 6)).ids == ()


def _seen(make: Any, i: int, value: float) -> Any:
    from srbench.analysis.records import Observation

    return Observation(make.row(i), value, f"prompt {i}")


def test_rows_with_another_reference_are_no_pair(make: Any) -> None:
    from srbench.analysis.records import Observation

    a, b = (answers([Observation(make.row(0, reference=text), 1.0, "p")]) for text in ("an empty scene", "a field"))
    assert matched(a, b).ids == ()


def test_a_gain_is_over_the_same_checkpoint(make: Any) -> None:
    lens = Lens(make.hazard, "object", "pocket-judge", "pocket-clip")
    rows = [make.forget(i, make.image()) for i in range(4)]
    mine = make.cell(*rows, on="esd", metrics=("fsr",), origin=Origin(checkpoint_sha=A))
    alone = make.cell(*rows, method="none", on="esd", metrics=("fsr",), origin=Origin(checkpoint_sha=A))
    assert stacking_gains([Stacked(mine, alone, lens)])[0]["fsr_gain"].value == 0
    for origin in (Origin(checkpoint_sha=B), Origin(checkpoint_sha=A, seed=2), Origin(checkpoint_sha=A, backbone_sha=B)):
        (found,) = stacking_gains([Stacked(mine, make.replace(alone, origin=origin), lens)])
        assert found["fsr_gain"].value is None


# --- two names --------------------------------------------------------------------------------------------------------


class _NoRows:
    """A results folder of committed summaries alone."""

    def run(self, name: str) -> None:
        return None

    def entries(self, cells: Any) -> list[Entry]:
        return [Entry(each) for each in cells]


def _sides(cells: list[ResultCell], *names: str) -> list[Any]:
    return [side(name, cells, _NoRows(), lambda each: True) for name in names]  # type: ignore[arg-type]


def test_a_name_of_two_makings_is_compared_twice_each_under_its_own_title() -> None:
    cells = told_apart([cell("none"), cell(artifact_sha=A), cell(artifact_sha=B)])
    found = comparisons(pairs(*_sides(cells, "none", "saferedir")))
    assert [name_of(each.b.cell) for each in found] == ["saferedir (artifact a1b2c3d4)", "saferedir (artifact b1b2c3d4)"]
    (one,) = pairs(*_sides(cells, "none", "saferedir (artifact b1b2c3d4)"))
    assert one[1].cell.origin.artifact_sha == B


def test_what_is_not_in_one_table_is_no_pair_and_the_reason_is_said() -> None:
    with pytest.raises(UsageError, match=r"differ in backbone: mine@a1b2c3d4, mine@b1b2c3d4; seed: 1, 2"):
        pairs(*_sides([cell("none", backbone_sha=A, seed=1), cell(backbone_sha=B, seed=2)], "none", "saferedir"))


def test_a_baseline_of_two_makings_is_refused() -> None:
    cells = told_apart([cell("none"), cell(artifact_sha=A), cell(artifact_sha=B)])
    with pytest.raises(UsageError, match="'saferedir' stands for 2 results"):
        against("saferedir", [Entry(each) for each in cells])


def test_a_line_has_one_column_of_differences() -> None:
    a, b, c = (Entry(each) for each in told_apart([cell(artifact_sha=A), cell(artifact_sha=B), cell("none")]))
    with pytest.raises(UsageError, match="two lines to compare none with"):
        with_differences([a, b, c], [(a, c), (b, c)])


def test_places_can_be_told_by_every_part() -> None:
    other: list[dict[str, Any]] = [{"seed": 1}, {"noise": "x"}, {"backbone_sha": A}, {"dtype": "bf16"}, {"rows_sha": "f" * 16}]
    cells = [cell(**fields) for fields in ({}, *other, {"scorers_sha": A})]
    assert len(set(map(place_of, cells))) == len(cells)
