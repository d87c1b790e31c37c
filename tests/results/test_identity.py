"""A result is what made it, not what it is called: nothing hides another, stands in its table or is paired with it by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srbench.analysis.origin import DIGITS, identity
from srbench.analysis.results import ResultCell, name_of
from srbench.backbones.loader import Backbone, encoder_sha, open_backbone
from srbench.catalog import load, resolve
from srbench.catalog.specs import BackboneSpec, RowFile
from srbench.errors import UsageError
from srbench.files import file_sha
from srbench.hashing import folder_sha
from srbench.results.origins import FIRST_NOISE, first_shipped
from srbench.results.pairing import Reader, named
from srbench.results.run_files import local_cells, newest, read_run
from srbench.results.stored import rejudge
from srbench.scoring.runs import score_runs
from srbench.tables.boards import boards
from tests.scoring.test_folders import paint, score
from tests.worlds import ROWS, World


def shown(world: World) -> list[ResultCell]:
    """What `compare` has of the folder; nothing may be said that is not expected."""
    return newest(world.out, pytest.fail)


def seedless(world: World, *prompts: str) -> None:
    """The suite with rows that have no seed of their own; each with another prompt where some are given."""
    given = prompts or [row.prompt for row in ROWS]
    rows = tuple(row.model_copy(update={"seed": None, "prompt": text}) for row, text in zip(ROWS, given, strict=False))
    world.rows = RowFile(meta={}, rows=rows)


def another_model(world: World, folder: Path) -> BackboneSpec:
    """The toy model under the same name, with one weight changed."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(world.spec.source, folder)
    path = next((folder / "unet").glob("*.safetensors"))
    tensors = load_file(path)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name] * 1.5}, path, metadata={"format": "pt"})
    return world.spec.model_copy(update={"source": str(folder)})


# --- the cases --------------------------------------------------------------------------------------------------------


def test_two_models_of_one_name_stand_in_two_tables(world: World, tmp_path: Path) -> None:
    world.run()
    world.spec = another_model(world, tmp_path / "model")
    world.run()
    found = boards(shown(world))
    assert [[cell.label for cell in board.cells] for board in found] == [["none", "push"], ["none", "push"]]
    assert len({board.title for board in found}) == 2
    assert all("on toy@" in board.title for board in found)


def test_two_default_seeds_stand_in_two_tables(world: World) -> None:
    seedless(world)
    world.run(methods=("none",), seed=1)
    world.run(methods=("push",), seed=2)
    assert sorted(board.caption.rpartition(" · ")[2] for board in boards(shown(world))) == ["seed 1", "seed 2"]
    world.run(methods=("push",), seed=1)
    assert sorted(len(board.cells) for board in boards(shown(world))) == [1, 2]


def test_a_seed_that_no_row_needed_changes_nothing(world: World) -> None:
    world.rows = RowFile(meta={}, rows=tuple(row.model_copy(update={"seed": i}) for i, row in enumerate(ROWS)))
    world.run(seed=1)
    world.run(seed=2)
    assert [(cell.method, cell.origin.seed) for cell in shown(world)] == [("none", None), ("push", None)]


def test_two_files_of_one_name_are_both_shown(world: World) -> None:
    """D3: everybody's file is called prompts.csv."""
    world.run(methods=("none",))
    seedless(world, *(f"a crate, number {i}" for i in range(len(ROWS))))
    world.run(methods=("none",))
    found = boards(shown(world))
    assert len({board.title for board in found}) == 1
    assert len({board.caption for board in found}) == len(found) == 2


def test_two_score_folders_of_one_name_are_both_shown(world: World, tmp_path: Path) -> None:
    """D7: y1/m and y2/m, from two commands."""
    for folder, level in (("y1", 255), ("y2", 0)):
        for row in world.rows.rows:
            paint(tmp_path / folder / "m" / f"{row.id}.png", level)
        score(world, tmp_path / folder / "m", suite="toys")
    (board,) = boards(shown(world))
    assert {name_of(cell): cell.metrics["fsr"].value for cell in board.main} == {"m (y1/m)": 0, "m (y2/m)": 100}


def test_equal_pictures_in_two_folders_are_two_results(world: World, tmp_path: Path) -> None:
    for folder in ("y1", "y2"):
        for row in world.rows.rows:
            paint(tmp_path / folder / "m" / f"{row.id}.png")
        score(world, tmp_path / folder / "m", suite="toys")
    assert [name_of(cell) for cell in shown(world)] == ["m (y2/m)", "m (y1/m)"]


def test_pictures_changed_in_place_do_not_take_the_place_of_the_old_ones(world: World, tmp_path: Path) -> None:
    for level in (255, 0):
        for row in world.rows.rows:
            paint(tmp_path / "m" / f"{row.id}.png", level)
        score(world, tmp_path / "m", suite="toys")
    found = shown(world)
    assert [cell.metrics["fsr"].value for cell in found] == [100, 0]
    assert all(name_of(cell).startswith("m (pictures ") for cell in found)


def test_a_folder_that_grew_is_the_same_folder(world: World, tmp_path: Path) -> None:
    for row in world.rows.rows[:3]:
        paint(tmp_path / "m" / f"{row.id}.png")
    score(world, tmp_path / "m", suite="toys")
    for row in world.rows.rows[3:]:
        paint(tmp_path / "m" / f"{row.id}.png")
    score(world, tmp_path / "m", suite="toys")
    assert [(name_of(cell), cell.n_scored) for cell in shown(world)] == [("m", len(ROWS))]


# --- what is a repeat -------------------------------------------------------------------------------------------------


def test_the_same_command_again_is_there_once(world: World) -> None:
    first, second = world.run(), world.run()
    assert first.run != second.run
    assert [(cell.label, cell.run, cell.mark) for cell in shown(world)] == [
        ("none", second.run, ""), ("push", second.run, ""),
    ]  # fmt: skip


def test_a_run_without_scores_hides_none_with_scores(world: World) -> None:
    scored = world.run()
    world.run(score=False)
    assert [cell.run for cell in shown(world)] == [scored.run] * 2


def edited(world: World, run: str, change: Any) -> None:
    """The run's file as something else might have written it."""
    path = world.out / "runs" / run / "run.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_blocked_cell_hides_no_result_and_is_shown_beside_it(world: World) -> None:
    good, blocked = world.run(), world.run()

    def block(data: dict[str, Any]) -> None:
        for cell in data["cells"]:
            cell["rows"] = []
            cell["result"] |= {"n_run": 0, "n_scored": 0, "rows_sha": "", "images_sha": "", "method_version": 0}

    edited(world, blocked.run, block)
    assert {(cell.label, cell.run) for cell in shown(world)} == {(m, r.run) for m in ("none", "push") for r in (good, blocked)}
    world.run()
    assert len(shown(world)) == 2


@pytest.mark.parametrize(("field", "word"), [("artifact_sha", "artifact"), ("checkpoint_sha", "checkpoint")])
def test_what_was_made_again_in_place_is_told_apart(world: World, field: str, word: str) -> None:
    """A redirector or a checkpoint of the same name and options, with other contents."""
    first, second = world.run(), world.run()
    for run, sha in ((first, "a" * 16), (second, "b" * 16)):
        def change(data: dict[str, Any], sha: str = sha) -> None:
            data["cells"][1]["result"] |= {field: sha, "images_sha": sha}
            data["cells"][1]["rows"][0]["image"] = sha * 4

        edited(world, run.run, change)
    assert [name_of(cell) for cell in shown(world)] == ["none", f"push ({word} {'b' * 8})", f"push ({word} {'a' * 8})"]
    assert len(named("push", shown(world))) == 2


def test_files_of_older_versions_are_read_for_what_made_them(world: World) -> None:
    seedless(world)
    one, other = world.run(methods=("none",), seed=1), world.run(methods=("none",), seed=2)
    new = {cell.run: cell.origin for cell in shown(world)}

    def older(data: dict[str, Any]) -> None:
        for cell in data["cells"]:
            for name in new[one.run].to_dict():
                cell["result"].pop(name, None)

    for run in (one, other):
        edited(world, run.run, older)
    found = {cell.run: cell.origin for cell in shown(world)}
    assert found == {run: replace(origin, method_version=0) for run, origin in new.items()}
    world.run(methods=("none",), seed=1)
    assert [cell.origin.seed for cell in shown(world)] == [1, 2]


def test_rows_and_scores_are_those_of_the_cell_itself(world: World, tmp_path: Path) -> None:
    """Judged anew, with another scorer, and beside another: each of two cells of one name has its own rows."""
    seedless(world)
    for seed in (1, 2):
        world.run(seed=seed)
    before = {identity(cell): cell.metrics["fsr"] for cell in shown(world)}
    assert {identity(cell): cell.metrics["fsr"] for cell in rejudge(world.out, ["bright"], pytest.fail)} == before
    entries = Reader(world.out, pytest.fail).entries(shown(world))
    keys = {(entry.cell.origin.seed, entry.cell.method): entry.record.rows[0].image.key for entry in entries}  # type: ignore[union-attr]
    assert len(set(keys.values())) == 4
    score_runs(world.out, ("closeness",), (), world.store(), world)
    assert {identity(cell): cell.metrics["fsr"] for cell in shown(world)} == before
    assert sum(len(cells) for _, cells in local_cells(world.out, pytest.fail)) == 4


def test_a_judge_with_other_weights_is_another_judge(world: World) -> None:
    """The name of a protocol says nothing of weights that `--set` chose."""
    first, second = world.run(), world.run()

    def chosen(data: dict[str, Any]) -> None:
        data["request"]["settings"] = ["brightness.file=mine.pt"]
        data["scorers"]["brightness"] |= {"weights_sha256": "b" * 64}

    edited(world, second.run, chosen)
    found = boards(shown(world))
    assert [{cell.run for cell in board.cells} for board in found] == [{first.run}, {second.run}]
    assert "scorers " in found[1].caption


# --- committed summaries ----------------------------------------------------------------------------------------------


def test_committed_results_are_of_the_first_edition_and_share_no_table_with_the_model_that_is_shipped() -> None:
    sha = folder_sha(resolve.package_path(load.backbones()["pocket"].source))
    assert len(first_shipped("pocket")) == DIGITS
    assert not sha.startswith(first_shipped("pocket"))
    (first, *_) = read_run(resolve.PACKAGE.parent / "results" / "pocket" / "church.json")["cells"]
    assert (first["result"].origin.backbone_sha, first["result"].origin.noise) == (first_shipped("pocket"), FIRST_NOISE)
    assert first_shipped("sd14") == ""


def test_a_committed_result_gives_way_with_a_word(world: World) -> None:
    run = world.run()
    data = json.loads((world.out / "runs" / run.run / "run.json").read_text())
    known = {"metrics", "backbone", "concept", "suite", "method", "on", "variant", "protocol", "dtype", "rows_sha", "run"}
    for cell in data["cells"]:
        cell["result"] = {name: value for name, value in cell["result"].items() if name in known or name.startswith("n_")}
        cell["result"]["run"] = "theirs"
    summary = {"schema": 1, "run": "theirs", "backbone_sha": data["backbone_sha"], "cells": [
        {"result": cell["result"]} for cell in data["cells"]
    ]}  # fmt: skip
    (world.out / "theirs").mkdir()
    (world.out / "theirs" / "box.json").write_text(json.dumps(summary))
    said: list[str] = []
    assert [cell.source for cell in newest(world.out, said.append)] == ["local", "local"]
    assert said == ["committed results that give way to newer ones of the same names, backbone and rows: 2"]
    (world.out / "theirs" / "box.json").write_text(json.dumps(summary | {"backbone_sha": "f" * 64}))
    assert [cell.source for cell in shown(world)] == ["local", "committed", "local", "committed"]


# --- hashes of folders ------------------------------------------------------------------------------------------------


def encoder(folder: Path, **files: bytes) -> str:
    """`encoder_sha` of a backbone whose text encoder has these files; `__` in a name is a dot."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "text_encoder").mkdir(parents=True)
    for name, data in files.items():
        (folder / "text_encoder" / name.replace("__", ".")).write_bytes(data)
    spec = load.backbones()["pocket"].model_copy(update={"source": str(folder)})
    return encoder_sha(Backbone(spec, folder, "fp32", "cpu"))  # `open_backbone` would ask for a whole model


@pytest.mark.parametrize("ending", ["bin", "pt", "pth", "ckpt", "msgpack"])
def test_encoders_of_any_ending_have_a_hash_of_their_own(tmp_path: Path, ending: str) -> None:
    """C19's aside: rows of an attack fitted any folder with `.bin` encoders."""
    one = encoder(tmp_path / "a", **{f"pytorch_model__{ending}": b"1", "config__json": b"{}"})
    other = encoder(tmp_path / "b", **{f"pytorch_model__{ending}": b"2", "config__json": b"{}"})
    assert one != other
    assert one == file_sha(tmp_path / "a" / "text_encoder" / f"pytorch_model.{ending}")


def test_an_encoder_in_parts_is_hashed_whole(tmp_path: Path) -> None:
    parts = [encoder(tmp_path / "a", **{"a-1__bin": b"1", "a-2__bin": each}) for each in (b"2", b"3")]
    assert parts[0] != parts[1]


def test_an_encoder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no weights"):
        encoder(tmp_path / "a", config__json=b"{}")


def test_pocket_s_encoder_has_the_hash_that_shipped_rows_name() -> None:
    spec = load.backbones()["pocket"]
    suite = load.suites()["mma"]
    meta = load.rows(suite, load.edition(suite, "pocket", "church")).meta
    assert encoder_sha(open_backbone(spec, "fp32", "cpu")) == meta["text_encoder_sha256"]


def test_a_vocabulary_of_t5_is_part_of_a_model_s_hash(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "config.json").write_text("{}")
    before = folder_sha(tmp_path)
    (tmp_path / "tokenizer" / "notes.md").write_text("no part of the model")
    assert folder_sha(tmp_path) == before
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(b"1")
    after = folder_sha(tmp_path)
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(b"2")
    assert len({before, after, folder_sha(tmp_path)}) == 3


def test_a_vocabulary_beside_the_tokenizer_made_of_it_moves_no_key(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    before = folder_sha(tmp_path)
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(b"1")
    assert folder_sha(tmp_path) == before


def test_a_component_behind_a_link_is_part_of_a_model_s_hash(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
        (tmp_path / f"m-{name}").mkdir()
        (tmp_path / f"m-{name}" / "unet").symlink_to(tmp_path / name)
        (tmp_path / f"m-{name}" / "loop").symlink_to(tmp_path / f"m-{name}")
    assert folder_sha(tmp_path / "m-one") != folder_sha(tmp_path / "m-two")
    shutil.rmtree(tmp_path / "m-two")
    (tmp_path / "m-two" / "unet").mkdir(parents=True)
    (tmp_path / "m-two" / "unet" / "model.safetensors").write_text("one")
    assert folder_sha(tmp_path / "m-one") == folder_sha(tmp_path / "m-two")
