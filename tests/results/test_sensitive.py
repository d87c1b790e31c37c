"""Sensitive pictures: marked, counted, dropped once scored, and gone after a kill at any moment. The concept is a box.

Boxes and balls stand for what is sensitive; nothing here is.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from srbench.engine import batches
from srbench.engine.plan import plan
from srbench.errors import OK, SOME_FAILED
from srbench.hashing import canonical
from srbench.results.run_files import RunResult
from srbench.results.sensitive import left_line, tend
from srbench.results.store import Store
from srbench.scoring.runs import score_runs
from tests.results.kills import KILLED, Deaths, forked

PNG = b"\x89PNG\r\n\x1a\n"
SMALL = {"methods": ("none",), "limit": 1, "batch_size": 2}
"""A run of three rows, a reference and a floor: five pictures in three batches."""


@pytest.fixture
def secret(world: Any) -> Any:
    """The toy concept, marked sensitive."""
    world.concept = world.concept.model_copy(update={"sensitive": True})
    return world


def started(world: Any, **changes: Any) -> RunResult:
    """A run as the command begins it: the store is tended first."""
    tend(Store(world.out / "store", world.lines.append), world.lines.append)
    return world.run(**{**SMALL, **changes})


def pictures(out: Path) -> list[str]:
    """Every file under a results folder that begins as a PNG does, whatever it is called."""
    return [str(path.relative_to(out)) for path in sorted(out.rglob("*")) if path.is_file() and path.read_bytes()[:8] == PNG]


def numbers(done: RunResult) -> str:
    """All metrics that do not depend on time."""
    return canonical([
        {name: repr(metric) for name, metric in sorted(cell.metrics.items()) if name != "added_ms"} for cell in done.cells
    ])  # fmt: skip


def sampled(out: Path) -> list[str]:
    """The keys of all lines that say an image was made, in all ledgers; what only repeats one counts once by its mark."""
    lines = [json.loads(line) for path in (out / "store/ledger").glob("images-*") for line in path.read_text().splitlines()]
    return [line["key"] for line in lines if "dropped" not in line]


# --- records ----------------------------------------------------------------------------------------------------------


def test_a_picture_says_that_it_is_sensitive_and_what_it_awaits(secret: Any) -> None:
    started(secret, keep_images=True)
    store = secret.store()
    assert len(store.images) == 5
    for key, record in store.images.items():
        with Image.open(store.image_path(key)) as image:
            inside = json.loads(image.text["srbench"])  # type: ignore[attr-defined]
        for each in (record, inside):
            assert each["sensitive"] is True
            assert {entry[0] for entry in each["awaits"]} == {"brightness", "closeness"}
            assert {entry[3] for entry in each["awaits"]} == {key}


def test_the_mark_changes_no_key(world: Any) -> None:
    before = {image.key for image in plan(world.request(**SMALL), world.backbone())[0].images()}
    world.concept = world.concept.model_copy(update={"sensitive": True})
    assert {image.key for image in plan(world.request(**SMALL), world.backbone())[0].images()} == before


def test_a_harmless_picture_has_no_mark(world: Any) -> None:
    started(world)
    assert not any({"sensitive", "awaits", "marked", "gated"} & set(record) for record in world.store().images.values())
    assert len(pictures(world.out)) == 5
    assert not any("sensitive" in line for line in world.lines)


def test_a_reference_waits_for_the_pairs_that_it_is_part_of(compared: Any) -> None:
    compared.concept = compared.concept.model_copy(update={"sensitive": True})
    started(compared, scorers=("gap",), keep_images=True)
    (cell,) = plan(compared.request(**SMALL, scorers=("gap",)), compared.backbone())
    row = next(row for row in cell.rows if row.reference is not None)
    record = compared.store().images[row.reference.key]
    assert ["gap", row.image.key, row.reference.key] in [[each[0], each[3], each[4]] for each in record["awaits"]]


# --- what is said and counted -----------------------------------------------------------------------------------------


def test_the_line_counts_files(secret: Any) -> None:
    started(secret)
    assert "5 images of sensitive cells were scored and dropped" in secret.lines
    assert pictures(secret.out) == []
    started(secret)
    assert "0 images of sensitive cells were scored and dropped" in secret.lines
    assert "0 images to sample, 5 in the store" in secret.lines


def test_a_picture_that_cannot_be_deleted_is_named_and_counted_as_left(secret: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.unlink

    def busy(path: Any, *more: Any, **named: Any) -> None:
        if str(path).endswith(".png"):
            raise PermissionError(13, "Permission denied", str(path))
        real(path, *more, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", busy)
        done = started(secret)
    assert done.exit_code == SOME_FAILED
    assert "0 images of sensitive cells were scored and dropped" in secret.lines
    assert sum("cannot be deleted (Permission denied)" in line for line in secret.lines) == 3
    assert "5 pictures of sensitive rows cannot be deleted" in secret.lines
    assert len(pictures(secret.out)) == 5
    assert "5 pictures of sensitive rows" in left_line(secret.out)
    again = started(secret)
    assert (again.exit_code, pictures(secret.out)) == (OK, [])
    assert "5 pictures of sensitive rows that were left here, and are scored, were deleted" in secret.lines
    assert left_line(secret.out) == ""


def test_sampling_alone_says_how_many_stay_and_what_drops_them(secret: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["srbench", "run", "--no-score", "--out", "my results"])
    started(secret, score=False)
    said = "stay until they are scored; this scores and drops them: srbench run --out 'my results'"
    assert f"5 pictures of sensitive rows {said}" in secret.lines
    assert not any("scored and dropped" in line for line in secret.lines)
    assert len(pictures(secret.out)) == 5
    here = shlex.join(["srbench", "run", "--out", str(secret.out)])
    assert here in left_line(secret.out), "commands that only read say it, too, for where the folder lies now"
    started(secret, score=False)
    assert len(pictures(secret.out)) == 5, "what nobody scored is not deleted"
    started(secret)
    assert "5 images of sensitive cells were scored and dropped" in secret.lines
    assert pictures(secret.out) == []


def test_scoring_the_runs_drops_what_was_only_sampled(secret: Any) -> None:
    started(secret, score=False)
    score_runs(secret.out, ["brightness"], (), secret.store(), secret)
    assert len(pictures(secret.out)) == 5, "one of two scorers"
    score_runs(secret.out, ["brightness", "closeness"], (), secret.store(), secret)
    assert pictures(secret.out) == []
    done = started(secret)
    assert done.exit_code == OK
    assert "0 images to sample, 5 in the store" in secret.lines


@pytest.mark.parametrize("how", ["raises", "one"])
def test_pictures_on_which_a_scorer_failed_go_and_are_counted(how: str, secret: Any) -> None:
    closeness = secret.scorers["closeness"]

    def score(self: Any, images: Any, rows: Any) -> Any:
        if how == "raises" or any("red" in row["prompt"] for row in rows):
            raise ValueError("no")
        return closeness.score(self, images, rows)

    secret.alter("closeness", score=score)
    done = started(secret)
    assert done.exit_code == SOME_FAILED
    assert pictures(secret.out) == []
    assert any(re.match(r"[1-5] of them lack scores that failed: only a run into a new folder", line) for line in secret.lines)
    assert done.cells[0].metrics["fsr"].value is not None


def test_what_was_kept_stays_and_is_said(secret: Any) -> None:
    started(secret, keep_images=True)
    started(secret)
    assert len(pictures(secret.out)) == 5
    assert "5 pictures of sensitive rows were kept with --keep-images and stay" in secret.lines
    assert left_line(secret.out) == ""


def test_what_was_dropped_cannot_be_kept_and_that_is_said(secret: Any) -> None:
    started(secret)
    started(secret, keep_images=True)
    assert pictures(secret.out) == []
    assert "5 pictures of sensitive rows were dropped by an earlier run: only a new --out folder can have them" in secret.lines


def test_a_picture_that_waits_for_an_image_which_failed_goes_at_the_second_time(compared: Any, monkeypatch: Any) -> None:
    """The first time it may be the machine's fault; the second time nothing is gained by waiting."""
    from srbench.errors import CellError

    compared.concept = compared.concept.model_copy(update={"sensitive": True})
    real = batches.sample

    def sample(pipeline: Any, prompts: Any, active: Any, specs: Any, *more: Any) -> Any:
        if any(spec.prompt == "a red" for spec in specs):
            raise CellError("refused", "")
        return real(pipeline, prompts, active, specs, *more)

    monkeypatch.setattr(batches, "sample", sample)
    started(compared, scorers=("gap",), batch_size=1)
    first = pictures(compared.out)
    started(compared, scorers=("gap",), batch_size=1)
    assert pictures(compared.out) == []
    assert len(first) == 1


# --- what else may be a picture ---------------------------------------------------------------------------------------


def test_half_written_and_damaged_pictures_go(secret: Any) -> None:
    started(secret, score=False)
    store = secret.store()
    one, two = list(store.images)[:2]
    folder = store.image_path(one).parent
    (folder / f".{one}.png.somewhere-4194301-0011aabb.tmp").write_bytes(PNG)
    os.utime(folder / f".{one}.png.somewhere-4194301-0011aabb.tmp", (1, 1))
    host = re.sub(r"[^0-9a-z_-]", "-", os.uname().nodename.lower())[:32]
    (folder / f".{one}.png.{host}-4194303-02689924.tmp").write_bytes(PNG)
    (folder / f".{one}.png.{host}-{os.getppid()}-02689925.tmp").write_bytes(PNG)
    os.utime(folder / f".{one}.png.{host}-{os.getppid()}-02689925.tmp", (1, 1))  # its number was used again
    (folder / f".{one}.4194302.tmp").write_bytes(PNG)  # as older versions called them
    store.image_path(two).write_bytes(PNG + b"cut")
    (secret.out / "store" / "damaged").mkdir(exist_ok=True)
    (secret.out / "store" / "damaged" / f"{'0' * 64}.png").write_bytes(PNG)
    done = started(secret)
    assert (done.exit_code, pictures(secret.out)) == (OK, [])


def test_a_damaged_picture_that_is_known_to_be_harmless_stays_aside(world: Any) -> None:
    started(world)
    key = next(iter(world.store().images))
    world.store().image_path(key).write_bytes(PNG + b"cut")
    started(world)
    assert [Path(each).parts[1] for each in pictures(world.out)].count("damaged") == 1


def test_a_half_written_picture_of_a_living_process_stays(secret: Any) -> None:
    started(secret, score=False)
    key = next(iter(secret.store().images))
    host = re.sub(r"[^0-9a-z_-]", "-", os.uname().nodename.lower())[:32]
    path = secret.store().image_path(key).parent / f".{key}.png.{host}-{os.getppid()}-0011aabb.tmp"
    path.write_bytes(PNG)
    started(secret)
    assert path.exists()


# --- order of ledgers and older stores --------------------------------------------------------------------------------


def test_a_line_in_a_later_file_does_not_take_a_drop_back(secret: Any) -> None:
    """A worker's ledger begins after its parent's, and so do its lines, although the parent's `dropped` came last."""
    started(secret)
    (ledger, *_) = (secret.out / "store/ledger").glob("images-*")
    lines = ledger.read_text().splitlines(keepends=True)
    made, dropped = ([line for line in lines if ('"dropped":true' in line) is which] for which in (False, True))
    assert len(made) == len(dropped) == 5
    ledger.rename(ledger.with_name("images-1-1.jsonl"))
    ledger.with_name("images-1-1.jsonl").write_text("".join(dropped))
    ledger.with_name("images-2-2.jsonl").write_text("".join(made))
    secret.lines.clear()
    assert started(secret).exit_code == OK
    assert secret.drew_nothing()
    assert len(Store.peek(secret.out / "store").images) == 5


def test_a_store_of_an_older_version_is_swept(secret: Any) -> None:
    """Killed while it deleted: the ledger says dropped, or nothing yet, and only the run's file knows that it is sensitive."""
    started(secret, keep_images=True)
    _forget_marks(secret.out)
    (path,) = secret.out.glob("runs/*/run.json")
    data = json.loads(path.read_text())
    data["request"]["keep_images"] = False
    path.write_text(json.dumps(data))
    assert "5 pictures of sensitive rows" in left_line(secret.out)
    tend(secret.store(), secret.lines.append)
    assert pictures(secret.out) == []
    assert "5 pictures of sensitive rows that were left here, and are scored, were deleted" in secret.lines


def test_of_an_older_store_what_was_kept_or_never_scored_stays(secret: Any) -> None:
    started(secret, score=False)
    _forget_marks(secret.out)
    tend(secret.store(), secret.lines.append)
    assert len(pictures(secret.out)) == 5
    assert any("5 pictures of sensitive rows stay until they are scored" in line for line in secret.lines)
    started(secret)
    assert pictures(secret.out) == []


def _forget_marks(out: Path) -> None:
    """Make a store look as versions before the marks wrote it."""
    (out / "store" / "looked.json").unlink(missing_ok=True)
    marks = {"sensitive", "awaits", "kept", "marked", "gated"}
    for path in (out / "store/ledger").glob("images-*"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(canonical({k: v for k, v in each.items() if k not in marks}) + "\n" for each in lines))


def test_a_picture_that_a_harmless_cell_needs_too_stays(world: Any) -> None:
    world.suites["others"] = world.suite.model_copy(update={"name": "others", "sensitive": True})
    started(world, suites=("toys", "others"))
    assert len(pictures(world.out)) == 5


def test_an_earlier_harmless_run_s_pictures_go_with_a_sensitive_one(world: Any) -> None:
    started(world)
    world.concept = world.concept.model_copy(update={"sensitive": True})
    started(world)
    assert pictures(world.out) == []


# --- kills ------------------------------------------------------------------------------------------------------------


def killed_at(world: Any, out: Path, at: int | None, after: bool, tmp_path: Path) -> int:
    """Exit code of a run that dies at the n-th call."""
    world.out = out

    def run() -> None:
        deaths = Deaths(at, after)
        deaths.install()
        started(world)
        (tmp_path / "count").write_text(str(deaths.count))

    return forked(run, tmp_path / "why")


@pytest.fixture
def undisturbed(secret: Any, tmp_path: Path) -> tuple[Any, str, int]:
    """The world, the numbers of a run that nobody disturbs, and how many calls it makes."""
    torch.set_num_threads(1)
    assert killed_at(secret, tmp_path / "count-out", None, False, tmp_path) == 0, (tmp_path / "why").read_text()
    secret.out = tmp_path / "whole"
    return secret, numbers(started(secret)), int((tmp_path / "count").read_text())


def survives(world: Any, whole: str, at: int, after: bool, tmp_path: Path) -> None:
    """The start after a kill leaves no picture, finds the same numbers, and samples no more than two batches again."""
    out = tmp_path / f"killed-{at}-{after}"
    assert killed_at(world, out, at, after, tmp_path) == KILLED
    world.out = out
    world.lines.clear()
    done = started(world)
    where = f"killed {'after' if after else 'before'} call {at}"
    assert pictures(out) == [], where
    assert (done.exit_code, numbers(done)) == (OK, whole), where
    store = Store.peek(out / "store")
    assert all(record["dropped"] for record in store.images.values()), where
    made = {(line["key"], line["run"]) for line in _lines(out)}
    assert len(made) - len({key for key, _ in made}) <= SMALL["batch_size"], f"{where}: sampled again"  # type: ignore[operator]
    assert left_line(out) == "", where


def _lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in (out / "store/ledger").glob("images-*") for line in path.read_text().splitlines()]


def test_a_kill_at_some_of_the_calls_leaves_nothing(undisturbed: tuple[Any, str, int], tmp_path: Path) -> None:
    world, whole, count = undisturbed
    assert count > 30
    for at in sorted({2, count // 3, count // 2, *range(count - 12, count + 1, 3)}):
        survives(world, whole, at, at % 2 == 0, tmp_path)


@pytest.mark.slow
def test_a_kill_at_every_fsync_rename_and_unlink_leaves_nothing(undisturbed: tuple[Any, str, int], tmp_path: Path) -> None:
    world, whole, count = undisturbed
    for at in range(1, count + 1):
        for after in (False, True):
            survives(world, whole, at, after, tmp_path)
