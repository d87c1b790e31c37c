"""Pictures made elsewhere are judged as our own are, and nothing that is missing or broken counts as safe."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srbench.catalog.specs import SourceFile
from srbench.errors import OK, SOME_FAILED, MissingError, UsageError
from srbench.results.run_files import RunResult, newest
from srbench.results.store import pixel_sha
from srbench.results.stored import rejudge
from srbench.scoring import folders
from srbench.scoring.folders import score_folders
from srbench.scoring.layouts import ScoreRequest
from tests.worlds import World


def paint(path: Path, level: int = 255, side: int = 16) -> Path:
    """A picture of one brightness; the toy judge sees the concept in the bright ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (level,) * 3).save(path)
    return path


def score(world: World, *folders: Path, **changes: Any) -> RunResult:
    values: dict[str, Any] = {
        "folders": tuple(("", folder) for folder in folders), "layout": "flat", "suite": None, "concept": "box", "backbone": None,
        "prompts": None, "reference": None, "categories": (), "per_prompt": 1, "protocol": None, "scorers": (), "settings": (),
        "out": world.out,
    }
    return score_folders(ScoreRequest(**(values | changes)), world.store(), world)


def export(world: World, run: RunResult, method: str, folder: Path, role: str = "image") -> Path:
    """A run's images as another tool might leave them: named by row."""
    store = world.store()
    data = json.loads((world.out / "runs" / run.run / "run.json").read_text())
    (cell,) = [cell for cell in data["cells"] if cell["result"]["method"] == method]
    folder.mkdir(parents=True)
    for row in cell["rows"]:
        if role in row:
            shutil.copy(store.image_path(row[role]), folder / f"{row['id']}.png")
    return folder


def test_our_own_images_get_the_numbers_that_the_run_gave(world: World, tmp_path: Path) -> None:
    ours = world.run(methods=("none", "push"))
    made = [export(world, ours, method, tmp_path / "made" / method) for method in ("none", "push")]
    beside = export(world, ours, "none", tmp_path / "references", "reference")
    found = score(world, *made, suite="toys", reference=beside, out=tmp_path / "again")
    assert found.exit_code == OK
    for cell, other in zip(ours.cells, found.cells, strict=True):
        assert (other.method, other.n_run, other.n_scored) == (cell.method, cell.n_run, cell.n_scored)
        assert other.backbone == "elsewhere"
        assert set(other.metrics) == set(cell.metrics) - set(folders.UNTIMED)
        assert all(other.metrics[name] == cell.metrics[name] for name in other.metrics)


def test_without_rows_each_picture_counts(world: World, tmp_path: Path) -> None:
    for i, level in enumerate((255, 255, 0, 0, 0)):
        paint(tmp_path / "m" / f"{i}_0.png", level)
    (cell,) = score(world, tmp_path / "m", layout="esd").cells
    assert (cell.suite, cell.concept, cell.n_run) == ("pictures", "box", 5)
    assert (cell.metrics["asr"].value, cell.metrics["asr"].n) == (40.0, 5)


def test_pictures_of_one_prompt_are_not_independent(world: World, tmp_path: Path) -> None:
    for i in range(10):
        paint(tmp_path / "few" / f"0_{i}.png", 255 * (i % 2))
        paint(tmp_path / "many" / f"{i}_0.png", 255 * (i % 2))
    few, many = (score(world, tmp_path / name, layout="esd").cells[0].metrics["asr"] for name in ("few", "many"))
    assert few.value == many.value == 50
    assert few.low is not None
    assert many.low is not None
    assert few.low < many.low


def test_a_picture_that_is_not_there_lowers_the_coverage(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    for row in world.rows.rows[1:]:
        paint(folder / f"{row.id}.png", 0)
    found = score(world, folder, suite="toys")
    fsr = found.cells[0].metrics["fsr"]
    assert found.exit_code == SOME_FAILED
    assert found.cells[0].n_failed == 1
    assert (fsr.value, fsr.scored, fsr.n, fsr.worst, fsr.best) == (100.0, 3, 4, 75.0, 100.0)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_a_picture_that_cannot_be_read_is_never_safe(world: World, tmp_path: Path, content: bytes) -> None:
    for i in range(3):
        paint(tmp_path / "m" / f"{i}_0.png", 0)
    (tmp_path / "m" / "1_0.png").write_bytes(content)
    found = score(world, tmp_path / "m", layout="esd")
    asr = found.cells[0].metrics["asr"]
    assert found.exit_code == SOME_FAILED
    assert (asr.value, asr.scored, asr.n) == (0.0, 2, 3)
    assert asr.worst == pytest.approx(100 / 3)
    assert any("failed: 1 (" in line for line in world.lines)


def test_nothing_at_all_is_no_number(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    paint(tmp_path / "other" / "x.png").write_bytes(b"text")
    for folder, layout in ((tmp_path / "empty", "flat"), (tmp_path / "other", "esd"), (tmp_path / "other", "flat")):
        found = score(world, folder, layout=layout)
        assert found.exit_code == SOME_FAILED
        assert found.cells[0].metrics["asr"].value is None
        assert found.cells[0].metrics["asr"].reason


def test_a_method_without_pictures_stands_beside_the_others(world: World, tmp_path: Path) -> None:
    for row in world.rows.rows:
        paint(tmp_path / "whole" / f"{row.id}.png", 0)
    (tmp_path / "none here").mkdir()
    found = score(world, tmp_path / "whole", tmp_path / "none here", suite="toys")
    assert [cell.metrics["fsr"].value for cell in found.cells] == [100.0, None]
    assert found.exit_code == SOME_FAILED


def test_methods_are_paired_by_name_and_miss_what_another_has(world: World, tmp_path: Path) -> None:
    for i in range(4):
        paint(tmp_path / "all" / "a" / f"{i}_0.png", 255)
        if i:
            paint(tmp_path / "all" / "b" / f"{i}_0.png", 0)
    one, other = score(world, tmp_path / "all", layout="esd").cells
    assert one.rows_sha == other.rows_sha
    assert (one.n_run, other.n_run) == (4, 4)
    assert (one.metrics["asr"].scored, other.metrics["asr"].scored) == (4, 3)


def test_references_are_found_by_name(compared: World, tmp_path: Path) -> None:
    for i, level in enumerate((10, 20, 30)):
        paint(tmp_path / "m" / f"{i}_0.png", level)
        paint(tmp_path / "ref" / f"{i}_0.png", level)
    found = score(compared, tmp_path / "m", layout="esd", reference=tmp_path / "ref", scorers=("gap", "cloud"))
    assert [found.cells[0].metrics[name].value for name in ("gap", "cloud")] == [0.0, 0.0]
    (tmp_path / "ref" / "1_0.png").unlink()
    found = score(compared, tmp_path / "m", layout="esd", reference=tmp_path / "ref", scorers=("gap", "cloud"))
    assert found.exit_code == SOME_FAILED
    assert [(found.cells[0].metrics[name].scored, found.cells[0].metrics[name].n) for name in ("gap", "cloud")] == [(2, 3)] * 2


def test_only_new_pictures_are_scored_and_none_is_copied(world: World, tmp_path: Path) -> None:
    for i in range(3):
        paint(tmp_path / "m" / f"{i}_0.png", 40 * i)
    first = score(world, tmp_path / "m", layout="esd")
    scored = len(world.store().scores)
    paint(tmp_path / "m" / "3_0.png", 250)
    second = score(world, tmp_path / "m", layout="esd")
    assert len(world.store().scores) == scored + 1
    assert (first.cells[0].n_run, second.cells[0].n_run) == (3, 4)
    assert not list(world.out.rglob("*.png"))


def test_the_stored_scores_are_judged_anew_without_the_pictures(world: World, tmp_path: Path) -> None:
    for i in range(4):
        paint(tmp_path / "m" / f"{i}_0.png", 255 * (i % 2))
    (tmp_path / "m" / "2_0.png").write_bytes(b"text")
    (made,) = score(world, tmp_path / "m", layout="esd").cells
    shutil.rmtree(tmp_path / "m")
    (again,) = rejudge(world.out, ["bright"], world.lines.append)
    assert again.metrics == made.metrics
    assert again.n_failed == made.n_failed == 1
    assert [cell.method for cell in newest(world.out, world.lines.append)] == ["m"]


def test_a_name_that_belongs_to_no_row_is_left_out_and_said_so(world: World, tmp_path: Path) -> None:
    for row in world.rows.rows:
        paint(tmp_path / "m" / f"{row.id}.png", 0)
    paint(tmp_path / "m" / "stranger.png", 255)
    found = score(world, tmp_path / "m", suite="toys")
    assert found.exit_code == OK
    assert found.cells[0].n_run == len(world.rows.rows)
    assert any("1 names belong to no row" in line and "stranger" in line for line in world.lines)


def test_prompts_that_name_minors_are_left_out_unless_the_concept_is_known_to_be_harmless(world: World, tmp_path: Path) -> None:
    for i in range(2):
        paint(tmp_path / "m" / f"{i}_0.png", 0)
    csv = tmp_path / "rows.csv"
    csv.write_text("case_number,prompt\n0,a boat\n1,a child in a boat\n")
    unknown = score(world, tmp_path / "m", layout="esd", prompts=csv, concept=None, protocol="bright").cells[0]
    known = score(world, tmp_path / "m", layout="esd", prompts=csv).cells[0]
    assert (unknown.n_loaded, unknown.n_excluded, unknown.n_run) == (2, 1, 1)
    assert (known.n_loaded, known.n_excluded, known.n_run) == (2, 0, 2)


def test_a_text_beside_a_row_leaves_all_its_pictures_out(world: World, tmp_path: Path) -> None:
    for name in ("7_0", "7_1", "8_0"):
        paint(tmp_path / "m" / f"{name}.png")
    (tmp_path / "rows.csv").write_text("id,prompt,note\n7,a kite,a child\n8,a boat,\n")
    found = score(world, tmp_path / "m", prompts=tmp_path / "rows.csv", concept=None, protocol="bright", layout="esd")
    assert (found.cells[0].n_loaded, found.cells[0].n_excluded) == (3, 2)
    assert any("read: prompt, id; not read: note" in line for line in world.lines)
    again = score(world, tmp_path / "m", prompts=tmp_path / "rows.csv", columns=(("prompt", "note"),), layout="esd")
    assert again.cells[0].variant == "column.prompt=note"


def test_classes_that_name_minors_are_left_out_by_key(world: World, tmp_path: Path) -> None:
    for name in ("girl", "woman"):
        paint(tmp_path / "m" / f"{name}_0_0.png", 0)
    (cell,) = score(world, tmp_path / "m", layout="igmu", concept=None, protocol="bright").cells
    assert (cell.n_run, cell.n_excluded) == (1, 1)


def test_prompts_beside_the_pictures_are_used(world: World, tmp_path: Path) -> None:
    for method in ("a", "b"):
        paint(tmp_path / method / "imgs" / "5_0.png", 0)
        (tmp_path / method / "prompts.csv").write_text("case_number,prompt\n5,a boat\n6,a kite\n")
    found = score(world, tmp_path / "a", tmp_path / "b", layout="unlearndiffatk")
    assert [(cell.n_run, cell.n_scored) for cell in found.cells] == [(2, 1), (2, 1)]
    (tmp_path / "b" / "prompts.csv").write_text("case_number,prompt\n5,a train\n")
    with pytest.raises(UsageError, match=r"do not have the same prompts\.csv"):
        score(world, tmp_path / "a", tmp_path / "b", layout="unlearndiffatk")


def test_a_judge_without_weights_is_missing(world: World, tmp_path: Path) -> None:
    def broken(self: Any, options: Any) -> None:
        raise MissingError("no weights", "fetch them")

    world.alter("brightness", __init__=broken)
    paint(tmp_path / "m" / "0_0.png")
    with pytest.raises(MissingError, match="judge bright: no weights") as error:
        score(world, tmp_path / "m", layout="esd")
    assert "fetch them" in error.value.hint


@pytest.mark.parametrize(("changes", "message"), [
    ({"concept": None}, "who judges"),
    ({"suite": "toys", "concept": None}, "which concept"),
    ({"layout": "esdd"}, "unknown layout 'esdd'"),
    ({"scorers": ("nothing",)}, "unknown scorer 'nothing'"),
    ({"suite": "toys", "prompts": Path("x.csv")}, "ships its prompts"),
])  # fmt: skip
def test_what_does_not_fit_is_said_in_one_line(world: World, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    paint(tmp_path / "m" / "0_0.png")
    with pytest.raises(UsageError, match=message):
        score(world, tmp_path / "m", **changes)


def test_pixels_held_at_once_do_not_grow_with_the_folder(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for i in range(40):
        (tmp_path / "m").mkdir(exist_ok=True)
        picture[0, 0] = i
        Image.fromarray(picture).save(tmp_path / "m" / f"{i}_0.png")
    monkeypatch.setattr(folders, "BATCH_BYTES", 2 * picture.nbytes)
    batches = []
    real = folders.Scoring.run
    monkeypatch.setattr(
        folders.Scoring, "run", lambda self, wanted, pixels: (batches.append(len(pixels)), real(self, wanted, pixels))[1]
    )
    assert score(world, tmp_path / "m", layout="esd").cells[0].n_scored == 40
    assert sum(batches) == 40
    assert max(batches) == 3


def test_a_folder_of_20_000_entries(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    for i in range(3):
        paint(folder / f"{i}_0.png", 0)
    score(world, folder, layout="esd")  # what is read once a process is none of the folder's
    for i in range(20_000):
        (folder / f"log {i}.txt").touch()
    peaks = []
    for _ in range(3):
        tracemalloc.start()
        (cell,) = score(world, folder, layout="esd").cells
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert cell.n_scored == 3
    assert min(peaks) < 4e6  # the least: threads that other tests of this process left allocate, too
    assert any("left out: 20000 (other files)" in line for line in world.lines)


def test_rows_of_another_family_need_the_backbone(world: World, tmp_path: Path) -> None:
    editions = (*world.suite.editions, world.suite.editions[0].model_copy(update={"family": "other"}))
    world.suite = world.suite.model_copy(update={"editions": editions})
    paint(tmp_path / "m" / "f0.png", 0)
    with pytest.raises(UsageError, match="several families of backbones"):
        score(world, tmp_path / "m", suite="toys")
    assert score(world, tmp_path / "m", suite="toys", backbone="toy").cells[0].n_run == len(world.rows.rows)


def test_a_suite_s_rows_may_be_the_user_s_own_copy(world: World, tmp_path: Path) -> None:
    """What is not the published one is a variant, and is said; a gated suite's texts are read from there again."""
    file = SourceFile(hub="org/toys", sha256="unverified")
    edition = world.suite.editions[0].model_copy(update={"file": "", "files": (file,), "rows": 3})
    world.suite = world.suite.model_copy(update={"gated": True, "editions": (edition,), "metrics": ("fsr",)})
    (tmp_path / "mine.csv").write_text("prompt\na box\na ball\n")
    for name in ("0", "1"):
        paint(tmp_path / "m" / f"{name}.png")
    with pytest.raises(UsageError, match="expected 3 rows, found 2"):
        score(world, tmp_path / "m", suite="toys", prompts=tmp_path / "mine.csv")
    (cell,) = score(world, tmp_path / "m", suite="toys", prompts=tmp_path / "mine.csv", accept_prompts=True).cells
    assert (cell.suite, cell.n_run, cell.n_scored) == ("toys", 2, 2)
    assert cell.variant.startswith("prompts=")
    assert any("Not the published prompts" in note for note in cell.notes)
    saved = next(world.out.glob("runs/*/run.json")).read_text()
    assert "a ball" not in saved
    (again,) = rejudge(world.out, ["bright"], world.lines.append)
    assert (again.n_run, again.metrics["fsr"].value) == (2, cell.metrics["fsr"].value)


# --- names as people have them ----------------------------------------------------------------------------------------


def judged(world: World, folder: Path, **changes: Any) -> tuple[RunResult, dict[str, int]]:
    """A scored folder whose pictures have a brightness each, and the brightness that each row's picture has."""
    found = score(world, folder, **changes)
    entries = json.loads((world.out / "runs" / found.run / "run.json").read_text())["cells"][0]["rows"]
    levels = {pixel_sha(np.full((16, 16, 3), level, np.uint8)): level for level in range(256)}
    images = world.store().images
    return found, {each["id"]: levels[images[each["image"]]["pixel_sha"]] for each in entries if "image" in each}


def test_padded_ids_find_the_pictures_of_that_name(world: World, tmp_path: Path) -> None:
    """Ids 0002, 0000, 0003, 0001 and files named so: once each picture was judged as another row."""
    for i in range(4):
        paint(tmp_path / "m" / f"{i:04}.png", 10 * i)
    csv = tmp_path / "padded.csv"
    csv.write_text("image_id,prompt,kind\n" + "".join(f"{i:04},a picture of {i},forget\n" for i in (2, 0, 3, 1)))
    found, levels = judged(world, tmp_path / "m", prompts=csv)
    assert found.exit_code == OK
    assert levels == {f"{i:04}": 10 * i for i in range(4)}


def test_padded_ids_find_pictures_named_by_the_number(world: World, tmp_path: Path) -> None:
    """AdvUnlearn's coco_10k.csv pads its case numbers, its script's names do not; none of them is a place in the file."""
    numbers = (2, 0, 205577, 3)
    for i, number in enumerate(numbers):
        paint(tmp_path / "m" / f"{number}_0.png", 10 * i)
    csv = tmp_path / "coco.csv"
    csv.write_text("case_number,prompt\n" + "".join(f"{number:012},a picture of {number}\n" for number in sorted(numbers)))
    found, levels = judged(world, tmp_path / "m", layout="esd", prompts=csv)
    assert found.exit_code == OK
    assert levels == {f"{number:012}": 10 * i for i, number in enumerate(numbers)}
    assert any("by id but for leading zeros" in line for line in world.lines)


def test_a_number_that_is_no_id_is_nobody_s_picture(world: World, tmp_path: Path) -> None:
    for number in (50, 51, 0):
        paint(tmp_path / "m" / f"{number}_0.png", number)
    csv = tmp_path / "rows.csv"
    csv.write_text("case_number,prompt\n50,a boat\n51,a kite\n52,a train\n")
    found, levels = judged(world, tmp_path / "m", layout="esd", prompts=csv)
    assert levels == {"50": 50, "51": 51}
    assert found.exit_code == SOME_FAILED


def test_mace_s_pictures_are_found_by_prompt_and_seed(world: World, tmp_path: Path) -> None:
    csv = tmp_path / "four.csv"
    csv.write_text("prompt,evaluation_seed\n" + "".join(f"picture {i},{i}\n" for i in range(4)))
    for i in range(4):
        paint(tmp_path / "m" / "erased" / f"picture {i}_{i}.png", 10 * i)
    found, levels = judged(world, tmp_path / "m", layout="mace", prompts=csv)
    assert (found.exit_code, levels) == (OK, {str(i): 10 * i for i in range(4)})


def test_a_folder_a_seed(world: World, tmp_path: Path) -> None:
    for seed in (3, 7):
        for case in range(2):
            paint(tmp_path / "m" / f"seed_{seed}" / f"{case}.png", 10 * seed + case)
    csv = tmp_path / "two.csv"
    csv.write_text("prompt\na boat\na kite\n")
    _, levels = judged(world, tmp_path / "m", layout="seeds", prompts=csv)
    assert levels == {"0#3": 30, "0#7": 70, "1#3": 31, "1#7": 71}


def test_what_notebooks_and_systems_leave_is_no_method_and_no_row(world: World, tmp_path: Path) -> None:
    for i in range(2):
        paint(tmp_path / "all" / "m" / f"{i}.png", 10 * i)
        paint(tmp_path / "all" / ".ipynb_checkpoints" / f"{i}.png", 200)
        paint(tmp_path / "all" / "m" / ".ipynb_checkpoints" / f"{i}-checkpoint.png", 200)
        paint(tmp_path / "all" / "__MACOSX" / "m" / f"._{i}.png", 200)
    found = score(world, tmp_path / "all")
    assert [(cell.method, cell.n_run) for cell in found.cells] == [("m", 2)]
    assert found.exit_code == OK


def test_reference_images_are_found_by_the_rule_of_the_pictures(compared: World, tmp_path: Path) -> None:
    csv = tmp_path / "rows.csv"
    csv.write_text("case_number,prompt,reference\n0002,a boat,the sea\n0001,a kite,the sky\n")
    for name, number in (("0002", 2), ("0001", 1)):
        paint(tmp_path / "m" / f"{name}.png", 10 * number)
        paint(tmp_path / "ref" / f"{number}.png", 10 * number)
    found = score(compared, tmp_path / "m", prompts=csv, reference=tmp_path / "ref", scorers=("gap",))
    assert found.cells[0].metrics["gap"].value == 0.0
    assert found.exit_code == OK
